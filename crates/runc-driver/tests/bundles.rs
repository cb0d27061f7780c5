//! What a container waits for: its own bundle and network, and nothing of another's.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use executor_core::lifecycle::{
    ContainerId, ExecId, ExitStatus, HostPid, Leftover, NetworkUsage, ProcessRef, StartFailure,
    StartFailureKind, TerminalSize,
};
use executor_core::{
    ChildStdio, ContainerSpec, ExecSpec, ExitSource, Network, NetworkAttachment, NetworkNamespace,
    NetworkTraits, Runtime,
};
use futures::{FutureExt, StreamExt};
use runc_driver::{Bundles, Mode, Place, Runc};
use tempfile::TempDir;

type Answer<T> = Result<T, StartFailure>;

/// Bundles and networks as a test wants them made. A network of plugins is slow.
trait Making: Send + Sync + 'static {
    fn write(&self, _dir: &Path) -> Answer<Vec<u8>> {
        Ok(b"{}".to_vec())
    }

    fn attach(&self, _dir: &Path) -> Answer<()> {
        Ok(())
    }

    fn process(&self, _exec: &ExecSpec) -> Answer<Vec<u8>> {
        Ok(Vec::new())
    }

    /// First when a preparation is asked for, then when the id has been reserved.
    fn looked_at(&self) {}

    fn detach(&self, _dir: &Path) {}

    fn asked(&self, _dir: &Path) {}
}

struct Made<M>(M);

impl<M: Making> Bundles for Made<M> {
    fn network(&self, spec: &ContainerSpec) -> NetworkTraits {
        self.0.looked_at();
        let is_slow = matches!(spec.network, Network::Cni { .. });
        NetworkTraits { is_slow, outlives_processes: is_slow }
    }

    fn attach(&self, place: &Place<'_>, _: &ContainerSpec) -> Answer<NetworkAttachment> {
        self.0.attach(place.dir.path())?;
        Ok(NetworkNamespace::Host.into())
    }

    fn write(&self, place: &Place<'_>, _: &ContainerSpec, _: &NetworkAttachment) -> Answer<Vec<u8>> {
        self.0.write(place.dir.path())
    }

    fn process(&self, _: &Place<'_>, _: &ContainerSpec, _: HostPid, exec: &ExecSpec) -> Answer<Vec<u8>> {
        self.0.process(exec)
    }

    fn network_usage(&self, place: &Place<'_>) -> Option<NetworkUsage> {
        self.0.asked(place.dir.path());
        None
    }

    fn detach(&self, place: &Place<'_>) -> Vec<Leftover> {
        self.0.detach(place.dir.path());
        Vec::new()
    }

    fn unmake(&self, _: &Place<'_>) -> Vec<Leftover> {
        Vec::new()
    }
}

/// A directory with a root in it, and a driver whose runtime is a shell script.
struct Stage {
    dir: TempDir,
    driver: Runc,
    tokio: tokio::runtime::Runtime,
}

impl Stage {
    fn new(script: &str, making: impl Making) -> Self {
        Self::of_mode(Mode::Detached, script, making)
    }

    fn of_mode(mode: Mode, script: &str, making: impl Making) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("runtime");
        fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let builder = Runc::builder(Arc::new(Made(making))).runtime(program.to_str().unwrap());
        let driver = builder.mode(mode).build().unwrap();
        driver.open(&dir.path().join("root")).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { dir, driver, tokio }
    }

    async fn prepare(&self, id: &ContainerId) -> Answer<()> {
        self.driver.prepare(id, ContainerSpec::host(["true"]).into()).await
    }

    fn finish(&self) {
        assert_eq!(self.driver.close(), []);
        assert_eq!(fs::read_dir(self.dir.path().join("root")).unwrap().count(), 0, "something is left");
    }
}

