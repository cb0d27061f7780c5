//! Stubs: the mount points that a root file system does not have, made for one container and removed after it.
//!
//! The runtime would make missing mount points too, and leave them. In a root file system that is kept, we make them
//! first and remove them afterwards, so that it is as it was before, including the times of its directories.
//!
//! An example. A container in `/srv/root` mounts `/data` at `/mnt/data`, and `/srv/root/mnt` is an empty directory:
//!
//! 1. [`make_missing`] finds that `/mnt/data` is missing. It writes `{"root": "/srv/root", "identity": [2049, 7], "made":
//!    [{"path": "/mnt/data", "device": 2049}]}` to `stubs.json` in the bundle. The identity is the device and inode of
//!    `/srv/root`, the other device is that of `/srv/root/mnt`.
//! 2. It makes the empty directory `/srv/root/mnt/data`, and sets the times of `/srv/root/mnt` back to what they were.
//! 3. The container runs and ends. Its own mount namespace had the mount; `/srv/root/mnt/data` is still empty.
//! 4. [`remove`] reads `stubs.json`, removes `/srv/root/mnt/data`, and sets the times of `/srv/root/mnt` back again.
//!
//! If the executor dies between 1 and 4, the next executor reads the same `stubs.json` and does step 4. It opens `/srv/root`
//! anew, and does nothing if that is another directory by now. This executor uses the directory that it has open.
//!
//! A stub stays where it is in these cases:
//!
//! - The container has put something into it, or has replaced it: it is not an empty file or directory any more.
//! - Something was mounted over it after step 2. Its device is not 2049 then, and nothing is removed through a mount that
//!   was not there when the stub was made.
//! - Somebody else holds a lock on the root directory, which everybody can who can open it. He is waited for a moment only.
//!
//! The last of several containers in a root file system removes the stubs of all. Every container holds a shared flock(2) on
//! the root directory. The one that ends tries to make its lock exclusive:
//!
//! - It succeeds: this is the last one. It removes its own stubs, and those that were left to it.
//! - Another container of this process is there: the `stubs.json` of that one takes over the stubs.
//! - A container of another process is there: the stubs are left to it, in attributes of the root directory ([`left`]). Then
//!   the lock is tried once more, since that container may have ended meanwhile. To try means to lose the shared lock, so the
//!   last one that tries is alone, and by then all others have left theirs.

mod left;
mod missing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use executor_disk::{Dir, lock_within};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, flock, fstat, futimens,
    openat, statat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::missing::{Missing, missing};
use crate::error::Error;
use crate::ids::Owner;
use crate::rootfs_dir::{self, RootfsDir};

const FILE: &str = "stubs.json";
/// The name of the file until it is complete.
const NEW: &str = "stubs.new";
/// The most bytes of it that are read.
const LIMIT: u64 = 64 << 20;

/// The stubs of one container: the contents of `stubs.json`.
#[derive(Serialize, Deserialize)]
struct Stubs {
    /// The root directory of the root file system, on the host.
    root: PathBuf,
    /// Its device and inode.
    identity: Identity,
    /// A directory comes before what is below it.
    made: Vec<Stub>,
}

/// A mount point that was made for a container.
#[derive(Serialize, Deserialize)]
struct Stub {
    /// Its path within the root file system.
    path: PathBuf,
    /// The device that it was made on.
    device: u64,
}

/// The device and inode of a root directory.
type Identity = (u64, u64);

/// A root directory that a container of this process uses.
struct InUse {
    identity: Identity,
    /// Holds the shared lock.
    root: OwnedFd,
    path: PathBuf,
}

impl Drop for InUse {
    /// A program that is being executed may have a copy of the descriptor for a moment, and the lock with it.
    fn drop(&mut self) {
        let _closed = flock(&self.root, FlockOperation::Unlock);
    }
}

/// The root directories of this process's containers. They are global because containers of several executors may use one
/// root directory, and the last of them removes the stubs.
struct Roots {
    /// By their bundles.
    in_use: BTreeMap<PathBuf, InUse>,
    /// Held by whoever makes or removes stubs in a root directory.
    turns: BTreeMap<Identity, Weak<Mutex<()>>>,
}

static ROOTS: Mutex<Roots> = Mutex::new(Roots { in_use: BTreeMap::new(), turns: BTreeMap::new() });

/// Nothing outside of this process is waited for while this is held: a root directory may be on a file system that hangs.
fn roots() -> MutexGuard<'static, Roots> {
    ROOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has to be locked to make or remove stubs in a root directory.
