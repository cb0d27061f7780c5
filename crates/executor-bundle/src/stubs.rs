//! Mount points that a root file system does not have. Where it is kept, they are made before the runtime does,
//! and come away afterwards, so that it is as it was: times of the directories above included.
//!
//! What will be made is written down first, in the bundle: the next executor can take it away as well. A stub
//! that the container has put something into, or has replaced, stays. So does one that something was mounted over
//! meanwhile: nothing is removed through a mount that was not there when the stub was made.
//!
//! Several containers may use one root file system at a time, and what is a mount point to one must not be taken
//! away by another. Each holds a shared lock on its root directory; who comes first to its end leaves its stubs to
//! another container of this process, and who cannot have the lock alone, because another process has a container there,
//! leaves them where they are.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, flock, fstat, futimens,
    openat, statat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::ids::Owner;
use crate::rootfs_dir::RootfsDir;

const FILE: &str = "stubs.json";

/// What was made in a root file system.
#[derive(Serialize, Deserialize)]
struct Stubs {
    root: PathBuf,
    /// Those above before those below.
    made: Vec<Stub>,
}

/// One of them.
#[derive(Serialize, Deserialize)]
struct Stub {
    /// Its path within the root file system.
    path: PathBuf,
    /// The device that it was made on.
    device: u64,
}

/// A root directory that is in use.
struct InUse {
    /// Which one: its device and inode.
    root: (u64, u64),
    _shared: OwnedFd,
}

/// The root directories of this process's containers, by their bundles. It is global because they may be used by
/// several executors, and flock(2) does not keep a process out that has the lock already.
static IN_USE: Mutex<BTreeMap<PathBuf, InUse>> = Mutex::new(BTreeMap::new());

fn in_use() -> MutexGuard<'static, BTreeMap<PathBuf, InUse>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a root directory and locks it; who holds it alone does so for moments.
fn locked(root: &Path, how: FlockOperation) -> io::Result<OwnedFd> {
    let dir = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    flock(&dir, how)?;
    Ok(dir)
}

/// Makes the mount points of `mounts` that are missing in `root`, and writes down which come away again: each
/// stub, and with `parents` the directories that had to be made above it.
pub(crate) fn make_missing(
    dir: &Path,
    root: &Path,
    mounts: &[Value],
    parents: bool,
    owner: Owner,
) -> Result<(), Error> {
    // Until they are made: containers of one root file system would make each other's, and who ends meanwhile would
    // leave its own to one that has not written its down yet.
    let mut in_use = in_use();
    let shared = locked(root, FlockOperation::LockShared).map_err(Error::io("lock", root))?;
    let stat = fstat(&shared).map_err(Error::io("look at", root))?;
    let id = (stat.st_dev, stat.st_ino);
    in_use.insert(dir.to_owned(), InUse { root: id, _shared: shared });
    let within = RootfsDir::open(root)?;
    let missing = missing(&within, mounts)?;
    if missing.is_empty() {
        return Ok(());
    }
    let kept = |stub: &&Missing| parents || stub.is_target;
    let made = missing.iter().filter(kept);
    let made = made.map(|stub| Stub { path: stub.path.clone(), device: stub.device }).collect();
    let written = Stubs { root: root.to_owned(), made }.write(dir);
    written.map_err(Error::io("write", &dir.join(FILE)))?;
    for stub in missing {
        let failed = Error::io::<io::Error>("make the mount point", &stub.path);
        let made = parent_of(&within, &stub.path).and_then(|parent| {
            keeping_times(&parent, || within.make(&parent, name_of(&stub.path), stub.is_dir, owner))
        });
        match made {
            // Another process has made the same meanwhile, and nothing else in this directory.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed)?,
        }
    }
    Ok(())
}

/// A path that does not exist and has to.
struct Missing {
    path: PathBuf,
    /// That of the nearest directory above it that is there.
    device: u64,
    is_dir: bool,
    /// Whether something is to be mounted right there.
    is_target: bool,
}

