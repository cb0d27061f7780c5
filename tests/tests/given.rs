//! What a container is given beside its root file system, on the real runtime: secrets and devices.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio as ProcessStdio;

use longshore::{ContainerSpec, Device, DeviceRights, ExecSpec, IdMap, IdRange, Mount, StartFailureKind};
use longshore_tests::command::{call, longshore};
use longshore_tests::{on_bare_stage, on_stage, says, shell, sleeper, start_failure, until};

const SECRET: &str = "correct horse battery staple";

/// Every file below a directory, without those on a file system that is mounted there.
fn files(dir: &Path, device: u64, found: &mut Vec<PathBuf>) {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        if meta.is_dir() && meta.dev() == device {
            files(&entry.path(), device, found);
        } else if meta.is_file() {
            found.push(entry.path());
        }
    }
}

fn mounts_of(kind: &str, below: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let ours = fields.filter(|fields| fields[2] == kind && Path::new(fields[1]).starts_with(below));
    ours.map(|fields| fields[1].to_owned()).collect()
}

#[test]
fn a_secret_is_read_and_never_on_a_disk() {
    on_stage(async |stage| {
        use std::os::unix::fs::MetadataExt;
        let executor = stage.executor();
        let secret = |mode| Mount::secret(SECRET, "/run/token", mode, (0, 7));
        assert!(!format!("{:?}", secret(0o440)).contains("horse"));
        let script = "stat -c '%a %u %g' /run/token; cat /run/token; (echo x > /run/token) 2>/dev/null || echo; \
                      grep -c ' /run/token ramfs ro' /proc/self/mounts";
        assert_eq!(
            says(&executor, shell(script).mount(secret(0o440))).await,
            format!("440 0 7\n{SECRET}\n1\n")
        );
        let container = executor.run(sleeper().mount(secret(0o400))).await.unwrap();
        container.started().await.unwrap();
        let own = stage.root().join("containers").join(container.id().as_str());
        assert_eq!(mounts_of("ramfs", &own), [own.join("secrets").display().to_string()]);
        let mut found = Vec::new();
        files(&own, fs::metadata(&own).unwrap().dev(), &mut found);
        for file in found {
            let text = fs::read(&file).unwrap();
            let holds_it = text.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!holds_it, "{} holds the secret", file.display());
        }
        let exec = container.exec(ExecSpec::new(["grep", "-q", "horse", "/run/token"])).await.unwrap();
        assert!(exec.wait().await.is_success());
        container.cancel(longshore::Cancel::now()).await;
        container.released().await.unwrap();
        assert_eq!(mounts_of("ramfs", &stage.root()), Vec::<String>::new());
        stage.finish(executor).await;
    });
}

#[test]
fn a_secret_belongs_to_the_containers_users() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let range = IdRange { container: 0, host: 100_000, size: 65_536 };
        let secret = Mount::secret(SECRET, "/token", 0o400, (1000, 1000));
        let mut spec = shell("stat -c '%a %u %g' /token; cat /token").mount(secret).user("1000:1000");
        spec.id_map = Some(IdMap { uids: vec![range], gids: vec![range] });
        assert_eq!(says(&executor, spec).await, format!("400 1000 1000\n{SECRET}"));
        let other = shell("cat /token 2>&1 | grep -c denied")
            .mount(Mount::secret(SECRET, "/token", 0o400, (1000, 1000)))
            .user("1001:1001");
        assert_eq!(says(&executor, other).await, "1\n");
        stage.finish(executor).await;
    });
}

/// The command is killed; what it mounted is gone after a sweep.
#[test]
fn a_sweep_takes_secrets_along() {
    on_bare_stage(|stage| {
        let token = stage.path("token");
        fs::write(&token, SECRET).unwrap();
        let secret = format!("{}:/run/token:444", token.display());
        let mut command = longshore(&stage.root());
        command.args(["run", "--secret", &secret, "--", "sh", "-c", "cat /run/token; sleep 1000"]);
        let mut command = command.stdout(ProcessStdio::piped()).spawn().unwrap();
        let mut said = vec![0; SECRET.len()];
        std::io::Read::read_exact(command.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(said, SECRET.as_bytes());
        assert_eq!(mounts_of("ramfs", &stage.root()).len(), 1);
        command.kill().unwrap();
        command.wait().unwrap();
        drop(command);
        let swept = longshore_tests::command::call(&stage.root(), &["sweep"]);
        assert_eq!(swept.code, Some(0), "{swept:?}");
        assert_eq!(mounts_of("ramfs", &stage.root()), Vec::<String>::new());
        stage.check();
    });
}

#[test]
fn a_device_has_the_rights_that_it_is_given() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let script = "for how in '<' '>'; do (eval \"exec 3$how/dev/other\") 2>/dev/null && echo opened || echo refused; done; \
                      stat -c '%t %T' /dev/other 2>/dev/null";
        let device =
            |rights| shell(script).device(Device::node("/dev/loop-control", rights).at("/dev/other"));
        assert_eq!(says(&executor, device(DeviceRights::READ)).await, "opened\nrefused\na ed\n");
        assert_eq!(says(&executor, device(DeviceRights::READ_WRITE)).await, "opened\nopened\na ed\n");
        let none = shell("(exec 3</dev/loop-control) 2>/dev/null || echo none");
        assert_eq!(says(&executor, none).await, "none\n");
        for wrong in ["/dev/no-such", "/etc/passwd"] {
            let spec = shell("true").device(wrong.parse().unwrap());
            let failure = start_failure(&executor, spec).await;
            assert_eq!(failure.kind, StartFailureKind::BadConfig, "{failure}");
            assert!(failure.message.contains(wrong), "{failure}");
        }
        stage.finish(executor).await;
    });
}

