//! What a specification may ask for without being insecure.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longshore::{ContainerSpec, IdMap, Mount, ProcessMode, Resources, Security, StartFailureKind};
use longshore_tests::command::call;
use longshore_tests::{cgroup_of, on_runc, on_stage, says, shell, sleeper, start_failure};

fn mapped(mut spec: ContainerSpec) -> ContainerSpec {
    spec.id_map = Some(IdMap::both(vec!["0:200000:65536".parse().unwrap()]));
    spec
}

/// The mount point of a hierarchy of cgroups.
fn a_hierarchy() -> &'static str {
    let v1 = "/sys/fs/cgroup/pids";
    if Path::new(v1).exists() { v1 } else { "/sys/fs/cgroup" }
}

fn pids_max(pid: longshore::HostPid) -> String {
    fs::read_to_string(cgroup_of(pid, "pids").join("pids.max")).unwrap().trim().to_owned()
}

/// A container that forks without end does not take all pids of the machine.
#[test]
fn default_limit_of_processes() {
    on_stage(async |stage| {
        let executor = stage.executor();
        for (asked, expected) in [(None, "4096"), (Some(17), "17"), (Some(u64::MAX), "max")] {
            let mut spec = sleeper();
            spec.resources.pids = asked;
            let container = executor.run(spec).await.unwrap();
            let pid = container.started().await.unwrap();
            assert_eq!(pids_max(pid), expected, "{asked:?}");
            // An update of something else leaves it, and an update of it changes it.
            container.update(Resources::default().memory(64 << 20)).await.unwrap();
            assert_eq!(pids_max(pid), expected, "{asked:?}");
            container.update(Resources::default().pids(23)).await.unwrap();
            assert_eq!(pids_max(pid), "23");
            container.update(Resources::default().pids(u64::MAX)).await.unwrap();
            assert!(["4194304", "max"].contains(&pids_max(pid).as_str()), "{}", pids_max(pid));
        }
        stage.finish(executor).await;
    });
}

#[test]
fn limits_of_processes_on_the_command_line() {
    on_stage(async |stage| {
        // The command shows its own cgroup's limit; its cgroup namespace hides the path.
        let script = [
            "--",
            "sh",
            "-c",
            "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null || true",
        ];
        for (options, expected) in [
            (&[][..], "4096\n"),
            (&["--pids", "9"], "9\n"),
            (&["--pids", "-1"], "max\n"),
            (&["--pids=0"], "max\n"),
            (&["--pids", "unlimited"], "max\n"),
        ] {
            let outcome = call(&stage.root(), &[&["run"], options, &script].concat());
            assert_eq!(
                (outcome.code, outcome.stdout.as_str()),
                (Some(0), expected),
                "{options:?}: {outcome:?}"
            );
        }
        stage.check();
    });
}

/// With the host's /proc, nothing of the host's kernel can be changed.
#[test]
fn no_sandbox() {
    on_stage(async |stage| {
        let executor = stage.executor();
        fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o711)).unwrap();
        let open = |mut spec: ContainerSpec| {
            spec.process_mode = ProcessMode::NoSandbox;
            spec
        };
        let failure = start_failure(&executor, open(shell("true"))).await;
        assert_eq!(failure.kind, StartFailureKind::BadConfig);
        assert!(
            failure.message.starts_with("process mode: ") && failure.message.contains("insecure"),
            "{failure:?}"
        );
        let mut roots = open(shell("true"));
        roots.id_map = Some(IdMap::both(vec!["0:0:65536".parse().unwrap()]));
        assert_eq!(start_failure(&executor, roots).await.kind, StartFailureKind::BadConfig);

        // The host has another file system below /proc/sys: read-only as well.
        let point = Path::new("/proc/sys/fs/binfmt_misc");
        let ours = rustix::mount::mount(
            "longshore-test",
            point,
            "binfmt_misc",
            rustix::mount::MountFlags::empty(),
            None,
        );
        let script = "echo pids $(ls -d /proc/[0-9]* | wc -l)
            for file in /proc/sys/kernel/core_pattern /proc/sys/fs/binfmt_misc/register /proc/sysrq-trigger; do
                [ -e $file ] || continue
                (echo x > $file) 2>/dev/null && echo WROTE $file
            done
            grep -E ' /proc(/[^ ]*)? ' /proc/self/mountinfo | cut -d' ' -f5,6 | sort -u
            cat /proc/kcore /proc/interrupts | wc -c
            cat /proc/1/environ /proc/1/root/etc/shadow 2>/dev/null | wc -c";
        let said = says(&executor, mapped(open(shell(script)))).await;
        if ours.is_ok() {
            rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).unwrap();
            let line =
                said.lines().find(|line| line.starts_with("/proc/sys/fs/binfmt_misc ro")).map(str::to_owned);
            assert!(line.is_some(), "{said}");
        }
        assert!(!said.contains("WROTE"), "{said}");
        for path in ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq"] {
            assert!(said.lines().any(|line| line.starts_with(&format!("{path} ro"))), "{path}: {said}");
        }
        assert!(said.ends_with("0\n0\n"), "{said}");
        stage.finish(executor).await;
    });
}