fn turn(identity: Identity) -> Arc<Mutex<()>> {
    let mut roots = roots();
    roots.turns.retain(|_, turn| turn.strong_count() > 0);
    if let Some(turn) = roots.turns.get(&identity).and_then(Weak::upgrade) {
        return turn;
    }
    let turn = Arc::default();
    roots.turns.insert(identity, Arc::downgrade(&turn));
    turn
}

/// How long the shared lock is waited for. Other processes of ours hold an exclusive one for moments, while they remove stubs.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

fn identity(root: &OwnedFd) -> io::Result<Identity> {
    let stat = fstat(root)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Makes the mount points of `mounts` that are missing in `root`, and writes down which of them [`remove`] removes: the
/// mount points themselves, and the directories that had to be made above them, except above those for which `stays_below`.
pub(crate) fn make_missing(
    dir: &Dir,
    root: &Path,
    mounts: &[Value],
    stays_below: &dyn Fn(&Path) -> bool,
    owner: Owner,
) -> Result<(), Error> {
    let opened = rootfs_dir::open_root(root).map_err(Error::io("open", root))?;
    let identity = identity(&opened).map_err(Error::io("stat", root))?;
    // Locked until the stubs are made. Otherwise two containers could both make the same stub, and a container that ends
    // meanwhile could leave its stubs to one that has not written its own down yet.
    let turn = turn(identity);
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let is_ours = lock_within(&opened, FlockOperation::NonBlockingLockShared, LOCK_PATIENCE)
        .map_err(Error::io("lock", root))?;
    let rootfs = RootfsDir::of_opened(&opened, root).map_err(Error::io("open", root))?;
    let in_use = InUse { identity, root: opened, path: root.to_owned() };
    roots().in_use.insert(dir.path().to_owned(), in_use);
    let missing = missing(&rootfs, mounts, stays_below)?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut stubs = Stubs { root: root.to_owned(), identity, made: Vec::new() };
    // What is made while somebody else holds a lock stays.
    for point in missing.iter().filter(|point| is_ours && !point.stays) {
        stubs.made.push(Stub { path: point.path.clone(), device: point.device });
    }
    stubs.write(dir).map_err(Error::io("write", &dir.path_of(FILE)))?;
    for point in &missing {
        make(&rootfs, point, owner).map_err(Error::io("make the mount point", &point.path))?;
    }
    Ok(())
}

/// Makes the mount points that are missing in a root file system that is thrown away.
pub(crate) fn make_all(root: &Path, mounts: &[Value], owner: Owner) -> Result<(), Error> {
    let rootfs = RootfsDir::open(root)?;
    for point in missing(&rootfs, mounts, &|_| true)? {
        make(&rootfs, &point, owner).map_err(Error::io("make the mount point", &point.path))?;
    }
    Ok(())
}

fn make(rootfs: &RootfsDir, point: &Missing, owner: Owner) -> io::Result<()> {
    let parent = parent_of(rootfs, &point.path)?;
    let name = name_of(&point.path);
    match preserving_times(&parent, || rootfs.make(&parent, name, point.is_dir, owner, point.mode)) {
        // Another process has made the same mount point meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Reads a `stubs.json` for `fuzzing`: the name of each stub in its directory. What was read is written
/// and read again, which must give the same.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn names(json: &[u8]) -> Option<Vec<PathBuf>> {
    let read = |json: &[u8]| {
        let stubs = Stubs::parse(json)?;
        let names: Vec<_> = stubs.made.iter().map(|stub| name_of(&stub.path).to_owned()).collect();
        Some((serde_json::to_vec(&stubs).ok()?, names))
    };
    let (written, names) = read(json)?;
    (read(&written)? == (written, names.clone())).then_some(names)
}

fn name_of(path: &Path) -> &Path {
    path.file_name().map_or(path, Path::new)
}

fn parent_of(rootfs: &RootfsDir, path: &Path) -> io::Result<OwnedFd> {
    rootfs.open_dir(path.parent().unwrap_or(Path::new("/")))
}

/// Makes a change in a directory, and sets the directory's times back afterwards.
fn preserving_times<T>(dir: &OwnedFd, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
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
    fn read(dir: &Dir) -> Option<Self> {
        Self::parse(&dir.read(FILE, LIMIT).ok()?)
    }

    /// The stubs that a `stubs.json` names. A path without a last component names none.
    fn parse(json: &[u8]) -> Option<Self> {
        let mut stubs: Self = serde_json::from_slice(json).ok()?;
        stubs.made.retain(|stub| stub.path.file_name().is_some());
        Some(stubs)
    }

    fn write(&self, dir: &Dir) -> io::Result<()> {
        dir.replace(FILE, NEW, &serde_json::to_vec(self)?)
    }

    /// Gives these stubs to another container of the same root file system, which removes them when it ends.
    fn hand_over(self, dir: &Dir, other: &Path) -> io::Result<()> {
        let other = Dir::open_checked(other)?;
        let none = Self { root: self.root, identity: self.identity, made: Vec::new() };
        let mut inherited = Self::read(&other).unwrap_or(none);
        inherited.made.splice(0..0, self.made);
        inherited.write(&other)?;
        dir.remove_file(FILE)
    }
}

/// Forgets the containers whose bundles are at or below `dir`.
pub(crate) fn forget(dir: &Path) {
    roots().in_use.retain(|bundle, _| !bundle.starts_with(dir));
}

/// Removes the stubs that [`make_missing`] made and that are still empty, and those that others have left to this container,
/// unless another one uses the root file system. A stub that cannot be removed stays: it does no harm.
pub(crate) fn remove(dir: &Dir) {
    let known = roots().in_use.get(dir.path()).map(|own| own.identity);
    let Some(used) = known.or_else(|| Stubs::read(dir).map(|stubs| stubs.identity)) else { return };
    let turn = turn(used);
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let own = roots().in_use.remove(dir.path());
    // Another container may have handed its stubs over until now.
    let stubs = Stubs::read(dir);
    let other = {
        let roots = roots();
        let mut others = roots.in_use.iter().filter(|(_, other)| other.identity == used);
        others.next().map(|(other, _)| other.clone())
    };
    if let Some(other) = other {
        // If the file cannot be written, the stubs stay.
        let _stay = stubs.map(|stubs| stubs.hand_over(dir, &other));
        return;
    }
    let Some(path) = own.as_ref().map(|own| &own.path).or(stubs.as_ref().map(|stubs| &stubs.root)) else {
        return;
    };
    let opened = match &own {
        Some(own) => own.root.try_clone(),
        None => rootfs_dir::open_root(path),
    };
    let Ok(root) = opened else { return };
    // Somebody may have put another directory in its place.
    if !identity(&root).is_ok_and(|identity| identity == used) {
        return;
    }
    let made = stubs.as_ref().map_or(&[][..], |stubs| &stubs.made);
    if !is_last(&root, made) {
        return;
    }
    let Ok(rootfs) = RootfsDir::of_opened(&root, path) else { return };
    let left = left::take(&root);
    let mut all: Vec<_> = made.iter().chain(&left).collect();
    all.sort_by_key(|stub| std::cmp::Reverse(stub.path.components().count()));
    for stub in all {
        let _stays =
            unchanged_parent(&rootfs, stub).and_then(|parent| remove_empty(&parent, name_of(&stub.path)));
    }
}

/// Makes the shared lock on a root directory an exclusive one. If another process has a lock, the stubs are left to it.
fn is_last(root: &OwnedFd, made: &[Stub]) -> bool {
    let is_alone = || flock(root, FlockOperation::NonBlockingLockExclusive).is_ok();
    if is_alone() {
        return true;
    }
    // While we have the shared lock again, nobody else is the last one.
    let _without = lock_within(root, FlockOperation::NonBlockingLockShared, LOCK_PATIENCE);
    made.iter().for_each(|stub| left::leave(root, stub));
    is_alone()
}

/// The directory in which a stub was made. An error if something was mounted over it since.
fn unchanged_parent(rootfs: &RootfsDir, stub: &Stub) -> io::Result<OwnedFd> {
    let parent = if rootfs.device()? == stub.device {
        rootfs.open_dir_of_root_mount(stub.path.parent().unwrap_or(Path::new("/")))?
    } else {
        // The stub was made in a file system that was mounted there already.
        parent_of(rootfs, &stub.path)?
    };
    if fstat(&parent)?.st_dev == stub.device { Ok(parent) } else { Err(Errno::XDEV.into()) }
}

/// Removes an empty file or directory. An error if it is neither, or something is mounted on it.
fn remove_empty(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = openat(parent, name, flags, Mode::empty())?;
            let mut entries = rustix::fs::Dir::read_from(dir.as_fd())?;
            let is_dot = |name: &[u8]| name == b"." || name == b"..";
            if entries.any(|entry| entry.is_ok_and(|entry| !is_dot(entry.file_name().to_bytes()))) {
                return Err(Errno::NOTEMPTY.into());
            }
            preserving_times(parent, || Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?))
        }
        FileType::RegularFile if stat.st_size == 0 => {
            preserving_times(parent, || Ok(unlinkat(parent, name, AtFlags::empty())?))
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
