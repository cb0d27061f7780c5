//! An open directory, and what can be done to an entry of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use executor_lifecycle::{Leftover, LeftoverKind};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid, fchmod, fchown, fstat,
    mkdirat, openat2, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::faults::{Op, change};
use crate::{tree, trust};

/// How an entry is found: no link is followed, no mount is crossed.
const ENTRY: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// An open directory. Entries are named by a single name, never by a path.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub(crate) fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self { fd, path }
    }

    /// Opens a directory of this user's own, after every directory on the way to it was checked.
    ///
    /// Nobody but root and this user may be able to change which directory the path leads to: each directory on the way
    /// belongs to one of them, and either nobody else can write to it or it has the sticky bit. The last one must belong to
    /// this user, must not be a link, and nobody else may be able to write to it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it does not exist. [`ErrorKind::PermissionDenied`] with the reason if it is refused.
    pub fn open_checked(path: &Path) -> io::Result<Self> {
        trust::open(path, None)
    }

    /// The same. Makes missing directories: the last one with mode 0700, those above it with mode 0755.
    ///
    /// # Errors
    /// As [`open_checked`](Self::open_checked), or when a directory cannot be made.
    pub fn make_checked(path: &Path) -> io::Result<Self> {
        trust::open(path, Some(Mode::RWXU))
    }

    /// Its path, for messages and for programs that take paths only.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry, for the same purposes.
    pub fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A path to an entry that goes through the open directory, for system calls that take paths only. It is valid in this
    /// process while the directory is open.
    pub fn by_descriptor(&self, name: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(name)
    }

    /// Another descriptor of the same directory.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, path: self.path.clone() })
    }

    /// The directory as a new open file, which has locks of its own.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn reopen(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(&self.fd, ".", flags, Mode::empty(), ENTRY)?.into())
    }

    /// Opens a directory in it, which must belong to this user, and to which nobody else may be able to write.
    ///
    /// # Errors
    /// When it does not exist, is no such directory, or something is mounted there.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        let fd = self.open(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        trust::check_own(&fstat(&fd)?).map_err(io::Error::other)?;
        Ok(Self { fd, path: self.path_of(name) })
    }

    /// Opens a directory in it, whoever owns it and can write to it. For what another program has made in a directory that
    /// only this user can pass through.
    ///
    /// # Errors
    /// When it does not exist, is no directory, or something is mounted there.
    pub fn open_any_dir(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        let fd = self.open(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { fd, path: self.path_of(name) })
    }

    /// Opens what is mounted at a name in it. Whoever may mount there is trusted.
    ///
    /// # Errors
    /// When it cannot be opened, or is a link.
    pub fn open_mounted(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let resolve = ENTRY.difference(ResolveFlags::NO_XDEV);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(openat2(&self.fd, single(name.as_ref())?, flags, Mode::empty(), resolve)?.into())
    }

    /// The directory that is mounted at a name in it.
    ///
    /// # Errors
    /// As [`open_mounted`](Self::open_mounted).
    pub fn open_mounted_dir(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        Ok(Self { fd: self.open_mounted(name)?.into(), path: self.path_of(name) })
    }

    /// Makes a directory in it, with exactly this mode.
    ///
    /// # Errors
    /// When the name exists, or the directory cannot be made.
    pub fn make_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        change(Op::MakeDir, &self.path, name)?;
        mkdirat(&self.fd, name, Mode::RWXU)?;
        let made = Self {
            fd: self.open(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?,
            path: self.path_of(name),
        };
        made.set_mode(mode)?;
        Ok(made)
    }

    /// Opens a directory in it. Makes it with mode 0700 if it does not exist.
    ///
    /// # Errors
    /// As [`open_dir`](Self::open_dir) and [`make_dir`](Self::make_dir).
    pub fn open_or_make_dir(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        match self.make_dir(name.as_ref(), 0o700) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.open_dir(name),
            made => made,
        }
    }

    /// Sets the directory's own mode.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        change(Op::Set, &self.path, "")?;
        Ok(fchmod(&self.fd, Mode::from_raw_mode(mode))?)
    }

    /// Sets the directory's own group.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn set_group(&self, gid: u32) -> io::Result<()> {
        change(Op::Set, &self.path, "")?;
        Ok(fchown(&self.fd, None, Some(Gid::from_raw(gid)))?)
    }

    /// The directory's own status.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.fd)?)
    }

    /// The status of an entry. `None` if it does not exist.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn stat_of(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Stat>> {
        match statat(&self.fd, single(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an entry exists.
    pub fn has(&self, name: impl AsRef<OsStr>) -> bool {
        self.stat_of(name).is_ok_and(|stat| stat.is_some())
    }

    /// The names of its entries.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Opens a file in it, with these flags.
    ///
    /// # Errors
    /// When it cannot be opened, or is a link.
    pub fn open_file(&self, name: impl AsRef<OsStr>, flags: OFlags) -> io::Result<File> {
        Ok(self.open(single(name.as_ref())?, flags, Mode::empty())?.into())
    }

    /// Opens a regular file in it for reading.
    ///
    /// # Errors
    /// When it cannot be opened, or is no regular file.
    pub fn open_regular(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let file = self.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK)?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is no regular file"));
        }
        Ok(file)
    }

    /// Reads a regular file in it.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, or has more than `limit` bytes.
    pub fn read(&self, name: impl AsRef<OsStr>, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_regular(name)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// The same as text. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_text(&self, name: impl AsRef<OsStr>, limit: u64) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(name, limit)?).into_owned())
    }

    /// Makes a file in it, with these contents and exactly this mode.
    ///
    /// # Errors
    /// When the name exists, or the file cannot be written.
    pub fn write_new(&self, name: impl AsRef<OsStr>, contents: &[u8], mode: u32) -> io::Result<File> {
        let name = name.as_ref();
        let file = self.make_file(name, mode)?;
        write(&file, &self.path_of(name), contents)?;
        Ok(file)
    }

    /// Makes an empty file in it, open for writing, with exactly this mode.
    ///
    /// # Errors
    /// When the name exists, or the file cannot be made.
    pub fn make_file(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let name = single(name.as_ref())?;
        change(Op::MakeFile, &self.path, name)?;
        let file = self.open(name, flags, Mode::RUSR | Mode::WUSR)?;
        change(Op::Set, &self.path, name)?;
        // The umask has cleared bits.
        fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(file.into())
    }

    /// Opens a file for appending. Makes it with mode 0600 if it does not exist.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn append(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
        change(Op::MakeFile, &self.path, name.as_ref())?;
        Ok(self.open(single(name.as_ref())?, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Writes a file in one step: a reader finds the former contents or the new ones. `new` is its name until then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace(&self, name: impl AsRef<OsStr>, new: &str, contents: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        change(Op::MakeFile, &self.path, new)?;
        let file: File = self.open(single(OsStr::new(new))?, flags, Mode::RUSR | Mode::WUSR)?.into();
        write(&file, &self.path_of(new), contents)?;
        change(Op::Rename, &self.path, name.as_ref())?;
        Ok(renameat(&self.fd, new, &self.fd, single(name.as_ref())?)?)
    }

    /// Renames an entry. An error if the new name exists.
    ///
    /// # Errors
    /// When the new name exists, or the system refuses it.
    pub fn rename_new(&self, name: impl AsRef<OsStr>, new: impl AsRef<OsStr>) -> io::Result<()> {
        let (name, new) = (single(name.as_ref())?, single(new.as_ref())?);
        change(Op::Rename, &self.path, name)?;
        Ok(renameat_with(&self.fd, name, &self.fd, new, RenameFlags::NOREPLACE)?)
    }

    /// Makes a symbolic link in it.
    ///
    /// # Errors
    /// When the name exists, or the system refuses it.
    pub fn link_to(&self, target: &Path, name: impl AsRef<OsStr>) -> io::Result<()> {
        change(Op::MakeFile, &self.path, name.as_ref())?;
        Ok(rustix::fs::symlinkat(target, &self.fd, single(name.as_ref())?)?)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When it does not exist, or the system refuses it.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        change(Op::Remove, &self.path, name.as_ref())?;
        Ok(unlinkat(&self.fd, single(name.as_ref())?, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// When it does not exist, is not empty, or the system refuses it.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        change(Op::Remove, &self.path, name.as_ref())?;
        Ok(unlinkat(&self.fd, single(name.as_ref())?, AtFlags::REMOVEDIR)?)
    }

    /// Removes a directory and everything in it, whatever a container has prepared there. Returns what could not be
    /// removed. A missing directory is not an error.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>, what: LeftoverKind) -> Vec<Leftover> {
        tree::remove(self, name.as_ref(), what, &[])
    }

    /// The same, but the directory stays, with the files `kept` in it. At least one must be named.
    pub fn clear_tree(&self, name: impl AsRef<OsStr>, what: LeftoverKind, kept: &[&str]) -> Vec<Leftover> {
        tree::remove(self, name.as_ref(), what, kept)
    }

    fn open(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        Ok(openat2(&self.fd, name, flags, mode, ENTRY)?)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives an open file to another owner.
///
/// # Errors
/// When the system refuses it.
pub fn give(file: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    Ok(fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// Writes to an open file, whose path is for messages.
///
/// # Errors
/// When not everything can be written.
pub fn write(mut file: &File, path: &Path, contents: &[u8]) -> io::Result<()> {
    change(Op::Write, path, "")?;
    file.write_all(contents)
}

/// Checks that a name is a single one.
fn single(name: &OsStr) -> io::Result<&OsStr> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part.as_bytes() == name.as_bytes() => Ok(name),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, format!("{} is not a single name", name.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn dir() -> (tempfile::TempDir, Dir) {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Dir::open_checked(temporary.path()).unwrap();
        (temporary, dir)
    }

    #[test]
    fn an_entry_has_one_name() {
        let (_temporary, dir) = dir();
        for name in ["..", ".", "", "a/b", "/a", "a/"] {
            assert_eq!(dir.read(name, 1).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
            assert!(dir.make_dir(name, 0o700).is_err(), "{name:?}");
        }
    }

    #[test]
    fn no_link_is_followed() {
        let (temporary, dir) = dir();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "theirs").unwrap();
        symlink(outside.path(), temporary.path().join("dir")).unwrap();
        symlink(outside.path().join("file"), temporary.path().join("file")).unwrap();
        assert!(dir.open_dir("dir").is_err());
        assert!(dir.open_or_make_dir("dir").is_err());
        assert!(dir.read("file", 10).is_err());
        assert!(dir.append("file").is_err());
        assert!(dir.write_new("file", b"ours", 0o600).is_err());
        assert!(dir.open_mounted("file").is_err());
        dir.replace("file", "new", b"ours").unwrap();
        assert_eq!(dir.read("file", 10).unwrap(), b"ours");
        assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"theirs");
    }

    #[test]
    fn the_same_directory_is_used_wherever_it_was_moved() {
        let (temporary, dir) = dir();
        let below = dir.make_dir("below", 0o700).unwrap();
        fs::rename(temporary.path().join("below"), temporary.path().join("moved")).unwrap();
        fs::create_dir(temporary.path().join("below")).unwrap();
        below.write_new("file", b"x", 0o640).unwrap();
        let moved = temporary.path().join("moved/file");
        assert_eq!(fs::metadata(moved).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!temporary.path().join("below/file").exists());
    }

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let (temporary, dir) = dir();
        rustix::fs::mknodat(&dir, "fifo", FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::File::create(temporary.path().join("huge")).unwrap().set_len(1 << 30).unwrap();
        fs::write(temporary.path().join("full"), "1234").unwrap();
        assert!(dir.read("fifo", 10).is_err());
        assert_eq!(dir.read("huge", 10).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(dir.read("full", 4).unwrap(), b"1234");
        assert!(dir.read("full", 3).is_err());
    }

    #[test]
    fn a_part_that_others_can_write_is_refused() {
        let (temporary, dir) = dir();
        for (mode, is_ours) in [(0o700, true), (0o711, true), (0o755, true), (0o770, false), (0o702, false)] {
            let path = temporary.path().join(format!("{mode:o}"));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(dir.open_dir(format!("{mode:o}")).is_ok(), is_ours, "{mode:o}");
        }
    }
}