/// A second file system of the kernel would have no masks.
#[test]
fn second_proc() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let link = stage.path("link");
        symlink("/proc/sys", &link).unwrap();
        let below = stage.path("below");
        fs::create_dir_all(below.join("p")).unwrap();
        symlink("/p/sys", below.join("to")).unwrap();
        rustix::mount::mount(
            "longshore-test",
            below.join("p"),
            "proc",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        let kinds =
            ["proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "debugfs", "tracefs", "securityfs", "bpf"];
        let mut mounts: Vec<_> = kinds.map(|kind| Mount::file_system(kind, kind, "/x")).into();
        let namespace = format!("/proc/{}/ns/net", std::process::id());
        let binds =
            ["/proc", "/proc/sys/kernel/core_pattern", "/sys", a_hierarchy(), "/dev", "/", &namespace];
        mounts.extend(binds.map(|source| Mount::bind(source, "/x")));
        mounts.extend([&link, &below].map(|source| Mount::bind(source, "/x")));
        mounts.push(Mount::bind_below(&below, "to", "/x"));
        // Whoever may read a procfs gets through /proc/PID/root to files that can be written.
        let neighbour = executor.run(sleeper()).await.unwrap();
        let pid = neighbour.started().await.unwrap();
        let of_neighbour =
            ["", "/root", "/environ", "/cwd", "/ns/net"].map(|name| format!("/proc/{pid}{name}"));
        let to_root = stage.path("to_root");
        symlink(format!("/proc/{pid}/root"), &to_root).unwrap();
        for source in ["/", "/proc", "/proc/self", "/proc/kmsg", "/proc/sys", "/proc/fs"] {
            mounts.push(Mount::bind(source, "/x").read_only());
        }
        mounts.extend(of_neighbour.iter().map(|source| Mount::bind(source, "/x").read_only()));
        mounts.extend([&link, &below, &to_root].map(|source| Mount::bind(source, "/x").read_only()));
        mounts.push(Mount::bind_below("/proc", format!("{pid}"), "/x").read_only());
        mounts.push(Mount::bind_below(&below, "to", "/x").read_only());
        mounts.extend(["/proc", "/proc/sys", "/sys", "/dev"].map(|over| Mount::bind("/etc", over)));
        mounts.push(Mount::tmpfs("/proc"));
        for mount in mounts {
            let failure = start_failure(&executor, shell("true").mount(mount.clone())).await;
            assert_eq!(failure.kind, StartFailureKind::BadConfig, "{mount}: {failure:?}");
            assert!(failure.message.contains("insecure"), "{mount}: {failure:?}");
            assert!(failure.message.contains(&mount.to_string()), "{mount}: {failure:?}");
        }
        // In a volume as well.
        let nested = shell("true").mount(Mount::bind(stage.path("volume"), "/v"));
        fs::create_dir(stage.path("volume")).unwrap();
        let failure = start_failure(&executor, nested.mount(Mount::bind("/", "/v/x").read_only())).await;
        assert!(failure.message.contains("/proc/PID/root"), "{failure:?}");
        // What is usual stays.
        let fine = |mount: Mount, script: &str| says(&executor, shell(script).mount(mount));
        let hidden = Mount::file_system("proc", "proc", "/proc").option("hidepid=2");
        let script = "grep -o hidepid=[a-z0-9]* /proc/self/mounts; (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null || echo no";
        let said = fine(hidden, script).await;
        assert!(said.starts_with("hidepid=") && said.ends_with("no\n"), "{said}");
        let cpus = stage.path("cpuinfo");
        fs::write(&cpus, "none\n").unwrap();
        assert_eq!(fine(Mount::bind(&cpus, "/proc/cpuinfo"), "cat /proc/cpuinfo").await, "none\n");
        assert_eq!(fine(Mount::bind("/dev/shm", "/dev/shm"), "echo up").await, "up\n");
        assert_eq!(fine(Mount::bind("/dev/null", "/dev/nix"), "echo x > /dev/nix; echo up").await, "up\n");
        for source in ["/proc/cpuinfo", "/proc/version"] {
            assert_ne!(fine(Mount::bind(source, "/x").read_only(), "cat /x").await, "", "{source}");
        }
        assert_ne!(fine(Mount::bind_below("/proc", "version", "/x").read_only(), "cat /x").await, "");
        // Where nothing can be written, at no depth, the others are allowed too.
        for source in ["/sys", "/dev", a_hierarchy()] {
            let read_only = Mount::bind(source, "/host").read_only();
            let script = "for file in /host/kernel/uevent_helper /host/kernel/mm/ksm/run /host/cgroup.procs /host/x /host/null/x; do
                (echo 0 > $file) 2>/dev/null && echo WROTE $file
            done; grep ' /host' /proc/self/mountinfo | cut -d' ' -f6 | cut -d, -f1 | sort -u";
            assert_eq!(fine(read_only, script).await, "ro\n", "{source}");
        }
        // In a user namespace without the host's root, the links of /proc lead nowhere.
        fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o711)).unwrap();
        let script = format!(
            "ls -d /host/proc/{pid}; ls /host/proc/{pid}/root/ /host/proc/{pid}/cwd/ 2>/dev/null; cat /host/proc/{pid}/environ 2>/dev/null
            for file in /host/proc/sys/kernel/core_pattern /host/sys/fs/cgroup/pids/cgroup.procs /host/dev/x /host/tmp/x; do
                (echo 0 > $file) 2>/dev/null && echo WROTE $file
            done; grep ' /host' /proc/self/mountinfo | cut -d' ' -f6 | cut -d, -f1 | sort -u"
        );
        let read_only = mapped(shell(&script)).mount(Mount::bind("/", "/host").read_only());
        // crun does not show it at all.
        let shown = if on_runc() { format!("/host/proc/{pid}\n") } else { String::new() };
        assert_eq!(says(&executor, read_only).await, format!("{shown}ro\n"));
        neighbour.cancel(longshore::Cancel::now()).await;
        neighbour.released().await.unwrap();
        let mut insecure =
            shell("test -w /x/sys/kernel/core_pattern && echo yes").mount(Mount::bind("/proc", "/x"));
        insecure.security = Security::Insecure;
        assert_eq!(says(&executor, insecure).await, "yes\n");

        // A root directory with one below it, too.
        let mut spec = stage.directory_spec(["true"]);
        spec.mounts.clear();
        let inside = stage.path("rootfs").join("inside");
        fs::create_dir(&inside).unwrap();
        rustix::mount::mount("longshore-test", &inside, "proc", rustix::mount::MountFlags::empty(), None)
            .unwrap();
        let failure = start_failure(&executor, spec).await;
        assert!(
            failure.message.starts_with("rootfs: ") && failure.message.contains("insecure"),
            "{failure:?}"
        );
        for point in [inside, below.join("p")] {
            rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        stage.finish(executor).await;
    });
}

