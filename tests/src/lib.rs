//! The harness of the tests on the real runtime: a stage for each test, and a count of what is left
//! when it is over.
//!
//! [`on_stage`] gives a test a root directory of its own, and runs one test at a time within a test
//! program: what is counted (children, cgroups, mounts, files, namespaces, file descriptors) is
//! counted for the whole process. [`Stage::finish`] is the last line of every such test.

pub mod chaos;
pub mod command;
pub mod contract;
pub mod leftovers;
pub mod soak;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use leftovers::Leftovers;
use longshore::runtime::{CANDIDATES, Mode, RuncBuilder, find_runtime};
use longshore::{
    ContainerHandle, ContainerId, ContainerSpec, Event, EventOrder, Executor, Mount, Notice, Rootfs,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How long anything may take in a test before it counts as hung.
pub const HUNG: Duration = Duration::from_secs(60);

/// A root directory, and what there was before the test.
pub struct Stage {
    dir: TempDir,
    before: Leftovers,
}

/// Runs a test on a stage, on an ordinary tokio runtime with several threads.
pub fn on_stage<F: Future<Output = ()>>(test: impl FnOnce(Stage) -> F) {
    in_turn(|stage| runtime().block_on(async { test(stage()).await }));
}

/// Runs a test that brings its own runtime, or none.
pub fn on_bare_stage(test: impl FnOnce(Stage)) {
    in_turn(|stage| test(stage()));
}

fn in_turn(test: impl FnOnce(fn() -> Stage)) {
    let _turn: MutexGuard<'static, ()> = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // What libraries open once for the whole process shall not count as left by the first test.
    static WARM: Once = Once::new();
    WARM.call_once(|| {
        let stage = Stage::new();
        runtime().block_on(async {
            let executor = stage.executor();
            if let Ok(container) = executor.run(ContainerSpec::host(["true"])).await {
                container.wait().await;
            }
            executor.shutdown(longshore::Cancel::now(), HUNG).await;
        });
    });
    test(Stage::new);
}

/// An ordinary tokio runtime with several threads.
///
/// # Panics
/// When there is none to be had.
#[expect(clippy::expect_used, reason = "a test cannot go on without")]
pub fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a tokio runtime")
}

impl Stage {
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    fn new() -> Self {
        runtime_program();
        let dir = TempDir::with_prefix("longshore-test-").expect("a directory for the test");
        let before = Leftovers::count(dir.path());
        Self { dir, before }
    }

    /// The executors' root.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A path for a file of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An executor on this stage's root.
    pub fn executor(&self) -> Executor {
        self.executor_on(self.runtime())
    }

    /// The runtime that tests run on.
    pub fn runtime(&self) -> RuncBuilder {
        runtime_under_test(longshore::runc())
    }

    /// An executor that keeps the runtime in the foreground.
    pub fn foreground_executor(&self) -> Executor {
        self.executor_on(self.runtime().mode(Mode::Foreground))
    }

    /// An executor on this stage's root, with this runtime.
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    pub fn executor_on(&self, runtime: RuncBuilder) -> Executor {
        let runtime = runtime.build().expect("a runtime");
        Executor::builder(runtime).root(self.root()).build().expect("an executor")
    }

    /// A runtime of the test's own: a shell script around the real one, which is `$RUNC` in it.
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    pub fn wrapper(&self, script: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let runc = runtime_program();
        let path = self.path("wrapper");
        fs::write(&path, format!("#!/bin/bash\nRUNC={}\n{script}\n", runc.display())).expect("a wrapper");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a wrapper");
        path
    }

    /// A root file system in a directory: empty but for links to the host's programs, which are
    /// bound into it.
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    pub fn directory_spec<const N: usize>(&self, args: [&str; N]) -> ContainerSpec {
        let rootfs = self.path("rootfs");
        fs::create_dir_all(rootfs.join("etc")).expect("a rootfs");
        for name in ["bin", "lib", "lib64", "sbin"] {
            if fs::symlink_metadata(rootfs.join(name)).is_err() {
                symlink(Path::new("usr").join(name), rootfs.join(name)).expect("a rootfs");
            }
        }
        let mut spec = ContainerSpec::new(Rootfs::Dir(rootfs), args);
        spec.mounts.push(Mount::bind("/usr", "/usr").read_only());
        spec
    }

    /// Ends the executor and checks that nothing is left of it, nor of the test.
    ///
    /// # Panics
    /// When something is left, saying what.
    pub async fn finish(self, executor: Executor) {
        let report = executor.shutdown(longshore::Cancel::now(), HUNG).await;
        assert_eq!(report, longshore::ShutdownReport::default(), "shutdown");
        drop(executor);
        self.check();
    }

    /// Checks that nothing is left.
    ///
    /// # Panics
    /// When something is left, saying what.
    pub fn check(self) {
        self.before.assert_nothing_new(self.dir.path());
        let executors = fs::read_dir(self.root().join("executors"));
        assert_eq!(executors.map_or(0, Iterator::count), 0, "an executor's lock is left");
    }
}

/// The variable with the seconds that each race of an attacker takes.
pub const ATTACK_VARIABLE: &str = "LONGSHORE_ATTACK_SECONDS";