/// In the order in which they can be made.
fn missing(within: &RootfsDir, mounts: &[Value]) -> Result<Vec<Missing>, Error> {
    let mut all: Vec<Missing> = Vec::new();
    let root = Path::new("/");
    let of_root = within.device().map_err(Error::io("look at", root))?;
    let destinations = || mounts.iter().filter_map(|mount| mount["destination"].as_str().map(Path::new));
    for (index, mount) in mounts.iter().enumerate() {
        let Some(destination) = destinations().nth(index) else { continue };
        // What lies below another mount is made in that.
        let covered = destinations().any(|other| destination != other && destination.starts_with(other));
        if covered {
            continue;
        }
        let source = mount["source"].as_str().map(Path::new);
        let is_bind = mount["type"] == "bind";
        let is_dir = !is_bind || source.is_none_or(Path::is_dir);
        let (mut path, mut device) = (root.to_owned(), of_root);
        let normal = destination.components().filter(|part| matches!(part, Component::Normal(_)));
        let count = normal.clone().count();
        for (part, number) in normal.zip(1..) {
            path.push(part);
            let found = within.find(&path).map_err(Error::io("look at the mount point", &path))?;
            if let Some(found) = &found {
                device = found.stat.st_dev;
            } else if all.iter().all(|stub| stub.path != path) {
                let is_target = number == count;
                all.push(Missing { path: path.clone(), device, is_dir: is_dir || !is_target, is_target });
            }
        }
    }
    Ok(all)
}

fn name_of(path: &Path) -> &Path {
    path.file_name().map_or(path, Path::new)
}

fn parent_of(within: &RootfsDir, path: &Path) -> io::Result<OwnedFd> {
    within.open_dir(path.parent().unwrap_or(Path::new("/")))
}

/// Does something to a directory without its times telling of it.
fn keeping_times<T>(dir: &OwnedFd, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Stat { st_atime, st_atime_nsec, st_mtime, st_mtime_nsec, .. } = fstat(dir)?;
    let time =
        |tv_sec: i64, tv_nsec: u64| Timespec { tv_sec, tv_nsec: tv_nsec.try_into().unwrap_or_default() };
    let changed = change()?;
    let times = Timestamps {
        last_access: time(st_atime, st_atime_nsec),
        last_modification: time(st_mtime, st_mtime_nsec),
    };
    futimens(dir, &times)?;
    Ok(changed)
}

impl Stubs {
    fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        // In one step: half of it would be nothing.
        let new = dir.join("stubs.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, dir.join(FILE))
    }
}

/// Takes away what [`make_missing`] made and is still empty, unless another container uses the root file system. What cannot
/// be looked at stays where it is: a stub does no harm.
pub(crate) fn remove(dir: &Path) {
    let mut in_use = in_use();
    let own = in_use.remove(dir);
    let Some(stubs) = Stubs::read(dir) else { return };
    let heir = own.as_ref().and_then(|own| in_use.iter().find(|(_, other)| other.root == own.root));
    if let Some((heir, _)) = heir {
        let mut all = Stubs::read(heir).unwrap_or(Stubs { root: stubs.root.clone(), made: Vec::new() });
        all.made.splice(0..0, stubs.made);
        // When it cannot be written, they stay.
        let _stay = all.write(heir).and_then(|()| fs::remove_file(dir.join(FILE)));
        return;
    }
    drop(own);
    let Ok(_alone) = locked(&stubs.root, FlockOperation::NonBlockingLockExclusive) else { return };
    let Ok(within) = RootfsDir::open(&stubs.root) else { return };
    for stub in stubs.made.iter().rev() {
        let _stays = where_made(&within, stub).and_then(|parent| remove_empty(&parent, name_of(&stub.path)));
    }
}

/// The directory in which a stub was made, if it is the same.
fn where_made(within: &RootfsDir, stub: &Stub) -> io::Result<OwnedFd> {
    let parent = match within.device()? == stub.device {
        true => within.open_dir_of_root_mount(stub.path.parent().unwrap_or(Path::new("/")))?,
        // It was made in what was mounted there.
        false => parent_of(within, &stub.path)?,
    };
    if fstat(&parent)?.st_dev == stub.device { Ok(parent) } else { Err(Errno::XDEV.into()) }
}