/// A device beside /dev leaves nothing, and none is put where something else is.
#[test]
fn device_elsewhere() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let volume = stage.path("volume");
        fs::create_dir(&volume).unwrap();
        let null = |place: &str| Device::node("/dev/null", DeviceRights::READ_WRITE).at(place);
        for place in ["/etc/new", "/made/for/it", "/v/in", "/dev/new"] {
            let script = format!("echo x > {place}; stat -c '%t %T' {place}");
            let of_host = shell(&script).mount(Mount::bind(&volume, "/v"));
            let kept = stage.directory_spec(["sh", "-c", &script]).mount(Mount::bind(&volume, "/v"));
            for mut spec in [of_host.device(null(place)), kept.device(null(place))] {
                spec.remove_stub_parents = true;
                assert_eq!(says(&executor, spec).await, "1 3\n", "{place}");
            }
        }
        let in_root = |name: &str| stage.path("rootfs").join(name).exists();
        until("the stubs are gone", || !["etc/new", "made", "dev/new"].into_iter().any(in_root)).await;
        until("the stubs are gone", || fs::read_dir(&volume).unwrap().count() == 0).await;
        fs::write(stage.path("rootfs/etc/passwd"), "root:x:0:0::/:\n").unwrap();
        for taken in ["/etc/passwd", "/etc", "/dev/pts", "/v"] {
            let spec = stage.directory_spec(["true"]).mount(Mount::bind(&volume, "/v")).device(null(taken));
            let failure = start_failure(&executor, spec).await;
            assert_eq!(failure.kind, StartFailureKind::BadConfig, "{failure}");
            assert!(failure.message.starts_with(&format!("device: {taken}: something else")), "{failure}");
        }
        stage.finish(executor).await;
    });
}

/// The inheritable, permitted, effective, bounding and ambient sets in a `/proc/PID/status`.
fn sets(status: &str) -> [u64; 5] {
    ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap_or_else(|| panic!("{status}")).trim(), 16).unwrap()
    })
}

