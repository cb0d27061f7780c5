//! How mounts fit together, on the real runtime: one below another, those of the host, those that are read-only, and what is
//! left of their mount points.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use longshore::{Cancel, ContainerSpec, Executor, Mount, Rootfs, UpperLayer};
use longshore_tests::command::longshore;
use longshore_tests::{Stage, on_bare_stage, on_stage, says, shell, sleeper};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

/// A directory of the stage with a file in it that holds the directory's name.
fn volume(stage: &Stage, name: &str) -> PathBuf {
    let dir = stage.path(name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("name"), name).unwrap();
    dir
}

/// Mounts of the test's own on the host.
struct OnHost(Vec<PathBuf>);

impl OnHost {
    /// Mounts a file system in memory at a directory of the stage, with a file in it.
    fn tmpfs(&mut self, point: &Path, name: &str) {
        self.with_flags(point, name, MountFlags::empty());
    }

    fn with_flags(&mut self, point: &Path, name: &str, flags: MountFlags) {
        fs::create_dir_all(point).unwrap();
        mount("longshore-test", point, "tmpfs", flags, None).unwrap();
        self.0.push(point.to_owned());
        fs::write(point.join(name), name).unwrap();
    }

    /// Mounts what no view shows.
    fn ramfs(&mut self, point: &Path) {
        mount("longshore-test", point, "ramfs", MountFlags::empty(), None).unwrap();
        self.0.push(point.to_owned());
    }

    fn bind(&mut self, source: &Path, point: &Path) {
        mount_bind(source, point).unwrap();
        self.0.push(point.to_owned());
    }
}

impl Drop for OnHost {
    fn drop(&mut self) {
        for point in self.0.iter().rev() {
            unmount(point, UnmountFlags::DETACH).unwrap();
        }
    }
}

/// Whichever order they are given in, no mount hides another one.
#[test]
fn volume_order() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let [a, b, c] = ["a", "b", "c"].map(|name| volume(&stage, name));
        let mounts = [
            Mount::bind(&a, "/x"),
            Mount::bind(&b, "/x/y").read_only(),
            Mount::bind(&c, "/x/y/z/"),
            Mount::tmpfs("/x/t"),
        ];
        let script = "cat /x/name /x/y/name /x/y/z/name; touch /x/t/new; ls /x/t";
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            let ordered = order.map(|number| mounts[number].clone());
            for mut spec in [shell(script), stage.directory_spec(["sh", "-c", script])] {
                spec.mounts.extend(ordered.clone());
                assert_eq!(says(&executor, spec).await, "abcnew\n", "{order:?}");
            }
        }
        // Over the volume at /etc there are the files of the container.
        let etc = volume(&stage, "etc");
        fs::write(etc.join("hosts"), "mine").unwrap();
        let spec = shell("cat /etc/name; grep -c localhost /etc/hosts; ls /etc");
        let spec = spec.mount(Mount::bind(&etc, "/etc").read_only());
        assert_eq!(says(&executor, spec).await, "etc2\nhosts\nname\nresolv.conf\n");
        // A link leads to where one is mounted.
        let mut spec = stage.directory_spec(["sh", "-c", "cat /x/name /x/y/name /link/name"]);
        symlink("/x", stage.path("rootfs/link")).unwrap();
        spec.mounts.extend([Mount::bind(&b, "/link/y"), Mount::bind(&a, "/x")]);
        assert_eq!(says(&executor, spec).await, "aba");
        let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
        longshore_tests::until("the stubs", || [&a, &b, &c].iter().all(|dir| names(dir) == 1)).await;
        longshore_tests::until("the stubs", || names(&etc) == 2).await;
        assert_eq!(fs::read(etc.join("hosts")).unwrap(), b"mine");
        stage.finish(executor).await;
    });
}

