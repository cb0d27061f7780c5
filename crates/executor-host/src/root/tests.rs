//! A root: who owns what in it, and what a sweep removes.

use super::sweep::names;
use super::*;
use crate::bundles::Place;
use executor_core::lifecycle::{HostPid, StartFailure};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkNamespace, NetworkTraits};

struct NoBundles;

impl Bundles for NoBundles {
    fn network(&self, _: &ContainerSpec) -> NetworkTraits {
        NetworkTraits::default()
    }

    fn attach(
        &self,
        _: &Place<'_>,
        _: &ContainerSpec,
    ) -> std::result::Result<NetworkAttachment, StartFailure> {
        Ok(NetworkNamespace::Host.into())
    }

    fn write(
        &self,
        _: &Place<'_>,
        _: &ContainerSpec,
        _: &NetworkAttachment,
    ) -> std::result::Result<Vec<u8>, StartFailure> {
        Ok(Vec::new())
    }

    fn process(
        &self,
        _: &Place<'_>,
        _: &ContainerSpec,
        _: HostPid,
        _: &ExecSpec,
    ) -> std::result::Result<Vec<u8>, StartFailure> {
        Ok(Vec::new())
    }

    fn unmake(&self, _: &Path) -> Vec<Leftover> {
        Vec::new()
    }
}

fn id(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

#[test]
fn a_taken_id_is_not_given_twice_and_nothing_of_it_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let (other, swept) = Root::open(dir.path(), &NoBundles).unwrap();
    assert_eq!(swept, [], "a live executor was swept");
    let reservation = one.reserve(&id("a"), None).unwrap().unwrap();
    fs::write(reservation.dir.join("mine"), "").unwrap();
    assert!(other.reserve(&id("a"), None).unwrap().is_none());
    assert!(reservation.dir.join("mine").exists());
    assert_eq!(names(&dir.path().join("containers")).unwrap(), ["a"]);
    assert_eq!(reservation.dispose(&NoBundles), (0, vec![]));
    let reservation = other.reserve(&id("a"), None).unwrap().unwrap();
    assert_eq!(reservation.dispose(&NoBundles), (0, vec![]));
    assert_eq!([one.close(&NoBundles), other.close(&NoBundles)], [[], []]);
}

#[test]
fn what_dead_executors_left_is_swept_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let (live, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let (dead, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let kept = live.reserve(&id("kept"), None).unwrap().unwrap();
    let gone = dead.reserve(&id("gone"), None).unwrap().unwrap();
    fs::create_dir(dir.path().join("containers/strangers")).unwrap();
    fs::create_dir(dir.path().join(format!("containers/.{}.x", dead.executor()))).unwrap();
    fs::create_dir_all(&gone.state).unwrap();
    drop(dead);

    let swept = sweep(dir.path(), &NoBundles).unwrap();
    assert_eq!(swept, [Swept::new("gone", 0, vec![])]);
    assert!(kept.dir.exists() && dir.path().join("containers/strangers").exists());
    assert!(!gone.dir.exists() && !gone.state.exists());
    assert_eq!(names(&dir.path().join("executors")).unwrap(), [live.executor()]);
    assert_eq!(sweep(dir.path(), &NoBundles).unwrap(), []);
    assert_eq!(kept.dispose(&NoBundles), (0, vec![]));
    assert_eq!(live.close(&NoBundles), []);
}

#[test]
fn what_cannot_be_written_down_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let (root, _) = Root::open(dir.path(), &NoBundles).unwrap();
    let parent = format!("/{}", root.executor());
    let mute = Root {
        lock_file: File::open(dir.path().join("executors").join(root.executor())).unwrap(),
        dir: root.dir.clone(),
        executor: root.executor.clone(),
        parent: None,
        parents: Mutex::default(),
    };
    assert!(mute.enter_parent(&parent).is_err());
    let missing = |parent: &str| place::missing(parent).iter().any(|missing| missing.topmost == parent);
    assert!(missing(&parent), "a sweep would know nothing of it");
    root.enter_parent(&parent).unwrap();
    assert_eq!(missing(&parent), !place::is_delegated(""), "{parent}");
    assert_eq!(root.close(&NoBundles), []);
    assert!(missing(&parent), "{parent}");
}

#[test]
fn a_root_that_does_not_exist_has_nothing_to_sweep() {
    assert_eq!(sweep(Path::new("/nowhere/longshore"), &NoBundles).unwrap(), []);
}
