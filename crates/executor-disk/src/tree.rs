//! Removing directory trees that a container may have prepared to do harm.
//!
//! A container may leave symbolic links, mounts, directories that deny access to their owner, and trees
//! deeper than the longest path. No link is followed. No mount is crossed (openat2(2), `RESOLVE_NO_XDEV`).
//! Two directories are open at a time, however deep the tree is. What cannot be removed stays, and is
//! reported.
//!
//! # Example
//! `top` contains `a/mounted`, on which `/home` is mounted. The removal enters `top` and notes `a`. It enters `a`, where opening
//! `mounted` fails with `EXDEV`, and reports the mount as left. `a` is not empty and stays, so `top` stays too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executor_lifecycle::{Leftover, LeftoverKind};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, chmod, fchmod, fstat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

use crate::Dir;
use crate::faults::{self, Op};

/// How many leftovers are reported, at most.
const REPORTED: usize = 32;

/// Removes everything in the directory `name` in `above`, and then the directory itself. If there is something to keep, that file
/// in it stays, and so does the directory. Returns what could not be removed. A missing directory is not an error.
pub(crate) fn remove(above: &Dir, name: &OsStr, what: LeftoverKind, kept: &[&str]) -> Vec<Leftover> {
    let removal = Removal { above, name, what, kept, levels: Vec::new(), left: Vec::new() };
    removal.run()
}

struct Removal<'a> {
    above: &'a Dir,
    name: &'a OsStr,
    what: LeftoverKind,
    kept: &'a [&'a str],
    levels: Vec<Level>,
    left: Vec<Leftover>,
}

/// A directory on the way down to the current one.
struct Level {
    name: OsString,
    identity: (u64, u64),
    /// Directories in it that are still there.
    below: Vec<OsString>,
}

impl Removal<'_> {
    fn run(mut self) -> Vec<Leftover> {
        let name = self.name;
        let top = match open(self.above.as_fd(), name) {
            Ok(top) => top,
            Err(Errno::NOENT) => return self.left,
            Err(error) => return self.reported(OsStr::new(""), error),
        };
        match self.enter(&top, name).and_then(|()| self.walk(top)) {
            Ok(_top) => self.remove_top(),
            Err(error) => self.report(OsStr::new(""), error),
        }
        self.left
    }

    /// Removes everything below the top directory, and returns to it.
    fn walk(&mut self, top: OwnedFd) -> Result<OwnedFd, Errno> {
        let mut current = top;
        while let Some(level) = self.levels.last_mut() {
            if let Some(name) = level.below.pop() {
                match open(current.as_fd(), &name) {
                    Ok(dir) => match self.enter(&dir, &name) {
                        Ok(()) => current = dir,
                        Err(error) => self.report(&name, error),
                    },
                    Err(Errno::NOENT) => {}
                    Err(error) => self.report(&name, error),
                }
            } else if self.levels.len() > 1 {
                current = self.leave(&current)?;
            } else {
                break;
            }
        }
        Ok(current)
    }

    /// Removes the files in a directory, and notes its subdirectories.
    fn enter(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        if !rustix::process::geteuid().is_root() {
            let _not_ours = fchmod(dir, Mode::RWXU);
        }
        let stat = fstat(dir)?;
        let is_top = self.levels.is_empty();
        let entries: Vec<_> = rustix::fs::Dir::read_from(dir)?.collect::<Result<_, _>>()?;
        self.levels.push(Level {
            name: name.to_owned(),
            identity: (stat.st_dev, stat.st_ino),
            below: Vec::new(),
        });
        for entry in entries {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || is_top && self.kept.iter().any(|kept| name == *kept) {
                continue;
            }
            if is_directory(dir, name, entry.file_type()) {
                if let Some(level) = self.levels.last_mut() {
                    level.below.push(name.to_owned());
                }
                continue;
            }
            match unlink(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => self.report(name, error),
            }
        }
        Ok(())
    }

    /// Goes up from a directory that is empty by now, and removes it.
    fn leave(&mut self, dir: &OwnedFd) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let above = openat(dir, "..", flags, Mode::empty())?;
        let stat = fstat(&above)?;
        let Some(done) = self.levels.pop() else { return Ok(above) };
        // The directory was moved meanwhile. Its present parent is not ours.
        if self.levels.last().is_none_or(|level| level.identity != (stat.st_dev, stat.st_ino)) {
            return Err(Errno::XDEV);
        }
        match unlink(&above, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // What is left in it was reported.
            Err(Errno::NOTEMPTY) if !self.left.is_empty() => {}
            Err(error) => self.report(&done.name, error),
        }
        Ok(above)
    }

    fn remove_top(&mut self) {
        if !self.left.is_empty() || !self.kept.is_empty() {
            return;
        }
        match unlink(self.above, self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => self.report(OsStr::new(""), error),
        }
    }

    fn reported(mut self, name: &OsStr, error: Errno) -> Vec<Leftover> {
        self.report(name, error);
        self.left
    }

    /// Reports that something in the current directory stays.
    fn report(&mut self, name: &OsStr, error: Errno) {
        let below = self.levels.iter().skip(1).map(|level| level.name.as_os_str()).chain([name]);
        let path = below
            .filter(|part| !part.is_empty())
            .fold(self.above.path_of(self.name), |path: PathBuf, part| path.join(part));
        let what = if matches!(error, Errno::XDEV | Errno::BUSY) { LeftoverKind::Mount } else { self.what };
        if self.left.len() < REPORTED {
            self.left.push(Leftover::new(what, path, &io::Error::from(error)));
        }
    }
}