/// Another user than root has the capabilities that were asked for, and no others, also in execs and below `--init`.
#[test]
fn caps_non_root() {
    const BIND: u64 = 1 << 10;
    const STATUS: [&str; 2] = ["cat", "/proc/self/status"];
    on_stage(async |stage| {
        let executor = stage.executor();
        let asked = |user: &str| {
            let mut spec = shell("exec cat /proc/self/status").user(user);
            spec.process.cap_add = vec!["NET_BIND_SERVICE".parse().unwrap()];
            spec
        };
        for init in [false, true] {
            let with_init = |mut spec: ContainerSpec| {
                spec.init = init;
                spec
            };
            let [.., all, none] = sets(&says(&executor, with_init(asked("0"))).await);
            assert!(all & BIND != 0 && none == 0);
            let root = sets(&says(&executor, with_init(asked("0:0"))).await);
            assert_eq!(root, [0, all, all, all, 0]);
            let other = sets(&says(&executor, with_init(asked("1000"))).await);
            assert_eq!(other, [BIND, BIND, BIND, all, BIND]);
            let plain = with_init(shell("exec cat /proc/self/status").user("1000"));
            assert_eq!(sets(&says(&executor, plain).await), [0, 0, 0, all, 0]);
            let mut gains_nothing = with_init(asked("1000"));
            gains_nothing.process.no_new_privileges = true;
            assert_eq!(sets(&says(&executor, gains_nothing).await), [BIND, BIND, BIND, all, BIND]);
            let mut insecure = with_init(asked("1000"));
            insecure.security = longshore::Security::Insecure;
            let insecure = sets(&says(&executor, insecure).await);
            assert!(insecure[3] & !all != 0, "{insecure:x?}");
            assert_eq!(insecure, [insecure[3]; 5]);
        }

        // An exec has those of its own user.
        for (of_container, of_exec, expected) in [
            ("0", Some("1000"), [BIND, BIND, BIND, BIND]),
            ("1000", None, [BIND, BIND, BIND, BIND]),
            ("1000", Some("0"), [0, u64::MAX, u64::MAX, 0]),
        ] {
            let mut spec = asked(of_container);
            spec.process.args = ["sleep", "1000"].map(str::to_owned).to_vec();
            let container = executor.run(spec).await.unwrap();
            let mut exec = ExecSpec::new(STATUS).piped();
            exec.user = of_exec.map(str::to_owned);
            let output = container.exec(exec).await.unwrap().output().await.unwrap();
            let [inheritable, permitted, effective, all, ambient] = sets(&output.stdout_lossy());
            let expected = expected.map(|set| set & all);
            assert_eq!([inheritable, permitted, effective, ambient], expected, "{of_container} {of_exec:?}");
        }

        // They are of use.
        let bind = r#"perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1:80") ? "bound" : "$!"'"#;
        let mut spec = shell(bind).user("1000");
        assert_eq!(says(&executor, spec.clone()).await, "Permission denied");
        spec.process.cap_add = vec!["NET_BIND_SERVICE".parse().unwrap()];
        assert_eq!(says(&executor, spec).await, "bound");

        // The runtime executes what the user may, and no more.
        let tools = stage.path("tools");
        fs::create_dir(&tools).unwrap();
        fs::copy("/bin/true", tools.join("roots")).unwrap();
        std::os::unix::fs::chown(tools.join("roots"), Some(0), Some(0)).unwrap();
        fs::set_permissions(&tools, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::set_permissions(tools.join("roots"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let mut spec = shell("true").user("1000").mount(Mount::bind(&tools, "/tools"));
        spec.process.args = vec!["/tools/roots".into()];
        let failure = start_failure(&executor, spec).await;
        assert_eq!(failure.kind, StartFailureKind::NotExecutable, "{failure}");
        stage.finish(executor).await;
    });
}

/// A variable that cannot be passed on is an error.
#[test]
fn non_utf8() {
    use std::os::unix::ffi::OsStrExt;
    on_bare_stage(|stage| {
        let run = |env: &[&str], value: &[u8]| {
            let mut command = longshore(&stage.root());
            command.arg("run").args(env).args(["--", "sh", "-c", "echo ${FOO-none}"]);
            longshore_tests::command::Outcome::from(
                command.env("FOO", std::ffi::OsStr::from_bytes(value)).output().unwrap(),
            )
        };
        assert_eq!(run(&["-e", "FOO"], "ä".as_bytes()).stdout, "ä\n");
        // One that is not asked for, and one that is not set.
        assert_eq!(run(&["-e", "NO_SUCH_VARIABLE"], b"\xff").stdout, "none\n");
        for (env, why) in [
            (["-e", "FOO"], "its value here is not UTF-8"),
            (["-e", ""], "no variable's name"),
            (["-e", "=x"], "no variable's name"),
        ] {
            let outcome = run(&env, b"\xff");
            assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(125), 1), "{outcome:?}");
            assert!(outcome.stderr.contains(why), "{outcome:?}");
        }
        stage.check();
    });
}

/// The bundle that `spec` makes is one that a runtime runs by itself.
#[test]
fn spec_runs() {
    on_bare_stage(|stage| {
        drop(stage.directory_spec(["true"]));
        let (rootfs, data) = (stage.path("rootfs"), stage.path("data"));
        fs::create_dir(&data).unwrap();
        let (rootfs, volume) = (rootfs.to_str().unwrap(), format!("{}:/data", data.display()));
        let script = "grep -c localhost /etc/hosts; touch /data/x && touch /usr/share/x 2>/dev/null; id -u; cat /proc/1/comm";
        let cases: [(&str, &[&str], &str); 3] = [
            ("host", &[], "2\n0\nsh\n"),
            ("init", &["--init", "--memory", "64m"], "2\n0\ninit\n"),
            ("dir", &["--rootfs", rootfs, "-v", "/usr:/usr:ro", "-u", "0:0"], "2\n0\nsh\n"),
        ];
        for (name, options, expected) in cases {
            let bundle = stage.path(name);
            let bundle = bundle.to_str().unwrap();
            let command = ["spec", "--bundle", bundle, "-v", &volume];
            let made = [&command[..], options, &["--", "sh", "-c", script]].concat();
            let made = longshore_tests::command::call(&stage.root(), &made);
            assert_eq!((made.code, made.stdout, made.stderr), (Some(0), String::new(), String::new()));
            let mut runtime = std::process::Command::new(longshore_tests::runtime_program());
            runtime.arg("--root").arg(stage.path("runtime")).args(["run", "--bundle", bundle]);
            let said = runtime.arg(format!("longshore-test-{name}")).output().unwrap();
            let said = (String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
            assert_eq!(said, (expected.to_owned(), String::new()), "{name}");
            assert!(data.join("x").exists() && !Path::new("/usr/share/x").exists());
            let again = longshore_tests::command::call(&stage.root(), &["spec", "--bundle", bundle, "true"]);
            assert_eq!(again.code, Some(125), "{again:?}");
        }
        let nowhere = stage.path("nowhere");
        let secret = ["spec", "--bundle", nowhere.to_str().unwrap(), "--secret", "/etc/hostname:/x", "true"];
        let refused = longshore_tests::command::call(&stage.root(), &secret);
        assert_eq!(refused.code, Some(125), "{refused:?}");
        assert!(!nowhere.join("config.json").exists());
        stage.check();
    });
}

/// A sentence of ours says which option is at fault, whatever the runtime's words are.
#[test]
fn values_that_cannot_be_had_are_said() {
    on_bare_stage(|stage| {
        let (layer, below) = (stage.path("layer"), stage.path("layer/below"));
        fs::create_dir_all(&below).unwrap();
        let (layer, below) = (layer.to_str().unwrap(), below.to_str().unwrap());
        let socket = stage.path("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let (socket, missing) = (socket.to_str().unwrap(), stage.path("missing"));
        let many: Vec<_> = (0..501).map(|number| stage.path(&format!("many/{number}"))).collect();
        many.iter().for_each(|layer| fs::create_dir_all(layer).unwrap());
        let many: Vec<_> = many.iter().flat_map(|layer| ["--layer", layer.to_str().unwrap()]).collect();
        for (options, says) in [
            (many.as_slice(), "501 layers are more than the 500 that the kernel takes"),
            (&["--env-file", socket], "it is a socket, which cannot be opened"),
            (&["--spec", socket], "it is a socket, which cannot be opened"),
            (&["--seccomp", socket], "it is no regular file"),
            (&["--tracing-socket", missing.to_str().unwrap()], "longshore: telemetry: "),
            (&["--layer", layer, "--layer", layer], "is given twice; correct that option"),
            (&["--layer", layer, "--layer", below], "which is a layer, too; correct that option"),
            (&["--sysctl", "net.nope=1"], "; give another name or value with --sysctl"),
            (&["--sysctl", "kernel.shmmax=abc"], "; give another name or value with --sysctl"),
            (&["--ulimit", "nofile=99999999999"], "; give another --ulimit"),
            (&["--tmpfs", "/dev:nodev"], "with nodev, the container could open no device"),
            (&["--image", "x"], "; there are no images"),
        ] {
            let outcome = call(&stage.root(), &[&["run"], options, &["true"]].concat());
            assert_eq!(outcome.code, Some(125), "{options:?}: {outcome:?}");
            let is_one = outcome.stderr.lines().count() == 1 && outcome.stderr.starts_with("longshore: ");
            assert!(is_one && outcome.stderr.contains(says), "{options:?}: {outcome:?}");
        }
        let script = "stat -c %a /dev; echo x >/dev/null && test -d /dev/pts && grep -c ' /dev tmpfs .*noexec' /proc/mounts";
        let outcome = call(&stage.root(), &["run", "--tmpfs", "/dev", "sh", "-c", script]);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("755\n1\n", ""));
        stage.check();
    });
}

/// The mark of its encoding at the beginning of a file, as editors of Windows write it.
#[test]
fn files_may_begin_with_a_mark() {
    on_bare_stage(|stage| {
        let marked = |name: &str, text: &str| {
            fs::write(stage.path(name), format!("\u{feff}{text}")).unwrap();
            stage.path(name).to_str().unwrap().to_owned()
        };
        let json = call(&stage.root(), &["spec", "--json", "echo", "hi"]).stdout;
        let spec = marked("spec.json", &json);
        let profile = marked("profile.json", r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#);
        let outcome = call(&stage.root(), &["run", "--spec", &spec, "--seccomp", &profile]);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("hi\n", ""));
        let config = call(&stage.root(), &["spec", "--rootfs", "/usr", "true"]).stdout;
        let config = marked("config.json", &config);
        let outcome = call(&stage.root(), &["spec", "--json", "--config", &config]);
        assert_eq!((outcome.stderr.as_str(), outcome.code), ("", Some(0)));
        stage.check();
    });
}