/// A view of the host has what is mounted on the host, and lets no writes out.
#[test]
fn host_mounts() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut on_host = OnHost(Vec::new());
        let dir = stage.path("dir");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("beneath"), "beneath").unwrap();
        on_host.tmpfs(&dir, "outer");
        std::os::unix::fs::chown(&dir, Some(1000), Some(1001)).unwrap();
        on_host.tmpfs(&dir.join("in/ner"), "inner");
        let (file, over) = (stage.path("file"), dir.join("over"));
        fs::write(&file, "file").unwrap();
        fs::write(&over, "beneath").unwrap();
        on_host.bind(&file, &over);
        // What lies beneath a mount that is not shown.
        let withheld = dir.join("with/held");
        fs::create_dir_all(withheld.join("beneath")).unwrap();
        on_host.ramfs(&withheld);
        let held = stage.path("held");
        fs::create_dir_all(held.join("beneath")).unwrap();
        on_host.ramfs(&held);
        // One at which two are mounted.
        on_host.tmpfs(&stage.path("twice"), "first");
        on_host.tmpfs(&stage.path("twice"), "second");
        // A container of another executor has secrets.
        let other =
            executor.run(sleeper().mount(Mount::secret("secret", "/token", 0o400, (0, 0)))).await.unwrap();
        other.started().await.unwrap();
        let script = format!(
            "cd {0}; ls; stat -c %u:%g .; cat in/ner/inner over; echo; ls ../twice with/held ../held
             echo x > in/ner/new && echo x > outer && cat in/ner/new outer; echo x 2>/dev/null > over || echo read-only
             ls {1} 2>/dev/null || true",
            dir.display(),
            stage.root().display()
        );
        let said = says(&executor, shell(&script)).await;
        assert_eq!(
            said,
            "in\nouter\nover\nwith\n1000:1001\ninnerfile\n../held:\n\n../twice:\nsecond\n\nwith/held:\nx\nx\nread-only\n"
        );
        assert_eq!(fs::read(dir.join("outer")).unwrap(), b"outer");
        assert!(!dir.join("in/ner/new").exists());
        // A file that was replaced is what editors and package managers leave. The kernel does not mount it again.
        fs::write(dir.join("new"), "replaced").unwrap();
        fs::rename(dir.join("new"), &file).unwrap_or_else(|_| fs::remove_file(&file).unwrap());
        let said = says(&executor, shell(&format!("cd {}; stat -c %s over; cat outer", dir.display()))).await;
        assert_eq!(said, "0\nouter");
        let script = format!(
            "cd {}; for at in / . in in/ner ../twice; do touch $at/x 2>/dev/null || echo read-only; done; cat v/name",
            dir.display()
        );
        let spec = shell(&script).read_only().mount(Mount::bind(volume(&stage, "v"), dir.join("v")));
        assert_eq!(says(&executor, spec).await, "read-only\n".repeat(5) + "v");
        // So has one with a root that is known by its mounts only.
        let elsewhere = stage.path("elsewhere");
        let another = Executor::builder(stage.runtime().build().unwrap()).root(&elsewhere).build().unwrap();
        let running = another.run(sleeper()).await.unwrap();
        running.started().await.unwrap();
        let said =
            says(&executor, shell(&format!("ls {} 2>/dev/null || echo hidden", elsewhere.display()))).await;
        assert_eq!(said, "hidden\n");
        let _ended = another.shutdown(Cancel::now(), Duration::from_secs(30)).await;
        drop(running);
        other.cancel(Cancel::now()).await;
        other.released().await.unwrap();
        drop((other, on_host));
        stage.finish(executor).await;
    });
}

