//! From a path to a directory that nobody else can exchange or change.
//!
//! The path is walked one name at a time, from `/`. Links on the way are followed by hand, so that the directory of each link
//! is checked too. This is what `/var/run`, which is root's link to `/run`, needs.
//!
//! | where | whose | writable for others |
//! |---|---|---|
//! | a directory on the way | root's or ours | no, or with the sticky bit |
//! | an entry of a directory with the sticky bit | root's or ours | |
//! | the last directory | ours, and no link | no |
//!
//! In a user namespace, the host's root has no id and appears as the overflow id, like every other id without one. There, the
//! directories on the way may have that owner.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::Dir;
use crate::faults::{Op, change};

/// How many links are followed, at most; the kernel's own limit.
const LINKS: usize = 40;

const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why a directory is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    what: PathBuf,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why } = self;
        match what.as_os_str().is_empty() {
            true => write!(f, "{why}"),
            false => write!(f, "{} {why}", what.display()),
        }
    }
}

impl std::error::Error for Refused {}

/// Opens the directory at `path`. With `make`, makes it with this mode if it is missing, and those above it with mode 0755.
pub(crate) fn open(path: &Path, make: Option<Mode>) -> io::Result<Dir> {
    Walk::new(path)?.run(make)
}

struct Walk {
    current: OwnedFd,
    /// The real path of `current`.
    path: PathBuf,
    rest: VecDeque<OsString>,
    links: usize,
    trusted: TrustedOwners,
}

impl Walk {
    fn new(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let current = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let trusted = TrustedOwners::of_this_process();
        Ok(Self { current, path: "/".into(), rest: names(&path), links: 0, trusted })
    }

    fn run(mut self, make: Option<Mode>) -> io::Result<Dir> {
        while let Some(name) = self.rest.pop_front() {
            let above = fstat(&self.current)?;
            self.check_on_the_way(&above)?;
            if name == ".." {
                self.enter(&name)?;
                self.path.pop();
                continue;
            }
            match statat(&self.current, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => self.step(&name, &above, &stat)?,
                Err(Errno::NOENT) if make.is_some() => self.make(&name, make.unwrap_or(Mode::RWXU))?,
                Err(error) => return Err(error.into()),
            }
        }
        self.check_last()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Dir::new(openat(&self.current, ".", flags, Mode::empty())?, self.path))
    }

    /// Goes on to an entry that exists. `above` is the directory's status, `stat` the entry's.
    fn step(&mut self, name: &OsStr, above: &Stat, stat: &Stat) -> io::Result<()> {
        // Without the sticky bit, nobody else can put anything there.
        let others_write = above.st_mode & OTHERS_WRITE != 0;
        if others_write && !self.trusted.has(stat.st_uid) {
            let why = format!("belongs to user {}, who put it where everybody can", stat.st_uid);
            return Err(self.refused(self.path.join(name), why));
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            self.enter(name)?;
            // Whatever it is by now: it is checked in the next step.
            self.path.push(name);
            return Ok(());
        }
        if self.rest.is_empty() {
            let why = "is a link, and must be a directory".to_owned();
            return Err(self.refused(self.path.join(name), why));
        }
        self.follow(name)
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.current = openat(&self.current, name, flags, Mode::empty())?;
        Ok(())
    }

    fn follow(&mut self, name: &OsStr) -> io::Result<()> {
        self.links += 1;
        if self.links > LINKS {
            return Err(Errno::LOOP.into());
        }
        let target =
            PathBuf::from(OsString::from_vec(readlinkat(&self.current, name, Vec::new())?.into_bytes()));
        if target.is_absolute() {
            self.current =
                openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            self.path = "/".into();
        }
        for name in names(&target).into_iter().rev() {
            self.rest.push_front(name);
        }
        Ok(())
    }

    fn make(&mut self, name: &OsStr, last: Mode) -> io::Result<()> {
        let mode = if self.rest.is_empty() { last } else { Mode::from_raw_mode(0o755) };
        change(Op::MakeDir, &self.path, name)?;
        match mkdirat(&self.current, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Another process may have made it, and may be somebody else's: it is checked like any other.
        let above = fstat(&self.current)?;
        let stat = statat(&self.current, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.step(name, &above, &stat)
    }

    fn check_on_the_way(&self, stat: &Stat) -> io::Result<()> {
        if !self.trusted.has(stat.st_uid) {
            return Err(self.refused(self.path.clone(), format!("belongs to user {}", stat.st_uid)));
        }
        if stat.st_mode & OTHERS_WRITE != 0 && stat.st_mode & STICKY == 0 {
            let remedy = if stat.st_uid == geteuid().as_raw() { "; use chmod go-w" } else { "" };
            let why = format!("can be written by others (mode {:o}{remedy})", stat.st_mode & 0o7777);
            return Err(self.refused(self.path.clone(), why));
        }
        Ok(())
    }

    fn check_last(&self) -> io::Result<()> {
        check_own(&fstat(&self.current)?).map_err(|refused| self.refused(self.path.clone(), refused.why))
    }

    fn refused(&self, what: PathBuf, why: String) -> io::Error {
        io::Error::new(ErrorKind::PermissionDenied, Refused { what, why })
    }
}

/// Whether a directory is this user's, and nobody else can write to it.
pub(crate) fn check_own(stat: &Stat) -> Result<(), Refused> {
    let own = geteuid().as_raw();
    let refused = |why| Err(Refused { what: PathBuf::new(), why });
    if stat.st_uid != own {
        return refused(format!("belongs to user {}, and must belong to user {own}", stat.st_uid));
    }
    if stat.st_mode & OTHERS_WRITE != 0 {
        let mode = stat.st_mode & 0o7777;
        return refused(format!("can be written by others (mode {mode:o}; use chmod go-w)"));
    }
    Ok(())
}

/// The owners of directories on the way that cannot do us more harm than they can anyway.
struct TrustedOwners {
    own: u32,
    /// In a user namespace that does not have the host's root: the id that it appears as.
    overflow: Option<u32>,
}

impl TrustedOwners {
    fn of_this_process() -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let is_first = is_whole(&read("/proc/self/uid_map"));
        let overflow = read("/proc/sys/kernel/overflowuid").trim().parse().ok();
        Self { own: geteuid().as_raw(), overflow: overflow.filter(|_| !is_first) }
    }

    fn has(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own || Some(uid) == self.overflow
    }
}

