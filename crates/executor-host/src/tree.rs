//! Removing directories, and never more than that.
//!
//! A container may leave links, mounts, directories that are closed to their owner, and trees deeper than any path is long. No
//! link is followed, no mount is crossed (openat2(2), `RESOLVE_NO_XDEV`), and two directories are open at a time however
//! deep it goes. What cannot be removed is reported and stays.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{Leftover, LeftoverKind};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, chmod, fchmod, fstat, openat, openat2, statat,
    unlinkat,
};
use rustix::io::Errno;

/// More than this is not reported.
const REPORTED: usize = 32;

/// Removes a directory with all that is in it; answers with what could not be. None is fine.
pub(crate) fn remove(dir: &Path, what: LeftoverKind) -> Vec<Leftover> {
    Removal::new(dir, what, None).run()
}

/// The same, but the file `last` in it goes only when everything else has gone.
pub(crate) fn remove_with_last(dir: &Path, what: LeftoverKind, last: &str) -> Vec<Leftover> {
    Removal::new(dir, what, Some(last)).run()
}

struct Removal<'a> {
    dir: &'a Path,
    what: LeftoverKind,
    last: Option<&'a OsStr>,
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

impl<'a> Removal<'a> {
    fn new(dir: &'a Path, what: LeftoverKind, last: Option<&'a str>) -> Self {
        Self { dir, what, last: last.map(OsStr::new), levels: Vec::new(), left: Vec::new() }
    }

    fn run(mut self) -> Vec<Leftover> {
        let (Some(above), Some(name)) = (self.dir.parent(), self.dir.file_name()) else { return self.left };
        let above =
            match openat(CWD, above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(above) => above,
                Err(Errno::NOENT) => return self.left,
                Err(error) => return self.reported(OsStr::new(""), error),
            };
        let mut current = match open(&above, name) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return self.left,
            Err(error) => return self.reported(OsStr::new(""), error),
        };
        if let Err(error) = self.enter(&current, name) {
            return self.reported(OsStr::new(""), error);
        }
        while let Some(level) = self.levels.last_mut() {
            if let Some(name) = level.below.pop() {
                match open(&current, &name) {
                    Ok(dir) => match self.enter(&dir, &name) {
                        Ok(()) => current = dir,
                        Err(error) => self.report(&name, error),
                    },
                    Err(Errno::NOENT) => {}
                    Err(error) => self.report(&name, error),
                }
            } else if self.levels.len() > 1 {
                match self.leave(&current) {
                    Ok(above) => current = above,
                    Err(error) => return self.reported(OsStr::new(""), error),
                }
            } else {
                break;
            }
        }
        self.remove_top(&above, &current, name);
        self.left
    }

    /// Removes the files in a directory, and notes its directories.
    fn enter(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        if !rustix::process::geteuid().is_root() {
            let _not_ours = fchmod(dir, Mode::RWXU);
        }
        let stat = fstat(dir)?;
        let is_top = self.levels.is_empty();
        let entries: Vec<_> = Dir::read_from(dir)?.collect::<Result<_, _>>()?;
        self.levels.push(Level {
            name: name.to_owned(),
            identity: (stat.st_dev, stat.st_ino),
            below: Vec::new(),
        });
        for entry in entries {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || is_top && self.last == Some(name) {
                continue;
            }
            let kind = entry.file_type();
            let look = || statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
            let is_dir = kind == FileType::Directory
                // Not every file system says it in the list.
                || kind == FileType::Unknown
                    && look().is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
            if is_dir {
                self.levels.last_mut().into_iter().for_each(|level| level.below.push(name.to_owned()));
                continue;
            }
            match unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => self.report(name, error),
            }
        }
        Ok(())
    }

    /// Goes up from a directory that is done with and removes it.
    fn leave(&mut self, dir: &OwnedFd) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let above = openat(dir, "..", flags, Mode::empty())?;
        let stat = fstat(&above)?;
        let Some(done) = self.levels.pop() else { return Ok(above) };
        // Somebody has moved it meanwhile: where it is now is not ours.
        if self.levels.last().is_none_or(|level| level.identity != (stat.st_dev, stat.st_ino)) {
            return Err(Errno::XDEV);
        }
        match unlinkat(&above, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // That was reported.
            Err(Errno::NOTEMPTY) if !self.left.is_empty() => {}
            Err(error) => self.report(&done.name, error),
        }
        Ok(above)
    }

    fn remove_top(&mut self, above: &OwnedFd, top: &OwnedFd, name: &OsStr) {
        if !self.left.is_empty() {
            return;
        }
        let last = self.last.map_or(Ok(()), |last| unlinkat(top, last, AtFlags::empty()));
        let removed = match last {
            Ok(()) | Err(Errno::NOENT) => unlinkat(above, name, AtFlags::REMOVEDIR),
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => self.report(OsStr::new(""), error),
        }
    }

    fn reported(mut self, name: &OsStr, error: Errno) -> Vec<Leftover> {
        self.report(name, error);
        self.left
    }

    /// Notes that something in the current directory stays.
    fn report(&mut self, name: &OsStr, error: Errno) {
        let below = self.levels.iter().skip(1).map(|level| level.name.as_os_str()).chain([name]);
        let path = below
            .filter(|part| !part.is_empty())
            .fold(self.dir.to_owned(), |path: PathBuf, part| path.join(part));
        let what = if matches!(error, Errno::XDEV | Errno::BUSY) { LeftoverKind::Mount } else { self.what };
        if self.left.len() < REPORTED {
            self.left.push(Leftover::new(what, path, &io::Error::from(error)));
        }
    }
}