/// What the host does not allow on a file system, a container that sees its files is not allowed there either.
#[test]
fn flags_of_host_mounts() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut on_host = OnHost(Vec::new());
        let all = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSYMFOLLOW;
        let dir = stage.path("withheld");
        on_host.with_flags(&dir, "name", all);
        let (file, over) = (dir.join("file"), stage.path("over"));
        fs::write(&file, "file").unwrap();
        fs::write(&over, "").unwrap();
        on_host.bind(&file, &over);
        let flags = |at: &Path| format!("grep ' {} ' /proc/self/mounts;", at.display());
        let has = |said: &str, count: usize, words: &[&str]| {
            assert_eq!(said.lines().count(), count, "{said}");
            let has = |line: &str, word: &&str| line.split([' ', ',']).any(|one| one == *word);
            assert!(said.lines().all(|line| words.iter().all(|word| has(line, word))), "{said}");
        };
        let names = ["nosuid", "nodev", "noexec"];
        let script = flags(&dir) + &flags(&over);
        has(&says(&executor, shell(&script)).await, 2, &[&names[..], &["nosymfollow"]].concat());
        let mut insecure = shell(&script);
        insecure.security = longshore::Security::Insecure;
        has(&says(&executor, insecure).await, 2, &names);
        has(&says(&executor, shell(&script).read_only()).await, 2, &[&names[..], &["ro"]].concat());

        // A read-only volume is remounted by the runtime, also one with a mount of the container's in it.
        fs::create_dir(dir.join("in")).unwrap();
        let at = Path::new("/v");
        for volume in [Mount::bind(&dir, at), Mount::bind(&dir, at).read_only()] {
            let plain = shell(&flags(at)).mount(volume.clone());
            has(&says(&executor, plain).await, 1, &names);
            let nested = shell(&flags(at)).mount(volume.clone()).mount(Mount::tmpfs("/v/in"));
            has(&says(&executor, nested).await, 1, &names);
        }
        let asked = Mount::bind(&dir, at).read_only().option("exec");
        has(&says(&executor, shell(&flags(at)).mount(asked)).await, 1, &["nosuid", "nodev", "ro"]);

        // What is read-only stays so, whatever else it is.
        for flags in [MountFlags::empty(), MountFlags::NOSUID | MountFlags::NODEV] {
            let source = volume(&stage, &format!("source-{}", flags.bits()));
            let shown = stage.path(&format!("shown-{}", flags.bits()));
            fs::create_dir(&shown).unwrap();
            on_host.bind(&source, &shown);
            rustix::mount::mount_remount(&shown, MountFlags::BIND | MountFlags::RDONLY | flags, "").unwrap();
            for mounted in [Mount::bind(&shown, "/v"), Mount::bind(&shown, "/v").option("suid")] {
                let script = "touch /v/new 2>/dev/null && echo written || echo read-only";
                assert_eq!(says(&executor, shell(script).mount(mounted)).await, "read-only\n");
            }
            assert!(!source.join("new").exists());
        }

        // A set-uid program, and a layer.
        let nosuid = stage.path("nosuid");
        on_host.with_flags(&nosuid, "name", MountFlags::NOSUID);
        let program = nosuid.join("scat");
        fs::copy("/bin/cat", &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(stage.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let mut spec = shell(&format!("{} /etc/shadow 2>/dev/null || echo denied", program.display()));
        spec.process.user = Some("1000".to_owned());
        assert_eq!(says(&executor, spec).await, "denied\n");
        drop(stage.directory_spec(["true"]));
        let copied = Command::new("cp").arg("-a").arg(stage.path("rootfs")).arg(&nosuid).status().unwrap();
        assert!(copied.success());
        // A layer of data says nothing of the programs of another.
        let data = stage.path("data");
        on_host.with_flags(&data, "name", all);
        for (lower, own) in [
            (vec![nosuid.join("rootfs")], &["nosuid", "rw"][..]),
            (vec![nosuid.join("rootfs"), data.clone()], &["nosuid", "rw"]),
            (vec![data, stage.path("rootfs")], &["rw"]),
        ] {
            let rootfs = Rootfs::Overlay { lower, upper: None };
            let spec = ContainerSpec::new(rootfs, ["sh", "-c", &flags(Path::new("/"))]);
            let spec = spec.mount(Mount::bind("/usr", "/usr").read_only());
            // crun mounts the root once more, without them.
            let expected = if longshore_tests::on_runc() { own } else { &["rw"] };
            has(&says(&executor, spec.clone()).await, 1, expected);
            has(&says(&executor, spec.read_only()).await, 1, &["ro"]);
        }
        drop(on_host);
        stage.finish(executor).await;
    });
}

