//! A file that whoever opens it waits for, until it is written.
//!
//! The kernel holds others up in open(2) while somebody has a lease for writing on the file (fcntl(2), `F_SETLEASE`): until
//! it is given back, or its holder ends, or `/proc/sys/fs/lease-break-time` is over, 45 s. So a runtime can be called before
//! what it will read is there, and one whose caller dies reads half of it, complains and ends. docs/adr/0013.
#![expect(unsafe_code, reason = "fcntl for leases, which rustix and nix do not have")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// As `asm-generic/fcntl.h` has it.
const F_SETSIG: libc::c_int = 10;

/// A file that is still to be written.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
    is_waited_for: bool,
}

impl Held {
    /// Makes a file where none is, for its owner's eyes.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, is_waited_for: false })
    }

    /// From now on whoever opens it waits. Answers whether that is so: not every file system knows leases.
    pub(crate) fn hold(&mut self) -> bool {
        let leased = lease(&self.file).inspect_err(|error| tracing::trace!(%error, "no leases here"));
        self.is_waited_for = leased.is_ok();
        self.is_waited_for
    }

    /// Writes it, and lets those who wait go on.
    pub(crate) fn write(mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        // A child that was forked just now may have the file open as well, and the lease with it.
        match self.is_waited_for {
            true => control(&self.file, libc::F_SETLEASE, libc::F_UNLCK)
                .map_err(|_| io::Error::other("it was opened before it was written: that took too long")),
            false => Ok(()),
        }
    }
}

/// The holder of a lease gets a signal when somebody comes: SIGIO, and that ends a process which does not expect it. Nobody
/// here wants one, which can be said only when the lease is there; until then it is one that nobody takes notice of.
fn lease(file: &File) -> io::Result<()> {
    control(file, F_SETSIG, libc::SIGURG)?;
    control(file, libc::F_SETLEASE, libc::F_WRLCK)?;
    control(file, libc::F_SETOWN, 0)
}

fn control(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: these commands take a number, and the file is open.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::thread;
    use std::time::Duration;

    /// Reads a file on a thread.
    fn reader(path: &Path) -> mpsc::Receiver<Vec<u8>> {
        let (read, reads) = mpsc::channel();
        let path = path.to_owned();
        thread::spawn(move || read.send(fs::read(path).unwrap()));
        reads
    }

    #[test]
    fn who_opens_it_waits_and_reads_all_of_it() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("config.json");
        let mut held = Held::create(&path).unwrap();
        assert!(held.hold());
        let reads = reader(&path);
        assert_eq!(reads.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout));
        held.write(b"all of it").unwrap();
        assert_eq!(reads.recv().unwrap(), b"all of it");
        assert_eq!(reader(&path).recv().unwrap(), b"all of it");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Held::create(&path).is_err(), "it is there");
    }

    #[test]
    fn what_is_never_written_is_empty() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("config.json");
        let mut held = Held::create(&path).unwrap();
        assert!(held.hold());
        let reads = reader(&path);
        assert_eq!(reads.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout));
        drop(held);
        assert_eq!(reads.recv().unwrap(), b"");
    }
}
