//! What executors share: a root, a parent of cgroups; and mounts that others make among an executor's files.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use longshore::{Cancel, CgroupParent, EventKind, Executor, Notice};
use longshore_tests::command::{Outcome, call, longshore};
use longshore_tests::{HUNG, on_bare_stage, on_stage, shell, sleeper};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

/// For how long `shared_root` runs, in seconds.
const SECONDS: &str = "LONGSHORE_SHARED_SECONDS";

/// Ten executors in processes of their own open one root, run, close, and are killed, again and again. What is not killed
/// succeeds.
#[test]
fn shared_root() {
    let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(10);
    on_bare_stage(|stage| {
        let root = stage.root();
        let end = Instant::now() + Duration::from_secs(seconds);
        let counts: Vec<(u32, u32)> = thread::scope(|scope| {
            let ours = (0..10).map(|seed| {
                scope.spawn({
                    let root = &root;
                    move || open_run_and_close(root, seed, end)
                })
            });
            ours.collect::<Vec<_>>().into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (ended, killed) = counts.into_iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        println!("{ended} runs succeeded, {killed} embedders were killed, in {seconds} s");
        let least = |usual| u32::try_from(longshore_tests::amount(usual)).unwrap();
        assert!(ended > least(10) && killed > least(3), "{ended} {killed}");
        let swept = call(&root, &["sweep"]);
        assert_eq!(swept.code, Some(0), "{swept:?}");
        let left = fs::read_dir(&root).map_or(0, Iterator::count);
        assert_eq!(left, 0, "files are left in the root");
        stage.check();
    });
}

/// Returns how many runs have succeeded, and how many embedders were killed.
fn open_run_and_close(root: &Path, seed: u64, end: Instant) -> (u32, u32) {
    let (mut rng, mut counts) = (Rng::with_seed(seed), (0, 0));
    while Instant::now() < end {
        let code = rng.u8(1..100);
        let mut command = longshore(root);
        command.args(["run", "--", "sh", "-c", &format!("exit {code}")]).stdin(Stdio::null());
        if rng.u8(0..4) > 0 {
            let outcome: Outcome = command.output().unwrap().into();
            assert_eq!((outcome.code, &*outcome.stderr), (Some(code.into()), ""), "after {counts:?}");
            counts.0 += 1;
            continue;
        }
        let mut killed = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // When it is killed is what varies here.
        thread::sleep(Duration::from_millis(rng.u64(0..300)));
        killed.kill().unwrap();
        let _status = killed.wait().unwrap();
        counts.1 += 1;
    }
    counts
}

/// From linux/magic.h.
const CGROUP: i64 = 0x0027_e0eb;
const CGROUP2: i64 = 0x6367_7270;

/// The hierarchies of cgroups.
fn hierarchies() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if top.join("cgroup.controllers").exists() {
        return vec![top.to_owned()];
    }
    let entries = fs::read_dir(top).unwrap().map(|entry| entry.unwrap());
    let dirs = entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path());
    // A hierarchy may be hidden.
    let is_mounted = |dir: &PathBuf| {
        let kind = rustix::fs::statfs(dir).unwrap().f_type;
        kind == CGROUP || kind == CGROUP2
    };
    dirs.filter(is_mounted).collect()
}

/// Where a cgroup exists, and its limits there.
fn found(name: &str) -> Vec<(PathBuf, Option<String>)> {
    let dirs = hierarchies().into_iter().map(|hierarchy| hierarchy.join(name)).filter(|dir| dir.exists());
    dirs.map(|dir| (dir.clone(), fs::read_to_string(dir.join("pids.max")).ok())).collect()
}

/// Removes a cgroup of the test's, also when the test fails.
struct Parent<'a>(&'a str);

impl Drop for Parent<'_> {
    fn drop(&mut self) {
        for (dir, _) in found(self.0) {
            let _busy = fs::remove_dir(dir);
        }
    }
}

/// A cgroup parent of the caller's, which exists in some hierarchies and has a limit, is used twice.
#[test]
fn shared_parent() {
    on_bare_stage(|stage| {
        let name = format!("longshore-test-parent-{}", std::process::id());
        let all = hierarchies();
        let some = all.iter().filter(|hierarchy| {
            all.len() == 1 || hierarchy.ends_with("pids") || hierarchy.ends_with("memory")
        });
        for hierarchy in some {
            fs::create_dir(hierarchy.join(&name)).unwrap();
            let limit = hierarchy.join(&name).join("pids.max");
            if limit.exists() {
                fs::write(limit, "77").unwrap();
            }
        }
        let before = found(&name);
        let removed = Parent(&name);
        assert!(before.iter().any(|(_, limit)| limit.as_deref() == Some("77\n")), "{before:?}");
        for round in 0..2 {
            let mut command = longshore(&stage.root());
            command.args(["run", "--cgroup-parent", &format!("/{name}"), "--", "cat", "/proc/self/cgroup"]);
            let outcome: Outcome = command.output().unwrap().into();
            assert_eq!(outcome.code, Some(0), "{outcome:?}");
            assert_eq!(found(&name), before, "after round {round}");
        }
        drop(removed);
        stage.check();
    });
}

