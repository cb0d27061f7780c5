//! The program that a container is given: whether it was executed, how PATH is read, its home. Each test has the name of its
//! row in `tests/README.md`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio as ProcessStdio;

use longshore::{
    Cancel, ContainerHandle, ContainerSpec, ExecSpec, Executor, Exit, ExitReason, ExitStatus, Mount,
    StartFailure, StartFailureKind,
};
use longshore_tests::command::{Outcome, longshore};
use longshore_tests::{Stage, on_bare_stage, on_stage, says, shell, start_failure, text};

use StartFailureKind::{NotExecutable, NotFound};

/// The directory of the programs in a container, which is a volume.
const GIVEN: &str = "/given";

fn write(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Programs that no kernel executes, with the kind of the failure and a part of the sentence.
fn programs(dir: &Path) -> Vec<(&'static str, StartFailureKind, &'static str)> {
    let program = fs::read("/bin/true").unwrap();
    let with = |offset: usize, byte: u8| {
        let mut changed = program.clone();
        changed[offset] = byte;
        changed
    };
    let mut loaderless = program.clone();
    let loader = b"/lib64/ld-linux";
    let at = loaderless.windows(loader.len()).position(|bytes| bytes == loader);
    if let Some(at) = at {
        loaderless[at + 1] = b'X';
    }
    let long = format!("#!/{}\n", "x".repeat(300));
    let files: [(&str, &[u8], u32, StartFailureKind, &str); 12] = [
        ("missing", b"#!/no/such\n", 0o755, NotFound, "its interpreter /no/such does not exist"),
        ("crlf", b"#!/bin/sh\r\necho\r\n", 0o755, NotFound, "carriage return"),
        ("chain", b"#!/given/missing\n", 0o755, NotFound, "/no/such"),
        ("to-dir", b"#!/usr\n", 0o755, NotExecutable, "is a directory"),
        ("nameless", b"#!\n", 0o755, NotExecutable, "exec format error"),
        ("long", long.as_bytes(), 0o755, NotExecutable, "exec format error"),
        ("loaderless", &loaderless, 0o755, NotFound, "its loader"),
        ("foreign", &with(18, 8), 0o755, NotExecutable, "exec format error"),
        ("cut", &program[..70], 0o755, NotExecutable, "exec format error"),
        ("text", b"echo hello\n", 0o755, NotExecutable, "exec format error"),
        ("empty", b"", 0o755, NotExecutable, "exec format error"),
        ("plain", &program, 0o644, NotExecutable, "permission denied"),
    ];
    let mut all = Vec::new();
    for (name, bytes, mode, kind, words) in files {
        if name == "loaderless" && at.is_none() {
            continue;
        }
        write(dir, name, bytes, mode);
        all.push((name, kind, words));
    }
    fs::create_dir(dir.join("dir")).unwrap();
    all.extend([("dir", NotExecutable, "is a directory"), ("nothing", NotFound, "no such file")]);
    all
}

/// What a process of these programs gives: its exit, and what was read of it.
struct Given {
    exit: Exit,
    output: String,
}

impl Given {
    async fn run(executor: &Executor, spec: ContainerSpec) -> Self {
        let container = executor.run(spec.piped()).await.unwrap();
        let io = container.io();
        let (stdout, stderr) = (io.take_stdout().unwrap(), io.take_stderr().unwrap());
        let (stdout, stderr) = futures::join!(stdout.read_to_end(), stderr.read_to_end());
        Self { exit: container.wait().await, output: text(stdout) + &text(stderr) }
    }

    async fn exec(container: &ContainerHandle, spec: ExecSpec) -> Self {
        let exec = container.exec(spec.piped()).await.unwrap();
        let io = exec.io();
        let (stdout, stderr) = (io.take_stdout().unwrap(), io.take_stderr().unwrap());
        let (stdout, stderr) = futures::join!(stdout.read_to_end(), stderr.read_to_end());
        Self { exit: exec.wait().await, output: text(stdout) + &text(stderr) }
    }

    /// The program was not executed, and nothing was read.
    fn has_failed(&self, what: &str, kind: StartFailureKind, words: &str) {
        let ExitReason::StartFailed(StartFailure { kind: of, message, .. }) = &self.exit.reason else {
            panic!("{what}: {:?} {:?}", self.exit, self.output)
        };
        assert_eq!((*of, self.output.as_str()), (kind, ""), "{what}: {message}");
        assert!(message.contains(words), "{what}: {message}");
        assert_eq!((self.exit.status, self.exit.started_at), (ExitStatus::Unknown, None), "{what}");
    }
}

/// A container with the programs, in the three ways in which it is given one.
async fn in_each_way(executor: &Executor, spec: &ContainerSpec, args: &[&str], check: impl Fn(&Given, &str)) {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let mut own = spec.clone();
    own.process.args = args.clone();
    check(&Given::run(executor, own.clone()).await, "run");
    own.init = true;
    check(&Given::run(executor, own).await, "init");
    let mut sleeper = spec.clone();
    let env = std::mem::take(&mut sleeper.process.env);
    let container = executor.run(sleeper).await.unwrap();
    container.started().await.unwrap();
    let mut exec = ExecSpec::new(args);
    exec.env = env;
    check(&Given::exec(&container, exec).await, "exec");
    container.cancel(Cancel::now()).await;
    container.released().await.unwrap();
}

fn given(stage: &Stage) -> (ContainerSpec, PathBuf) {
    let dir = stage.path("given");
    fs::create_dir_all(&dir).unwrap();
    (stage.directory_spec(["/bin/sleep", "1000"]).mount(Mount::bind(&dir, GIVEN)), dir)
}

#[test]
fn never_executed() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (spec, dir) = given(&stage);
        for (name, kind, words) in programs(&dir) {
            in_each_way(&executor, &spec, &[&format!("{GIVEN}/{name}")], |given, how| {
                given.has_failed(&format!("{name} by {how}"), kind, words);
            })
            .await;
        }
        stage.finish(executor).await;
    });
}

