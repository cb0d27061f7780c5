//! The entries of `mounts` in `config.json`, and how a mount of ours goes away.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use executor_core::lifecycle::{Leftover, LeftoverKind};
use executor_disk::Dir;
use executor_disk::faults::{Op, change};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use serde_json::{Value, json};

use crate::error::Error;

/// Refuses a path that JSON has no text for; `field` says what it is.
pub(crate) fn utf8(field: &'static str, path: &Path) -> Result<(), Error> {
    let why = || format!("{path:?} is not UTF-8, and config.json cannot name it");
    path.to_str().map(drop).ok_or_else(|| Error::field(field, why()))
}

/// An entry of any type. The paths are UTF-8: those of the specification are validated, and those of ours are below the
/// executor's root, which [`utf8`] has checked.
pub(crate) fn mount(destination: &Path, kind: &str, source: &Path, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// The entry of a bind mount of a file of ours. Nothing in it is a device, and nothing in it makes a program run as another
/// user, so the mount does not allow it: other mounts of these files may.
pub(crate) fn bind_own(source: &Path, destination: &Path, options: &[&str]) -> Value {
    mount(destination, "bind", source, &[&["bind", "nosuid", "nodev"], options].concat())
}

/// The option that makes the mounts below a bind mount read-only as well, beside `ro`, which is for the mount itself.
/// `None` if the kernel has no such call (before Linux 5.12). runc knows the option since 1.1; an older one would ignore it.
pub(crate) fn read_only_below() -> Option<&'static str> {
    static KNOWN: LazyLock<bool> =
        LazyLock::new(|| knows_mount_setattr(&rustix::system::uname().release().to_string_lossy()));
    KNOWN.then_some("rro")
}

fn knows_mount_setattr(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 12)
}

/// Adds a mount. It replaces an earlier one with the same destination, and comes before those with a destination below its
/// own, which it would hide.
pub(crate) fn put(mounts: &mut Vec<Value>, mount: Value) {
    let point = destination(&mount);
    mounts.retain(|other| destination(other) != point);
    let below = mounts.iter().position(|other| destination(other).starts_with(&point));
    mounts.insert(below.unwrap_or(mounts.len()), mount);
}

/// The destination of an entry, without `.` and repeated slashes.
pub(crate) fn destination(entry: &Value) -> PathBuf {
    let destination = entry["destination"].as_str().unwrap_or_default();
    Path::new(destination).components().collect()
}

/// A copy of what is mounted at a path, or at an open file if the path is empty, with all that is mounted below.
pub(crate) fn copy_mount(dir: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(dir, path, flags)
}

/// Attaches a copy at `name` in `dir`.
pub(crate) fn attach(copy: &OwnedFd, dir: &Dir, name: &str) -> rustix::io::Result<()> {
    change(Op::Mount, dir.path(), name).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    move_mount(copy, "", dir, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Unmounts what is mounted at `name` in `dir`, without following a link there. Returns a leftover if that fails.
///
/// The mount is detached: it disappears from the file system at once, and from the kernel with its last user. The container
/// has ended, so the only user there can be is another container that is just being started and still sees the host's mounts.
pub(crate) fn unmount_point(dir: &Dir, name: &str) -> Option<Leftover> {
    match unmount(dir.by_descriptor(name), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // It is not a mount point, or does not exist.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => None,
        Err(error) => Some(Leftover::new(LeftoverKind::Mount, dir.path_of(name), &io::Error::from(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_one_mount() {
        let mut mounts = Vec::new();
        for (source, destination) in [("/1", "/a"), ("/2", "/b"), ("/3", "//a/")] {
            put(&mut mounts, bind_own(Path::new(source), Path::new(destination), &["rw"]));
        }
        let sources: Vec<_> = mounts.iter().map(|mount| mount["source"].as_str().unwrap()).collect();
        assert_eq!(sources, ["/2", "/3"]);
    }

    #[test]
    fn volume_order() {
        for order in [
            ["/x", "/x/y", "/x/y/z", "/xy"],
            ["/x/y/z", "/xy", "/x/y", "/x"],
            ["/x/y", "/x/", "/xy", "/x/y/z"],
        ] {
            let mut mounts = Vec::new();
            for point in order {
                put(&mut mounts, bind_own(Path::new("/etc"), Path::new(point), &["rw"]));
            }
            let mut nested: Vec<_> = mounts.iter().map(destination).collect();
            nested.retain(|point| point != Path::new("/xy"));
            assert_eq!(nested, ["/x", "/x/y", "/x/y/z"].map(PathBuf::from));
            assert_eq!(mounts.len(), order.len());
        }
    }

    #[test]
    fn kernels_are_known_by_their_number() {
        assert!(
            knows_mount_setattr("5.12.0-rc1") && knows_mount_setattr("6.1-x") && knows_mount_setattr("10.0")
        );
        assert!(!knows_mount_setattr("5.4.0") && !knows_mount_setattr("") && !knows_mount_setattr("4.19"));
    }
}
