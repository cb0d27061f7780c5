//! `/dev/null` for containers.
//!
//! A program can change the times, and as root the mode, of the file behind its streams. The runtime gives the first process of a
//! container the container's own `/dev/null`, but passes the streams of an exec on as they are: `chmod 0 /proc/self/fd/0` would
//! be a change of the host's. So they are opened by a mount of their own that is read-only, which a device can be written to all
//! the same. Where that cannot be made (an ordinary user, who does not own the device, or Linux before 5.12), the device is
//! opened as it is.
#![expect(unsafe_code, reason = "mount_setattr(2) has no safe wrapper in rustix 1.1 or nix 0.31")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

const DEVICE: &str = "/dev/null";

/// The device on its mount, kept as long as the process.
static READ_ONLY: OnceLock<OwnedFd> = OnceLock::new();

/// Opens the device for reading and writing.
pub(crate) fn open() -> io::Result<File> {
    let open = |path: &str| File::options().read(true).write(true).open(path);
    if READ_ONLY.get().is_none() {
        match mount_read_only() {
            // Another thread may have made one meanwhile.
            Ok(made) => drop(READ_ONLY.set(made)),
            Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => return open(DEVICE),
            Err(error) => return Err(error.into()),
        }
    }
    let mount = READ_ONLY.get().ok_or(Errno::BADF)?;
    open(&format!("/proc/self/fd/{}", mount.as_raw_fd()))
}

fn mount_read_only() -> rustix::io::Result<OwnedFd> {
    let tree = open_tree(CWD, DEVICE, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: both pointers lead to values that outlive the call, and the size is that of the struct.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(tree)
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_used_and_not_changed() {
        let mut null = open().unwrap();
        null.write_all(b"x").unwrap();
        assert_eq!(null.read(&mut [0]).unwrap(), 0);
        let mode = null.metadata().unwrap().permissions().mode();
        assert!(null.set_permissions(std::fs::Permissions::from_mode(mode)).is_err());
        assert!(null.set_modified(std::time::SystemTime::now()).is_err());
    }
}