/// Two executors on a root share a cgroup parent that neither has found. The one that made it ends first.
#[test]
fn shared_parent_outlives_its_maker() {
    on_stage(async |stage| {
        let name = format!("longshore-test-parent-{}", std::process::id());
        let spec = |script: &str| {
            let mut spec = shell(script);
            spec.cgroup_parent = Some(CgroupParent::Path(format!("/{name}")));
            spec
        };
        let (maker, other) = (stage.executor(), stage.executor());
        assert!(maker.run(spec("true")).await.unwrap().wait().await.is_success());
        let runs = other.run(spec("sleep 1000")).await.unwrap();
        runs.started().await.unwrap();
        let report = maker.shutdown(Cancel::now(), HUNG).await;
        assert_eq!(report, longshore::ShutdownReport::default());
        assert!(!found(&name).is_empty());
        runs.cancel(Cancel::now()).await;
        assert!(other.run(spec("true")).await.unwrap().wait().await.is_success(), "the parent is there");
        drop(maker);
        other.shutdown(Cancel::now(), HUNG).await;
        assert_eq!(found(&name), [], "the last one removes it");
        drop(runs);
        stage.finish(other).await;
    });
}

/// A directory of the host's that is bound among the files of a container.
struct Bound {
    theirs: PathBuf,
    point: PathBuf,
}

impl Bound {
    /// Below the runtime's state of the container, and with a file in it.
    fn new(theirs: PathBuf, root: &Path, id: &str) -> Self {
        let point = root.join("runtime").join(id).join("x");
        fs::create_dir_all(&theirs).unwrap();
        fs::write(theirs.join("file"), "theirs").unwrap();
        fs::create_dir(&point).unwrap();
        mount_bind(&theirs, &point).unwrap();
        Self { theirs, point }
    }

    fn is_intact(&self) -> bool {
        fs::read_to_string(self.theirs.join("file")).is_ok_and(|text| text == "theirs")
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _none = unmount(&self.point, UnmountFlags::DETACH);
    }
}

/// What a release has left of a container.
async fn left_by_release(executor: &Executor, id: &longshore::ContainerId) -> Vec<String> {
    let mut events = executor.events();
    let released = async {
        loop {
            if let Some(Notice::Event(event)) = events.next().await
                && event.container == *id
                && let EventKind::Released { left } = event.kind
            {
                return left.iter().map(ToString::to_string).collect();
            }
        }
    };
    tokio::time::timeout(HUNG, released).await.unwrap()
}

/// A mount below the runtime's state of a container is not removed through, and told.
#[test]
fn through_a_mount() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        container.started().await.unwrap();
        let id = container.id().clone();
        let bound = Bound::new(stage.path("theirs"), &stage.root(), id.as_str());
        let (_, left) = tokio::join!(container.cancel(Cancel::now()), left_by_release(&executor, &id));
        assert!(bound.is_intact(), "the host's file was removed");
        assert!(left.iter().any(|left| left.contains("/x")), "{left:?}");
        drop((container, bound));
        executor.shutdown(Cancel::now(), HUNG).await;
        drop(executor);
        let again = stage.executor();
        stage.finish(again).await;
    });
}