fn id(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

struct Plain;

impl Making for Plain {}

#[test]
fn what_is_prepared_is_there_when_the_runtime_is_called() {
    let stage = Stage::new("cat root/containers/c/config.json >read; exit 1", Plain);
    let id = id("c");
    stage.tokio.block_on(async {
        stage.prepare(&id).await.unwrap();
        let config = stage.dir.path().join("root/containers/c/config.json");
        assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
        let failure = stage.driver.run(&id, ChildStdio::default()).await.unwrap_err();
        assert_eq!(failure.kind, StartFailureKind::RuntimeBroken);
        assert_eq!(stage.driver.release(&id).await, []);
    });
    assert_eq!(fs::read_to_string(stage.dir.path().join("read")).unwrap(), "{}");
    stage.finish();
}

struct Failing;

impl Making for Failing {
    fn write(&self, _: &Path) -> Answer<Vec<u8>> {
        Err(StartFailure::new(StartFailureKind::BadConfig, "mounts: no such place"))
    }
}

#[test]
fn a_bundle_that_cannot_be_made_calls_no_runtime() {
    let stage = Stage::new("touch called", Failing);
    stage.tokio.block_on(async {
        let failure = stage.prepare(&id("c")).await.unwrap_err();
        assert_eq!(failure, StartFailure::new(StartFailureKind::BadConfig, "mounts: no such place"));
        assert_eq!(stage.driver.release(&id("c")).await, []);
    });
    assert!(!stage.dir.path().join("called").exists());
    stage.finish();
}

/// Reports that it has begun, and takes a while.
struct Lasting(mpsc::Sender<()>);

impl Making for Lasting {
    fn write(&self, dir: &Path) -> Answer<Vec<u8>> {
        self.0.send(()).unwrap();
        thread::sleep(Duration::from_millis(100));
        fs::write(dir.join("hosts"), "").unwrap();
        fs::write(dir.ancestors().nth(3).unwrap().join("made"), "").unwrap();
        Ok(Vec::new())
    }
}

#[test]
fn closing_waits_for_what_is_being_made_and_nothing_more_is_made() {
    let (begins, begun) = mpsc::channel();
    let stage = Stage::new("exit 1", Lasting(begins));
    stage.tokio.block_on(async {
        let early = stage.driver.prepare(&id("early"), ContainerSpec::host(["true"]).into());
        let preparing = tokio::spawn(early);
        while begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        // Half way, it is not awaited any more.
        preparing.abort();
    });
    stage.finish();
    assert!(stage.dir.path().join("made").exists(), "it was closed meanwhile");
    assert!(stage.tokio.block_on(stage.prepare(&id("late"))).is_err());
    assert_eq!(fs::read_dir(stage.dir.path().join("root")).unwrap().count(), 0, "something came later");
}

/// Networks whose plugins hang until the test says so.
struct Hanging {
    begins: mpsc::Sender<&'static str>,
    goes_on: std::sync::Mutex<mpsc::Receiver<()>>,
}

impl Hanging {
    fn hang(&self, what: &'static str, dir: &Path) {
        if dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("slow")) {
            self.begins.send(what).unwrap();
            self.goes_on.lock().unwrap().recv().unwrap();
        }
    }
}

impl Making for Hanging {
    fn attach(&self, dir: &Path) -> Answer<()> {
        self.hang("attach", dir);
        Ok(())
    }

    fn detach(&self, dir: &Path) {
        self.hang("detach", dir);
    }

    fn asked(&self, dir: &Path) {
        self.hang("asked", dir);
    }
}

