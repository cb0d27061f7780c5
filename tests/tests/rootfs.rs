//! Root file systems and what is mounted into them: stubs that come away, selectors that cannot be led astray, layers,
//! working directories, and root file systems that mean harm.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longshore::{
    ContainerSpec, ExitReason, ExitStatus, Mount, Rootfs, Security, StartFailureKind, UpperLayer,
};
use longshore_tests::{Stage, on_stage, patience, says, shell, sleeper, start_failure, text, until};

/// The paths below a directory with the times of the directories, as they can be compared.
fn tree(dir: &Path) -> Vec<(PathBuf, Option<(i64, i64)>)> {
    let mut all = vec![(
        dir.to_owned(),
        Some((fs::metadata(dir).unwrap().mtime(), fs::metadata(dir).unwrap().mtime_nsec())),
    )];
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(tree(&entry.path())),
            false => all.push((entry.path(), None)),
        }
    }
    all
}

fn rootfs(spec: &ContainerSpec) -> PathBuf {
    let Rootfs::Dir(dir) = &spec.rootfs else { panic!("no directory") };
    dir.clone()
}

#[test]
fn stubs_come_away_with_times_intact() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = stage.directory_spec([
            "sh",
            "-c",
            "cat /deep/er/file; ls /proc/self >/dev/null && ls / | tr '\\n' ' '",
        ]);
        fs::write(stage.path("file"), "bound ").unwrap();
        spec.mounts.push(Mount::bind(stage.path("file"), "/deep/er/file"));
        let dir = rootfs(&spec);
        let before = tree(&dir);
        let said = says(&executor, spec.clone()).await;
        assert_eq!(said, "bound bin deep dev etc lib lib64 proc sbin sys usr ");
        // Without being asked to, a directory above a mount point stays.
        executor.list().await.unwrap();
        let settled = async |paths: &[&str]| {
            longshore_tests::until("the release", || paths.iter().all(|path| !dir.join(path).exists())).await;
        };
        settled(&["proc", "dev", "sys", "etc/hosts", "etc/resolv.conf", "usr", "deep/er/file"]).await;
        assert!(dir.join("deep/er").is_dir());
        fs::remove_dir_all(dir.join("deep")).unwrap();
        let now = tree(&dir);
        assert_eq!(now.iter().skip(1).collect::<Vec<_>>(), before.iter().skip(1).collect::<Vec<_>>());

        let before = tree(&dir);
        spec.remove_stub_parents = true;
        says(&executor, spec.clone()).await;
        settled(&["proc", "deep"]).await;
        assert_eq!(tree(&dir), before);

        // What a container has put into one is not taken away with it.
        let mut busy = stage.directory_spec([
            "sh",
            "-c",
            "echo mine > /etc/hosts 2>/dev/null; mkdir /kept; touch /kept/x",
        ]);
        busy.mounts.push(Mount::tmpfs("/scratch/below"));
        busy.remove_stub_parents = true;
        let container = executor.run(busy).await.unwrap();
        container.wait().await;
        assert_eq!(container.released().await.unwrap(), Vec::<longshore::Leftover>::new());
        assert!(dir.join("kept/x").exists() && !dir.join("scratch").exists());
        stage.finish(executor).await;
    });
}

/// Two containers in one directory: what the one made the other stands on.
#[test]
fn stubs_stay_while_another_container_uses_them() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let first = executor.run(stage.directory_spec(["sleep", "1000"])).await.unwrap();
        first.started().await.unwrap();
        let script = "echo up; read x; ls /proc/self/status && ls -d /usr/bin && cat /etc/hosts | head -c 9";
        let mut spec = stage.directory_spec(["sh", "-c", script]).piped();
        spec.process.stdio.stdin = longshore::Stdio::Pipe;
        let dir = rootfs(&spec);
        let second = executor.run(spec).await.unwrap();
        let mut stdout = second.io().take_stdout().unwrap();
        stdout.next_chunk().await.unwrap();
        first.cancel(longshore::Cancel::now()).await;
        first.released().await.unwrap();
        assert!(dir.join("proc").is_dir());
        second.io().take_stdin().unwrap().write_all("go\n").await.unwrap();
        assert_eq!(text(stdout.read_to_end().await), "/proc/self/status\n/usr/bin\n127.0.0.1");
        second.released().await.unwrap();
        assert!(!dir.join("proc").exists() && !dir.join("etc/hosts").exists());
        stage.finish(executor).await;
    });
}