/// A file system on a block device is the host's disk, whatever the device's node allows.
#[test]
fn disks_of_the_host() {
    on_stage(async |stage| {
        let executor = stage.executor();
        // A node of no disk: what it says counts.
        let node = stage.path("node");
        let (kind, device) = (rustix::fs::FileType::BlockDevice, rustix::fs::makedev(7, 250));
        rustix::fs::mknodat(rustix::fs::CWD, &node, kind, 0o600.into(), device).unwrap();
        let link = stage.path("link");
        symlink(&node, &link).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let known = fs::read_to_string("/proc/filesystems").unwrap();
        let mut mounts: Vec<_> = (known.lines().filter_map(|line| line.strip_prefix('\t')))
            .map(|kind| Mount::file_system(kind, text(&node), "/x"))
            .collect();
        assert!(!mounts.is_empty());
        mounts.push(Mount::file_system("nosuchkind", text(&node), "/x"));
        mounts.push(Mount::file_system("nosuchkind", text(&link), "/x").read_only());
        mounts.push(Mount::file_system("zfs", "pool/data", "/x"));
        for mount in mounts {
            let failure = start_failure(&executor, shell("true").mount(mount.clone())).await;
            assert_eq!(failure.kind, StartFailureKind::BadConfig, "{mount}: {failure:?}");
            assert!(failure.message.contains("a device of the host"), "{mount}: {failure:?}");
            // The runtime would have tried, as it does for an insecure one.
            let mut insecure = shell("true").mount(mount.clone());
            insecure.security = Security::Insecure;
            let failure = start_failure(&executor, insecure).await;
            assert!(!failure.message.contains("a device of the host"), "{mount}: {failure:?}");
        }
        let lower = stage.path("lower");
        fs::create_dir(&lower).unwrap();
        fs::write(lower.join("file"), "lower\n").unwrap();
        let overlay = Mount::file_system("overlay", "x", "/x")
            .option(format!("lowerdir={}:/usr/share/misc", text(&lower)));
        assert_eq!(says(&executor, shell("cat /x/file").mount(overlay.read_only())).await, "lower\n");
        stage.finish(executor).await;
    });
}