/// There are more slow networks than places in any other pool. While they are attached, and later detached,
/// other containers are made and released. The order of events is the proof, not time.
#[test]
fn slow_networks_hold_nothing_else_up() {
    const SLOW: usize = 12;
    let ((begins, begun), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let stage = Stage::new("exit 1", Hanging { begins, goes_on: std::sync::Mutex::new(goes_on) });
    stage.tokio.block_on(async {
        let driver = &stage.driver;
        let slow: Vec<_> = (0..SLOW).map(|number| id(&format!("slow-{number}"))).collect();
        let mut spec = ContainerSpec::host(["true"]);
        spec.network = Network::Cni { name: None };
        let prepare = |id| tokio::spawn(driver.prepare(id, spec.clone().into()));
        let prepared: Vec<_> = slow.iter().map(prepare).collect();
        // The first holds the lock; the others wait for it inside their attach.
        while begun.try_recv() != Ok("attach") {
            tokio::task::yield_now().await;
        }
        let quick = async |name: &str| {
            let id = id(name);
            stage.prepare(&id).await.unwrap();
            driver.run(&id, ChildStdio::default()).await.unwrap_err();
            assert_eq!(driver.release(&id).await, []);
        };
        quick("while-attaching").await;
        (0..SLOW).for_each(|_| go_on.send(()).unwrap());
        for prepared in prepared {
            prepared.await.unwrap().unwrap();
        }
        let released: Vec<_> = slow.iter().map(|id| tokio::spawn(driver.release(id))).collect();
        while begun.try_recv() != Ok("detach") {
            tokio::task::yield_now().await;
        }
        quick("while-detaching").await;
        (0..SLOW).for_each(|_| go_on.send(()).unwrap());
        for released in released {
            assert_eq!(released.await.unwrap(), []);
        }
    });
    stage.finish();
}

/// A runtime whose containers end as soon as it was reaped. Before that the shell could take their status.
const STARTS: &str = r#"
while [ $# -gt 0 ]; do if [ "$1" = --pid-file ]; then pid_file=$2; fi; shift; done
setsid sh -c 'while kill -0 $0 2>/dev/null; do :; done; exit 3' $$ & echo $! >"$pid_file"
"#;

#[test]
fn an_exit_does_not_wait_for_the_usage_of_others() {
    let ((begins, begun), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let stage = Stage::new(STARTS, Hanging { begins, goes_on: std::sync::Mutex::new(goes_on) });
    stage.tokio.block_on(async {
        let driver = &stage.driver;
        let (sender, mut exits) = tokio::sync::mpsc::unbounded_channel();
        let mut source = driver.exits();
        tokio::spawn(async move {
            while let Some((process, exit)) = source.next().await {
                sender.send((process, exit.status)).unwrap();
            }
        });
        let ended = |name: &str| Some((ProcessRef::init(id(name)), ExitStatus::Code(3)));
        let mut spec = ContainerSpec::host(["true"]);
        spec.network = Network::Cni { name: None };
        go_on.send(()).unwrap();
        driver.prepare(&id("slow"), spec.into()).await.unwrap();
        driver.run(&id("slow"), ChildStdio::default()).await.unwrap();
        while begun.try_recv() != Ok("asked") {
            tokio::task::yield_now().await;
        }
        stage.prepare(&id("quick")).await.unwrap();
        driver.run(&id("quick"), ChildStdio::default()).await.unwrap();
        assert_eq!(exits.recv().await, ended("quick"));
        go_on.send(()).unwrap();
        assert_eq!(exits.recv().await, ended("slow"));
        go_on.send(()).unwrap();
        for name in ["slow", "quick"] {
            assert_eq!(driver.release(&id(name)).await, []);
        }
    });
    stage.finish();
}

/// Reports the size that each exec's terminal is to have; the first two cannot be described.
struct Sizes(mpsc::Sender<Option<TerminalSize>>);

impl Making for Sizes {
    fn process(&self, exec: &ExecSpec) -> Answer<Vec<u8>> {
        self.0.send(exec.terminal).unwrap();
        match exec.args.first().is_some_and(|program| program == "unknown") {
            true => Err(StartFailure::new(StartFailureKind::BadConfig, "user: there is no such user")),
            false => Ok(Vec::new()),
        }
    }
}

/// A runtime that starts inits and no execs.
const NO_EXECS: &str = r#"
for word; do if [ "$word" = exec ]; then exit 1; fi; done
while [ $# -gt 0 ]; do if [ "$1" = --pid-file ]; then pid_file=$2; fi; shift; done
setsid sleep 1000 & echo $! >"$pid_file"
"#;

#[test]
fn an_exec_takes_nothing_over_from_one_of_its_id_that_failed() {
    let (sender, sizes) = mpsc::channel();
    let stage = Stage::new(NO_EXECS, Sizes(sender));
    stage.tokio.block_on(async {
        let (driver, c, x) = (&stage.driver, id("c"), ExecId::new("x").unwrap());
        stage.prepare(&c).await.unwrap();
        driver.run(&c, ChildStdio::default()).await.unwrap();
        let size = |rows| TerminalSize { rows, columns: 1 };
        let process = ProcessRef::exec(c.clone(), x.clone());
        let exec = |program: &str| {
            let mut spec = ExecSpec::new([program]);
            spec.terminal = Some(size(24));
            let stdio = ChildStdio { terminal: spec.terminal, ..ChildStdio::default() };
            driver.exec(&c, x.clone(), spec, stdio)
        };
        let seen = || sizes.recv().unwrap().unwrap().rows;
        // The size of one that was never started.
        driver.resize(&process, size(1)).unwrap();
        exec("unknown").await.unwrap_err();
        assert_eq!(seen(), 1);
        exec("unknown").await.unwrap_err();
        assert_eq!(seen(), 24, "the size of an exec that failed");
        // The terminal that one was to get whose start failed: a size is not for it.
        exec("sh").await.unwrap_err();
        assert_eq!(seen(), 24);
        driver.resize(&process, size(2)).unwrap();
        exec("sh").await.unwrap_err();
        assert_eq!(seen(), 2, "the size went to the terminal of an exec that failed");
        assert_eq!(driver.release(&c).await, []);
    });
    stage.finish();
}

/// Hangs when the id is reserved and has no container yet.
struct Reserving {
    looks: AtomicUsize,
    begins: mpsc::Sender<()>,
    goes_on: std::sync::Mutex<mpsc::Receiver<()>>,
}

impl Making for Reserving {
    fn looked_at(&self) {
        if self.looks.fetch_add(1, Ordering::Relaxed) == 1 {
            self.begins.send(()).unwrap();
            self.goes_on.lock().unwrap().recv().unwrap();
        }
    }
}

#[test]
fn a_release_waits_for_a_preparation_whose_asker_is_gone() {
    let ((begins, begun), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let goes_on = std::sync::Mutex::new(goes_on);
    let stage = Stage::new("exit 1", Reserving { looks: AtomicUsize::new(0), begins, goes_on });
    stage.tokio.block_on(async {
        let prepared = stage.driver.prepare(&id("c"), ContainerSpec::host(["true"]).into());
        let preparing = tokio::spawn(prepared);
        while begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        preparing.abort();
        assert!(preparing.await.unwrap_err().is_cancelled());
        let mut released = stage.driver.release(&id("c"));
        assert!((&mut released).now_or_never().is_none(), "its id was being reserved");
        go_on.send(()).unwrap();
        assert_eq!(released.await, []);
        assert!(!stage.dir.path().join("root/containers/c").exists(), "it was reserved afterwards");
        // The id is free.
        stage.prepare(&id("c")).await.unwrap();
        assert_eq!(stage.driver.release(&id("c")).await, []);
    });
    stage.finish();
}

#[test]
fn a_release_gives_starts_up_and_waits_for_them() {
    let stage = Stage::new("touch begun; exec sleep 1000", Plain);
    stage.tokio.block_on(async {
        stage.prepare(&id("c")).await.unwrap();
        let run = tokio::spawn(stage.driver.run(&id("c"), ChildStdio::default()));
        while !stage.dir.path().join("begun").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(stage.driver.release(&id("c")).await, []);
        assert!(run.is_finished(), "a runtime was at work when its container was removed");
        assert_eq!(run.await.unwrap().unwrap_err().kind, StartFailureKind::RuntimeTimedOut);
        // Nothing is started in what has been released.
        stage.driver.run(&id("c"), ChildStdio::default()).await.unwrap_err();
    });
    stage.finish();
}

/// What a test waits for at most that would hang without what it tests.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.unwrap()
}

/// More slow networks are being attached than there are places, and one that is there is asked and detached
/// meanwhile.
#[test]
fn exits_and_releases_do_not_wait_for_networks_of_others() {
    const PLACES: usize = 64;
    let ((begins, begun), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let script = STARTS.replace("exit 3", "until [ -e go ]; do sleep 0.01; done; exit 3");
    let stage = Stage::new(&script, Hanging { begins, goes_on: std::sync::Mutex::new(goes_on) });
    let plugins = || {
        let mut spec = ContainerSpec::host(["true"]);
        spec.network = Network::Cni { name: None };
        Arc::new(spec)
    };
    stage.tokio.block_on(async {
        let (driver, c) = (&stage.driver, id("c"));
        driver.prepare(&c, plugins()).await.unwrap();
        driver.run(&c, ChildStdio::default()).await.unwrap();
        let slow: Vec<_> = (0..PLACES + 8).map(|number| id(&format!("slow-{number}"))).collect();
        let prepared: Vec<_> = slow.iter().map(|id| tokio::spawn(driver.prepare(id, plugins()))).collect();
        for _ in 0..PLACES {
            while begun.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
        }
        fs::write(stage.dir.path().join("go"), "").unwrap();
        let mut exits = driver.exits();
        assert_eq!(soon(exits.next()).await.unwrap().0, ProcessRef::init(c.clone()));
        assert_eq!(soon(driver.release(&c)).await, []);
        (0..2 * slow.len()).for_each(|_| go_on.send(()).unwrap());
        for prepared in prepared {
            prepared.await.unwrap().unwrap();
        }
        for id in &slow {
            assert_eq!(driver.release(id).await, []);
        }
    });
    stage.finish();
}

/// More releases that hang than there are places for quick work.
#[test]
fn a_release_does_not_wait_for_others() {
    const HANGING: usize = 12;
    let ((begins, begun), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let stage = Stage::new("exit 1", Hanging { begins, goes_on: std::sync::Mutex::new(goes_on) });
    (0..HANGING).for_each(|_| go_on.send(()).unwrap());
    stage.tokio.block_on(async {
        let slow: Vec<_> = (0..HANGING).map(|number| id(&format!("slow-{number}"))).collect();
        for id in slow.iter().chain([&id("c")]) {
            stage.prepare(id).await.unwrap();
        }
        let released: Vec<_> = slow.iter().map(|id| tokio::spawn(stage.driver.release(id))).collect();
        while begun.try_recv() != Ok("detach") {
            tokio::task::yield_now().await;
        }
        assert_eq!(soon(stage.driver.release(&id("c"))).await, []);
        (0..HANGING).for_each(|_| go_on.send(()).unwrap());
        for released in released {
            assert_eq!(released.await.unwrap(), []);
        }
    });
    stage.finish();
}

/// A runtime whose containers last.
const LASTS: &str = r#"
while [ $# -gt 0 ]; do if [ "$1" = --pid-file ]; then pid_file=$2; fi; shift; done
setsid sleep 1000 & echo $! >"$pid_file"
"#;

#[test]
fn what_goes_over_the_hosts_network_is_no_containers_whatever_it_asked_for() {
    let stage = Stage::new(LASTS, Plain);
    stage.tokio.block_on(async {
        let mut spec = ContainerSpec::host(["true"]);
        // The provider gives it the host's.
        spec.network = Network::None;
        stage.driver.prepare(&id("c"), spec.into()).await.unwrap();
        stage.driver.run(&id("c"), ChildStdio::default()).await.unwrap();
        assert_eq!(stage.driver.usage(&id("c")).await.unwrap().network, None);
        assert_eq!(stage.driver.release(&id("c")).await, []);
    });
    stage.finish();
}

#[test]
fn the_foreground_says_what_it_cannot_do_of_what_was_asked_for() {
    let stage = Stage::of_mode(Mode::Foreground, "touch called; exit 1", Plain);
    stage.tokio.block_on(async {
        stage.prepare(&id("c")).await.unwrap();
        let on_terminal = || ChildStdio { terminal: Some(TerminalSize::default()), ..ChildStdio::default() };
        let created = stage.driver.create(&id("c"), ChildStdio::default()).await;
        let on_one = stage.driver.create(&id("c"), on_terminal()).await;
        let run = stage.driver.run(&id("c"), on_terminal()).await;
        for (failed, what) in
            [(created, "a container that is created"), (on_one, "a terminal"), (run, "a terminal")]
        {
            let failure = failed.unwrap_err();
            let message = format!("{what} needs a runtime that is not kept in the foreground");
            assert_eq!(failure, StartFailure::new(StartFailureKind::BadConfig, message));
        }
        assert_eq!(stage.driver.release(&id("c")).await, []);
    });
    assert!(!stage.dir.path().join("called").exists());
    stage.finish();
}
