//! Programs in memory: files that are made, sealed, and then only executed.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// Makes an empty file in memory that can be executed and sealed. Linux before 6.3 does not know `MFD_EXEC`. Later versions may
/// require it.
///
/// # Errors
/// Those of the system.
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?),
        made => Ok(made?),
    }
}

/// Seals a file that was written, and opens it again for reading only. The first descriptor is to be closed: a file that is open
/// for writing cannot be executed.
///
/// As long as the new descriptor is open, the kernel grants no write lease, which would stop whoever executes the file for 45
/// seconds. The descriptor that has made the file does not count. Other users cannot execute the file, and so cannot get hold
/// of it. The seals are exactly those that runc requires of its own program: before 1.2 it does not accept one that keeps the
/// mode as well.
///
/// # Errors
/// Those of the system.
pub fn seal(file: &File) -> io::Result<OwnedFd> {
    fchmod(file, Mode::RUSR | Mode::XUSR)?;
    fcntl_add_seals(file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(fcntl_dupfd_cloexec(File::open(path)?, 3)?)
}
