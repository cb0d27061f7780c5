//! Whether an executor's file is locked because the executor is alive, or because somebody sweeps it.
//!
//! ```text
//!             flock   lock on byte 0
//!  alive      yes     no
//!  swept      yes     yes, shared
//!  dead       no      no
//! ```
//! The lock on the byte belongs to the open file, so it ends with the sweep, however that ends. It is taken before the flock and
//! under the lock on the root: who looks at it does not take a sweep for a live executor.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use executor_core::Swept;
use executor_core::lifecycle::{HostPid, Leftover, LeftoverKind};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::fstat;

use super::sweep::reservations_of;
use super::{Arc, RootDirs};
use crate::{Result, procfs};

/// How long a sweep waits for another one that is at work on the same executors.
pub(super) const SWEEP_PATIENCE: Duration = Duration::from_secs(60);

/// How long a reservation waits for a sweep to free its id.
pub(super) const ID_PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks. The kernel gives no notice within a time.
const PAUSE: Duration = Duration::from_millis(5);

/// An executor that somebody else sweeps: its name and its file.
pub(super) type Underway = (String, File);

/// Marks an executor's file as being swept, for as long as the file is open.
pub(super) fn mark(file: &File) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&first_byte(libc::F_RDLCK))).map(drop).map_err(io::Error::from)
}

/// Takes the mark off: the executor is not dead.
pub(super) fn unmark(file: &File) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&first_byte(libc::F_UNLCK))).map(drop).map_err(io::Error::from)
}

/// Whether somebody else sweeps the executor whose file this is.
pub(super) fn is_swept(file: &File) -> bool {
    let mut found = first_byte(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && i32::from(found.l_type) != libc::F_UNLCK
}

fn first_byte(kind: i32) -> libc::flock {
    let narrow = |number: i32| i16::try_from(number).unwrap_or_default();
    let (l_type, l_whence) = (narrow(kind), narrow(libc::SEEK_SET));
    libc::flock { l_type, l_whence, l_start: 0, l_len: 1, l_pid: 0 }
}

/// Waits until nobody sweeps these any more, until `deadline` at most. Returns those that still are.
pub(super) fn wait(underway: Vec<Underway>, deadline: Instant) -> Vec<Underway> {
    let mut rest = underway;
    loop {
        rest.retain(|(_, file)| is_swept(file));
        if rest.is_empty() || Instant::now() > deadline {
            return rest;
        }
        thread::sleep(PAUSE);
    }
}

/// What a sweep says of the containers that somebody else is still sweeping.
pub(super) fn report(dirs: &Arc<RootDirs>, underway: &[Underway]) -> Result<Vec<Swept>> {
    let mut swept = Vec::new();
    for (executor, file) in underway {
        let who = holder(file).map_or("another process".into(), |pid| format!("process {pid}"));
        let error = io::Error::other(format!("{who} is sweeping it"));
        for reservation in reservations_of(dirs, executor)? {
            let left = Leftover::new(LeftoverKind::File, reservation.path(), &error);
            swept.push(Swept::new(reservation.id.to_string(), 0, vec![left]));
        }
    }
    Ok(swept)
}

/// The process that has the flock on a file.
pub(super) fn holder(file: &File) -> Option<HostPid> {
    let stat = fstat(file).ok()?;
    procfs::flock_holder(stat.st_dev, stat.st_ino)
}
