//! What lies beneath the mounts that a view of the host does not show.
//!
//! An overlay shows one file system, also where another one is mounted over it. If that mount is shown, it covers the same
//! directory in the view. Otherwise the view would have what the host does not: `/run` as it was before a tmpfs was mounted
//! there.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executor_disk::mount_table::{Mount as Mounted, is_visible};
use rustix::fs::{CWD, Dir as Entries, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

/// The directories on which a container has mounts of its own.
const OF_THE_CONTAINER: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The paths inside the file system at `lower` that mounts of the host other than those `shown` cover.
pub(super) fn in_overlay_of(
    lower: &Path,
    mounts: &[Mounted],
    shown: &[&Mounted],
) -> rustix::io::Result<Vec<PathBuf>> {
    let points = points(lower, mounts, shown);
    if points.is_empty() {
        return Ok(Vec::new());
    }
    // Without the mounts on it.
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, lower, clone)?;
    let mut all = Vec::new();
    for point in points {
        all.extend(names(&tree, point)?.into_iter().map(|name| point.join(name)));
    }
    Ok(all)
}

/// The mount points of what is not shown, inside the mount at `lower`.
fn points<'a>(lower: &Path, mounts: &'a [Mounted], shown: &[&Mounted]) -> Vec<&'a Path> {
    let is_lower = |mount: &&Mounted| mount.point == lower && is_visible(mount, mounts);
    let Some(own) = mounts.iter().find(is_lower).map(|mount| mount.id) else { return Vec::new() };
    let is_not_shown = |mount: &&Mounted| {
        mount.parent == own
            && mount.id != own
            && !OF_THE_CONTAINER.iter().any(|dir| mount.point.starts_with(dir))
            && !shown.contains(mount)
            && is_visible(mount, mounts)
    };
    let inside = |mount: &'a Mounted| mount.point.strip_prefix(lower).ok();
    let all = mounts.iter().filter(is_not_shown).filter_map(inside);
    all.filter(|inside| !inside.as_os_str().is_empty()).collect()
}

/// The names in a directory. None if it is not there, or is a file.
fn names(tree: &OwnedFd, dir: &Path) -> rustix::io::Result<Vec<PathBuf>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match openat(tree, dir, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut names = Vec::new();
    for entry in Entries::new(opened)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name.into());
        }
    }
    Ok(names)
}
