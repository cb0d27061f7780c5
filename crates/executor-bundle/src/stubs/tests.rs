use super::*;
use crate::mount_entry::mount;
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

struct Stage {
    bundle: tempfile::TempDir,
    root: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { bundle: tempfile::tempdir().unwrap(), root: tempfile::tempdir().unwrap() };
        fs::create_dir(stage.root.path().join("etc")).unwrap();
        stage
    }

    fn make(&self, destinations: &[(&str, &str)], parents: bool) -> Result<(), Error> {
        let mounts: Vec<_> = destinations
            .iter()
            .map(|(source, destination)| {
                mount(Path::new(destination), "bind", Path::new(source), &["rbind", "rw"])
            })
            .collect();
        make_missing(&self.dir(), self.root.path(), &mounts, &|_| !parents, Owner::ROOT)
    }

    fn dir(&self) -> Dir {
        Dir::open_checked(self.bundle.path()).unwrap()
    }

    fn times(&self) -> Vec<(i64, i64)> {
        let of = |path: &Path| fs::metadata(path).map(|meta| (meta.mtime(), meta.mtime_nsec())).unwrap();
        [self.root.path().to_owned(), self.root.path().join("etc")].iter().map(|path| of(path)).collect()
    }

    fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root.path().join(path)).is_ok()
    }
}

#[test]
fn stubs_come_away_and_times_stay() {
    let stage = Stage::new();
    let before = stage.times();
    stage.make(&[("/etc/passwd", "/etc/hosts"), ("/etc", "/a/b/c"), ("/etc", "/a/b/c/d")], false).unwrap();
    assert!(stage.root.path().join("etc/hosts").is_file() && stage.root.path().join("a/b/c").is_dir());
    assert!(!stage.has("a/b/c/d"), "it is below a mount");
    assert_eq!(stage.times(), before);
    remove(&stage.dir());
    assert!(!stage.has("etc/hosts") && !stage.has("a/b/c") && stage.has("a/b"));
    assert_eq!(stage.times(), before);
}

#[test]
fn directories_above_come_away_when_asked() {
    let stage = Stage::new();
    stage.make(&[("/etc", "/a/b/c"), ("/etc", "/a/x")], true).unwrap();
    remove(&stage.dir());
    assert!(!stage.has("a"));
    stage.make(&[("/etc", "/etc")], true).unwrap();
    remove(&stage.dir());
    assert!(stage.has("etc"), "it was there before");
}

#[test]
fn nothing_is_removed_through_a_mount() {
    if crate::ids::rootless() {
        return;
    }
    let mount = |what: &Path, kind: &str, at: &Path| {
        let flags = if kind.is_empty() { MountFlags::BIND } else { MountFlags::empty() };
        rustix::mount::mount(what, at, kind, flags, None).unwrap();
    };
    let unmount = |at: &Path| rustix::mount::unmount(at, UnmountFlags::DETACH).unwrap();
    let another = tempfile::tempdir().unwrap();
    fs::create_dir(another.path().join("x")).unwrap();
    for (kind, what) in [("", another.path()), ("tmpfs", Path::new("tmpfs"))] {
        let stage = Stage::new();
        let etc = stage.root.path().join("etc");
        stage.make(&[("/etc", "/etc/x")], false).unwrap();
        mount(what, kind, &etc);
        fs::create_dir_all(etc.join("x")).unwrap();
        remove(&stage.dir());
        assert!(etc.join("x").is_dir(), "it is another's");
        unmount(&etc);
    }
    // What was there when it was made is no obstacle.
    let stage = Stage::new();
    let etc = stage.root.path().join("etc");
    mount(Path::new("tmpfs"), "tmpfs", &etc);
    stage.make(&[("/etc", "/etc/x")], false).unwrap();
    assert!(stage.has("etc/x"));
    remove(&stage.dir());
    assert!(!stage.has("etc/x"));
    unmount(&etc);
}

#[test]
fn what_is_not_a_stub_any_more_stays() {
    let stage = Stage::new();
    let outside = tempfile::tempdir().unwrap();
    stage.make(&[("/etc/passwd", "/file"), ("/etc", "/full/x"), ("/etc", "/link")], true).unwrap();
    fs::write(stage.root.path().join("file"), "mine").unwrap();
    fs::write(stage.root.path().join("full/mine"), "").unwrap();
    fs::remove_dir(stage.root.path().join("link")).unwrap();
    symlink(outside.path(), stage.root.path().join("link")).unwrap();
    remove(&stage.dir());
    assert!(stage.has("file") && stage.has("full/mine") && !stage.has("full/x") && stage.has("link"));
    assert!(outside.path().is_dir());
}