/// The host's view does not show the executors' roots, where the environments and the marks of neighbours are.
#[test]
fn view_hides_the_root() {
    on_stage(async |stage| {
        let executor = stage.executor();
        fs::create_dir(stage.path("beside")).unwrap();
        fs::write(stage.path("beside/file"), "seen\n").unwrap();
        fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o1711)).unwrap();
        lchown(stage.path(""), None, Some(8)).unwrap();
        let mut neighbour = sleeper();
        neighbour.process.env.push(("TOKEN".into(), "hunter-of-tokens".into()));
        let neighbour = executor.run(neighbour).await.unwrap();
        neighbour.started().await.unwrap();
        let (top, root) = (stage.path(""), stage.root());
        let (top, root) = (top.to_str().unwrap(), root.to_str().unwrap());
        let look = format!(
            "ls -A {root} 2>/dev/null; ls -d /run/longshore 2>/dev/null; ls {top}; cat {top}/beside/file
            grep -rl 'hunter-of-tokens' {top} /run/longshore 2>/dev/null
            stat -c '%a %u %g %y' {top}; mkdir -p {root}/x && ls {root}"
        );
        let host = std::process::Command::new("stat").args(["-c", "%a %u %g %y", top]).output().unwrap();
        let expected = format!("beside\nseen\n{}x\n", String::from_utf8(host.stdout).unwrap());
        assert!(fs::read_dir(root).unwrap().count() > 1);
        assert_eq!(says(&executor, shell(&look)).await, expected);
        let of_others = format!("ls -A {root}; cat {top}/beside/file");
        assert_eq!(says(&executor, mapped(shell(&of_others))).await, "seen\n");
        neighbour.cancel(longshore::Cancel::now()).await;
        neighbour.released().await.unwrap();

        // The root is at another path of the same file system, too.
        let (real, alias) = (stage.path("real"), stage.path("alias"));
        fs::create_dir(&real).unwrap();
        fs::create_dir(&alias).unwrap();
        rustix::mount::mount_bind(&real, &alias).unwrap();
        let look = format!("ls {0}; cat {0}/r/containers/*/config.json; echo end", real.to_str().unwrap());
        let outcome = call(&alias.join("r"), &["run", "--", "sh", "-c", &look]);
        rustix::mount::unmount(&alias, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(outcome.stdout, "end\n", "{outcome:?}");
        stage.finish(executor).await;
    });
}

/// A tmpfs has the mode that it was asked to have, and that of every tmpfs without one, also where its mount point is made.
#[test]
fn tmpfs_mode() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec =
            stage.directory_spec(["/bin/sh", "-c", "cd /; stat -c %a new open none deep/new; umask"]);
        let tmpfs = |at: &str, mode: &str| Mount::tmpfs(at).option(format!("mode={mode}"));
        spec.mounts.extend([tmpfs("/new", "0700"), tmpfs("/open", "1777"), Mount::tmpfs("/none")]);
        spec.mounts.push(tmpfs("/deep/new", "700").option("mode=2750"));
        assert_eq!(says(&executor, spec.clone()).await, "700\n1777\n1777\n2750\n0022\n");
        assert_eq!(says(&executor, mapped_root(&stage, spec)).await, "700\n1777\n1777\n2750\n0022\n");
        let rootfs = stage.path("rootfs");
        executor.drain().await.unwrap();
        for name in ["new", "open", "none", "deep/new"] {
            assert!(!rootfs.join(name).exists(), "{name} is left");
        }
        stage.finish(executor).await;
    });
}

/// The same in a user namespace whose root may look for its files in the stage.
fn mapped_root(stage: &longshore_tests::Stage, spec: ContainerSpec) -> ContainerSpec {
    fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    mapped(spec)
}

