//! User namespaces: containers whose root is nobody on the host, and containers of an ordinary user.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore::{ContainerSpec, ExecSpec, IdMap, Mount, Rootfs, StartFailureKind};
use longshore_tests::command::{Outcome, program};
use longshore_tests::{Stage, on_bare_stage, on_stage, says, shell, start_failure, text};

fn mapped(mut spec: ContainerSpec) -> ContainerSpec {
    spec.id_map = Some(IdMap::both(vec!["0:200000:65536".parse().unwrap()]));
    spec
}

/// The container's root has to be let through to its files.
fn open(stage: &Stage) {
    fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o711)).unwrap();
}

#[test]
fn the_containers_root_is_nobody_here() {
    on_stage(async |stage| {
        open(&stage);
        let executor = stage.executor();
        let script = "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u /etc/hosts /etc/resolv.conf; \
                      touch /new && stat -c %u /new; cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | grep -q . && echo cgroups";
        assert_eq!(says(&executor, mapped(shell(script))).await, "0\n 0 200000 65536\n0\n0\n0\ncgroups\n");

        // In a directory, what is made for it is its own; what it makes is its ids' here.
        let mut spec = mapped(stage.directory_spec([
            "sh",
            "-c",
            "id -u; touch mine /etc/roots 2>/dev/null; stat -c %u . mine",
        ]));
        let Rootfs::Dir(rootfs) = spec.rootfs.clone() else { panic!("no directory") };
        spec.process.cwd = "/home/me".into();
        spec.process.user = Some("5:6".into());
        assert_eq!(says(&executor, spec.clone()).await, "5\n5\n5\n");
        let made = fs::metadata(rootfs.join("home/me/mine")).unwrap();
        assert_eq!((made.uid(), made.gid()), (200_005, 200_006));
        assert_eq!(fs::metadata(rootfs.join("home")).unwrap().uid(), 200_005);
        assert!(!rootfs.join("etc/roots").exists());

        // Its execs are in the same namespace, as whomever they ask to be.
        spec.process.args = vec!["sleep".into(), "1000".into()];
        let container = executor.run(spec).await.unwrap();
        let mut exec = ExecSpec::new(["sh", "-c", "id -u; grep -c 200000 /proc/self/uid_map"]).piped();
        exec.user = Some("7".into());
        let exec = container.exec(exec).await.unwrap();
        let said = text(exec.io().take_stdout().unwrap().read_to_end().await);
        assert_eq!(
            (said.as_str(), exec.wait().await.status),
            ("7\n1\n", longshore::ExitStatus::Code(0)),
            "{:?}",
            exec.wait().await
        );
        stage.finish(executor).await;
    });
}

#[test]
fn mounts_and_networks_fit_into_a_user_namespace() {
    on_stage(async |stage| {
        open(&stage);
        let executor = stage.executor();
        // On the host's network it is shown the host's /sys, and can change nothing there.
        let mut host = mapped(shell(
            "ls /sys/class/net | wc -l; (echo x > /sys/fs/cgroup/pids/cgroup.procs) 2>/dev/null || echo no",
        ));
        host.network = longshore::Network::Host;
        let interfaces = fs::read_dir("/sys/class/net").unwrap().count();
        assert_eq!(says(&executor, host).await, format!("{interfaces}\nno\n"));
        // What is mounted with more restrictions keeps them when access is restricted further.
        let restricted = stage.path("restricted");
        fs::create_dir(&restricted).unwrap();
        let flags = rustix::mount::MountFlags::NOSUID
            | rustix::mount::MountFlags::NODEV
            | rustix::mount::MountFlags::NOEXEC;
        rustix::mount::mount("longshore-test", &restricted, "tmpfs", flags, None).unwrap();
        let mut spec = mapped(shell("grep ' /r ' /proc/self/mounts | cut -d' ' -f4"));
        spec.mounts.push(Mount::bind(&restricted, "/r").read_only());
        let options = says(&executor, spec).await;
        assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(|flag| options.contains(flag)), "{options}");
        rustix::mount::unmount(&restricted, rustix::mount::UnmountFlags::empty()).unwrap();
        stage.finish(executor).await;
    });
}

#[test]
fn who_is_in_no_range_is_told() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = shell("true");
        spec.id_map = Some(IdMap::both(vec!["0:200000:100".parse().unwrap()]));
        spec.process.user = Some("100:0".into());
        let failure = start_failure(&executor, spec).await;
        assert_eq!(failure.kind, StartFailureKind::BadConfig);
        assert_eq!(failure.message, "user: the user 100 is not in the container's id map");
        stage.finish(executor).await;
    });
}