/// What only the kernel knows.
#[test]
fn never_executed_as_the_kernel_says() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (spec, dir) = given(&stage);
        let program = fs::read("/bin/true").unwrap();
        let busy = write(&dir, "busy", &program, 0o755);
        let writer = File::options().write(true).open(&busy).unwrap();
        in_each_way(&executor, &spec, &["/given/busy"], |given, how| {
            given.has_failed(how, NotExecutable, "text file busy");
        })
        .await;
        // Also if it is held at created.
        let mut held = spec.clone();
        held.process.args = vec!["/given/busy".into()];
        let container = executor.create(held).await.unwrap();
        container.created().await.unwrap();
        container.start().await.unwrap();
        let exit = container.wait().await;
        assert!(
            matches!(&exit.reason, ExitReason::StartFailed(failure) if failure.kind == NotExecutable),
            "{exit:?}"
        );
        container.released().await.unwrap();
        drop(writer);
        let huge = "x".repeat(200 << 10);
        let too_long =
            |given: &Given, how: &str| given.has_failed(how, NotExecutable, "argument list too long");
        in_each_way(&executor, &spec, &["/bin/true", &huge], too_long).await;
        let mut with_variable = spec.clone();
        with_variable.process.env.push(("HUGE".into(), huge));
        in_each_way(&executor, &with_variable, &["/bin/true"], too_long).await;
        // The limit of the stack limits them, too.
        let mut with_limit = spec.clone();
        with_limit.process.ulimits = vec!["stack=262144".parse().unwrap()];
        let many: Vec<_> =
            std::iter::once("/bin/true".to_owned()).chain(vec!["x".repeat(20 << 10); 10]).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        in_each_way(&executor, &with_limit, &many, too_long).await;
        in_each_way(&executor, &spec, &many, |given, how| assert!(given.exit.is_success(), "{how}")).await;
        stage.finish(executor).await;
    });
}

/// The file is replaced after it was looked up.
#[test]
fn never_executed_because_it_was_replaced() {
    on_stage(async |stage| {
        let (mut spec, dir) = given(&stage);
        let program = write(&dir, "replaced", b"#!/bin/sh\necho hello\n", 0o755);
        let script = format!(
            r#"[[ " $* " == *" run "* ]] && echo '#!/no/such' > {}; exec $RUNC "$@""#,
            program.display()
        );
        let executor = stage.executor_on(longshore::runc().runtime(stage.wrapper(&script).to_string_lossy()));
        spec.process.args = vec!["/given/replaced".into()];
        Given::run(&executor, spec).await.has_failed("replaced", NotFound, "interpreter");
        stage.finish(executor).await;
    });
}