#[test]
fn a_dead_executors_stubs_are_swept() {
    on_stage(async |stage| {
        // What its directory tells is all that a sweep needs.
        let executor = stage.executor();
        let mut spec = stage.directory_spec(["sleep", "1000"]);
        spec.mounts.push(Mount::tmpfs("/a/b"));
        let dir = rootfs(&spec);
        let container = executor.run(spec).await.unwrap();
        container.started().await.unwrap();
        assert!(dir.join("a/b").is_dir() && dir.join("proc").is_dir());
        executor.shutdown(longshore::Cancel::now(), Duration::ZERO).await;
        assert!(!dir.join("a/b").exists() && !dir.join("proc").exists());
        drop((container, executor));
        stage.check();
    });
}

#[test]
fn mounts_of_each_kind() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let source = stage.path("source");
        fs::create_dir_all(source.join("a/b")).unwrap();
        fs::write(source.join("a/b/file"), "selected").unwrap();
        symlink("/a/b", source.join("link")).unwrap();
        let select = |selector: &str, destination: &str| Mount::bind_below(&source, selector, destination);
        let script = "cat /one/file /two /three/file; echo; grep -E ' /(t|m) ' /proc/self/mounts | cut -d' ' -f2-4 | sed s/,inode64//; \
                      (echo x > /one/new) 2>/dev/null && echo wrote; (echo x > /three/new) 2>/dev/null || echo read-only";
        let mut spec = shell(script);
        spec.mounts = vec![
            select("a/b", "/one"),
            select("/a/b/file", "/two"),
            select("link", "/three").read_only(),
            Mount::tmpfs("/t").option("size=1m").option("noexec"),
            Mount::from_words("type=mqueue,dst=/m,nosuid").unwrap().read_only(),
        ];
        let said = says(&executor, spec).await;
        let expected = "selectedselectedselected\n/t tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k\n/m mqueue ro,nosuid,relatime\nwrote\nread-only\n";
        assert_eq!(said, expected);
        assert!(source.join("a/b/new").exists());
        for (selector, why) in [("nowhere", "No such file"), ("a/b/file/x", "No such file")] {
            let mut missing = shell("true");
            missing.mounts.push(select(selector, "/x"));
            let failure = start_failure(&executor, missing).await;
            assert!(
                failure.message.starts_with("mount selector: ") && failure.message.contains(why),
                "{failure:?}"
            );
        }
        stage.finish(executor).await;
    });
}

/// Who can change the source cannot lead a selector out of it, however often he tries.
#[test]
fn a_selector_is_not_led_astray() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (source, secret) = (stage.path("source"), stage.path("secret"));
        fs::create_dir_all(source.join("dir")).unwrap();
        fs::create_dir_all(&secret).unwrap();
        fs::write(source.join("dir/file"), "inside").unwrap();
        fs::write(secret.join("file"), "secret").unwrap();
        symlink(&secret, source.join("out")).unwrap();
        let (stop, swapper) = (Arc::new(AtomicBool::new(false)), source.clone());
        let stopped = Arc::clone(&stop);
        let attacker = std::thread::spawn(move || {
            let name = |name: &str| swapper.join(name);
            while !stopped.load(Ordering::Relaxed) {
                for (from, to) in [("dir", "kept"), ("out", "dir"), ("dir", "out"), ("kept", "dir")] {
                    let _it_is_a_race = fs::rename(name(from), name(to));
                }
            }
        });
        let mut seen = 0;
        for _ in 0..25 {
            let spec = shell("cat /x/file").mount(Mount::bind_below(&source, "dir", "/x")).piped();
            let container = executor.run(spec).await.unwrap();
            let said = text(container.io().take_stdout().unwrap().read_to_end().await);
            assert!(said.is_empty() || said == "inside", "{said}");
            seen += usize::from(!said.is_empty());
            container.wait().await;
        }
        stop.store(true, Ordering::Relaxed);
        attacker.join().unwrap();
        assert!(seen > 0, "it was never there");
        stage.finish(executor).await;
    });
}