/// An ordinary user, for the time of a test, with a directory and the program.
struct Ordinary<'a> {
    stage: &'a Stage,
    name: &'static str,
    program: PathBuf,
}

impl<'a> Ordinary<'a> {
    fn new(stage: &'a Stage) -> Self {
        let name = "longshore-test";
        let added =
            Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", name]).status().unwrap();
        assert!(added.success(), "useradd");
        fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let ordinary = Self { stage, name, program: stage.path("longshore") };
        fs::copy(program(), &ordinary.program).unwrap();
        fs::create_dir(stage.path("home")).unwrap();
        ordinary.give(&stage.path("home"));
        ordinary
    }

    /// His ids, as the system has them.
    fn ids(&self) -> (u32, u32) {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|line| line.starts_with(&format!("{}:", self.name))).unwrap();
        let fields: Vec<_> = line.split(':').collect();
        (fields[2].parse().unwrap(), fields[3].parse().unwrap())
    }

    fn give(&self, path: &Path) {
        let (uid, gid) = self.ids();
        chown(path, Some(uid), Some(gid)).unwrap();
    }

    fn give_all(&self, dir: &Path) {
        std::os::unix::fs::lchown(dir, Some(self.ids().0), Some(self.ids().1)).unwrap();
        for entry in fs::read_dir(dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => self.give_all(&entry.path()),
                false => {
                    std::os::unix::fs::lchown(entry.path(), Some(self.ids().0), Some(self.ids().1)).unwrap()
                }
            }
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let (uid, gid) = self.ids();
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
        command.arg(&self.program).arg("--root").arg(self.stage.root());
        // A sweep uses none.
        let runtime = longshore_tests::named_runtime().filter(|_| args.first() != Some(&"sweep"));
        command.args(runtime.map(|name| format!("--runtime={name}"))).args(args);
        command.env("HOME", self.stage.path("home")).env_remove("XDG_RUNTIME_DIR").current_dir("/");
        command
    }

    fn call(&self, args: &[&str]) -> Outcome {
        self.command(args).output().unwrap().into()
    }
}

impl Drop for Ordinary<'_> {
    fn drop(&mut self) {
        let _gone = Command::new("userdel").arg(self.name).stderr(Stdio::null()).status();
    }
}

/// Runs a test as root does the others: its root directory is the ordinary user's.
fn as_an_ordinary_user(test: impl FnOnce(&Ordinary<'_>)) {
    on_bare_stage(|stage| {
        let ordinary = Ordinary::new(&stage);
        fs::create_dir(stage.root()).unwrap();
        ordinary.give(&stage.root());
        test(&ordinary);
        drop(ordinary);
        stage.check();
    });
}

#[test]
fn rootless_on_a_view_of_the_host() {
    as_an_ordinary_user(|user| {
        let (uid, _) = user.ids();
        let script = "id -u; cat /proc/self/uid_map | tr -s ' '; touch /usr/new /etc/new && echo written; mkdir -m 000 /var/closed; hostname; ls /root >/dev/null 2>&1 || echo closed";
        let outcome = user.call(&["run", "--", "sh", "-c", script]);
        let expected = format!("0\n 0 {uid} 1\nwritten\nlongshore\nclosed\n");
        assert_eq!((outcome.stdout, outcome.stderr, outcome.code), (expected, String::new(), Some(0)));
        assert!(!Path::new("/usr/new").exists() && !Path::new("/etc/new").exists());
        // What ends others ends these: signals, codes, time.
        assert_eq!(user.call(&["run", "--", "sh", "-c", "exit 7"]).code, Some(7));
        assert_eq!(user.call(&["run", "--", "no-such-program"]).code, Some(127));
        let late = user.call(&["run", "--timeout", "300ms", "--grace", "100ms", "--", "sleep", "1000"]);
        assert_eq!(late.code, Some(124), "{late:?}");
        let many =
            user.call(&["run", "--", "sh", "-c", "sleep 1000 & sleep 1000 & (setsid sleep 1000 &) ; exit 0"]);
        assert_eq!(many.code, Some(0), "{many:?}");
        let limited = user.call(&["run", "--memory", "64m", "--", "true"]);
        assert_eq!(limited.code, Some(125), "{limited:?}");
        let advice = "start it with systemd-run --user --scope -p Delegate=yes, or give --cgroup-parent";
        assert!(limited.stderr.contains(advice), "{limited:?}");
    });
}

/// No node can be made in a user namespace, and a runtime binds the one that the host has at the same path.
#[test]
fn a_device_at_another_path_in_a_user_namespace() {
    as_an_ordinary_user(|user| {
        let see = "stat -c %t:%T /dev/other /dev/random; head -c 4 /dev/other | od -An -tx1";
        let devices = ["--device", "/dev/zero:/dev/other", "--device", "/dev/full:/dev/fuse"];
        let args = [&["run"], &devices[..], &["--", "sh", "-c", see]].concat();
        let outcome = user.call(&args);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("1:5\n1:8\n 00 00 00 00\n", ""));
        let see = "stat -c %t:%T /dev/fuse; echo x 2>&1 >/dev/fuse";
        let outcome = user.call(&[&["run"], &devices[..], &["--", "sh", "-c", see]].concat());
        assert!(outcome.stdout.starts_with("1:7\n") && outcome.stdout.contains("I/O error"), "{outcome:?}");
        let specifications = user.stage.path("cdi");
        fs::create_dir(&specifications).unwrap();
        let node = r#"{"path": "/dev/other", "hostPath": "/dev/zero"}"#;
        let one = format!(
            r#"{{"cdiVersion": "0.6.0", "kind": "example.com/zero", "devices": [{{"name": "one", "containerEdits": {{"deviceNodes": [{node}]}}}}]}}"#
        );
        fs::write(specifications.join("zero.json"), one).unwrap();
        let mut by_name = user.command(&[
            "run",
            "--device",
            "example.com/zero=one",
            "--",
            "stat",
            "-c",
            "%t:%T",
            "/dev/other",
        ]);
        let outcome = Outcome::from(by_name.env("LONGSHORE_CDI_DIRS", specifications).output().unwrap());
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("1:5\n", ""));
    });
}

