//! Files inside a root file system, found at the same paths as in the container.
//!
//! The kernel resolves the paths, by openat2(2) with `RESOLVE_IN_ROOT`, which needs Linux 5.6. Absolute links and `..` start
//! at the root file system's root, so no path leads out of it, not even if a process inside changes links meanwhile.
//! docs/adr/0007 says why we do not use a library for this.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use executor_core::lifecycle::{HostPid, StartFailureKind};
use executor_disk::faults::{Op, change};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, StatxFlags, Uid, fchmod, fchown, fstat,
    mkdirat, openat, openat2, readlinkat, statat, statx,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::error::Error;
use crate::ids::Owner;

/// The most bytes that we read of a container's file. No real passwd is larger.
pub(crate) const READ_LIMIT: u64 = 4 << 20;

/// How often a resolution is tried again while other processes rename or mount something.
const RACES: usize = 128;

/// A root file system, seen from outside the container.
pub(crate) struct RootfsDir {
    root: OwnedFd,
    path: PathBuf,
}

/// A file in it, found but not opened.
pub(crate) struct Found {
    handle: OwnedFd,
    pub(crate) stat: Stat,
}

/// Why a file was not read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It does not exist.
    Missing,
    /// It is not a file that we read, for this reason.
    Unsuitable(String),
    /// The system refuses to read it.
    Failed(io::Error),
}

/// Opens a root directory, so that it can be locked.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

impl RootfsDir {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Self::at(path).map_err(Error::file("rootfs", path))
    }

    /// The root file system of a process, including its mounts.
    pub(crate) fn of_process(pid: HostPid) -> Result<Self, Error> {
        let path = PathBuf::from(format!("/proc/{pid}/root"));
        Self::at(&path).map_err(|error| match StartFailureKind::of_io(&error) {
            // It may be alive.
            Some(StartFailureKind::NoResources) => Error::io("open", &path)(error),
            Some(_) | None => Error::Ended(error),
        })
    }

    /// The root file system whose root directory is open. `path` is its path.
    pub(crate) fn of_opened(root: &OwnedFd, path: &Path) -> io::Result<Self> {
        Ok(Self { root: root.try_clone()?, path: path.to_owned() })
    }

    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// An error if `/dev` is a link. Runtimes make links and terminals in it by its path on the host, so that they make them
    /// where the link leads on the host (CVE-2026-41579).
    pub(crate) fn check_dev(&self) -> Result<(), Error> {
        let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        match statat(&self.root, "dev", AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_link(stat) => Err(Error::field("rootfs", "its /dev is a link")),
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::file("rootfs", &self.path)(io::Error::from(error))),
        }
    }

    /// Finds the file at `path`, and follows links. `None` if it does not exist.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        match self.open_as(path, OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::empty()) {
            Ok(handle) => Ok(Some(Found { stat: fstat(&handle)?, handle })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds the file at `path` and does not follow it if it is a link. `None` if it does not exist.
    pub(crate) fn find_itself(&self, path: &Path) -> io::Result<Option<Found>> {
        match self.open_as(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, ResolveFlags::empty()) {
            Ok(handle) => Ok(Some(Found { stat: fstat(&handle)?, handle })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory, to make something in it.
    pub(crate) fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(self.open_as(path, flags, ResolveFlags::empty())?)
    }

    /// Opens a directory, to remove something from it. An error if the path crosses a mount.
    pub(crate) fn open_dir_of_root_mount(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(self.open_as(path, flags, ResolveFlags::NO_XDEV)?)
    }

    /// The device of the root directory.
    pub(crate) fn device(&self) -> io::Result<u64> {
        Ok(fstat(&self.root)?.st_dev)
    }

    /// Makes an empty file or directory in `parent`, with this owner on the host and this mode. An error if the name exists.
    pub(crate) fn make(
        &self,
        parent: &OwnedFd,
        name: &Path,
        dir: bool,
        owner: Owner,
        mode: u32,
    ) -> io::Result<()> {
        change(if dir { Op::MakeDir } else { Op::MakeFile }, &self.path, name)?;
        let new = if dir {
            make_dir(parent, name)?
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from_raw_mode(0o644))?
        };
        // Our umask may have cleared bits.
        fchmod(&new, Mode::from_raw_mode(mode))?;
        if rustix::process::geteuid().is_root() {
            fchown(&new, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
        }
        Ok(())
    }

    /// Makes a directory, and those above it, with this owner on the host. Directories that exist are left as they are.
    pub(crate) fn make_dirs(&self, path: &Path, owner: Owner) -> io::Result<()> {
        let mut parent = PathBuf::from("/");
        for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
            if self.find(&parent.join(part))?.is_none() {
                self.make(&self.open_dir(&parent)?, Path::new(part.as_os_str()), true, owner, 0o755)?;
            }
            parent.push(part);
        }
        Ok(())
    }

    fn open_as(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        let open = || openat2(&self.root, path, flags, Mode::empty(), resolve);
        // The kernel answers EAGAIN if something was renamed or mounted anywhere meanwhile.
        let found = (0..RACES).map(|_| open()).find(|found| !matches!(found, Err(Errno::AGAIN)));
        found.unwrap_or(Err(Errno::AGAIN))
    }

    /// Reads a whole file. FIFOs, devices and files larger than 4 MiB are refused without being opened.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, Unreadable> {
        let found = self.find(path).map_err(Unreadable::Failed)?.ok_or(Unreadable::Missing)?;
        if !found.is(FileType::RegularFile) {
            return Err(Unreadable::Unsuitable("it is not a regular file".into()));
        }
        if u64::try_from(found.stat.st_size).is_ok_and(|size| size > READ_LIMIT) {
            return Err(Unreadable::Unsuitable(format!("it is larger than {} MiB", READ_LIMIT >> 20)));
        }
        found.read(READ_LIMIT).map_err(Unreadable::Failed)
    }

    /// The path in the container of a file that was found.
    pub(crate) fn path_of(&self, found: &Found) -> Option<PathBuf> {
        let real = std::fs::read_link(found.link()).ok()?;
        Some(Path::new("/").join(real.strip_prefix(&self.path).ok()?))
    }
}