#[test]
fn a_link_leads_to_no_place_outside() {
    let stage = Stage::new();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), stage.root.path().join("out")).unwrap();
    symlink("/etc", stage.root.path().join("inside")).unwrap();
    // A link to nowhere within the root can be no mount point.
    assert!(stage.make(&[("/etc", "/out/x")], true).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    remove(&stage.dir());
    fs::remove_file(stage.bundle.path().join(FILE)).unwrap();
    stage.make(&[("/etc", "/inside/x")], true).unwrap();
    assert!(stage.has("etc/x"));
    remove(&stage.dir());
    assert!(!stage.has("etc/x"));
}

#[test]
fn many_may_begin_and_end_at_once() {
    let root = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let bundle = tempfile::tempdir().unwrap();
                    let dir = Dir::open_checked(bundle.path()).unwrap();
                    let mounts = [mount(Path::new("/a/b"), "bind", Path::new("/etc"), &["rbind", "rw"])];
                    make_missing(&dir, root.path(), &mounts, &|_| false, Owner::ROOT).unwrap();
                    assert!(root.path().join("a/b").is_dir());
                    remove(&dir);
                }
            });
        }
    });
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "stubs are left");
}

#[test]
fn what_another_container_uses_stays_until_its_end() {
    let stage = Stage::new();
    let other = Stage { bundle: tempfile::tempdir().unwrap(), root: tempfile::tempdir().unwrap() };
    stage.make(&[("/etc", "/a")], false).unwrap();
    let mounts = [("/etc", "/a"), ("/etc", "/b")]
        .map(|(source, place)| mount(Path::new(place), "bind", Path::new(source), &["rbind", "rw"]));
    make_missing(&other.dir(), stage.root.path(), &mounts, &|_| true, Owner::ROOT).unwrap();
    remove(&stage.dir());
    assert!(stage.has("a") && stage.has("b"));
    // Another process that has a container there.
    let theirs = rootfs_dir::open_root(stage.root.path()).unwrap();
    flock(&theirs, FlockOperation::LockShared).unwrap();
    remove(&other.dir());
    assert!(stage.has("a") && stage.has("b"), "there is one left that uses them");
    drop(theirs);
    remove(&other.dir());
    assert!(!stage.has("a") && !stage.has("b"));
}

/// Those of other processes, of which each has other stubs. Who was there first ends first, or last.
#[test]
fn stubs_left() {
    for is_last_first in [false, true] {
        let (mine, theirs) = (Stage::new(), Stage::new());
        let root = mine.root.path();
        let before = mine.times();
        let begin = |stage: &Stage, points: [&str; 2]| {
            let mounts = points.map(|point| mount(Path::new(point), "bind", Path::new("/etc"), &[]));
            make_missing(&stage.dir(), root, &mounts, &|_| false, Owner::ROOT).unwrap();
        };
        begin(&mine, ["/both/x", "/mine"]);
        begin(&theirs, ["/both/x", "/theirs"]);
        // As in another process: the container is not in the table of this one.
        let other = |stage: &Stage| roots().in_use.remove(stage.bundle.path()).unwrap();
        let mut held = Some(other(if is_last_first { &mine } else { &theirs }));
        let (first, second) = if is_last_first { (&theirs, &mine) } else { (&mine, &theirs) };
        remove(&first.dir());
        for point in ["both/x", "mine", "theirs"] {
            assert!(mine.has(point), "{point}");
        }
        roots().in_use.insert(second.bundle.path().to_owned(), held.take().unwrap());
        remove(&second.dir());
        let names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["etc"]);
        assert_eq!(mine.times(), before);
        assert_eq!(rustix::fs::listxattr(root, &mut [0; 1024][..]).unwrap(), 0);
    }
}

/// The directory that the root file system is in belongs to somebody who puts another one in its place meanwhile.
#[test]
fn swapped_rootfs() {
    for is_swept in [false, true] {
        let stage = Stage::new();
        let (root, moved) = (stage.root.path().to_owned(), stage.bundle.path().join("moved"));
        stage.make(&[("/etc", "/etc/x")], false).unwrap();
        fs::rename(&root, &moved).unwrap();
        fs::create_dir_all(root.join("etc/x")).unwrap();
        if is_swept {
            // Another executor has nothing open.
            roots().in_use.remove(stage.bundle.path());
        }
        remove(&stage.dir());
        assert!(stage.has("etc/x"), "another directory's was removed");
        assert_eq!(moved.join("etc/x").exists(), is_swept);
        fs::remove_dir_all(&moved).unwrap();
    }
}