/// As of a user whom they do not know, or without the right to map ids: crun calls them even where it can do without.
#[test]
fn the_stderr_of_an_ordinary_users_program_is_its_own() {
    as_an_ordinary_user(|user| {
        let helpers = user.stage.path("it's helpers");
        fs::create_dir(&helpers).unwrap();
        for name in ["newuidmap", "newgidmap"] {
            fs::write(helpers.join(name), "#!/bin/sh\necho words of a helper >&2\nexit 1\n").unwrap();
            fs::set_permissions(helpers.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap());
        let mut run = user.command(&["run", "--", "sh", "-c", "echo own >&2"]);
        let outcome = Outcome::from(run.env("PATH", path).output().unwrap());
        assert_eq!((outcome.stderr.as_str(), outcome.code), ("own\n", Some(0)));
    });
}

/// An overlay of a directory cannot be had with mounts below it. It is shown nevertheless, and nothing is written to it.
#[test]
fn host_mounts_of_an_ordinary_user() {
    as_an_ordinary_user(|user| {
        let script = "ls /usr/share/misc; touch /usr/share/misc/x 2>/dev/null || echo read-only
            touch /usr/x 2>/dev/null || echo read-only; touch /etc/new && echo written";
        let run = user.command(&["run", "--", "sh", "-c", script]);
        let mounted = "mount --make-rprivate / && mount -t tmpfs none /usr/share/misc && touch /usr/share/misc/seen && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", mounted, "sh"]).arg(run.get_program()).args(run.get_args());
        command.env("HOME", user.stage.path("home")).env_remove("XDG_RUNTIME_DIR").current_dir("/");
        let outcome = Outcome::from(command.output().unwrap());
        let expected = "seen\nread-only\nread-only\nwritten\n".to_owned();
        assert_eq!((outcome.stdout, outcome.stderr, outcome.code), (expected, String::new(), Some(0)));
    });
}

#[test]
fn rootless_in_a_directory_with_subordinate_ids() {
    as_an_ordinary_user(|user| {
        let spec = user.stage.directory_spec(["true"]);
        let Rootfs::Dir(rootfs) = spec.rootfs else { panic!("no directory") };
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nann:x:33:34::/:/bin/sh\n").unwrap();
        user.give_all(&rootfs);
        let run = |more: &[&str]| {
            let dir = rootfs.display().to_string();
            let args = [&["run", "--rootfs", dir.as_str(), "-v", "/usr:/usr:ro"], more].concat();
            user.call(&args)
        };
        let ranges = fs::read_to_string("/etc/subuid").unwrap();
        let first = ranges
            .lines()
            .find_map(|line| line.strip_prefix("longshore-test:")?.split(':').next())
            .map(str::to_owned);
        let outcome = run(&[
            "-u",
            "ann",
            "-w",
            "/of-ann",
            "--",
            "sh",
            "-c",
            "id -u; id -g; touch /tmp/x 2>/dev/null; grep -c . /proc/self/uid_map",
        ]);
        if first.is_some() && longshore::runtime::find_runtime(&["newuidmap"]).is_ok() {
            assert_eq!((outcome.stdout.as_str(), outcome.code), ("33\n34\n2\n", Some(0)), "{outcome:?}");
        } else {
            assert!(outcome.stderr.contains("not in the container's id map"), "{outcome:?}");
        }
        assert_eq!(run(&["--", "sh", "-c", "echo as root"]).stdout, "as root\n");
        // Its mount points come away here as well.
        assert!(!rootfs.join("proc").exists() && !rootfs.join("etc/hosts").exists());
    });
}