/// What is read-only is so all the way down.
#[test]
fn ro_below() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut on_host = OnHost(Vec::new());
        let volume = volume(&stage, "volume");
        on_host.tmpfs(&volume.join("below"), "a");
        on_host.tmpfs(&volume.join("below/further"), "b");
        let script = |dir: &str| {
            format!(
                "cd {dir}; cat below/a below/further/b
                 for at in . below below/further; do touch $at/x 2>/dev/null && echo wrote || echo -n ' read-only'; done"
            )
        };
        let all = "ab read-only read-only read-only";
        let spec = |script: &str| shell(script).mount(Mount::bind(&volume, "/v").read_only());
        assert_eq!(says(&executor, spec(&script("/v"))).await, all);
        let nested = spec(&script("/v")).mount(Mount::tmpfs("/v/below/t"));
        assert_eq!(says(&executor, nested).await, all);
        let selected = shell(script("/v/.").as_str())
            .mount(Mount::bind_below(stage.path(""), "volume", "/v").read_only());
        assert_eq!(says(&executor, selected).await, all);
        let writable = shell("touch /v/x /v/below/x /v/below/further/x && rm /v/x /v/below/x && echo wrote");
        assert_eq!(says(&executor, writable.mount(Mount::bind(&volume, "/v"))).await, "wrote\n");

        let mut spec = stage.directory_spec(["sh", "-c", script("/").as_str()]).read_only();
        on_host.tmpfs(&stage.path("rootfs/below"), "a");
        on_host.tmpfs(&stage.path("rootfs/below/further"), "b");
        let one = stage.path("rootfs/one");
        fs::write(&one, "").unwrap();
        on_host.bind(&volume.join("name"), &one);
        assert_eq!(says(&executor, spec.clone()).await, all);
        // A volume is writable if it is not asked to be otherwise, also there.
        spec.process.args = [
            "sh",
            "-c",
            "echo x > /below/new/x && echo wrote; cat /below/a; echo x > /one || echo -n ' read-only'",
        ]
        .map(str::to_owned)
        .to_vec();
        let spec = spec.mount(Mount::bind(stage.path("volume"), "/below/new"));
        assert_eq!(says(&executor, spec).await, "wrote\na read-only");
        assert_eq!(fs::read(volume.join("name")).unwrap(), b"volume");
        longshore_tests::until("the stubs", || !stage.path("rootfs/below/new").exists()).await;
        drop(on_host);
        stage.finish(executor).await;
    });
}

/// No layer is left out, however many there are and whatever their names.
#[test]
fn layers() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let base = stage.path("rootfs");
        drop(stage.directory_spec(["true"]));
        let strange = |name: &str| stage.path(&format!("a,b:c\\\\{}", name.repeat(20)));
        let mut lower: Vec<_> = (0..299).map(|number| strange(&format!("layer-{number:03}"))).collect();
        for (number, layer) in lower.iter().enumerate() {
            fs::create_dir(layer).unwrap();
            fs::write(layer.join(format!("of-{number:03}")), "").unwrap();
        }
        fs::write(base.join("of-the-lowest"), "").unwrap();
        lower.push(base);
        let (upper, work) = (strange("upper"), strange("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        for upper in [None, Some(UpperLayer { dir: upper.clone(), work })] {
            let rootfs = Rootfs::Overlay { lower: lower.clone(), upper };
            let script = "ls / | grep -c ^of-; ls /of-the-lowest; echo written > /written";
            let mut spec = ContainerSpec::new(rootfs, ["sh", "-c", script]);
            spec.mounts.push(Mount::bind("/usr", "/usr").read_only());
            assert_eq!(says(&executor, spec).await, "300\n/of-the-lowest\n");
        }
        assert_eq!(fs::read(upper.join("written")).unwrap(), b"written\n");
        stage.finish(executor).await;
    });
}