/// The runtime reads passwd and group at every start: they have an end, wherever they come from.
#[test]
fn accounts_without_end() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let fifo = |path: &Path| {
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, 0o644.into(), 0).unwrap();
        };
        let mut plain = stage.directory_spec(["/bin/sh", "-c", "id -u"]);
        plain.process.user = Some("0:0".into());
        let etc = stage.path("rootfs/etc");
        let endless = async |spec: &ContainerSpec, what: &str| {
            let before = Instant::now();
            let failure = start_failure(&executor, spec.clone()).await;
            assert!(before.elapsed() < Duration::from_secs(10), "{what}");
            assert_eq!(failure.kind, StartFailureKind::BadConfig, "{what}: {failure:?}");
            assert!(failure.message.contains("regular file"), "{what}: {failure:?}");
        };
        // In the root file system.
        let targets =
            ["/dev/zero", "/proc/kmsg", "../proc/self/environ", "/sys/kernel/notes", "/dev/stdin", "/a/link"];
        fs::create_dir(stage.path("rootfs/a")).unwrap();
        symlink("../dev/../dev/full", stage.path("rootfs/a/link")).unwrap();
        for name in ["passwd", "group"] {
            for target in targets {
                symlink(target, etc.join(name)).unwrap();
                endless(&plain, &format!("{name} -> {target}")).await;
                fs::remove_file(etc.join(name)).unwrap();
            }
            fifo(&etc.join(name));
            endless(&plain, name).await;
            fs::remove_file(etc.join(name)).unwrap();
            fs::File::create(etc.join(name)).unwrap().set_len(1 << 40).unwrap();
            endless(&plain, name).await;
            fs::remove_file(etc.join(name)).unwrap();
        }
        // In a volume, over the directory or the file, also where a link of the root file system leads to it.
        let volume = stage.path("volume");
        fs::create_dir(&volume).unwrap();
        fifo(&volume.join("group"));
        let with = |mounts: &[Mount]| plain.clone().mount(mounts[0].clone());
        endless(&with(&[Mount::bind(&volume, "/etc").read_only()]), "a volume").await;
        endless(&with(&[Mount::bind(volume.join("group"), "/etc/passwd")]), "a file").await;
        symlink("etc", stage.path("rootfs/cetera")).unwrap();
        endless(&with(&[Mount::bind(volume.join("group"), "/cetera/passwd")]), "a link to a mount").await;
        endless(&with(&[Mount::bind("/dev/zero", "/etc/group")]), "a device").await;
        symlink("/v/group", etc.join("group")).unwrap();
        endless(&with(&[Mount::bind(&volume, "/v")]), "a link into a volume").await;
        // What ends is fine: nothing, no target, /dev/null, a file in a volume, one that a tmpfs hides.
        assert_eq!(says(&executor, plain.clone()).await, "0\n");
        for target in ["/dev/null", "/nowhere", "loop/../x"] {
            fs::remove_file(etc.join("group")).unwrap();
            symlink(target, etc.join("group")).unwrap();
            assert_eq!(says(&executor, plain.clone()).await, "0\n", "{target}");
        }
        fs::remove_file(etc.join("group")).unwrap();
        fifo(&etc.join("group"));
        assert_eq!(says(&executor, with(&[Mount::bind("/dev/null", "/etc/group")])).await, "0\n");
        assert_eq!(
            says(&executor, with(&[Mount::bind("/etc/group", "/etc/group").read_only()])).await,
            "0\n"
        );
        assert_eq!(says(&executor, with(&[Mount::tmpfs("/etc")])).await, "0\n");
        fs::remove_file(etc.join("group")).unwrap();
        // A container that makes one later keeps no exec.
        plain.process.args = vec!["sh".into(), "-c".into(), "exec sleep 1000".into()];
        let container = executor.run(plain.clone()).await.unwrap();
        container.started().await.unwrap();
        fifo(&etc.join("group"));
        let mut exec = longshore::ExecSpec::new(["true"]);
        exec.user = Some("0:0".into());
        let before = Instant::now();
        let exec = container.exec(exec).await.unwrap();
        let exit = exec.wait().await;
        assert!(before.elapsed() < Duration::from_secs(10));
        assert!(!exit.is_success() && format!("{exit:?}").contains("regular file"), "{exit:?}");
        container.cancel(longshore::Cancel::now()).await;
        container.released().await.unwrap();
        stage.finish(executor).await;
    });
}

