//! A bundle takes its time: the runtime is called meanwhile, and whoever ends the driver waits for it.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, HostPid, StartFailure, StartFailureKind};
use executor_core::{ChildStdio, ContainerSpec, ExecSpec, Runtime};
use runc_driver::{Bundles, Place, Runc};
use tempfile::TempDir;
use tokio::sync::Notify;

type Answer = Result<Vec<u8>, StartFailure>;

/// Makes a bundle in the way that a test wants it made.
struct Making<F>(F);

impl<F: Fn(&Path) -> Answer + Send + Sync + 'static> Bundles for Making<F> {
    fn write(&self, place: &Place<'_>, _: &ContainerSpec) -> Answer {
        (self.0)(place.dir)
    }

    fn process(&self, _: &Place<'_>, _: &ContainerSpec, _: HostPid, _: &ExecSpec) -> Answer {
        Ok(Vec::new())
    }

    fn unmake(&self, _: &Path) -> Vec<String> {
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
    fn new(script: &str, make: impl Fn(&Path) -> Answer + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("runtime");
        fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let builder = Runc::builder(Arc::new(Making(make))).runtime(program.to_str().unwrap());
        let driver = builder.build().unwrap();
        driver.open(&dir.path().join("root")).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { dir, driver, tokio }
    }

    async fn prepare(&self, id: &ContainerId) -> Result<(), StartFailure> {
        self.driver.prepare(id, ContainerSpec::host(["true"]).into()).await
    }

    /// What becomes of a start, and of what was made for it.
    fn start(&self) -> StartFailure {
        let id = id("c");
        self.tokio.block_on(async {
            self.prepare(&id).await.unwrap();
            let failure = self.driver.start(&id, ChildStdio::default()).await.unwrap_err();
            assert_eq!(self.driver.release(&id).await, Vec::<String>::new());
            failure
        })
    }

    fn finish(&self) {
        assert_eq!(self.driver.close(), Vec::<String>::new());
        assert_eq!(fs::read_dir(self.dir.path().join("root")).unwrap().count(), 0, "something is left");
    }
}

fn id(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

/// Where a script says that it has been called: beside the root.
fn until_called(bundle: &Path) {
    let called: PathBuf = bundle.ancestors().nth(3).unwrap().join("called");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !called.exists() {
        assert!(Instant::now() < deadline, "the runtime is not called while the bundle is made");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_runtime_is_called_meanwhile_and_reads_all_of_it() {
    let stage = Stage::new("touch called; cat root/containers/c/config.json >read; exit 1", |bundle| {
        until_called(bundle);
        thread::sleep(Duration::from_millis(50));
        Ok(br#"{"all": "of it"}"#.to_vec())
    });
    assert_eq!(stage.start().kind, StartFailureKind::RuntimeBroken);
    assert_eq!(fs::read_to_string(stage.dir.path().join("read")).unwrap(), r#"{"all": "of it"}"#);
    stage.finish();
}

#[test]
fn a_runtime_whose_bundle_cannot_be_made_is_ended() {
    let failure = StartFailure::new(StartFailureKind::BadConfig, "mounts: no such place");
    let told = failure.clone();
    let stage = Stage::new("touch called; cat root/containers/c/config.json; sleep 1000", move |bundle| {
        until_called(bundle);
        Err(told.clone())
    });
    assert_eq!(stage.start(), failure);
    stage.finish();
}

#[test]
fn closing_waits_for_what_is_being_made_and_nothing_more_is_made() {
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let stage = Stage::new("exit 1", move |bundle| {
        begun.notify_one();
        thread::sleep(Duration::from_millis(100));
        fs::write(bundle.join("hosts"), "").unwrap();
        fs::write(bundle.ancestors().nth(3).unwrap().join("made"), "").unwrap();
        Ok(Vec::new())
    });
    stage.tokio.block_on(async {
        stage.prepare(&id("early")).await.unwrap();
        begins.notified().await;
    });
    stage.finish();
    assert!(stage.dir.path().join("made").exists(), "it was closed meanwhile");
    assert!(stage.tokio.block_on(stage.prepare(&id("late"))).is_err());
    assert_eq!(fs::read_dir(stage.dir.path().join("root")).unwrap().count(), 0, "something came later");
}