#[test]
fn what_an_ordinary_user_cannot_have_is_said_in_a_sentence() {
    as_an_ordinary_user(|user| {
        for (args, text) in [
            (&["--memory", "64m"][..], "none are delegated to this user"),
            (&["--cgroup-parent", "/ci"], "/ci is not delegated to this user"),
            (&["-u", "nobody"], "not in the container's id map"),
            (&["--uidmap", "0:1000:10"], "no range of this user's in /etc/subuid has 1000 to 1009"),
            (&["--net", "cni"], "ordinary users cannot have CNI networks"),
            (&["--layer", "/usr"], "which an ordinary user cannot make"),
            (&["--mount", "src=/usr,dst=/x,selector=bin"], "which an ordinary user cannot make"),
        ] {
            let outcome = user.call(&[&["run"], args, &["--", "true"]].concat());
            assert_eq!(outcome.code, Some(125), "{args:?}: {outcome:?}");
            assert!(outcome.stderr.contains(text), "{args:?}: {}", outcome.stderr);
            assert_eq!(outcome.stderr.lines().count(), 1, "{args:?}: {}", outcome.stderr);
        }
        let doctor = user.call(&["doctor"]);
        assert!(doctor.stdout.contains("containers run in a user namespace"), "{}", doctor.stdout);
        assert!(doctor.stdout.contains("none delegated to this user"), "{}", doctor.stdout);
    });
}

/// Killed with its command, a container of an ordinary user's is found by its journal alone.
#[test]
fn rootless_driver_killed() {
    as_an_ordinary_user(|user| {
        let args = ["run", "--", "sh", "-c", "sleep 1000 & echo up; sleep 1000"];
        let mut child = user.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "up\n");
        child.kill().unwrap();
        child.wait().unwrap();
        let swept = user.call(&["sweep"]);
        assert!(swept.stdout.contains("1 process killed"), "{swept:?}");
        assert_eq!(user.call(&["sweep"]).code, Some(0));
        let his = || {
            let processes = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.parse::<u32>().is_ok() && entry.metadata().is_ok_and(|meta| meta.uid() == user.ids().0)
            });
            processes
                .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
                .collect::<Vec<_>>()
        };
        // Whose child a killed init has become reaps it in a moment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !his().is_empty() {
            assert!(std::time::Instant::now() < deadline, "of his is left: {:?}", his());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

/// Where an administrator has delegated cgroups, an ordinary user has limits.
#[test]
fn rootless_with_cgroups_that_were_delegated() {
    as_an_ordinary_user(|user| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let hierarchies = mounts
            .lines()
            .filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")));
        let dirs: Vec<PathBuf> = hierarchies
            .map(|line| Path::new(line.split(' ').nth(1).unwrap()).join("longshore-test-delegated"))
            .collect();
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
            // A cpuset is of no use before it has CPUs.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(above) = fs::read_to_string(dir.parent().unwrap().join(file))
                    && !above.trim().is_empty()
                {
                    fs::write(dir.join(file), above.trim()).unwrap();
                }
            }
            for file in ["", "cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"] {
                if dir.join(file).exists() {
                    user.give(&dir.join(file));
                }
            }
        }
        let script =
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
        let args = [
            "run",
            "--cgroup-parent",
            "/longshore-test-delegated",
            "--memory",
            "64m",
            "--",
            "sh",
            "-c",
            script,
        ];
        // With v2, whoever moves a process must own the cgroup above its old and its new one: as a service manager does it, the
        // user's own processes are in a part of what is delegated.
        let own = Path::new("/sys/fs/cgroup/longshore-test-delegated/own");
        let outcome: Outcome = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            fs::create_dir(own).unwrap();
            let command = user.command(&args);
            let mut within = Command::new("sh");
            within.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]).arg(own);
            within.arg(command.get_program()).args(command.get_args()).current_dir("/");
            let outcome = within.env("HOME", user.stage.path("home")).env_remove("XDG_RUNTIME_DIR").output();
            fs::remove_dir(own).unwrap();
            outcome.unwrap().into()
        } else {
            user.call(&args)
        };
        for dir in dirs.iter().rev() {
            fs::remove_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        }
        assert_eq!((outcome.stdout.as_str(), outcome.code), ("67108864\n", Some(0)), "{outcome:?}");
    });
}