/// A working directory that is missing belongs to the user of the process, wherever it is.
#[test]
fn cwd_owner() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let src = volume(&stage, "src");
        let in_layers = Rootfs::Overlay { lower: vec![stage.path("rootfs")], upper: None };
        let script = "pwd; stat -c %u:%g:%a . ..; touch x && echo written";
        for (cwd, above) in
            [("/src/new", "0:0:755"), ("/src/a/b", "1000:1001:755"), ("/tmpfs/new", "0:0:1777")]
        {
            for rootfs in [Rootfs::Host, stage.directory_spec(["true"]).rootfs, in_layers.clone()] {
                let mut spec = ContainerSpec::new(rootfs, ["sh", "-c", script]).user("1000:1001");
                if spec.rootfs != Rootfs::Host {
                    spec.mounts.push(Mount::bind("/usr", "/usr").read_only());
                }
                let tmpfs = Mount::tmpfs("/tmpfs").option("size=1m");
                spec.mounts.extend([Mount::bind(&src, "/src"), tmpfs, Mount::bind(&src, "/tmpfs/v")]);
                spec.process.cwd = cwd.into();
                let expected = format!("{cwd}\n1000:1001:755\n{above}\nwritten\n");
                assert_eq!(says(&executor, spec).await, expected, "{cwd}");
            }
            let made = fs::read_dir(&src).unwrap().flatten().map(|entry| entry.path());
            made.filter(|path| path.is_dir()).for_each(|dir| fs::remove_dir_all(dir).unwrap());
        }
        // A link in the root file system leads into the volume.
        symlink("/src/in", stage.path("rootfs/link")).unwrap();
        let mut linked =
            stage.directory_spec(["sh", "-c", script]).user("1000:1001").mount(Mount::bind(&src, "/src"));
        linked.process.cwd = "/link/new".into();
        let expected = "/src/in/new\n1000:1001:755\n1000:1001:755\nwritten\n";
        assert_eq!(says(&executor, linked).await, expected);
        // What is there stays as it is.
        let mut there = shell("stat -c %u .").mount(Mount::bind(&src, "/src")).user("1000:1001");
        there.process.cwd = "/src".into();
        assert_eq!(says(&executor, there.clone()).await, "0\n");
        // Nothing is made in a volume that is read-only.
        there.mounts = vec![Mount::bind(&src, "/src").read_only()];
        there.process.cwd = "/src/new".into();
        longshore_tests::start_failure(&executor, there).await;
        assert!(!src.join("new").exists());
        stage.finish(executor).await;
    });
}

/// The host's resolv.conf has what resolv.conf(5) allows, and more.
#[test]
fn resolv() {
    on_bare_stage(|stage| {
        let conf = stage.path("resolv.conf");
        let script = format!(
            "mount --make-rprivate / && mount --bind {} /etc/resolv.conf && exec \"$@\"",
            conf.display()
        );
        let said = |text: &[u8]| {
            fs::write(&conf, text).unwrap();
            let mut command = std::process::Command::new("unshare");
            command.args(["--mount", "sh", "-c", &script, "sh"]).arg(longshore(&stage.root()).get_program());
            command.arg("--root").arg(stage.root()).args([
                "run",
                "--net",
                "none",
                "--",
                "cat",
                "/etc/resolv.conf",
            ]);
            let output = command.output().unwrap();
            assert_eq!((output.stderr, output.status.code()), (Vec::new(), Some(0)));
            String::from_utf8(output.stdout).unwrap()
        };
        let host = b"; caf\xe9\nnameserver 10.0.0.1 # primary\ndomain d\nsearch a b\nsearch c\nnameserver 127.0.0.1\n";
        assert_eq!(said(host), "nameserver 10.0.0.1\nsearch c\n");
        let none = said(b"nameserver 127.0.0.1\ndomain d\n");
        assert!(
            none.starts_with("# No server") && none.ends_with("search d\n") && !none.contains("nameserver"),
            "{none}"
        );
        stage.check();
    });
}

/// The paths in a root file system.
fn all_in(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(all_in(&entry.path()));
        }
        all.push(entry.path());
    }
    all.sort();
    all
}