#[test]
fn layers_over_one_another() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let base = rootfs(&stage.directory_spec(["true"]));
        let (top, upper, work) = (stage.path("top"), stage.path("upper"), stage.path("work"));
        for dir in [&top, &upper, &work] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(base.join("base"), "base ").unwrap();
        fs::write(top.join("base"), "covered ").unwrap();
        fs::write(top.join("top"), "top ").unwrap();
        let spec = |upper| {
            let rootfs = Rootfs::Overlay { lower: vec![top.clone(), base.clone()], upper };
            let mut spec =
                ContainerSpec::new(rootfs, ["sh", "-c", "cat /base /top; echo new > /written; echo"]);
            spec.mounts.push(Mount::bind("/usr", "/usr").read_only());
            spec
        };
        assert_eq!(says(&executor, spec(None)).await, "covered top \n");
        assert!(!base.join("written").exists() && !top.join("written").exists());
        let kept = UpperLayer { dir: upper.clone(), work };
        assert_eq!(says(&executor, spec(Some(kept))).await, "covered top \n");
        // What was written is all that the upper layer has: no mount point among it.
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(&upper).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        // They are removed one after the other when the container is released.
        let is_gone = |name| fs::symlink_metadata(upper.join(name)).map_or(true, |meta| !meta.is_dir());
        longshore_tests::until("the stubs", || ["proc", "dev", "sys", "usr"].into_iter().all(is_gone)).await;
        let left = names();
        assert!(left.contains(&"written".into()), "{left:?}");
        stage.finish(executor).await;
    });
}

#[test]
fn a_working_directory_is_made_for_its_user() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = stage.directory_spec(["sh", "-c", "pwd; touch here && ls -lnd . | cut -d' ' -f1,3,4"]);
        spec.process.cwd = "/work/of/mine".into();
        spec.process.user = Some("1234:1235".into());
        assert_eq!(says(&executor, spec.clone()).await, "/work/of/mine\ndrwxr-xr-x 1234 1235\n");
        let made = fs::metadata(rootfs(&spec).join("work/of/mine")).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1234, 1235, 0o755));
        // One that is there is left as it is; and on the overlay of the host it is made as well.
        let mut there = shell("pwd; stat -c %u .");
        there.process.cwd = "/usr".into();
        there.process.user = Some("1234:1235".into());
        assert_eq!(says(&executor, there.clone()).await, "/usr\n0\n");
        there.process.cwd = "/not/yet/there".into();
        assert_eq!(says(&executor, there).await, "/not/yet/there\n1234\n");
        assert!(!Path::new("/not").exists());
        // What is before `..` is not made.
        spec.process.cwd = "/no/such/../../plain/.".into();
        spec.process.args[2] = "pwd".into();
        assert_eq!(says(&executor, spec.clone()).await, "/plain\n");
        assert!(rootfs(&spec).join("plain").exists() && !rootfs(&spec).join("no").exists());
        // A read-only root file system is as it was.
        spec.read_only = true;
        spec.process.cwd = "/for/it/alone".into();
        assert_eq!(says(&executor, spec.clone()).await, "/for/it/alone\n");
        until("the working directory is gone", || !rootfs(&spec).join("for").exists()).await;
        stage.finish(executor).await;
    });
}

