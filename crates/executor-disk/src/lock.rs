//! Locks that others may hold.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The pause between two tries. The kernel gives no notice within a time.
const PAUSE: Duration = Duration::from_millis(1);

/// Takes a lock, and waits for it at most for `patience`. `operation` is one that does not block. `false` if somebody else
/// keeps the lock: whoever can open a file can lock it, for as long as he likes.
///
/// # Errors
/// When the system refuses it.
pub fn lock_within(file: impl AsFd, operation: FlockOperation, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}