/// Removes an empty file or directory, and nothing that is mounted upon.
fn remove_empty(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = openat(parent, name, flags, Mode::empty())?;
            let mut entries = Dir::read_from(dir.as_fd())?;
            let own = |name: &[u8]| name == b"." || name == b"..";
            if entries.any(|entry| entry.is_ok_and(|entry| !own(entry.file_name().to_bytes()))) {
                return Err(Errno::NOTEMPTY.into());
            }
            keeping_times(parent, || Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?))
        }
        FileType::RegularFile if stat.st_size == 0 => {
            keeping_times(parent, || Ok(unlinkat(parent, name, AtFlags::empty())?))
        }
        FileType::RegularFile
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::NOTEMPTY.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_entry::bind;
    use rustix::mount::{MountFlags, UnmountFlags};
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
                .map(|(source, destination)| bind(Path::new(source), Path::new(destination), "rw"))
                .collect();
            make_missing(self.bundle.path(), self.root.path(), &mounts, parents, Owner::ROOT)
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
        stage
            .make(&[("/etc/passwd", "/etc/hosts"), ("/etc", "/a/b/c"), ("/etc", "/a/b/c/d")], false)
            .unwrap();
        assert!(stage.root.path().join("etc/hosts").is_file() && stage.root.path().join("a/b/c").is_dir());
        assert!(!stage.has("a/b/c/d"), "it is below a mount");
        assert_eq!(stage.times(), before);
        remove(stage.bundle.path());
        assert!(!stage.has("etc/hosts") && !stage.has("a/b/c") && stage.has("a/b"));
        assert_eq!(stage.times(), before);
    }

    #[test]
    fn directories_above_come_away_when_asked() {
        let stage = Stage::new();
        stage.make(&[("/etc", "/a/b/c"), ("/etc", "/a/x")], true).unwrap();
        remove(stage.bundle.path());
        assert!(!stage.has("a"));
        stage.make(&[("/etc", "/etc")], true).unwrap();
        remove(stage.bundle.path());
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
            remove(stage.bundle.path());
            assert!(etc.join("x").is_dir(), "it is another's");
            unmount(&etc);
        }
        // What was there when it was made is no obstacle.
        let stage = Stage::new();
        let etc = stage.root.path().join("etc");
        mount(Path::new("tmpfs"), "tmpfs", &etc);
        stage.make(&[("/etc", "/etc/x")], false).unwrap();
        assert!(stage.has("etc/x"));
        remove(stage.bundle.path());
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
        remove(stage.bundle.path());
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
        remove(stage.bundle.path());
        fs::remove_file(stage.bundle.path().join(FILE)).unwrap();
        stage.make(&[("/etc", "/inside/x")], true).unwrap();
        assert!(stage.has("etc/x"));
        remove(stage.bundle.path());
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
                        let mounts = [bind(Path::new("/etc"), Path::new("/a/b"), "rw")];
                        make_missing(bundle.path(), root.path(), &mounts, true, Owner::ROOT).unwrap();
                        assert!(root.path().join("a/b").is_dir());
                        remove(bundle.path());
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
            .map(|(source, place)| bind(Path::new(source), Path::new(place), "rw"));
        make_missing(other.bundle.path(), stage.root.path(), &mounts, false, Owner::ROOT).unwrap();
        remove(stage.bundle.path());
        assert!(stage.has("a") && stage.has("b"));
        // Another process that has a container there.
        let theirs = locked(stage.root.path(), FlockOperation::LockShared).unwrap();
        remove(other.bundle.path());
        assert!(stage.has("a") && stage.has("b"), "there is one left that uses them");
        drop(theirs);
        remove(other.bundle.path());
        assert!(!stage.has("a") && !stage.has("b"));
    }
}