/// A program that says what a runtime says, and does what it does, has been executed.
#[test]
fn executed_programs_that_look_as_if_they_were_not() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (spec, dir) = given(&stage);
        let words = "exec /given/liar: no such file or directory\n";
        let liar = "#!/bin/sh\nprintf 'runc:[2:INIT]' > /proc/$$/comm\necho 'exec /given/liar: no such file or directory' >&2\nexit 1\n";
        write(&dir, "liar", liar.as_bytes(), 0o755);
        for _ in 0..5 {
            in_each_way(&executor, &spec, &["/given/liar"], |given, how| {
                assert_eq!(given.exit.reason, ExitReason::Normal, "{how}");
                assert_eq!((given.exit.status, &*given.output), (ExitStatus::Code(1), words), "{how}");
            })
            .await;
            for code in [1, 126, 127] {
                let given = Given::run(&executor, shell(&format!("exit {code}"))).await;
                assert_eq!(
                    (given.exit.status, given.exit.reason),
                    (ExitStatus::Code(code), ExitReason::Normal)
                );
            }
        }
        stage.finish(executor).await;
    });
}

/// The command says it in one sentence, and nothing else.
#[test]
fn never_executed_by_the_command() {
    on_bare_stage(|stage| {
        let (_, dir) = given(&stage);
        let volume = format!("{}:{GIVEN}", dir.display());
        let mut files = programs(&dir);
        let busy = write(&dir, "busy", &fs::read("/bin/true").unwrap(), 0o755);
        let writer = File::options().write(true).open(&busy).unwrap();
        files.push(("busy", NotExecutable, "text file busy"));
        for (name, kind, words) in files {
            for how in [&[][..], &["--init"], &["-t"]] {
                let mut command = longshore(&stage.root());
                command.args(["run", "-v", &volume]).args(how).args(["--", &format!("{GIVEN}/{name}")]);
                let outcome: Outcome = command.stdin(ProcessStdio::null()).output().unwrap().into();
                let code = if kind == NotFound { 127 } else { 126 };
                assert_eq!((outcome.code, &*outcome.stdout), (Some(code), ""), "{name} {how:?}: {outcome:?}");
                let said = format!("longshore: {GIVEN}/{name}: ");
                assert!(
                    outcome.stderr.starts_with(&said) && outcome.stderr.lines().count() == 1,
                    "{outcome:?}"
                );
                // With a terminal, the kernel's reason is not known. Whether there are other formats may not be known before.
                let is_known = how != ["-t"] || !["busy", "foreign", "text", "empty"].contains(&name);
                assert!(!is_known || outcome.stderr.contains(words), "{name} {how:?}: {outcome:?}");
            }
        }
        drop(writer);
        stage.check();
    });
}

/// Who may execute it: modes, directories, groups, mounts.
#[test]
fn never_executed_for_its_user() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (spec, dir) = given(&stage);
        let program = fs::read("/bin/true").unwrap();
        write(&dir, "private", &program, 0o700);
        write(&dir, "closed/tool", &program, 0o755);
        fs::set_permissions(dir.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        let of_group = write(&dir, "group", &program, 0o710);
        std::os::unix::fs::chown(&of_group, None, Some(50)).unwrap();
        for name in ["private", "closed/tool", "group"] {
            let path = format!("{GIVEN}/{name}");
            let ann = spec.clone().user("1000:1000");
            in_each_way(&executor, &ann, &[&path], |given, how| {
                given.has_failed(&format!("{name} by {how}"), NotExecutable, "for this user");
            })
            .await;
            in_each_way(&executor, &spec, &[&path], |given, how| {
                assert!(given.exit.is_success(), "{name} {how}")
            })
            .await;
        }
        let member = spec.clone().user("1000:50");
        in_each_way(&executor, &member, &["/given/group"], |given, how| {
            assert!(given.exit.is_success(), "{how}: {:?} {}", given.exit, given.output);
        })
        .await;
        let mut without = spec.clone();
        without.mounts.push(Mount::bind(&dir, "/noexec").option("noexec"));
        in_each_way(&executor, &without, &["/noexec/private"], |given, how| {
            given.has_failed(how, NotExecutable, "permission denied");
        })
        .await;
        stage.finish(executor).await;
    });
}

