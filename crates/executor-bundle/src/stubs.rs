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

mod missing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, flock, fstat, futimens,
    openat, statat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::missing::{Missing, missing};
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
