//! Files inside a root file system, found as the container would find them.
//!
//! Resolution is pathrs's (`openat2` with `RESOLVE_IN_ROOT` where the kernel has it): absolute links
//! and `..` mean the root file system's root, nothing is ever followed out of it, and a writer inside
//! cannot race us out either.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{HostPid, StartFailure, StartFailureKind};
use pathrs::error::ErrorKind as PathrsErrorKind;
use pathrs::flags::OpenFlags;
use pathrs::{Handle, Root};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat};
use rustix::io::Errno;

/// The most that is read of a file of a container's: no passwd of this size is one.
const READ_LIMIT: u64 = 4 << 20;

/// A root file system, looked at from outside.
pub(crate) struct Within {
    root: Root,
    path: PathBuf,
}

/// A file in it, found but not opened.
pub(crate) struct Found {
    handle: Handle,
    pub(crate) stat: Stat,
}

/// Why a file could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// There is none.
    Missing,
    /// There is something, and it is no file for us.
    Because(String),
}

impl Within {
    pub(crate) fn open(path: &Path) -> Result<Self, StartFailure> {
        Self::at(path).map_err(|error| crate::bad("rootfs", &format!("{}: {error}", path.display())))
    }

    /// The root file system as a process sees it, its mounts included.
    pub(crate) fn of_process(pid: HostPid) -> Result<Self, StartFailure> {
        Self::at(Path::new(&format!("/proc/{pid}/root"))).map_err(|error| {
            let message = format!("the container has ended: its init cannot be looked at: {error}");
            StartFailure::new(StartFailureKind::ContainerGone, message)
        })
    }

    /// pathrs would not follow a last link such as `/proc/<pid>/root`.
    fn at(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root: Root::from_fd(root), path: path.to_owned() })
    }

    /// What is at `path`, links followed; `None` when there is nothing.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<Found>, String> {
        match self.root.resolve(path) {
            Ok(handle) => {
                let stat = fstat(&handle).map_err(|error| error.to_string())?;
                Ok(Some(Found { handle, stat }))
            }
            Err(error) => {
                let nothing = [Errno::NOENT, Errno::NOTDIR].map(|errno| errno.raw_os_error());
                let missing =
                    matches!(error.kind(), PathrsErrorKind::OsError(Some(errno)) if nothing.contains(&errno));
                if missing { Ok(None) } else { Err(error.to_string()) }
            }
        }
    }

    /// A whole file. FIFOs, devices and what is larger than 4 MiB are refused without being opened.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, Unreadable> {
        let found = self.find(path).map_err(Unreadable::Because)?.ok_or(Unreadable::Missing)?;
        if !found.is(FileType::RegularFile) {
            return Err(Unreadable::Because("it is no regular file".into()));
        }
        if u64::try_from(found.stat.st_size).is_ok_and(|size| size > READ_LIMIT) {
            return Err(Unreadable::Because(format!("it is larger than {} MiB", READ_LIMIT >> 20)));
        }
        found.read(READ_LIMIT).map_err(|error| Unreadable::Because(error.to_string()))
    }

    /// Where `found` is, as a path in the container.
    pub(crate) fn path_of(&self, found: &Found) -> Option<PathBuf> {
        use std::os::fd::AsFd;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", found.handle.as_fd().as_raw_fd())).ok()?;
        Some(Path::new("/").join(real.strip_prefix(&self.path).ok()?))
    }
}

impl Found {
    pub(crate) fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == kind
    }

    /// At most `limit` bytes from its beginning.
    pub(crate) fn read(&self, limit: u64) -> io::Result<Vec<u8>> {
        let flags = OpenFlags::O_RDONLY | OpenFlags::O_NONBLOCK | OpenFlags::O_NOCTTY;
        let file = self.handle.reopen(flags).map_err(|error| io::Error::other(error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn symlink_escape() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "host").unwrap();
        std::fs::write(dir.path().join("root/inside"), "inside").unwrap();
        let link = |to: &str, name: &str| symlink(to, dir.path().join("root/etc").join(name)).unwrap();
        link("../../secret", "up");
        link("/inside", "absolute");
        link(dir.path().join("secret").to_str().unwrap(), "host");
        let within = Within::open(&dir.path().join("root")).unwrap();
        assert_eq!(within.read(Path::new("/etc/up")), Err(Unreadable::Missing));
        assert_eq!(within.read(Path::new("/etc/host")), Err(Unreadable::Missing));
        assert_eq!(within.read(Path::new("/etc/absolute")).as_deref(), Ok(b"inside".as_slice()));
        let found = within.find(Path::new("/etc/absolute")).unwrap().unwrap();
        assert_eq!(within.path_of(&found).as_deref(), Some(Path::new("/inside")));
    }

    #[test]
    fn passwd_hostile() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, 0o644.into(), 0).unwrap();
        std::fs::File::create(dir.path().join("huge")).unwrap().set_len(100 << 20).unwrap();
        symlink("/loop", dir.path().join("loop")).unwrap();
        let within = Within::open(dir.path()).unwrap();
        for name in ["/fifo", "/huge", "/loop", "/"] {
            assert!(matches!(within.read(Path::new(name)), Err(Unreadable::Because(_))), "{name} was read");
        }
    }
}
