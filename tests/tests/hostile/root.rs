//! Other users of the host, and directories that somebody else has prepared.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use longshore::{ContainerId, ContainerSpec, IdMap, Mount, Rootfs};
use longshore_tests::command::{Outcome, call, program};
use longshore_tests::{HUNG, Stage, on_bare_stage, on_stage, patience, shell};

/// An ordinary user of the host, and another.
const USER: u32 = 61_234;
const NEIGHBOUR: u32 = 61_235;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Other users may pass through the stage's directory, as through `/run`.
fn open(stage: &Stage) {
    mode(&stage.path(""), 0o755);
}

/// A directory where every user may make files, as `/tmp`.
fn public_temporary(stage: &Stage) -> PathBuf {
    let temporary = stage.path("tmp");
    fs::create_dir(&temporary).unwrap();
    mode(&temporary, 0o1777);
    temporary
}

/// The command, where every user can execute it.
fn public_program(stage: &Stage) -> PathBuf {
    let public = stage.path("longshore");
    if !public.exists() {
        fs::copy(program(), &public).unwrap();
        mode(&public, 0o755);
    }
    public
}

/// Calls the command as an ordinary user whose directory for temporary files is `temporary`.
fn call_as_user(stage: &Stage, temporary: &Path, args: &[&str]) -> Outcome {
    let mut command = Command::new(public_program(stage));
    command
        .uid(USER)
        .gid(USER)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TMPDIR", temporary);
    command.args(args).current_dir("/").output().unwrap().into()
}

/// Looks at everything below a root that a name is known of, and at every mount there. Prints what it could list, open or
/// execute.
const WALK: &str = r#"
my ($go, $root) = @ARGV;
my @files = qw(. config.json owner journal process.json hosts init rootfs rootfs/suid rootfs/fifo layers layers/0/upper/suid
    secrets secrets/0 mounts mounts/0 state.json exec.fifo);
while (-e $go) {
    open my $mounts, "<", "/proc/mounts";
    my @points = grep { index($_, $root) == 0 } map { (split / /)[1] } <$mounts>;
    my @known = map { ("$root/containers/c$_", "$root/runtime/c$_") } 0 .. 19;
    for my $dir ($root, (map { "$root/$_" } qw(executors containers runtime networks)), @known, @points) {
        for my $file (map { "$dir/$_" } @files) {
            print "listed $file\n" if opendir my $listed, $file;
            print "read $file\n" if sysopen my $read, $file, 04000;
            print "wrote $file\n" if sysopen my $written, $file, 04001;
            print "executed $file\n" if -f $file && -x _;
        }
    }
    select undef, undef, undef, 0.002;
}
"#;