/// Nothing is left of mount points, whichever process ends last, and wherever links lead.
#[test]
fn stubs_left() {
    on_bare_stage(|stage| {
        drop(stage.directory_spec(["true"]));
        let rootfs = stage.path("rootfs");
        symlink("../run/systemd/resolve/stub-resolv.conf", rootfs.join("etc/resolv.conf")).unwrap();
        let data = volume(&stage, "data");
        let before = [all_in(&rootfs), all_in(&data)];
        let begin = |root: &str, go: &str, volumes: &[&str]| -> Child {
            let mut command = longshore(&stage.path(root));
            command.args(["run", "--remove-stub-parents", "-v", "/usr:/usr:ro", "--rootfs"]).arg(&rootfs);
            for point in volumes {
                command.arg("-v").arg(format!("{}:{point}", data.display()));
            }
            let script = format!(
                "grep -c localhost /etc/hosts && : < /etc/resolv.conf; until test -e /{go}; do sleep 0.02; done; test -d /proc/self"
            );
            let mut child = command.args(["--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
            child
        };
        let end = |mut child: Child, go: &str| {
            fs::write(rootfs.join(go), "").unwrap();
            assert!(child.wait().unwrap().success(), "{go}");
        };
        for other_root in ["root", "other"] {
            for is_first_last in [false, true] {
                let first = begin("root", "a", &["/x/of/first", "/both"]);
                let second = begin(other_root, "b", &["/x/of/second", "/both", "/link"]);
                let third = begin(other_root, "c", &["/etc"]);
                let ends = if is_first_last {
                    [(second, "b"), (third, "c"), (first, "a")]
                } else {
                    [(first, "a"), (second, "b"), (third, "c")]
                };
                for (child, go) in ends {
                    end(child, go);
                }
                for go in ["a", "b", "c"] {
                    fs::remove_file(rootfs.join(go)).unwrap();
                }
                assert_eq!([all_in(&rootfs), all_in(&data)], before, "{other_root} {is_first_last}");
            }
        }
        // Without being asked to remove more, too, where nobody has asked for the mount.
        let mut command = longshore(&stage.root());
        command
            .args(["run", "-v", "/usr:/usr:ro", "--mount", "type=tmpfs,dst=/dev,mode=755", "--rootfs"])
            .arg(&rootfs);
        let said = command
            .args(["--", "sh", "-c", "test -c /dev/null && test -d /dev/pts && ls /dev/shm"])
            .output()
            .unwrap();
        assert_eq!((said.stdout, said.stderr), (Vec::new(), Vec::new()));
        assert_eq!([all_in(&rootfs), all_in(&data)], before);
        stage.check();
    });
}

/// A tmpfs has the mode that it is asked for, or 1777, also where a directory of another mode is.
#[test]
fn tmpfs_mode() {
    use std::os::unix::fs::PermissionsExt;
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut base = stage.directory_spec(["sh", "-c", "stat -c %a:%u:%g /x"]);
        let there = stage.path("rootfs/x");
        fs::create_dir_all(there.join("kept")).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o711)).unwrap();
        let volume = volume(&stage, "v");
        fs::create_dir(volume.join("x")).unwrap();
        fs::set_permissions(volume.join("x"), fs::Permissions::from_mode(0o710)).unwrap();
        let tmpfs =
            |options: &[&str]| options.iter().fold(Mount::tmpfs("/x"), |tmpfs, one| tmpfs.option(*one));
        for (options, expected) in [
            (&["mode=700"][..], "700:0:0\n"),
            (&["mode=1777"], "1777:0:0\n"),
            (&["mode=0750", "uid=5", "gid=6", "size=64k"], "750:5:6\n"),
            (&[], "1777:0:0\n"),
        ] {
            assert_eq!(says(&executor, base.clone().mount(tmpfs(options))).await, expected, "{options:?}");
            assert_eq!(says(&executor, base.clone().mount(tmpfs(options).read_only())).await, expected);
            let within = base.clone().mount(tmpfs(options)).cwd("/x/in");
            assert_eq!(says(&executor, within).await, expected, "with a directory in it: {options:?}");
        }
        let map = longshore::IdMap::both(vec!["0:100000:65536".parse().unwrap()]);
        let mut mapped = base.clone().mount(tmpfs(&["mode=750", "uid=5"]));
        mapped.id_map = Some(map);
        assert_eq!(says(&executor, mapped).await, "750:5:0\n");
        base.process.args[2] = "stat -c %a /v/x /v/y; ls /x/y".into();
        let below =
            base.mount(Mount::bind(&volume, "/v")).mount(Mount::tmpfs("/v/x")).mount(Mount::tmpfs("/v/y"));
        let below = below.mount(tmpfs(&["mode=700"])).mount(Mount::bind(&volume, "/x/y"));
        assert_eq!(says(&executor, below).await, "1777\n1777\nname\nx\ny\n");
        assert!(there.join("kept").exists());
        stage.finish(executor).await;
    });
}
