//! Kinds of known vulnerabilities, replayed. `docs/security.md` has the table: what they hit, and how Longshore stands.
//!
//! What attacks is a shell script in the container, perl where the shell has no words for it, or a thread that swaps
//! files. Races take two seconds; `cargo xtask attack` gives them a minute.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use longshore::{ContainerSpec, ExecSpec, ExitReason, IdMap, Mount, Network, Rootfs, Seccomp, TerminalSize};
use longshore_tests::command::longshore;
use longshore_tests::{
    HUNG, Stage, attack_time, on_bare_stage, on_stage, runtime_program, says, shell, sleeper, start_failure,
};

/// Does something again and again on a thread of its own.
struct Attacker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Attacker {
    fn start(mut act: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                act();
            }
        });
        Self { stop, thread }
    }

    /// Swaps a directory and a link of the same name.
    fn swapping(dir: PathBuf, target: &Path) -> Self {
        let (kept, link) = (dir.with_extension("kept"), dir.with_extension("link"));
        symlink(target, &link).unwrap();
        Self::start(move || {
            for (from, to) in [(&dir, &kept), (&link, &dir), (&dir, &link), (&kept, &dir)] {
                let _it_is_a_race = fs::rename(from, to);
            }
        })
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// A file that only the host has, and a test of the shell whether it is seen from a directory.
fn marker(stage: &Stage) -> PathBuf {
    let marker = stage.path("marker");
    fs::write(&marker, "host").unwrap();
    marker
}

fn rootfs(spec: &ContainerSpec) -> PathBuf {
    let Rootfs::Dir(dir) = &spec.rootfs else { panic!("no directory") };
    dir.clone()
}

fn program_in(rootfs: &Path, name: &str, text: &str) {
    fs::write(rootfs.join(name), text).unwrap();
    fs::set_permissions(rootfs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Everything below a directory, with the contents of files.
fn contents(dir: &Path) -> BTreeSet<(PathBuf, Option<String>)> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let is_dir = entry.file_type().unwrap().is_dir();
        all.insert((entry.path(), (!is_dir).then(|| fs::read_to_string(entry.path()).unwrap_or_default())));
        if is_dir {
            all.extend(contents(&entry.path()));
        }
    }
    all
}

/// CVE-2019-5736, CVE-2016-9962: while the runtime joins a container, the container reads its descriptors, its root and
/// its program, and writes to the last.
#[test]
fn the_runtime_that_joins() {
    const WATCH: &str = r#"
        while [ ! -e /stop ]; do
            for p in /proc/[0-9]*; do
                [ $p/exe -ef /proc/$$/exe ] && continue
                { exec 9<$p/exe; } 2>/dev/null || continue
                [ -e /seen ] || : > /seen
                for f in $p/fd/* $p/cwd $p/root; do
                    [ -e $f/../../../../../../..$MARKER ] && echo $p $f >> /escaped
                done
                for i in 1 2 3 4 5; do ( echo x > $p/exe || echo x > /proc/self/fd/9 ) 2>/dev/null && echo wrote >> /escaped; done
                exec 9<&-
            done
        done"#;
    on_stage(async |stage| {
        // A copy: a success would be everybody's on this machine.
        let original = runtime_program();
        let runtime = stage.path("bin").join(original.file_name().unwrap());
        fs::create_dir(stage.path("bin")).unwrap();
        fs::copy(&original, &runtime).unwrap();
        let executor = stage.executor_on(longshore::runc().runtime(runtime.to_str().unwrap()));
        let spec =
            stage.directory_spec(["bash", "-c", WATCH]).env("MARKER", marker(&stage).to_str().unwrap());
        let root = rootfs(&spec);
        program_in(&root, "evil", "#!/proc/self/exe\n");
        let container = executor.run(spec).await.unwrap();
        let begun = Instant::now();
        while begun.elapsed() < attack_time() {
            // Whether these can be executed is not the question.
            for program in ["/evil", "/proc/self/exe", "true"] {
                container.exec(ExecSpec::new([program])).await.unwrap().wait().await;
            }
        }
        fs::write(root.join("stop"), "").unwrap();
        assert!(container.wait().await.is_success());
        assert!(root.join("seen").exists(), "the attacker has seen nothing");
        assert_eq!(fs::read_to_string(root.join("escaped")).unwrap_or_default(), "");
        assert!(fs::read(&runtime).unwrap() == fs::read(&original).unwrap(), "the runtime was overwritten");
        stage.finish(executor).await;
    });
}

/// CVE-2024-21626: a working directory that is a descriptor of the runtime, by itself or by a link of the image.
#[test]
fn a_working_directory_among_descriptors() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let script = format!(
            "for up in . .. ../.. ../../.. ../../../.. ../../../../..; do [ -e $up{} ] && echo outside; done; true",
            marker(&stage).display()
        );
        let args = ["sh", "-c", &script];
        // It is said where it is true.
        assert!(says(&executor, shell(&script).cwd("/usr")).await.contains("outside"));
        let spec = stage.directory_spec(args);
        let container = {
            let mut spec = spec.clone();
            spec.process.args = ["sleep", "1000"].map(str::to_owned).into();
            executor.run(spec).await.unwrap()
        };
        for descriptor in 3..12 {
            let dir = format!("/proc/self/fd/{descriptor}");
            let link = rootfs(&spec).join(format!("link-{descriptor}"));
            symlink(&dir, &link).unwrap();
            for cwd in [dir.clone(), format!("/link-{descriptor}"), format!("{dir}/../..")] {
                let run = executor.run(spec.clone().cwd(&cwd).piped()).await.unwrap();
                assert!(!run.output().await.unwrap().stdout_lossy().contains("outside"), "run in {cwd}");
                let exec = container.exec(ExecSpec::new(args).cwd(&cwd).piped()).await.unwrap();
                assert!(!exec.output().await.unwrap().stdout_lossy().contains("outside"), "exec in {cwd}");
            }
        }
        stage.finish(executor).await;
    });
}

/// CVE-2025-31133, CVE-2025-52565, CVE-2026-41579, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2026-88264,
/// CVE-2026-88265: an image has links where the runtime mounts, makes devices, masks or opens a terminal.
#[test]
fn links_where_the_runtime_mounts() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let outside = stage.path("outside");
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::write(outside.join("file"), "host").unwrap();
        let before = contents(&outside);
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let (dir, file) = (outside.join("dir"), outside.join("file"));
        let dirs = ["dev", "proc", "sys", "dev/pts", "dev/shm", "dev/mqueue", "sys/fs/cgroup"];
        let files = ["dev/null", "dev/console", "dev/ptmx", "dev/tty", "proc/keys", "proc/kcore"];
        let up = PathBuf::from("../../../../../../../../..");
        let aims = |aim: &PathBuf| [aim.clone(), up.join(aim.strip_prefix("/").unwrap())];
        let mut links: Vec<(&str, PathBuf)> = Vec::new();
        for path in dirs {
            links.extend(aims(&dir).map(|aim| (path, aim)));
        }
        for path in files {
            links.extend(aims(&file).map(|aim| (path, aim)));
            links.push((path, "/proc/sys/kernel/core_pattern".into()));
        }
        let script = "cat /proc/keys /proc/timer_list | wc -c; (echo '|/x' > /proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote";
        for (number, (path, aim)) in links.into_iter().enumerate() {
            let _ = fs::remove_dir_all(stage.path("rootfs"));
            let spec = stage.directory_spec(["sh", "-c", script]).piped();
            let link = rootfs(&spec).join(path);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&aim, &link).unwrap();
            let spec =
                if number % 2 == 0 { spec } else { spec.terminal(TerminalSize { rows: 24, columns: 80 }) };
            let container = executor.run(spec).await.unwrap();
            let output = container.output().await.unwrap();
            let name = format!("{path} is a link to {}", aim.display());
            // It did not start, or what shows the host is masked.
            let is_masked = output.stdout_lossy().trim() == "0";
            let failed = matches!(output.exit.reason, ExitReason::StartFailed(_));
            assert!(failed || is_masked, "{name}: {:?} {}", output.exit, output.stdout_lossy());
            assert_eq!(contents(&outside), before, "{name}");
            assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern, "{name}");
            container.released().await.unwrap();
        }
        stage.finish(executor).await;
    });
}

/// CVE-2021-30465, CVE-2025-31133: somebody who can write to the root file system, as another container with the same
/// one can, swaps a directory and a link while the runtime mounts below it.
#[test]
fn a_mount_point_is_swapped() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let outside = stage.path("outside");
        fs::create_dir_all(outside.join("point")).unwrap();
        fs::write(outside.join("point/file"), "host").unwrap();
        let before = contents(&outside);
        let given = stage.path("given");
        fs::create_dir(&given).unwrap();
        fs::write(given.join("file"), "given").unwrap();
        // What the container has at the end of the path is what was given to it, and it sees nothing of the host's.
        let script = format!(
            "cat /swapped/point/file 2>/dev/null; echo x > /swapped/point/new; [ -e {} ] && echo outside; true",
            marker(&stage).display()
        );
        let spec =
            stage.directory_spec(["sh", "-c", &script]).mount(Mount::bind(&given, "/swapped/point")).piped();
        fs::create_dir_all(rootfs(&spec).join("swapped/point")).unwrap();
        let link = Path::new("../../../../../../../..").join(outside.strip_prefix("/").unwrap());
        let attacker = Attacker::swapping(rootfs(&spec).join("swapped"), &link);
        let (begun, mut seen) = (Instant::now(), 0);
        // Where a run takes seconds, the first ones may all be lost to the attacker.
        while begun.elapsed() < attack_time() || seen == 0 && begun.elapsed() < HUNG {
            let container = executor.run(spec.clone()).await.unwrap();
            let said = container.output().await.unwrap().stdout_lossy().into_owned();
            assert!(said.is_empty() || said == "given", "{said}");
            seen += usize::from(said == "given");
            container.released().await.unwrap();
            assert_eq!(contents(&outside), before);
        }
        attacker.end();
        assert!(seen > 0, "it was never there");
        stage.finish(executor).await;
    });
}

/// CVE-2022-0492, CVE-2022-0185: a container makes itself a user namespace and mounts a cgroup hierarchy, or writes to
/// that it has.
#[test]
fn release_agent() {
    on_stage(async |stage| {
        let executor = stage.executor();
        // The filter lets a user namespace be made: what can be done there is tried in it and outside.
        let script = "exec 2>/dev/null
            attack() {
                mkdir /m; for kind in $(cut -d: -f2 /proc/self/cgroup | grep .) none,name=x; do
                    mount -t cgroup -o $kind none /m && echo x > /m/release_agent && echo $1: release_agent of $kind; umount /m; done
                mount -t cgroup2 none /m && mkdir /m/x && echo $1: a cgroup; umount /m
                for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs -o -name tasks); do
                    (echo 0 > $f) && echo $1: $f; done
                mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x && echo $1: made
                mount -o remount,rw /sys/fs/cgroup && echo $1: remounted
                (echo /x > /proc/sys/kernel/core_pattern) && echo $1: core_pattern
            }
            attack outside; export -f attack
            unshare --user --map-root-user --mount bash -c 'attack in a user namespace'
            unshare --user --map-root-user --mount --cgroup bash -c 'attack in a cgroup namespace'; true";
        assert_eq!(says(&executor, ContainerSpec::host(["bash", "-c", script])).await, "");
        // Both are there, or nothing was tried.
        assert_ne!(
            says(&executor, shell("find /sys/fs/cgroup -name cgroup.procs; type unshare mount")).await,
            ""
        );
        stage.finish(executor).await;
    });
}

/// CVE-2022-0811, CVE-2023-25809, CVE-2021-21284: settings of the host that a container could change. Looked for are all
/// files of /proc and /sys that can be opened for writing.
#[test]
fn settings_of_the_host() {
    on_stage(async |stage| {
        fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o711)).unwrap();
        let executor = stage.executor();
        // Who writes to a file in /proc/pressure gets a trigger of his own. /proc/mtrr asks for CAP_SYS_ADMIN.
        let search = || {
            shell(
                "find /proc /sys '(' -path '/proc/[0-9]*' -o -path /proc/self -o -path /proc/thread-self -o -path /proc/pressure \
                 -o -path /proc/mtrr ')' -prune -o -type f -perm /222 -writable -exec test -f '{}' ';' -print 2>/dev/null; true",
            )
        };
        assert_eq!(says(&executor, search()).await, "");
        let mut mapped = search();
        mapped.id_map = Some(IdMap::both(vec!["0:200000:65536".parse().unwrap()]));
        assert_eq!(says(&executor, mapped).await, "");
        // The search finds what is there.
        let mut insecure =
            shell("find /proc/sys/kernel -type f -perm /222 -writable -exec test -f '{}' ';' -print");
        insecure.security = longshore::Security::Insecure;
        assert!(says(&executor, insecure).await.contains("/core_pattern\n"));
        stage.finish(executor).await;
    });
}

/// CVE-2022-24769, CVE-2022-29162, CVE-2022-27649, CVE-2022-27650: capabilities that are inherited.
/// CVE-2022-2995, CVE-2022-36109, CVE-2023-25173: groups of whoever calls, or without that of the user.
#[test]
fn capabilities_and_groups_are_the_containers_own() {
    let rights = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| ["Groups:", "CapInh:", "CapAmb:"].iter().any(|name| line.starts_with(name)));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    const NONE: [&str; 2] = ["CapInh: 0000000000000000", "CapAmb: 0000000000000000"];
    let status = ["cat", "/proc/self/status"];
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        for (user, groups) in [("0:0", "Groups: 0"), ("1000:1000", "Groups: 1000"), ("1000:7", "Groups: 7")] {
            let expected = [&[groups], &NONE[..]].concat();
            assert_eq!(
                rights(&says(&executor, ContainerSpec::host(status).user(user)).await),
                expected,
                "run as {user}"
            );
            let exec = container.exec(ExecSpec::new(status).user(user).piped()).await.unwrap();
            assert_eq!(rights(&exec.output().await.unwrap().stdout_lossy()), expected, "exec as {user}");
        }
        stage.finish(executor).await;
    });
    // Those of whoever calls the command.
    on_bare_stage(|stage| {
        let run = longshore(&stage.root());
        let mut command = Command::new("setpriv");
        command
            .args(["--groups", "4,24", "--inh-caps", "+sys_admin,+kill"])
            .arg(run.get_program())
            .args(run.get_args());
        for (name, value) in run.get_envs() {
            value.map(|value| command.env(name, value));
        }
        let mut own = Command::new("setpriv");
        own.args(["--groups", "4,24", "--inh-caps", "+sys_admin,+kill"]).args(status);
        let own = rights(&String::from_utf8(own.output().unwrap().stdout).unwrap());
        assert!(own.contains(&"Groups: 4 24".to_owned()) && !own.contains(&NONE[0].to_owned()), "{own:?}");
        let output = command.args(["run", "-u", "1000:1000", "--"]).args(status).output().unwrap();
        let said = rights(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(
            said,
            [&["Groups: 1000"], &NONE[..]].concat(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        stage.check();
    });
}

/// CVE-2020-14370: variables of whoever calls, and of other containers. CVE-2025-23266: a variable of the container's
/// that the runtime and its hooks take for theirs.
#[test]
fn variables_stay_where_they_belong() {
    on_stage(async |stage| {
        let seen = stage.path("seen");
        let wrapper = stage
            .wrapper(&format!("tr '\\0' '\\n' < /proc/$$/environ >> {}\nexec $RUNC \"$@\"", seen.display()));
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        assert!(std::env::var_os("CARGO").is_some(), "cargo sets this one, to stand for the others");
        let evil = |spec: ContainerSpec| {
            spec.env("LD_PRELOAD", "/evil.so").env("GODEBUG", "evil=1").env("SECRET", "evil")
        };
        let container = executor.run(evil(sleeper())).await.unwrap();
        let exec = ExecSpec::new(["true"]).env("LD_AUDIT", "/evil.so").env("PATH", "/evil:/bin");
        container.exec(exec).await.unwrap().wait().await;
        let environ = ["cat", "/proc/self/environ"];
        let names = |text: &str| -> BTreeSet<String> {
            text.split('\0')
                .filter_map(|entry| entry.split_once('='))
                .map(|(name, _)| name.to_owned())
                .collect()
        };
        let usual = BTreeSet::from(["HOME", "PATH"].map(str::to_owned));
        assert_eq!(names(&says(&executor, ContainerSpec::host(environ)).await), usual);
        let other = executor.run(sleeper()).await.unwrap();
        let output = other.exec(ExecSpec::new(environ).piped()).await.unwrap().output().await.unwrap();
        assert_eq!(names(&output.stdout_lossy()), usual);
        let seen = fs::read_to_string(seen).unwrap();
        assert!(seen.contains("PATH=") && !seen.contains("evil"), "{seen}");
        stage.finish(executor).await;
    });
}

/// CVE-2020-15257: an abstract socket of the host's. CVE-2025-9074: a service that the executor itself listens with.
#[test]
fn sockets_of_the_host() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let name = format!("longshore-known-{}", std::process::id());
        let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let script = format!(
            "socket(S, 1, 1, 0) or die; print connect(S, pack('S x a*', 1, '{name}')) ? 'reached' : 'refused'"
        );
        let spec = || ContainerSpec::host(["perl", "-e", &script]);
        assert_eq!(says(&executor, spec()).await, "refused");
        // What `Network::Host` gives away, and that the script can do it.
        assert_eq!(says(&executor, spec().network(Network::Host)).await, "reached");

        let container =
            executor.run(sleeper().piped().terminal(TerminalSize { rows: 24, columns: 80 })).await.unwrap();
        container.started().await.unwrap();
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let own: BTreeSet<String> = descriptors
            .filter_map(|entry| {
                fs::read_link(entry.path())
                    .ok()?
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')
                    .map(str::to_owned)
            })
            .collect();
        for (file, column) in [("tcp", 9), ("tcp6", 9), ("udp", 9), ("udp6", 9)] {
            let text = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap_or_default();
            let inode = |line: &str| line.split_whitespace().nth(column).map(str::to_owned);
            assert!(!text.lines().filter_map(inode).any(|inode| own.contains(&inode)), "{file}: {text}");
        }
        let unix = fs::read_to_string("/proc/self/net/unix").unwrap();
        let is_ours = |line: &&str| line.split_whitespace().nth(6).is_some_and(|inode| own.contains(inode));
        let named: Vec<_> =
            unix.lines().filter(is_ours).filter_map(|line| line.split_whitespace().nth(7)).collect();
        assert_eq!(named, [format!("@{name}")], "the executor has named sockets");
        drop(socket);
        stage.finish(executor).await;
    });
}

/// CVE-2014-3519, CVE-2022-0185, CVE-2021-22555, CVE-2024-1086: system calls by which a container gets at files outside,
/// or at much of the kernel.
#[cfg(target_arch = "x86_64")]
#[test]
fn system_calls() {
    // Number, and the arguments with which it would do no harm.
    const CALLS: [(&str, &str); 31] = [
        ("add_key", "248, 'user', 'x', 'x', 1, -3"),
        ("request_key", "249, 'user', 'x', 0, 0"),
        ("keyctl", "250, 0, -3, 0"),
        ("bpf", "321, 0, 0, 0"),
        ("clone_newuser", "56, 0x10000011, 0, 0, 0, 0"),
        ("unshare_newuser", "272, 0x10000000"),
        ("unshare_newcgroup", "272, 0x12000000"),
        ("clone3", "435, $buffer, 64"),
        ("clone_newcgroup", "56, 0x12000011, 0, 0, 0, 0"),
        ("unshare_newns", "272, 0x20000"),
        ("setns", "308, 0, 0"),
        ("mount", "165, 'none', '/mnt', 'tmpfs', 0, 0"),
        ("umount2", "166, '/proc', 2"),
        ("pivot_root", "155, '/', '/'"),
        ("fsopen", "430, 'tmpfs', 0"),
        ("open_tree", "428, -100, '/', 1"),
        ("move_mount", "429, -1, '', -1, '', 0"),
        ("mount_setattr", "442, -1, '', 0, 0, 0"),
        ("open_by_handle_at", "304, -100, $buffer, 0"),
        ("perf_event_open", "298, $buffer, 0, -1, -1, 0"),
        ("userfaultfd", "323, 0"),
        ("io_uring_setup", "425, 1, $buffer"),
        ("init_module", "175, $buffer, 0, ''"),
        ("kexec_load", "246, 0, 0, 0, 0"),
        ("iopl", "172, 3"),
        ("swapon", "167, '/nowhere', 0"),
        ("quotactl", "179, 0x80000200, 0, 0, 0"),
        ("acct", "163, '/nowhere'"),
        ("settimeofday", "164, $buffer, 0"),
        ("reboot", "169, 0, 0, 0, 0"),
        ("syslog", "103, 3, $buffer, 1"),
    ];
    on_stage(async |stage| {
        let executor = stage.executor();
        // Each in a process of its own, since one that succeeds changes what the next one meets.
        let mut script = r#"my $buffer = "\0" x 256;
            sub call {
                my $name = shift;
                if (my $child = fork) { waitpid $child, 0; return; }
                my $result = syscall(shift, @_);
                print "$name\n" unless $result == -1 && ($! == 1 || $! == 38);
                exec 'true';
            }
            $| = 1;
            "#
        .to_owned();
        for (name, arguments) in CALLS {
            // A constant would be taken for a buffer that may be written to.
            let arguments = arguments.split(", ").map(|word| match word.strip_prefix('\'') {
                Some(text) => format!("my $_s{name}{} = '{text}", text.len()),
                None => word.to_owned(),
            });
            script += &format!("call('{name}', {});\n", arguments.collect::<Vec<_>>().join(", "));
        }
        let made = async |seccomp: Seccomp| -> BTreeSet<String> {
            let mut spec = ContainerSpec::host(["perl", "-e", &script]);
            spec.seccomp = Some(seccomp);
            says(&executor, spec).await.lines().map(str::to_owned).collect()
        };
        // The profile is that of containers-common, which allows these. docs/security.md says so.
        let allowed = BTreeSet::from(
            ["keyctl", "clone_newuser", "unshare_newuser", "setns", "mount_setattr"].map(str::to_owned),
        );
        let default = made(Seccomp::Default).await;
        assert!(default.is_subset(&allowed), "{default:?}");
        let open = made(Seccomp::Unconfined).await;
        assert!(open.contains("add_key") && open.contains("unshare_newuser"), "{open:?}");
        stage.finish(executor).await;
    });
}

/// CVE-2023-2431: a profile that is empty, and turns the filter off.
#[test]
fn an_empty_profile() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let path = stage.path("profile");
        for text in ["", " ", "{}", "null", "[]", r#"{"syscalls": []}"#, r#"{"defaultAction": ""}"#] {
            fs::write(&path, text).unwrap();
            let mut spec = shell("true");
            spec.seccomp = Some(Seccomp::Profile(path.clone()));
            start_failure(&executor, spec).await;
        }
        for missing in [PathBuf::new(), stage.path("missing"), stage.path("")] {
            let mut spec = shell("true");
            spec.seccomp = Some(Seccomp::Profile(missing.clone()));
            let refused = match executor.run(spec).await {
                Err(_) => true,
                Ok(container) => matches!(container.wait().await.reason, ExitReason::StartFailed(_)),
            };
            assert!(refused, "{} was taken", missing.display());
        }
        stage.finish(executor).await;
    });
}

/// Devices that the container makes for itself: mknod is among its capabilities. Runtimes allow a few in any case; runc
/// before 1.2 also 10:200, the one of tun interfaces.
#[test]
fn a_device_that_it_makes() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let devices = fs::read_to_string("/proc/partitions").unwrap();
        let disks = devices.lines().skip(2).filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("b {} {}", words.next()?, words.next()?))
        });
        let others = ["c 1 1", "c 1 2", "c 1 4", "c 1 11", "c 10 229", "c 10 232", "c 10 237", "c 4 0"];
        let mut script = String::new();
        for (number, device) in disks.chain(others.map(str::to_owned)).enumerate() {
            script += &format!(
                "mknod /x{number} {device} || echo not made; ( : < /x{number} ) 2>/dev/null && echo {device}; "
            );
        }
        // The kernel asks the cgroup at mknod already.
        let said = says(&executor, shell(&format!("{script} true"))).await;
        assert!(said.lines().all(|line| line == "not made"), "{said}");
        // One that it may have is opened where devices are not switched off, as they are in the view of the host.
        let script = "mknod /null c 1 3 && (: < /null) && echo opened; rm /null";
        assert_eq!(says(&executor, stage.directory_spec(["sh", "-c", script])).await, "opened\n");
        let said =
            says(&executor, shell("mknod /null c 1 3 && (: < /null) 2>/dev/null || echo closed")).await;
        // crun mounts it again without the flag.
        assert_eq!(said, if longshore_tests::on_runc() { "closed\n" } else { "" });
        stage.finish(executor).await;
    });
}

/// CVE-2022-4318: a line of passwd in a variable.
#[test]
fn a_line_of_passwd_in_a_variable() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let line = "/\nevil:x:0:0::/:/bin/sh\n";
        let spec = stage.directory_spec(["sh", "-c", "cat /etc/passwd /etc/hosts /etc/resolv.conf; true"]);
        let passwd = rootfs(&spec).join("etc/passwd");
        fs::write(&passwd, "ann:x:1000:1000::/:/bin/sh\n").unwrap();
        let spec = spec.env("HOME", line).env("HOSTNAME", line).user("ann");
        let said = says(&executor, spec.clone()).await;
        assert!(said.contains("ann") && !said.contains("evil"), "{said}");
        assert_eq!(fs::read_to_string(&passwd).unwrap(), "ann:x:1000:1000::/:/bin/sh\n");
        assert!(executor.run(spec.hostname(line)).await.is_err(), "a host name of two lines was taken");
        stage.finish(executor).await;
    });
}

/// CVE-2024-9407: an option of a mount in a name. The path of a layer has the characters that separate those of overlays.
#[test]
fn options_in_names() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let secret = stage.path("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("secret"), "secret").unwrap();
        for name in [
            format!("a:{}", secret.display()),
            format!("a,lowerdir={}", secret.display()),
            format!("a\\:{}", secret.display()),
            format!("a,upperdir={0},workdir={0}", secret.display()),
        ] {
            let layer = stage.path(&name);
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join("own"), "own").unwrap();
            let base = rootfs(&stage.directory_spec(["true"]));
            let rootfs = Rootfs::Overlay { lower: vec![layer, base], upper: None };
            let spec = ContainerSpec::new(
                rootfs,
                ["sh", "-c", "cat /own; cat /secret 2>/dev/null; echo x > /new; true"],
            );
            let container =
                executor.run(spec.mount(Mount::bind("/usr", "/usr").read_only()).piped()).await.unwrap();
            let output = container.output().await.unwrap();
            let refused = matches!(output.exit.reason, ExitReason::StartFailed(_));
            assert!(refused || output.stdout_lossy() == "own", "{name}: {}", output.stdout_lossy());
            assert!(!secret.join("new").exists(), "{name}");
            container.released().await.unwrap();
        }
        stage.finish(executor).await;
    });
}

/// CVE-2024-23652: the container replaces what is above a mount point that was made for it, so that its removal is that
/// of a file outside.
#[test]
fn the_end_removes_nothing_outside() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let outside = stage.path("outside");
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        let before = contents(&outside);
        let target = Path::new("../../../../../../../..").join(outside.strip_prefix("/").unwrap());
        for link in [outside.clone(), target] {
            let _ = fs::remove_dir_all(stage.path("rootfs"));
            let script = format!(
                "umount -l /above/file /above/dir; mv /above /away && ln -s {} /above",
                link.display()
            );
            let mut spec = stage.directory_spec(["sh", "-c", &script]);
            spec.remove_stub_parents = true;
            spec.process.cap_add = vec!["SYS_ADMIN".parse().unwrap()];
            let spec = spec
                .mount(Mount::bind("/etc/hostname", "/above/file"))
                .mount(Mount::tmpfs("/above/dir"))
                .piped();
            let container = executor.run(spec).await.unwrap();
            let output = container.output().await.unwrap();
            assert!(output.exit.is_success(), "{}", output.stderr_lossy());
            container.released().await.unwrap();
            assert_eq!(contents(&outside), before);
        }
        stage.finish(executor).await;
    });
}

/// Every test that the table of `docs/security.md` names exists, and every row has one, or says why it has none.
#[test]
fn the_table_is_true() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = String::new();
    let mut dirs = vec![repository.join("tests/tests"), repository.join("crates")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else if entry.path().extension().is_some_and(|kind| kind == "rs") {
                sources += &fs::read_to_string(entry.path()).unwrap();
            }
        }
    }
    let text = fs::read_to_string(repository.join("docs/security.md")).unwrap();
    let (_, table) = text.split_once("| kind | known as |").unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 30, "{}", rows.len());
    for row in rows {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(columns.len(), 7, "{row}");
        let tests = columns[5];
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let has_one =
            !names.is_empty() || tests.contains('*') || tests.starts_with("none") || columns[4] == "n/a";
        assert!(has_one, "{row}");
        for name in names.into_iter().filter(|name| *name != "Executor::run") {
            assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
        }
    }
}