/// Each is refused or stays inside, within a second, and nothing of the host is touched.
#[test]
fn a_root_file_system_that_means_harm() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let outside = stage.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("passwd"), "evil:x:0:0::/:/bin/sh\n").unwrap();
        let before = tree(&outside);
        let out = outside.display().to_string();
        type Harm<'a> = (&'a str, Box<dyn Fn(&Path, &mut ContainerSpec) + 'a>);
        let fresh = |root: &Path, path: &str| {
            let _ = fs::remove_dir_all(root.join("etc"));
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        };
        let user = |spec: &mut ContainerSpec| spec.process.user = Some("evil".into());
        let harms: Vec<Harm<'_>> = vec![
            (
                "cwd is a link out",
                Box::new(|root, spec| {
                    symlink(&out, root.join("cwd")).unwrap();
                    spec.process.cwd = "/cwd/below".into();
                }),
            ),
            ("cwd climbs", Box::new(|_, spec| spec.process.cwd = format!("/../../../..{out}/below").into())),
            (
                "passwd is a link out",
                Box::new(|root, spec| {
                    fresh(root, "etc/passwd");
                    symlink(outside.join("passwd"), root.join("etc/passwd")).unwrap();
                    user(spec);
                }),
            ),
            (
                "etc is a link out",
                Box::new(|root, spec| {
                    let _ = fs::remove_dir_all(root.join("etc"));
                    symlink(&out, root.join("etc")).unwrap();
                    user(spec);
                }),
            ),
            (
                "mount target is a link out",
                Box::new(|root, spec| {
                    symlink(&out, root.join("target")).unwrap();
                    spec.mounts.push(Mount::tmpfs("/target/below"));
                }),
            ),
            (
                "mount target climbs out by links",
                Box::new(|root, spec| {
                    symlink(format!("../../../../../../..{out}"), root.join("up")).unwrap();
                    spec.mounts.push(Mount::tmpfs("/up/below"));
                }),
            ),
            ("proc is a link out", Box::new(|root, _| symlink(&out, root.join("proc")).unwrap())),
            (
                "passwd is a FIFO",
                Box::new(|root, spec| {
                    fresh(root, "etc/passwd");
                    let fifo = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(rustix::fs::CWD, root.join("etc/passwd"), fifo, 0o644.into(), 0)
                        .unwrap();
                    user(spec);
                }),
            ),
            (
                "passwd is a device",
                Box::new(|root, spec| {
                    fresh(root, "etc/passwd");
                    let (kind, zero) = (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 5));
                    rustix::fs::mknodat(rustix::fs::CWD, root.join("etc/passwd"), kind, 0o644.into(), zero)
                        .unwrap();
                    user(spec);
                }),
            ),
            (
                "passwd is of 100 MB",
                Box::new(|root, spec| {
                    fresh(root, "etc/passwd");
                    fs::File::create(root.join("etc/passwd")).unwrap().set_len(100 << 20).unwrap();
                    user(spec);
                }),
            ),
            (
                "links lead round in a circle",
                Box::new(|root, spec| {
                    symlink("/loop", root.join("loop")).unwrap();
                    spec.process.cwd = "/loop/x".into();
                }),
            ),
        ];
        for (name, harm) in harms {
            let _ = fs::remove_dir_all(stage.path("rootfs"));
            let mut spec = stage.directory_spec(["sh", "-c", "echo inside"]);
            harm(&rootfs(&spec), &mut spec);
            let begun = Instant::now();
            let container = executor.run(spec).await.unwrap();
            let exit = container.wait().await;
            assert!(begun.elapsed() < patience(Duration::from_secs(1)), "{name} took {:?}", begun.elapsed());
            let refused = matches!(&exit.reason, ExitReason::StartFailed(failure)
                if failure.kind != StartFailureKind::RuntimeTimedOut);
            // Where it stays inside, there is nothing wrong with it.
            assert!(refused || exit.status == ExitStatus::Code(0), "{name}: {exit:?}");
            assert_eq!(container.released().await.unwrap(), Vec::<longshore::Leftover>::new(), "{name}");
            assert_eq!(tree(&outside), before, "{name} reached the host");
        }
        // A taken passwd would have made it root.
        assert!(!Path::new("/below").exists());
        stage.finish(executor).await;
    });
}