fn unlink(dir: impl AsFd, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
    faults::change(Op::Remove, Path::new(""), name)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    unlinkat(dir, name, flags)
}

/// Opens a directory in `dir`, on the same mount. If its mode denies access to its owner, the mode is changed
/// first: an ordinary user's container, or the kernel for an overlay, may have set it.
fn open(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(dir, name, flags, Mode::empty(), resolve) {
        Err(Errno::ACCESS) => {
            let path_only = openat2(dir, name, flags | OFlags::PATH, Mode::empty(), resolve)?;
            chmod(format!("/proc/self/fd/{}", path_only.as_raw_fd()), Mode::RWXU)?;
            openat2(dir, name, flags, Mode::empty(), resolve)
        }
        opened => opened,
    }
}

/// Whether an entry is a directory. Not every file system has the type in the entry.
fn is_directory(dir: &OwnedFd, name: &OsStr, kind: FileType) -> bool {
    match kind {
        FileType::Directory => true,
        FileType::Unknown => statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
        FileType::RegularFile
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn trees_of_every_kind_are_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let above = Dir::open_checked(dir.path()).unwrap();
        let (kept, gone) = (dir.path().join("kept"), dir.path().join("gone"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::create_dir_all(gone.join("a/b")).unwrap();
        fs::create_dir_all(gone.join("c")).unwrap();
        symlink(&kept, gone.join("a/link")).unwrap();
        symlink("/nowhere", gone.join("dangling")).unwrap();
        fs::write(gone.join("c/file"), "").unwrap();
        assert_eq!(above.remove_tree("gone", LeftoverKind::File), []);
        assert!(!gone.exists() && kept.join("file").exists());
        assert_eq!(above.remove_tree("gone", LeftoverKind::File), [], "none is fine");
        symlink(&kept, &gone).unwrap();
        assert_eq!(above.remove_tree("gone", LeftoverKind::File).len(), 1, "a link is no directory");
        assert!(kept.join("file").exists());
    }

    #[test]
    fn a_tree_deeper_than_a_path_and_than_the_limit_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let above = Dir::open_checked(dir.path()).unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        let mut current = openat(CWD, &top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&current, "deeper", Mode::RWXU).unwrap();
            current = openat(&current, "deeper", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(above.remove_tree("top", LeftoverKind::File), []);
        assert!(!top.exists());
    }

    #[test]
    fn nothing_behind_a_mount_is_touched_and_what_is_kept_stays() {
        let dir = tempfile::tempdir().unwrap();
        let above = Dir::open_checked(dir.path()).unwrap();
        let (kept, top) = (dir.path().join("kept"), dir.path().join("top"));
        fs::create_dir_all(top.join("a/mounted")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::write(top.join("owner"), "").unwrap();
        fs::write(top.join("other"), "").unwrap();
        let Ok(()) = rustix::mount::mount_bind(&kept, top.join("a/mounted")) else {
            return eprintln!("this user cannot mount");
        };
        let left = above.clear_tree("top", LeftoverKind::File, &["owner"]);
        rustix::mount::unmount(top.join("a/mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!((left[0].what, &left[0].path), (LeftoverKind::Mount, &top.join("a/mounted")));
        assert!(kept.join("file").exists() && top.join("owner").exists() && !top.join("other").exists());
        assert_eq!(above.clear_tree("top", LeftoverKind::File, &["owner"]), []);
        assert!(!top.join("a").exists() && top.join("owner").exists());
    }
}