/// The same, when a sweep removes what a dead embedder has left.
#[test]
fn through_a_mount_in_a_sweep() {
    on_bare_stage(|stage| {
        let root = stage.root();
        let mut command = longshore(&root);
        command.args(["run", "--id", "held", "--", "sleep", "1000"]).stdin(Stdio::null());
        let mut embedder = command.stdout(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        let state = root.join("runtime/held");
        while !["state.json", "status"].iter().any(|file| state.join(file).exists()) {
            assert!(began.elapsed() < HUNG, "it does not start");
            thread::sleep(Duration::from_millis(5));
        }
        let bound = Bound::new(stage.path("theirs"), &root, "held");
        embedder.kill().unwrap();
        embedder.wait().unwrap();
        let sweep = || call(&root, &["sweep"]);
        let swept = sweep();
        assert!(bound.is_intact(), "the host's file was removed");
        assert!(swept.code != Some(0) && swept.stderr.contains("/x"), "{swept:?}");
        drop(bound);
        let swept = sweep();
        assert_eq!((swept.code, fs::read_dir(&root).map_or(0, Iterator::count)), (Some(0), 0), "{swept:?}");
        stage.check();
    });
}

/// A configuration of the caller's, from one of ours that `change` has changed.
fn configured(
    stage: &longshore_tests::Stage,
    change: impl FnOnce(&mut serde_json::Value),
) -> longshore::ContainerSpec {
    let mut printed = longshore(&stage.root());
    printed.args(["spec", "--", "cat", "/proc/self/status"]);
    let mut config: serde_json::Value = serde_json::from_slice(&printed.output().unwrap().stdout).unwrap();
    change(&mut config);
    let bundle = stage.path("bundle");
    fs::create_dir_all(&bundle).unwrap();
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let mut spec = longshore::ContainerSpec::from_config(&bundle).unwrap();
    spec.rootfs = longshore::Rootfs::Host;
    spec
}

/// A configuration that leaves the container in the host's namespaces, or shares its mounts with the host.
#[test]
fn host_namespaces() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let kinds = ["mount", "pid", "network", "ipc", "uts"];
        let without = |kind: &str| {
            configured(&stage, |config| {
                let all = config["linux"]["namespaces"].as_array_mut().unwrap();
                all.retain(|namespace| namespace["type"] != kind);
                // The runtime sets a host name in a namespace of the container's only.
                config.as_object_mut().unwrap().retain(|key, _| key != "hostname" || kind != "uts");
            })
        };
        let shared = || configured(&stage, |config| config["linux"]["rootfsPropagation"] = "shared".into());
        for (what, spec) in kinds.iter().map(|kind| (*kind, without(kind))).chain([("Propagation", shared())])
        {
            let exit = executor.run(spec).await.unwrap().wait().await;
            let longshore::ExitReason::StartFailed(failure) = &exit.reason else {
                panic!("{what}: {exit:?}")
            };
            assert_eq!(failure.kind, longshore::StartFailureKind::BadConfig, "{what}: {failure:?}");
            assert!(failure.message.contains(what), "{what}: {failure:?}");
        }
        assert!(executor.run(configured(&stage, |_| {})).await.unwrap().wait().await.is_success());
        for kind in ["pid", "network", "ipc", "uts"] {
            let mut spec = without(kind);
            spec.allow_host_namespaces = true;
            let exit = executor.run(spec).await.unwrap().wait().await;
            assert!(exit.is_success(), "{kind}: {exit:?}");
        }
        let mut spec = without("mount");
        spec.allow_host_namespaces = true;
        assert!(
            !executor.run(spec).await.unwrap().wait().await.is_success(),
            "nothing allows the host's mounts"
        );
        // Without a pid namespace the kernel does not end what init leaves behind.
        let mut spec = without("pid");
        spec.allow_host_namespaces = true;
        spec.process.args =
            ["sh", "-c", "setsid sleep 987 & setsid sleep 987 & exit 3"].map(str::to_owned).into();
        assert_eq!(executor.run(spec).await.unwrap().wait().await.status, longshore::ExitStatus::Code(3));
        stage.finish(executor).await;
    });
}

/// A configuration that shares its mounts with the host: what the program mounts in a volume stays, and is told.
#[test]
fn mounts_that_stay_on_the_host() {
    on_bare_stage(|stage| {
        drop(configured(&stage, |config| config["linux"]["rootfsPropagation"] = "shared".into()));
        let (root, volume) = (stage.root(), stage.path("volume"));
        fs::create_dir_all(volume.join("x")).unwrap();
        let longshore = longshore(&root);
        let program = longshore.get_program().to_str().unwrap();
        let runtime =
            longshore_tests::named_runtime().map(|name| format!("--runtime={name}")).unwrap_or_default();
        // In a mount namespace of the test's own, whose mounts propagate as they do on most hosts.
        let script = format!(
            "mount --make-rshared / && L='{program} --root {}' && \
             $L {runtime} run --config {} --rootfs host --allow-host-namespaces --seccomp unconfined --cap-add SYS_ADMIN \
                 -v {volume}:/v -- mount -t tmpfs none /v/x; \
             echo $?; $L sweep; echo $?; umount {volume}/x && $L sweep; echo $?; ls {}",
            root.display(),
            stage.path("bundle").display(),
            root.display(),
            volume = volume.display(),
        );
        let outcome: Outcome = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .output()
            .unwrap()
            .into();
        println!("{outcome:?}");
        let point = format!("{}/x", volume.display());
        assert_eq!(outcome.stderr.matches(&point).count(), 2, "{outcome:?}");
        assert!(outcome.stdout.ends_with("0\n"), "{outcome:?}");
        stage.check();
    });
}
