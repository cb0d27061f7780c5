//! Opens a file that the user names for output. Nothing waits, and nobody else decides which file it is.
//!
//! In a directory where anyone may make files, somebody may have made this one before: a link to a file of the user's, which
//! would be truncated, or a file that belongs to somebody else. The kernel refuses some of that if `fs.protected_symlinks`
//! and the like are set. Here it is refused everywhere:
//!
//! - A symbolic link is followed if it belongs to the user or to root, wherever in the path it is. In a user namespace without
//!   the host's root, root appears as the overflow id.
//! - In a sticky directory that others may write, an existing file must be the user's own, and have no other name.
//! - A FIFO must have a reader. Without one, the open fails instead of waiting.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fcntl_setfl, fstat, fstatfs, ftruncate, openat, readlinkat, statat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// What statfs(2) calls a proc file system. Its links lead to open files, not to paths.
const PROC: i64 = 0x9fa0;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Opens a file for writing. It is created if it does not exist, and truncated if it does.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let (dir, name) = find(path)?;
    if !is_proc(dir.as_fd())? {
        return create_in(&dir, &name).and_then(begin);
    }
    match openat(&dir, &name, existing(), Mode::empty()) {
        Err(Errno::NXIO) => match stream_of_ours(&dir, &name)? {
            Some(stream) => Ok(stream.into()),
            None => Err(said(&dir, &name, Errno::NXIO)),
        },
        opened => begin(opened.map_err(io::Error::from)?),
    }
}

/// A socket cannot be opened again. If it is stdout or stderr, it is shared. Its modes are those of others, too.
fn stream_of_ours(dir: &OwnedFd, name: &Path) -> io::Result<Option<OwnedFd>> {
    let file = statat(dir, name, AtFlags::empty())?;
    for stream in [io::stdout().as_fd(), io::stderr().as_fd()] {
        if fstat(stream).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (file.st_dev, file.st_ino)) {
            return stream.try_clone_to_owned().map(Some);
        }
    }
    Ok(None)
}

/// Empties a file that was opened, and makes it one whose slow reader is waited for.
fn begin(file: OwnedFd) -> io::Result<File> {
    if FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile {
        ftruncate(&file, 0)?;
    }
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(file.into())
}

/// How a file that exists is opened.
fn existing() -> OFlags {
    OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

fn create_in(dir: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, new, Mode::from_raw_mode(0o666)) {
        Err(Errno::EXIST) => {}
        created => return Ok(created?),
    }
    let file = openat(dir, name, existing() | OFlags::NOFOLLOW, Mode::empty());
    let file = file.map_err(|error| said(dir, name, error))?;
    let (stat, above) = (fstat(&file)?, fstat(dir)?);
    let anyone_makes_files = above.st_mode & 0o1000 != 0 && above.st_mode & 0o022 != 0;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let is_own = stat.st_uid == geteuid().as_raw() && (stat.st_nlink == 1 || !is_regular);
    if anyone_makes_files && !is_own {
        return Err(refused(
            "it was made by somebody else, or has another name, in a directory that all may write",
        ));
    }
    Ok(file)
}

/// What is not there to be opened depends on what the file is.
fn said(dir: &OwnedFd, name: &Path, error: Errno) -> io::Error {
    if error != Errno::NXIO {
        return error.into();
    }
    let kind = statat(dir, name, AtFlags::empty()).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::Fifo) => io::Error::new(ErrorKind::BrokenPipe, "no process reads this FIFO"),
        Ok(FileType::Socket) => io::Error::other("it is a socket, which cannot be opened"),
        _ => error.into(),
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, why)
}

/// The directory that a file is in, and its name there, with no link left to follow except one in /proc.
fn find(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, ".", flags, Mode::empty())?;
    let mut rest = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        let in_proc = is_proc(dir.as_fd())?;
        if let Some(target) = link(dir.as_fd(), &part)?
            && !in_proc
        {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            rest.extend(parts(&target));
        } else if rest.is_empty() {
            return Ok((dir, part));
        } else {
            let nofollow = if in_proc { OFlags::empty() } else { OFlags::NOFOLLOW };
            dir = openat(&dir, &part, flags | nofollow, Mode::empty())?;
        }
    }
    Err(Errno::NOENT.into())
}

/// The parts of a path, the first one last. A slash at the end means that the last part is a directory.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<_> = path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect();
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        parts.insert(0, ".".into());
    }
    parts
}

/// Where a link leads. `None` if it is none, or does not exist.
fn link(dir: BorrowedFd<'_>, name: &Path) -> io::Result<Option<PathBuf>> {
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        stat => stat?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() && Some(stat.st_uid) != overflow() {
        return Err(refused(&format!("{} is a link of somebody else's", name.display())));
    }
    let target = readlinkat(dir, name, Vec::new())?.into_bytes();
    Ok(Some(std::ffi::OsString::from_vec(target).into()))
}

/// In a user namespace that does not have the host's root: the id that root, like all others without one, appears as.
fn overflow() -> Option<u32> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let is_first = read("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]);
    read("/proc/sys/kernel/overflowuid").trim().parse().ok().filter(|_| !is_first)
}

fn is_proc(dir: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstatfs(dir)?.f_type == PROC)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_are_made_and_emptied_through_own_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create(&at("a")).unwrap().write_all(b"long").unwrap();
        create(&at("a")).unwrap().write_all(b"x").unwrap();
        assert_eq!(fs::read(at("a")).unwrap(), b"x");
        fs::create_dir(at("open")).unwrap();
        symlink("b", at("to-b")).unwrap();
        symlink(dir.path(), at("to-dir")).unwrap();
        create(&at("to-dir/./to-dir/open/../to-b")).unwrap().write_all(b"y").unwrap();
        assert_eq!(fs::read(at("b")).unwrap(), b"y");
        symlink("loop", at("loop")).unwrap();
        for bad in ["loop", "no/a", "a/", "", "to-dir"] {
            assert!(create(&at(bad)).is_err(), "{bad:?}");
        }
        create(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn events_file() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(create(&fifo).unwrap_err().to_string().contains("no process reads"));
        let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        create(&fifo).unwrap();
        drop(reader);
        // What a shell's >(…) gives.
        let (mut reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        create(Path::new(&path)).unwrap().write_all(b"x").unwrap();
        drop(writer);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "x");

        // Two names in a directory where anyone may make files.
        let kept = dir.path().join("kept");
        fs::write(&kept, "kept").unwrap();
        fs::create_dir(dir.path().join("open")).unwrap();
        fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(&kept, dir.path().join("open/x")).unwrap();
        assert_eq!(create(&dir.path().join("open/x")).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(fs::read(&kept).unwrap(), b"kept");
        create(&dir.path().join("open/new")).unwrap();
        create(&dir.path().join("open/new")).unwrap();
    }
}