/// Opens a directory that is in this one, on the same mount. An ordinary user's container, or the kernel for its overlay,
/// may have closed it to its owner.
fn open(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(dir, name, flags, Mode::empty(), resolve) {
        Err(Errno::ACCESS) => {
            let closed = openat2(dir, name, flags | OFlags::PATH, Mode::empty(), resolve)?;
            chmod(format!("/proc/self/fd/{}", closed.as_raw_fd()), Mode::RWXU)?;
            openat2(dir, name, flags, Mode::empty(), resolve)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn trees_of_every_kind_are_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, gone) = (dir.path().join("kept"), dir.path().join("gone"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::create_dir_all(gone.join("a/b")).unwrap();
        fs::create_dir_all(gone.join("c")).unwrap();
        symlink(&kept, gone.join("a/link")).unwrap();
        symlink("/nowhere", gone.join("dangling")).unwrap();
        fs::write(gone.join("c/file"), "").unwrap();
        assert_eq!(remove(&gone, LeftoverKind::File), []);
        assert!(!gone.exists() && kept.join("file").exists());
        assert_eq!(remove(&gone, LeftoverKind::File), [], "none is fine");
        symlink(&kept, &gone).unwrap();
        assert_eq!(remove(&gone, LeftoverKind::File).len(), 1, "a link is no directory");
        assert!(kept.join("file").exists());
    }

    #[test]
    fn a_tree_deeper_than_a_path_and_than_the_limit_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        let mut current = openat(CWD, &top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&current, "deeper", Mode::RWXU).unwrap();
            current = openat(&current, "deeper", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(remove(&top, LeftoverKind::File), []);
        assert!(!top.exists());
    }

    #[test]
    fn nothing_behind_a_mount_is_touched_and_the_last_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, top) = (dir.path().join("kept"), dir.path().join("top"));
        fs::create_dir_all(top.join("a/mounted")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::write(top.join("owner"), "").unwrap();
        fs::write(top.join("other"), "").unwrap();
        let Ok(()) = rustix::mount::mount_bind(&kept, top.join("a/mounted")) else {
            return eprintln!("this user cannot mount");
        };
        let left = remove_with_last(&top, LeftoverKind::File, "owner");
        rustix::mount::unmount(top.join("a/mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!((left[0].what, &left[0].path), (LeftoverKind::Mount, &top.join("a/mounted")));
        assert!(kept.join("file").exists() && top.join("owner").exists() && !top.join("other").exists());
        assert_eq!(remove_with_last(&top, LeftoverKind::File, "owner"), []);
        assert!(!top.exists());
    }
}