/// A path that has no text in JSON is an error, wherever it comes from.
#[test]
fn paths_that_are_not_text() {
    use std::os::unix::ffi::OsStrExt;
    on_stage(async |stage| {
        let executor = stage.executor();
        let raw = stage.path("").join(std::ffi::OsStr::from_bytes(b"raw\xff"));
        for name in ["usr", "root"] {
            fs::create_dir_all(raw.join(name)).unwrap();
        }
        let link = stage.path("link");
        symlink(&raw, &link).unwrap();
        let mut selector = Mount::bind(stage.path(""), "/x");
        selector.source =
            longshore::MountSource::Bind { path: stage.path(""), selector: Some("raw\u{fffd}".into()) };
        let mut bytes = selector.clone();
        bytes.source = longshore::MountSource::Bind {
            path: stage.path(""),
            selector: Some(std::ffi::OsStr::from_bytes(b"raw\xff").into()),
        };
        let refused = executor.run(shell("true").mount(bytes)).await.err().unwrap();
        assert!(refused.to_string().contains("not UTF-8"), "{refused}");
        // The look-alike is another file.
        let failure = start_failure(&executor, shell("true").mount(selector)).await;
        assert!(failure.message.contains("No such file"), "{failure:?}");
        // What a link leads to.
        for spec in [ContainerSpec::dir(&link, ["true"]), ContainerSpec::layers([link.clone()], ["true"])] {
            let failure = start_failure(&executor, spec).await;
            assert!(failure.message.contains("not UTF-8"), "{failure:?}");
        }
        let bind = Mount::bind(&link, "/x").read_only();
        assert_eq!(says(&executor, shell("ls /x").mount(bind)).await, "root\nusr\n");
        // The executor's root.
        for options in [&["-v", "/etc:/x:ro"][..], &[], &["--rootfs", "/usr"], &["--layer", "/usr"]] {
            let mut command = longshore_tests::command::longshore(&raw.join("root"));
            let outcome = command.arg("run").args(options).args(["--", "true"]).output().unwrap();
            let said = String::from_utf8_lossy(&outcome.stderr);
            assert_eq!(outcome.status.code(), Some(125), "{options:?}: {said}");
            assert!(said.contains("not UTF-8") && said.lines().count() == 1, "{options:?}: {said}");
        }
        stage.finish(executor).await;
    });
}

/// A layer that does not exist is named, wherever it is.
#[test]
fn layers_that_are_not_there() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let none = stage.path("none");
        for layers in
            [vec![none.clone()], vec![none.clone(), "/usr".into()], vec!["/usr".into(), none.clone()]]
        {
            let failure =
                start_failure(&executor, ContainerSpec::layers(layers.clone(), ["/bin/true"])).await;
            let expected = format!("layer: {}: No such file or directory", none.display());
            assert!(failure.message.starts_with(&expected), "{layers:?}: {failure:?}");
        }
        let file = ContainerSpec::layers(["/etc/passwd"], ["/bin/true"]);
        assert!(start_failure(&executor, file).await.message.starts_with("layer: /etc/passwd"));
        let none = none.to_str().unwrap();
        let outcome = call(&stage.root(), &["run", "--layer", "/usr", "--layer", none, "--", "/bin/true"]);
        assert_eq!(outcome.code, Some(125), "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("layer: {none}: No such file")), "{outcome:?}");
        stage.finish(executor).await;
    });
}

/// A socket to the hypervisor: refused, also if a bit is set that the kernel does not read. It takes the host's network, or a filter
/// of the caller's.
#[test]
fn vsock() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let number = if cfg!(target_arch = "x86_64") { 41 } else { 198 };
        let families = format!(
            "for (40, 40 + (1 << 32), 40 + (1 << 62), 2, 16, 45) {{
                print(syscall({number}, $_, 2, 0) < 0 ? 0 + $! : 'made', qq(\\n)) }}"
        );
        let perl = || {
            let mut spec = shell("true");
            spec.process.args = vec!["perl".into(), "-e".into(), families.clone()];
            spec
        };
        let refused = "1\n1\n1\nmade\nmade\n97\n";
        assert_eq!(says(&executor, perl()).await, refused);
        let mut dropped = perl();
        dropped.process.cap_drop = vec!["AUDIT_WRITE".parse().unwrap()];
        assert_eq!(says(&executor, dropped).await, refused);
        let asked = |mut spec: ContainerSpec| {
            spec.network = longshore::Network::Host;
            spec
        };
        // A machine may have no such sockets at all.
        let own = std::process::Command::new("perl").args(["-e", &families]).output().unwrap();
        let own = String::from_utf8(own.stdout).unwrap();
        assert_eq!(says(&executor, asked(perl())).await, own);
        let mut unconfined = perl();
        unconfined.seccomp = Some(longshore::Seccomp::Unconfined);
        assert_eq!(says(&executor, unconfined).await, own);
        stage.finish(executor).await;
    });
}