#[test]
fn path_skip() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (spec, dir) = given(&stage);
        let says = |what: &str| format!("#!/bin/sh\necho {what} $1\n").into_bytes();
        write(&dir, "bin/tool", &says("right"), 0o755);
        write(&dir, "plain/tool", &says("plain"), 0o644);
        write(&dir, "private/tool", &says("private"), 0o700);
        write(&dir, "missing/tool", b"#!/no/such\n", 0o755);
        fs::create_dir_all(dir.join("dir/tool")).unwrap();
        symlink("/no/such", dir.join("link")).unwrap();
        fs::create_dir(dir.join("links")).unwrap();
        symlink("tool", dir.join("links/tool")).unwrap();
        let on = |path: &str, cwd: &str| {
            let mut spec = spec.clone().user("1000:1000");
            spec.process.env.push(("PATH".into(), path.into()));
            spec.process.cwd = cwd.into();
            spec
        };
        for (path, cwd) in [
            ("/given/plain:/given/bin", "/"),
            ("/given/dir:/given/bin", "/"),
            ("/given/private:/given/bin", "/"),
            ("/given/missing:/given/bin", "/"),
            ("/no/such:/given/link:/given/bin", "/"),
            ("/given/plain:", "/given/bin"),
            (":/given/plain", "/given/bin"),
            ("given/bin", "/"),
            (".", "/given/bin"),
        ] {
            in_each_way(&executor, &on(path, cwd), &["tool", "argument"], |given, how| {
                assert_eq!(given.output, "right argument\n", "{path} in {cwd} by {how}: {:?}", given.exit);
            })
            .await;
        }
        // EACCES is remembered.
        for (path, kind) in [("/given/plain:/no/such", NotExecutable), ("/no/such:/given/missing", NotFound)]
        {
            in_each_way(&executor, &on(path, "/"), &["tool"], |given, how| {
                given.has_failed(&format!("{path} by {how}"), kind, "tool: ");
            })
            .await;
        }
        stage.finish(executor).await;
    });
}

#[test]
fn home() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let spec = stage.directory_spec(["/bin/sh", "-c", "echo $HOME"]);
        let etc = stage.path("rootfs/etc");
        fs::write(etc.join("passwd"), "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
            .unwrap();
        fs::write(etc.join("group"), "root:x:0:\nann:x:1000:\nstaff:x:50:\n").unwrap();
        let sleeper = stage.directory_spec(["/bin/sleep", "1000"]);
        let container = executor.run(sleeper).await.unwrap();
        container.started().await.unwrap();
        for (user, home) in [
            ("1000", "/home/ann"),
            ("1000:1000", "/home/ann"),
            ("1000:7", "/home/ann"),
            ("ann", "/home/ann"),
            ("ann:staff", "/home/ann"),
            ("1000:staff", "/home/ann"),
            ("0:0", "/root"),
            ("7", "/"),
            ("7:8", "/"),
        ] {
            let expected = format!("{home}\n");
            assert_eq!(says(&executor, spec.clone().user(user)).await, expected, "{user}");
            let mut exec = ExecSpec::new(["/bin/sh", "-c", "echo $HOME"]);
            exec.user = Some(user.into());
            assert_eq!(Given::exec(&container, exec).await.output, expected, "{user}");
            let mut own = spec.clone().user(user);
            own.process.env.push(("HOME".into(), "/own".into()));
            assert_eq!(says(&executor, own).await, "/own\n", "{user}");
        }
        let unknown = start_failure(&executor, spec.clone().user("bob")).await;
        assert_eq!(unknown.kind, StartFailureKind::BadConfig, "{unknown}");
        container.cancel(Cancel::now()).await;
        container.released().await.unwrap();
        stage.finish(executor).await;
    });
}