/// The kind of CVE-2021-41103. While containers are made, run and are removed, another user walks over everything below the
/// root. Half of the containers are in user namespaces, whose roots have to pass.
#[test]
fn traversable() {
    on_stage(async |stage| {
        open(&stage);
        let go = stage.path("go");
        fs::write(&go, "").unwrap();
        let executor = stage.executor();
        let mut walkers = Vec::new();
        for uid in [NEIGHBOUR, 65_534] {
            let mut walker = Command::new("perl");
            walker.args(["-e", WALK]).arg(&go).arg(stage.root()).uid(uid).gid(uid);
            walkers.push(walker.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        }
        // The walkers take all the time of two processors: on a slow machine, twenty runtimes at once do not get any.
        let runs = (0..longshore_tests::amount(20).max(4)).map(|number| {
            let (executor, source) = (executor.clone(), stage.path(""));
            async move {
                let script =
                    "cp /bin/true /suid && chmod 4755 /suid && mkfifo /fifo && chmod 666 /fifo && sleep 0.5";
                let mut spec = shell(script).id(ContainerId::new(format!("c{number}")).unwrap());
                spec.init = true;
                spec.mounts.push(Mount::secret("secret", "/secret", 0o444, (0, 0)));
                if number.is_multiple_of(2) {
                    let range = format!("0:{}:65536", 200_000 + 100_000 * number);
                    spec.id_map = Some(IdMap::both(vec![range.parse().unwrap()]));
                } else {
                    let selected = format!("type=bind,src={},selector=/,dst=/selected,ro", source.display());
                    spec.mounts.push(Mount::from_words(&selected).unwrap());
                }
                let container = executor.run(spec).await.unwrap();
                assert!(container.wait().await.is_success(), "{:?}", container.wait().await);
            }
        });
        join_all(runs).await;
        fs::remove_file(&go).unwrap();
        for walker in walkers {
            let found = String::from_utf8(walker.wait_with_output().unwrap().stdout).unwrap();
            assert_eq!(found.lines().take(10).collect::<Vec<_>>(), [""; 0]);
        }
        stage.finish(executor).await;
    });
}

/// What lies beside a container's own files: the source of a selector that is in a directory of mode 0700, a device node, the
/// fifo by which a container is started, and the upper layer of an ordinary user's container.
#[test]
fn open_siblings() {
    on_stage(async |stage| {
        open(&stage);
        let (go, hidden, temporary) = (stage.path("go"), stage.path("hidden"), public_temporary(&stage));
        fs::write(&go, "").unwrap();
        fs::create_dir(&hidden).unwrap();
        mode(&hidden, 0o700);
        fs::write(hidden.join("suid"), "secret").unwrap();
        mode(&hidden.join("suid"), 0o666);

        let executor = stage.executor();
        let selected = format!("type=bind,src={},selector=/hidden,dst=/selected", stage.path("").display());
        let script = "mknod /suid c 1 3; chmod 666 /suid; exec sleep 1000";
        let spec = shell(script).id(ContainerId::new("c0").unwrap());
        let running = executor.run(spec.mount(Mount::from_words(&selected).unwrap())).await.unwrap();
        let held = executor.create(shell("true").id(ContainerId::new("c1").unwrap())).await.unwrap();
        running.started().await.unwrap();
        held.created().await.unwrap();
        assert!(stage.root().join("runtime/c1/exec.fifo").exists() || !longshore_tests::on_runc());
        let mut theirs = Command::new(public_program(&stage));
        theirs
            .uid(USER)
            .gid(USER)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TMPDIR", &temporary);
        theirs.args([
            "run",
            "--",
            "sh",
            "-c",
            "cp /bin/true /home/suid; chmod 4777 /home/suid; echo up; sleep 1000",
        ]);
        let mut theirs = theirs.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(theirs.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "up\n");

        let roots = [stage.root(), temporary.join(format!("longshore-{USER}"))];
        let ids = fs::read_dir(roots[1].join("containers")).unwrap().map(|entry| entry.unwrap().path());
        let theirs_id = ids.last().unwrap();
        let walk = WALK
            .replace("while (-e $go)", "for (1 .. 20)")
            .replace("0 .. 19;", "0 .. 19; push @known, @ARGV[2 .. $#ARGV];");
        for root in &roots {
            let mut walker = Command::new("perl");
            walker.args(["-e", &walk]).args([&go, root, &theirs_id, &theirs_id.join("layers/home/upper")]);
            let walked = walker.uid(NEIGHBOUR).gid(NEIGHBOUR).stderr(Stdio::inherit()).output().unwrap();
            assert_eq!(String::from_utf8(walked.stdout).unwrap(), "");
        }
        let pid = rustix::process::Pid::from_child(&theirs);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        theirs.wait().unwrap();
        assert_eq!(fs::read_dir(&roots[1]).unwrap().count(), 0);
        running.cancel(longshore::Cancel::now()).await;
        held.cancel(longshore::Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// Root sweeps up after an executor whose name anybody can read.
#[test]
fn mark() {
    on_bare_stage(|stage| {
        let mut dead = longshore_tests::command::longshore(&stage.root());
        let mut dead = dead.args(["run", "--", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
        let executors = stage.root().join("executors");
        let deadline = Instant::now() + HUNG;
        let name = loop {
            assert!(Instant::now() < deadline, "no executor");
            let mut entries = fs::read_dir(&executors).into_iter().flatten().flatten();
            if let Some(entry) = entries.next() {
                break entry.file_name().into_string().unwrap();
            }
        };
        dead.kill().unwrap();
        dead.wait().unwrap();
        let strangers = [0, NEIGHBOUR].map(|uid| {
            let mut stranger = Command::new("sleep");
            stranger.arg("1000").env("LONGSHORE_EXECUTOR", &name).uid(uid).gid(uid).spawn().unwrap()
        });
        let swept = call(&stage.root(), &["sweep"]);
        assert_eq!(swept.code, Some(0), "{swept:?}");
        for mut stranger in strangers {
            assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
            stranger.kill().unwrap();
            stranger.wait().unwrap();
        }
        stage.check();
    });
}

/// The directories of a root are its owner's alone. Files, such as a container's hosts, are behind them.
#[test]
fn modes_are_narrow() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let held = executor.run(shell("sleep 1000").id(ContainerId::new("c").unwrap())).await.unwrap();
        held.started().await.unwrap();
        let mut open = Vec::new();
        let mut dirs = vec![stage.root()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let (path, meta) = (entry.path(), entry.metadata().unwrap());
                // What is in these is the container's. runc makes the last with a mode of its own.
                let is_theirs = ["rootfs", "layers", "runtime/c"].iter().any(|theirs| path.ends_with(theirs));
                if meta.is_dir() && !is_theirs {
                    if meta.permissions().mode() & 0o077 != 0 {
                        open.push(path.clone());
                    }
                    dirs.push(path);
                }
            }
        }
        assert_eq!(open, Vec::<PathBuf>::new());
        held.cancel(longshore::Cancel::now()).await;
        held.wait().await;
        stage.finish(executor).await;
    });
}

/// An ordinary user without a directory of the session's. Somebody else was in `/tmp` first.
#[test]
fn planted_root() {
    on_bare_stage(|stage| {
        open(&stage);
        let temporary = public_temporary(&stage);
        let planted = temporary.join(format!("longshore-{USER}"));
        let run = |args: &[&str]| call_as_user(&stage, &temporary, args);
        let refused = |why: &str| {
            for args in [&["run", "--", "true"][..], &["sweep"]] {
                let outcome = run(args);
                assert_eq!(outcome.code, Some(125), "{outcome:?}");
                assert!(outcome.stderr.contains(why), "{why}: {outcome:?}");
            }
            fs::metadata(&planted).unwrap()
        };
        // Somebody else's, writable for all.
        fs::create_dir(&planted).unwrap();
        mode(&planted, 0o777);
        chown(&planted, Some(NEIGHBOUR), Some(NEIGHBOUR)).unwrap();
        refused(&format!("belongs to user {NEIGHBOUR}"));
        // Given to the user, and still writable for all.
        chown(&planted, Some(USER), Some(USER)).unwrap();
        refused("can be written by others");
        fs::remove_dir(&planted).unwrap();
        // A link to a directory of the user's own.
        let own = stage.path("own");
        fs::create_dir(&own).unwrap();
        chown(&own, Some(USER), Some(USER)).unwrap();
        symlink(&own, &planted).unwrap();
        refused("is a link");
        assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
        fs::remove_file(&planted).unwrap();
        // A parent that somebody else can rename.
        let parent = stage.path("parent");
        fs::create_dir(&parent).unwrap();
        mode(&parent, 0o777);
        let root = parent.join("root");
        let outcome = run(&["--root", root.to_str().unwrap(), "run", "--", "true"]);
        assert!(
            outcome.code == Some(125) && outcome.stderr.contains("can be written by others"),
            "{outcome:?}"
        );
        assert!(!root.exists());
        // Nobody was there: it is made for the user alone.
        let outcome = run(&["run", "--", "true"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let made = fs::metadata(&planted).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o700);
        stage.check();
    });
}

/// The name of an executor that nobody has locked.
const DEAD: &str = "0123456789ab";

/// Root sweeps, and runs on, what an ordinary user has prepared.
#[test]
fn foreign_root() {
    on_bare_stage(|stage| {
        let mut stranger = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let theirs = stage.path("theirs");
        let victim = stage.path("victim");
        let executors = theirs.join("executors");
        let container = theirs.join("containers/c");
        for dir in [&executors, &container, &victim, &theirs.join("runtime/c")] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(victim.join("file"), "").unwrap();
        fs::write(executors.join(DEAD), format!("mark\t{DEAD}.0\n")).unwrap();
        fs::write(container.join("owner"), format!("{DEAD}\n-\n")).unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", stranger.id())).unwrap();
        let start: u64 = stat.split(' ').nth(21).unwrap().parse().unwrap();
        let state = format!(r#"{{"init_process_pid": {}, "init_process_start": {start}}}"#, stranger.id());
        fs::write(theirs.join("runtime/c/state.json"), state).unwrap();
        let stubs = format!(
            r#"{{"root": "{0}", "identity": [0, 0], "made": [{{"path": "/file", "device": 0}}]}}"#,
            victim.display()
        );
        fs::write(container.join("stubs.json"), stubs).unwrap();
        let mut dirs = vec![theirs.clone()];
        while let Some(dir) = dirs.pop() {
            chown(&dir, Some(USER), Some(USER)).unwrap();
            dirs.extend(fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        for args in [&["sweep"][..], &["run", "--", "true"]] {
            let outcome = call(&theirs, args);
            assert_eq!(outcome.code, Some(125), "{outcome:?}");
            assert!(outcome.stderr.contains(&format!("belongs to user {USER}")), "{outcome:?}");
        }
        // A root of our own, of which a part is a link to theirs.
        let ours = stage.path("ours");
        fs::create_dir(&ours).unwrap();
        for part in ["executors", "containers", "runtime"] {
            symlink(theirs.join(part), ours.join(part)).unwrap();
        }
        assert_eq!(call(&ours, &["sweep"]).code, Some(125));
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
        assert!(
            victim.join("file").exists() && container.join("owner").exists() && executors.join(DEAD).exists()
        );
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        stage.check();
    });
}

/// A process with an environment of three gigabytes: mmap(2), then `PR_SET_MM_MAP` of prctl(2), for which nobody needs a
/// right. The other values are those that the process has, from proc(5).
const HUGE: &str = r#"
my $size = 3 << 30;
my $at = syscall(9, 0, $size, 3, 0x4022, -1, 0);
open my $file, "<", "/proc/self/stat"; my $line = <$file>; $line =~ s/^.*\) //;
my @stat = (0, 0, 0, split / /, $line);
my $map = pack "Q11 Q L2", @stat[26, 27, 45, 46, 47], syscall(12, 0), @stat[28, 48, 49], $at, $at + $size, 0, 0, 0xffffffff;
syscall(157, 35, 14, $map, length $map, 0) == 0 or die "prctl: $!";
$| = 1; print "ready\n"; sleep 1000;
"#;

#[test]
fn huge_environment() {
    use std::io::{BufRead, BufReader};
    on_stage(async |stage| {
        let mut huge = Command::new("perl").args(["-e", HUGE]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(huge.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let root = stage.root();
        let embedder = || {
            let mut embedder = longshore_tests::command::longshore(&root);
            embedder.args(["run", "--", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap()
        };
        let mut dead = embedder();
        let containers = root.join("containers");
        let deadline = Instant::now() + HUNG;
        let named = |entry: fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
        while !fs::read_dir(&containers).is_ok_and(|entries| entries.flatten().any(named)) {
            assert!(Instant::now() < deadline, "nothing was started");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        dead.kill().unwrap();
        dead.wait().unwrap();
        let begun = Instant::now();
        let swept = longshore::sweep(&root).unwrap();
        let took = begun.elapsed();
        huge.kill().unwrap();
        huge.wait().unwrap();
        assert_eq!(swept.len(), 1, "{swept:?}");
        assert!(took < patience(Duration::from_secs(8)), "{took:?}");
        stage.check();
    });
}

/// The parent of a root file system belongs to somebody who puts a link in its place while a container runs.
#[test]
fn swapped_rootfs() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let spec: ContainerSpec = stage.directory_spec(["sleep", "1000"]);
        let Rootfs::Dir(rootfs) = spec.rootfs.clone() else { panic!("no directory") };
        let moved = stage.path("moved");
        let victim = stage.path("victim");
        fs::create_dir_all(victim.join("proc")).unwrap();
        fs::create_dir_all(victim.join("data")).unwrap();
        let mut spec = spec;
        spec.mounts.push(Mount::tmpfs("/data"));
        let container = executor.run(spec).await.unwrap();
        container.started().await.unwrap();
        assert!(rootfs.join("data").is_dir());
        fs::rename(&rootfs, &moved).unwrap();
        symlink(&victim, &rootfs).unwrap();
        container.cancel(longshore::Cancel::now()).await;
        container.wait().await;
        drop(container);
        executor.shutdown(longshore::Cancel::now(), HUNG).await;
        assert!(victim.join("data").exists() && victim.join("proc").exists(), "somebody else's were removed");
        assert!(!moved.join("data").exists(), "a stub is left");
        stage.check();
    });
}

/// Somebody holds a lock on the source of a volume. The container that uses it runs, and so do all others.
#[test]
fn locked_volume() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (volume, data) = (stage.path("volume"), stage.path("data"));
        fs::create_dir(&volume).unwrap();
        fs::create_dir(&data).unwrap();
        let lock = fs::File::open(&volume).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let nested =
            || shell("test -d /v/d").mount(Mount::bind(&volume, "/v")).mount(Mount::bind(&data, "/v/d"));
        let others =
            join_all((0..3).map(|_| async { executor.run(shell("true")).await.unwrap().wait().await }));
        let both = async {
            let container = executor.run(nested()).await.unwrap();
            (container.wait().await, others.await)
        };
        let (exit, others) =
            tokio::time::timeout(patience(HUNG / 4), both).await.expect("somebody's lock is waited for");
        assert!(exit.is_success() && others.iter().all(|exit| exit.is_success()), "{exit:?} {others:?}");
        // Without a lock, what is made is removed. What was made before is not ours to remove.
        drop(lock);
        fs::remove_dir(volume.join("d")).unwrap();
        assert!(executor.run(nested()).await.unwrap().wait().await.is_success());
        executor.shutdown(longshore::Cancel::now(), HUNG).await;
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
        stage.check();
    });
}

/// The volume belongs to somebody who exchanges the mount point that is being made for a directory of root's.
const EXCHANGE: &str = r#"
my ($go, $volume) = @ARGV;
my ($point, $victim) = ("$volume/n", "$volume/private");
sub exchange { syscall(316, -100, $point, -100, $victim, 2) == 0 }
my $own = (stat $victim)[1];
while (-e $go) {
    next unless exchange();
    # The victim is at the point now, until the new directory's turn is over.
    select undef, undef, undef, 0.0005;
    exchange() if ((stat $point)[1] // 0) == $own;
}
"#;

#[test]
fn a_made_directory_is_exchanged() {
    on_stage(async |stage| {
        open(&stage);
        let (go, volume, data) = (stage.path("go"), stage.path("volume"), stage.path("data"));
        fs::write(&go, "").unwrap();
        fs::create_dir_all(volume.join("private")).unwrap();
        fs::write(volume.join("private/secret"), "").unwrap();
        fs::create_dir(&data).unwrap();
        mode(&volume.join("private"), 0o700);
        chown(&volume, Some(NEIGHBOUR), Some(NEIGHBOUR)).unwrap();
        let mut exchanger = Command::new("perl");
        exchanger.args(["-e", EXCHANGE]).args([&go, &volume]).uid(NEIGHBOUR).gid(NEIGHBOUR);
        let mut exchanger = exchanger.spawn().unwrap();
        let executor = stage.executor();
        let until = Instant::now() + longshore_tests::attack_time();
        while Instant::now() < until {
            let mut spec = shell("true").mount(Mount::bind(&volume, "/v")).mount(Mount::bind(&data, "/v/n"));
            spec.id_map = Some(IdMap::both(vec![format!("0:{NEIGHBOUR}:1").parse().unwrap()]));
            // It may fail: what it needs is taken away from it.
            executor.run(spec).await.unwrap().wait().await;
            for name in ["n", "private"] {
                let Ok(meta) = fs::metadata(volume.join(name)) else { continue };
                if fs::metadata(volume.join(name).join("secret")).is_ok() {
                    use std::os::unix::fs::MetadataExt;
                    assert_eq!(
                        (meta.uid(), meta.permissions().mode() & 0o777),
                        (0, 0o700),
                        "it was given away"
                    );
                }
            }
        }
        fs::remove_file(&go).unwrap();
        exchanger.wait().unwrap();
        stage.finish(executor).await;
    });
}

/// A container of an ordinary user leaves directories in one another, more than a path can name.
#[test]
fn deep_tree() {
    on_bare_stage(|stage| {
        open(&stage);
        let temporary = public_temporary(&stage);
        // Each round makes a hundred levels, and goes down.
        let script = "cd /home; n=0; while [ $n -lt 30 ]; do \
                      d=$(printf 'd/%.0s' $(seq 100)); mkdir -p $d && cd -P $d || exit 7; n=$((n+1)); done; echo deep";
        let outcome = call_as_user(&stage, &temporary, &["run", "--", "sh", "-c", script]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "deep\n"), "{outcome:?}");
        let root = temporary.join(format!("longshore-{USER}"));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "something is left");
        stage.check();
    });
}