/// How exact the times of a file system are, at least.
const GRANULARITY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Makes a directory and opens it.
///
/// Whoever can write to `parent` can put another directory in its place before it is opened, and would have that given away
/// instead. So it must be empty, ours, and younger than this call.
fn make_dir(parent: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    // The clock of file systems. It stands still between two ticks, which may be long on a busy machine.
    let begun = clock_gettime(ClockId::RealtimeCoarse) - GRANULARITY;
    mkdirat(parent, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = openat(parent, name, flags, Mode::empty())?;
    let stat = statx(&new, "", AtFlags::EMPTY_PATH, StatxFlags::UID | StatxFlags::BTIME)?;
    let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let birth = Timespec { tv_sec: stat.stx_btime.tv_sec, tv_nsec: stat.stx_btime.tv_nsec.into() };
    let is_empty = rustix::fs::Dir::read_from(&new)?
        .all(|entry| entry.is_ok_and(|entry| [c".", c".."].contains(&entry.file_name())));
    let is_new = is_empty && stat.stx_uid == geteuid().as_raw() && (!has_birth || birth >= begun);
    if is_new { Ok(new) } else { Err(io::Error::other("another directory was put in its place")) }
}

impl Found {
    /// A file of the host. Links are followed. `None` if it does not exist.
    pub(crate) fn on_the_host(path: &Path) -> io::Result<Option<Self>> {
        match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(handle) => Ok(Some(Self { stat: fstat(&handle)?, handle })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a link leads.
    pub(crate) fn target(&self) -> io::Result<PathBuf> {
        let target = readlinkat(&self.handle, "", Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// A path that leads to the open file itself, even if its own path leads elsewhere by now.
    fn link(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.handle.as_raw_fd()).into()
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    pub(crate) fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == kind
    }

    /// Whether it has an extended attribute.
    pub(crate) fn has_attribute(&self, name: &str) -> bool {
        rustix::fs::getxattr(self.link(), name, &mut [0_u8; 0][..]).is_ok()
    }

    /// Reads `length` bytes at an offset; fewer at the end of the file.
    pub(crate) fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(self.link(), flags, Mode::empty())?);
        let mut bytes = vec![0; length];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match std::os::unix::fs::FileExt::read_at(&file, rest, offset + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads at most `limit` bytes from the beginning of the file.
    pub(crate) fn read(&self, limit: u64) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.link(), flags, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).take(limit).read_to_end(&mut bytes)?;
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
        let rootfs = RootfsDir::open(&dir.path().join("root")).unwrap();
        for out in ["/etc/up", "/etc/host"] {
            assert!(matches!(rootfs.read(Path::new(out)), Err(Unreadable::Missing)), "{out}");
        }
        assert_eq!(rootfs.read(Path::new("/etc/absolute")).unwrap(), b"inside");
        let found = rootfs.find(Path::new("/etc/absolute")).unwrap().unwrap();
        assert_eq!(rootfs.path_of(&found).as_deref(), Some(Path::new("/inside")));
    }

    #[test]
    fn passwd_hostile() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, 0o644.into(), 0).unwrap();
        std::fs::File::create(dir.path().join("huge")).unwrap().set_len(100 << 20).unwrap();
        symlink("/loop", dir.path().join("loop")).unwrap();
        let rootfs = RootfsDir::open(dir.path()).unwrap();
        for name in ["/fifo", "/huge", "/loop", "/"] {
            assert!(
                matches!(
                    rootfs.read(Path::new(name)),
                    Err(Unreadable::Unsuitable(_) | Unreadable::Failed(_))
                ),
                "{name}"
            );
        }
    }
}