/// What a specification, a container or a runtime says is shown, not obeyed.
#[test]
fn controls() {
    on_stage(async |stage| {
        let is_raw = |text: &str| text.trim_end_matches('\n').contains(|c: char| c.is_control() && c != '\n');
        for (args, code) in [
            (&["run", "--", "no\u{1b}]0;x\u{7}such\nprogram"][..], 127),
            (&["run", "-u", "\u{1b}[2J", "--", "true"], 125),
            (&["run", "--dns-option", "a\nnameserver 10.0.0.1", "--", "true"], 125),
            (&["run", "--dns-search", "a\u{9b}2J", "--", "true"], 125),
            (&["run", "--hostname", "a\nb", "--", "true"], 125),
            (&["run", "--net", "cni:\u{1b}[2J", "--", "true"], 125),
            (&["run", "-v", "/no/\u{1b}[2J:/x", "--", "true"], 125),
            (&["run", "--mount", "type=tmpfs,dst=/x,size=1m\u{1b}[2J", "--", "true"], 125),
            (&["run", "--\u{1b}[2J", "--", "true"], 125),
            (&["\u{1b}[2J"], 125),
        ] {
            let outcome = call(&stage.root(), args);
            assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:?}");
            assert!(!is_raw(&outcome.stderr) && outcome.stderr.lines().count() == 1, "{args:?}: {outcome:?}");
        }
        // Events and specifications are JSON with the same meaning.
        let outcome = call(&stage.root(), &["run", "--events", "-", "--", "no\u{7f}\u{9b}such"]);
        assert!(!is_raw(&outcome.stderr) && outcome.stderr.contains("\\u009b"), "{outcome:?}");
        let program = "a\u{1b}\u{7f}\u{9b}";
        let outcome = call(&stage.root(), &["spec", "--json", "--", program]);
        assert!(!is_raw(&outcome.stdout), "{outcome:?}");
        let spec: ContainerSpec = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(spec.process.args, [program]);
        let nowhere = stage.path("no\u{1b}[2Jwhere");
        let outcome = call(&nowhere, &["sweep"]);
        assert!(!is_raw(&outcome.stdout) && !is_raw(&outcome.stderr), "{outcome:?}");
        let _made_by_the_sweep = fs::remove_dir_all(nowhere);
        stage.check();
    });
}

/// The file of the events is the user's, whoever was there before; and nothing waits for a reader that does not come.
#[test]
fn events_file() {
    const EVE: Option<u32> = Some(12_345);
    on_stage(async |stage| {
        let open = stage.path("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        let kept = stage.path("kept");
        fs::write(&kept, "kept").unwrap();
        let run =
            |file: &Path| call(&stage.root(), &["run", "--events", file.to_str().unwrap(), "--", "true"]);

        let fifo = open.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        longshore_tests::command::program();
        let before = Instant::now();
        let outcome = run(&fifo);
        assert!(before.elapsed() < Duration::from_secs(20), "it waited");
        assert_eq!(outcome.code, Some(125));
        assert!(outcome.stderr.contains("no process reads"), "{outcome:?}");
        // With a reader that stalls, all of it is written.
        let mut reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        assert_eq!(run(&fifo).code, Some(0));
        let mut events = vec![0; 1 << 16];
        let length = reader.read(&mut events).unwrap();
        assert!(String::from_utf8_lossy(&events[..length]).contains("released"));

        drop(reader);
        symlink(&kept, open.join("link")).unwrap();
        symlink(stage.path(""), open.join("dir")).unwrap();
        fs::write(open.join("file"), "kept").unwrap();
        for planted in ["link", "dir", "file"] {
            lchown(open.join(planted), EVE, EVE).unwrap();
        }
        for planted in ["link", "dir/kept", "file"] {
            let outcome = run(&open.join(planted));
            assert_eq!(outcome.code, Some(125), "{planted}: {outcome:?}");
            assert!(outcome.stderr.contains("somebody else"), "{planted}: {outcome:?}");
        }
        assert_eq!(fs::read(&kept).unwrap(), b"kept");
        assert_eq!(fs::read(open.join("file")).unwrap(), b"kept");
        // A file and a link of the user's own are used, there too.
        symlink("own", open.join("own-link")).unwrap();
        for own in ["own", "own-link"] {
            assert_eq!(run(&open.join(own)).code, Some(0), "{own}");
        }
        assert!(fs::read_to_string(open.join("own")).unwrap().contains("released"));
        stage.check();
    });
}

/// Mount points below volumes are made for the container, and go with it.
#[test]
fn mounts_below_volumes() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (volume, data) = (stage.path("volume"), stage.path("data"));
        for dir in [&volume, &data, &volume.join("ro")] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(data.join("file"), "data").unwrap();
        rustix::mount::mount(
            "longshore-test",
            volume.join("ro"),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        let script = "cat /v/a/b/file /v/a/file; echo; echo x > /v/a/b/new && rm /v/a/b/new && echo rw
            (echo x > /v/ro/x) 2>/dev/null || echo ro; (echo x > /v/x) 2>/dev/null || echo ro
            (echo x > /v/a/r/x) 2>/dev/null || echo ro; stat -c %a /v/t/t; echo x > /v/t/t/x && ls /v/t/t; ls /v/a/b/c
            grep ' /v/t/t ' /proc/self/mounts | grep -o 'nosuid,nodev,noexec'";
        let mut spec = shell(script).mount(Mount::bind(&volume, "/v").read_only());
        spec.mounts.extend([
            Mount::bind(&data, "/v/a/b"),
            Mount::bind(data.join("file"), "/v/a/file").read_only(),
            Mount::bind(&data, "/v/a/r").read_only(),
            Mount::tmpfs("/v/t/t").option("mode=1770").option("noexec"),
            Mount::bind("/usr/share/misc", "/v/a/b/c").read_only(),
        ]);
        spec.remove_stub_parents = true;
        let mut misc: Vec<_> =
            fs::read_dir("/usr/share/misc").unwrap().map(|file| file.unwrap().file_name()).collect();
        misc.sort();
        let misc: String = misc.into_iter().map(|name| format!("{}\n", name.to_string_lossy())).collect();
        let expected = format!("datadata\nrw\nro\nro\nro\n1770\nx\n{misc}nosuid,nodev,noexec\n");
        assert_eq!(says(&executor, spec.clone()).await, expected);
        let container = executor
            .run(sleeper().mount(Mount::bind(&volume, "/v")).mount(Mount::tmpfs("/v/kept")))
            .await
            .unwrap();
        container.started().await.unwrap();
        assert!(volume.join("kept").is_dir());
        container.cancel(longshore::Cancel::now()).await;
        container.released().await.unwrap();
        let left: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["ro"]);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "a stub is left in a nested volume");
        // The host sees none of the mounts.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(volume.join("a").to_str().unwrap()), "{mounts}");
        rustix::mount::unmount(volume.join("ro"), rustix::mount::UnmountFlags::empty()).unwrap();
        stage.finish(executor).await;
    });
}