/// Whether this is the map of the first user namespace: every id is itself.
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The names of a path, `..` included.
fn names(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn why(path: &Path) -> String {
        let error = Dir::make_checked(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        error.to_string()
    }

    #[test]
    fn missing_directories_are_made_for_us_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/root");
        assert_eq!(Dir::open_checked(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let root = Dir::make_checked(&path).unwrap();
        assert_eq!(root.path(), fs::canonicalize(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(Dir::open_checked(&dir.path().join("a/../a/./b/root/")).unwrap().path(), root.path());
    }

    #[test]
    fn a_root_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        for bad in [0o777, 0o1777, 0o770, 0o722] {
            mode(&root, bad);
            assert!(why(&root).contains("can be written by others"), "{bad:o}");
        }
        mode(&root, 0o755);
        Dir::make_checked(&root).unwrap();
    }

    #[test]
    fn a_way_that_others_can_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let above = dir.path().join("above");
        fs::create_dir_all(above.join("root")).unwrap();
        mode(&above, 0o777);
        let said = why(&above.join("root"));
        assert!(said.ends_with("above can be written by others (mode 777; use chmod go-w)"), "{said}");
        // As in /tmp, only the owner can rename an entry.
        mode(&above, 0o1777);
        Dir::make_checked(&above.join("root")).unwrap();
    }

    #[test]
    fn links_are_followed_on_the_way_and_refused_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("real/root")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        symlink("real/root", dir.path().join("last")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let root = Dir::make_checked(&dir.path().join("link/root")).unwrap();
        assert!(root.path().ends_with("real/root"), "{root:?}");
        assert!(why(&dir.path().join("last")).contains("is a link"));
        assert!(Dir::make_checked(&dir.path().join("loop/root")).is_err());
    }

    #[test]
    fn what_others_own_is_refused() {
        if !geteuid().is_root() {
            return eprintln!("this user can give nothing away");
        }
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs");
        fs::create_dir_all(theirs.join("root")).unwrap();
        chown(&theirs, Some(1000), Some(1000)).unwrap();
        assert!(why(&theirs.join("root")).contains("theirs belongs to user 1000"));
        assert!(why(&theirs).contains("must belong to user 0"));
        // A link in a directory like /tmp leads where its owner wants.
        let public = dir.path().join("public");
        fs::create_dir(&public).unwrap();
        mode(&public, 0o1777);
        fs::create_dir(dir.path().join("ours")).unwrap();
        symlink(dir.path().join("ours"), public.join("link")).unwrap();
        Dir::make_checked(&public.join("link/root")).unwrap();
        std::os::unix::fs::lchown(public.join("link"), Some(1000), Some(1000)).unwrap();
        assert!(why(&public.join("link/root")).contains("link belongs to user 1000"));
    }

    #[test]
    fn the_first_user_namespace_is_known_by_its_map() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("         0       1000          1\n"));
        assert!(!is_whole(""));
    }
}
