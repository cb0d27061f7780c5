//! The lock on a root: it is on the directory of the executors' files, which only this user can open. The root itself may be a
//! directory that was there before and that others can open, and thus lock. Its mode is not ours to change.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use executor_disk::{Dir, lock_within};
use rustix::fs::{FlockOperation, fstat};
use rustix::io::Errno;

use super::EXECUTORS;
use crate::{Error, Result};

/// How long the lock on a root is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the directory may vanish between two steps. The last executor that leaves removes it.
const MAX_MISSES: usize = 100;

/// Locks a root. Blocks while another executor has it locked, which is for moments only.
pub(super) fn lock_root(root: &Dir) -> Result<File> {
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..MAX_MISSES {
        let executors = match open(root) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.map_err(Error::file("make", &root.path_of(EXECUTORS)))?,
        };
        let locked = lock(root, &executors, deadline.saturating_duration_since(Instant::now()));
        if locked.map_err(Error::file("lock", &root.path_of(EXECUTORS)))? {
            return Ok(executors);
        }
    }
    Err(Error::file("make", &root.path_of(EXECUTORS))(ErrorKind::NotFound.into()))
}

fn open(root: &Dir) -> io::Result<File> {
    // Who leaves a root on a full disk makes nothing.
    let executors = match root.open_dir(EXECUTORS) {
        Err(error) if error.kind() == ErrorKind::NotFound => root.open_or_make_dir(EXECUTORS)?,
        opened => opened?,
    };
    executors.reopen()
}

/// `false` if the directory was removed meanwhile: then the lock is worth nothing.
fn lock(root: &Dir, executors: &File, patience: Duration) -> io::Result<bool> {
    if !lock_within(executors, FlockOperation::NonBlockingLockExclusive, patience)? {
        return Err(Errno::WOULDBLOCK.into());
    }
    let own = fstat(executors)?;
    let named = root.stat_of(EXECUTORS)?;
    Ok(named.is_some_and(|named| (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)))
}