/// A writer in a volume swaps the way to a mount point for a link, again and again.
#[test]
fn nested_points() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (volume, outside, data) = (stage.path("volume"), stage.path("outside"), stage.path("data"));
        for dir in [&volume, &outside, &data, &volume.join("a")] {
            fs::create_dir(dir).unwrap();
        }
        let over = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (over, volume, outside) = (Arc::clone(&over), volume.clone(), outside.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    let _busy = fs::rename(volume.join("a"), volume.join("aside"));
                    let _raced = symlink(&outside, volume.join("a"));
                    std::thread::yield_now();
                    let _raced = fs::remove_file(volume.join("a"));
                    let _busy = fs::rename(volume.join("aside"), volume.join("a"));
                    // The directory is left in its place for a while, so that some of the runs get through.
                    std::thread::sleep(std::time::Duration::from_micros(500));
                }
            }
        });
        let (runs, mut started) = (longshore_tests::amount(200), 0);
        for run in 0..runs {
            let inside = match run % 2 {
                0 => Mount::bind(&data, format!("/v/a/b{run}")),
                _ => Mount::tmpfs(format!("/v/a/b{run}/c")),
            };
            let spec = shell("true").mount(Mount::bind(&volume, "/v")).mount(inside);
            started += u64::from(executor.run(spec).await.unwrap().wait().await.is_success());
            let made: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(made, Vec::<std::path::PathBuf>::new(), "run {run}");
        }
        over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(started * 20 > runs, "{started} of {runs} started");
        stage.finish(executor).await;
    });
}

/// The overlay of the host has no devices: the container's are in its own /dev.
#[test]
fn devices_and_masks() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let script = "mknod /null c 1 3; (echo x > /null) 2>/dev/null && echo device; echo x > /dev/null && echo own
            wc -c < /proc/interrupts; grep -E ' /(etc/hosts|etc/resolv.conf|dev/longshore-init) ' /proc/self/mounts |
            grep -c nosuid,nodev";
        let mut spec = shell(script);
        spec.init = true;
        // crun mounts the root file system again without the flag, and the cgroup alone keeps devices closed.
        let seen = if on_runc() { "" } else { "device\n" };
        assert_eq!(says(&executor, spec.clone()).await, format!("{seen}own\n0\n3\n"));
        spec.security = Security::Insecure;
        let said = says(&executor, spec).await;
        assert!(said.starts_with("device\nown\n") && !said.contains("own\n0\n"), "{said}");
        // A layer may hold devices, as a build makes them.
        let mut layers = ContainerSpec::layers(
            ["/usr"],
            ["/bin/sh", "-c", "mknod /null c 1 3 && echo x > /null && echo device"],
        );
        layers.mounts = ["/lib", "/lib64", "/etc"].map(|dir| Mount::bind(dir, dir).read_only()).into();
        assert_eq!(says(&executor, layers).await, "device\n");
        stage.finish(executor).await;
    });
}