/// How long an attacker tries to win a race: two seconds, or as [`ATTACK_VARIABLE`] says.
pub fn attack_time() -> Duration {
    let seconds = std::env::var(ATTACK_VARIABLE).ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// The variable that says how much slower this machine is than others: 1 without it.
pub const SLOWNESS_VARIABLE: &str = "LONGSHORE_TEST_SLOWNESS";

/// How often a test does something, or how much of it, where `usual` is right for other machines.
pub fn amount(usual: u64) -> u64 {
    usual / u64::from(slowness())
}

/// How long something may take that takes less than `usual` on other machines.
pub fn patience(usual: Duration) -> Duration {
    usual * slowness()
}

fn slowness() -> u32 {
    let slowness = std::env::var(SLOWNESS_VARIABLE).ok().and_then(|slowness| slowness.parse().ok());
    slowness.filter(|slowness| *slowness > 0).unwrap_or(1)
}

/// The variable that names the runtime to test with, in place of the first that is found.
pub const RUNTIME_VARIABLE: &str = "LONGSHORE_TEST_RUNTIME";

/// The runtime that `LONGSHORE_TEST_RUNTIME` names.
pub fn named_runtime() -> Option<String> {
    std::env::var(RUNTIME_VARIABLE).ok().filter(|name| !name.is_empty())
}

/// The same, on the runtime that tests run on.
pub fn runtime_under_test(builder: RuncBuilder) -> RuncBuilder {
    match named_runtime() {
        Some(name) => builder.runtime(name),
        None => builder,
    }
}

/// The program of the runtime that tests run on.
///
/// # Panics
/// When there is none.
#[expect(clippy::expect_used, reason = "a test cannot go on without")]
pub fn runtime_program() -> PathBuf {
    match named_runtime() {
        Some(name) => find_runtime(&[name]),
        None => find_runtime(&CANDIDATES),
    }
    .expect("`cargo xtask test` installs a runtime")
}

/// Whether tests run on runc: some of what they expect is its own.
pub fn on_runc() -> bool {
    runtime_program().file_name().is_some_and(|name| name == "runc")
}

/// Whether the kernel still knows the status of a process that somebody else has reaped: from 6.15 on.
pub fn kernel_keeps_exits() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (6, 15)
}

/// A container that does nothing until it is ended.
pub fn sleeper() -> ContainerSpec {
    ContainerSpec::host(["sleep", "1000"])
}

/// A container that runs a shell script.
pub fn shell(script: &str) -> ContainerSpec {
    ContainerSpec::host(["sh", "-c", script])
}

/// What a program wrote, as text.
///
/// # Panics
/// When it is none.
#[expect(clippy::expect_used, reason = "a test cannot go on without")]
pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// Waits until something is so that gives no notice of itself, as a file that another process makes.
///
/// # Panics
/// When it takes too long.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + HUNG;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: it did not come to that");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs a container and collects its events from the first to `Released`, checking their order.
///
/// # Panics
/// If it is refused. The task panics if the order is broken or the events end early.
#[expect(clippy::expect_used, reason = "that is what it is for")]
pub async fn run_recorded(
    executor: &Executor,
    mut spec: ContainerSpec,
) -> (ContainerHandle, JoinHandle<Vec<Event>>) {
    let mut events = executor.events();
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let id =
        spec.id.get_or_insert_with(|| ContainerId::new(format!("recorded-{number}")).expect("an id")).clone();
    let container = executor.run(spec).await.expect("a container");
    let story = tokio::spawn(async move {
        let mut order = EventOrder::default();
        let mut story = Vec::new();
        while let Some(notice) = events.next().await {
            match notice {
                Notice::Event(event) if event.container == id => {
                    order.check(&event).expect("the order of events");
                    story.push(event);
                    if order.is_complete() {
                        return story;
                    }
                }
                Notice::Gap { missed } => panic!("{missed} events were missed"),
                Notice::Event(_) | Notice::Snapshot(_) | Notice::Swept(_) | _ => {}
            }
        }
        panic!("the events ended before the container was released: {story:#?}");
    });
    (container, story)
}

/// What a container wrote to stdout. It has to end well.
///
/// # Panics
/// When it does not, with what it wrote to stderr.
#[expect(clippy::expect_used, reason = "that is what it is for")]
pub async fn says(executor: &Executor, spec: ContainerSpec) -> String {
    let container = executor.run(spec.piped()).await.expect("a container");
    let io = container.io();
    let (stdout, stderr) = (io.take_stdout().expect("a pipe"), io.take_stderr().expect("a pipe"));
    let (stdout, stderr) = futures::join!(stdout.read_to_end(), stderr.read_to_end());
    let exit = container.wait().await;
    assert!(exit.is_success(), "{exit:?}: {}", text(stderr));
    text(stdout)
}

/// Why a container did not start, in words.
///
/// # Panics
/// When it did.
#[expect(clippy::expect_used, reason = "that is what it is for")]
pub async fn start_failure(executor: &Executor, spec: ContainerSpec) -> longshore::StartFailure {
    let exit = executor.run(spec).await.expect("a container").wait().await;
    let longshore::ExitReason::StartFailed(failure) = exit.reason else { panic!("it started: {exit:?}") };
    failure
}

/// The directory of a container's cgroup in the hierarchy of a controller, v2's where there is no other.
///
/// # Panics
/// When it is in none.
#[expect(clippy::expect_used, reason = "a test cannot go on without")]
pub fn cgroup_of(pid: longshore::HostPid, controller: &str) -> PathBuf {
    let list = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let v1 = list.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|one| one == controller).then_some(path)
    });
    let v2 = list.lines().find_map(|line| line.strip_prefix("0::"));
    let (mount, path) = match v1 {
        Some(path) => (Path::new("/sys/fs/cgroup").join(controller), path),
        None => ("/sys/fs/cgroup".into(), v2.expect("a cgroup")),
    };
    mount.join(path.trim_start_matches('/'))
}
