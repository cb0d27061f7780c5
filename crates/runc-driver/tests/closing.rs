//! Closing a driver while it works: a task that is dropped does not end the blocking work it has begun.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, HostPid, StartFailure};
use executor_core::{ContainerSpec, ExecSpec, Runtime};
use runc_driver::{Bundles, Mode, Place, Runc};
use tokio::sync::Notify;

/// Takes its time, and says when it begins.
#[derive(Default)]
struct Slow {
    begun: Notify,
    written: AtomicBool,
}

impl Bundles for Slow {
    fn write(&self, place: &Place<'_>, _: &ContainerSpec) -> Result<(), StartFailure> {
        self.begun.notify_one();
        thread::sleep(Duration::from_millis(100));
        fs::write(place.dir.join("config.json"), "{}").unwrap();
        self.written.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn process(
        &self,
        _: &Place<'_>,
        _: &ContainerSpec,
        _: HostPid,
        _: &ExecSpec,
    ) -> Result<Vec<u8>, StartFailure> {
        Ok(Vec::new())
    }

    fn unmake(&self, _: &Path) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn what_is_being_made_is_waited_for_and_removed_and_nothing_more_is_made() {
    let root = tempfile::tempdir().unwrap();
    let bundles = Arc::new(Slow::default());
    let driver = Runc::builder(Arc::clone(&bundles) as _).runtime("true").mode(Mode::Foreground);
    let driver = driver.build().unwrap();
    driver.open(root.path()).unwrap();

    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let prepare =
        |id: &str| driver.prepare(&ContainerId::new(id).unwrap(), ContainerSpec::host(["true"]).into());
    tokio.block_on(async {
        tokio::select! {
            prepared = prepare("early") => panic!("it is slow: {prepared:?}"),
            () = bundles.begun.notified() => {}
        }
    });

    assert_eq!(driver.close(), Vec::<String>::new());
    assert!(bundles.written.load(Ordering::Relaxed), "it was closed meanwhile");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "something is left");
    assert!(tokio.block_on(prepare("late")).is_err());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "something came later");
}