/// What is the container's own is not covered through a link, and no link of a process leads a mount point elsewhere.
#[test]
fn links_to_what_is_its_own() {
    on_stage(async |stage: Stage| {
        let executor = stage.executor();
        let base = stage.directory_spec(["true"]);
        let (root, data, volume) = (rootfs(&base), stage.path("data"), stage.path("volume"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&volume).unwrap();
        symlink("/proc", volume.join("pp")).unwrap();
        for (name, target) in [
            ("pp", "/proc"),
            ("ss", "sys"),
            ("dd", "/dev"),
            ("far", "pp/../ss"),
            ("mag", "/proc/1/root"),
            ("cw", "/proc/self/cwd"),
            ("sr", "/proc/self/root/newx"),
            ("up", "/proc/thread-self/root/../usr"),
            ("cpus", "/proc/cpuinfo"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        let before = [tree(&root), tree(&data), tree(&volume)];
        let refused = async |spec: ContainerSpec, mount: &Mount, wanted: &[&str]| {
            let failure = start_failure(&executor, spec.mount(mount.clone())).await;
            assert_eq!(failure.kind, StartFailureKind::BadConfig, "{mount}: {failure:?}");
            assert!(wanted.iter().all(|wanted| failure.message.contains(wanted)), "{mount}: {failure:?}");
            assert_eq!([tree(&root), tree(&data), tree(&volume)], before, "{mount}");
        };
        for place in ["/pp", "/./pp/", "/pp/sys/kernel", "/pp/1", "/ss", "/far", "/dd", "/v/pp"] {
            let secret = Mount::secret("x", place, 0o400, (0, 0));
            for mount in [
                Mount::bind(&data, place),
                Mount::bind(&data, place).read_only(),
                Mount::tmpfs(place),
                secret,
            ] {
                let spec = base.clone().mount(Mount::bind(&volume, "/v"));
                refused(spec, &mount, &["it leads to /", "the container's own", &mount.to_string()]).await;
            }
        }
        refused(base.clone(), &Mount::tmpfs("/sys"), &["/sys is the container's own"]).await;
        for place in ["/mag", "/mag/x", "/cw", "/cw/x", "/sr", "/up/x", "/pp/1/root/x", "/pp/self"] {
            for security in [Security::Sandbox, Security::Insecure] {
                let mut spec = base.clone();
                spec.security = security;
                for mount in [Mount::bind(&data, place), Mount::tmpfs(place)] {
                    let named = format!("mount destination: {place}: it leads through /proc/");
                    refused(spec.clone(), &mount, &[&named]).await;
                }
            }
        }
        // What may be replaced by its name may be through a link, and other links are as good as ever.
        let cpus = stage.path("some");
        fs::write(&cpus, "none\n").unwrap();
        let mut fine = base.mount(Mount::bind(&cpus, "/cpus")).mount(Mount::bind(&data, "/dd/shm"));
        let script = "test \"$(cat /proc/cpuinfo; ls /dev/shm)\" = none";
        fine.process.args = ["sh", "-c", script].map(str::to_owned).into();
        let container = executor.run(fine).await.unwrap();
        assert_eq!(container.wait().await.status, ExitStatus::Code(0));
        assert_eq!(container.released().await.unwrap(), Vec::<longshore::Leftover>::new());
        assert_eq!([tree(&root), tree(&data), tree(&volume)], before);
        stage.finish(executor).await;
    });
}

/// A busy unmount never lets removal run through a live mount.
#[test]
fn removal_stops_at_what_is_mounted() {
    on_stage(async |stage: Stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper().id("busy".parse().unwrap())).await.unwrap();
        container.started().await.unwrap();
        let bundle = stage.root().join("containers/busy");
        let precious = stage.path("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "precious").unwrap();
        // Somebody mounts something there that nobody here knows of.
        let point = bundle.join("theirs");
        fs::create_dir(&point).unwrap();
        rustix::mount::mount_bind(&precious, &point).unwrap();
        drop(container.cancel(longshore::Cancel::now()));
        let left = container.released().await.unwrap();
        assert!(left.iter().any(|what| what.path.ends_with("theirs")), "{left:?}");
        assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "precious");
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
        // The end of the executor tries again.
        assert_eq!(
            executor.shutdown(longshore::Cancel::now(), Duration::from_secs(10)).await.left,
            Vec::<longshore::Leftover>::new()
        );
        drop((container, executor));
        assert!(precious.join("file").exists() && !bundle.exists());
        stage.check();
    });
}
