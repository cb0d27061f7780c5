//! The entries of `mounts` in `config.json`, and how a mount of ours goes away.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use executor_core::KernelRelease;
use executor_core::lifecycle::{Leftover, LeftoverKind};
use executor_disk::faults::{Op, change};
use executor_disk::{Dir, mount_table};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxAttributes, StatxFlags, fstatvfs,
    openat2, statvfs, statx,
};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_remount, move_mount, open_tree, unmount,
};
use serde_json::{Value, json};

use crate::error::Error;
use crate::json::strings;

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

/// Why something is refused that should be read-only with all that is mounted below it.
pub(crate) const NOT_READ_ONLY: &str =
    "something is mounted below it, which this kernel cannot make read-only here (Linux 5.12 can)";

/// The option that makes the mounts below a bind mount read-only as well, beside `ro`, which is for the mount itself.
/// `None` if the kernel has no such call (before Linux 5.12). runc knows the option since 1.1; an older one would ignore it.
pub(crate) fn read_only_below() -> Option<&'static str> {
    static KNOWN: LazyLock<bool> = LazyLock::new(|| KernelRelease::running() >= KernelRelease::new(5, 12));
    KNOWN.then_some("rro")
}

/// The mode of a tmpfs without one, as mount(2) has it.
pub(crate) const TMPFS_MODE: u32 = 0o1777;

/// The mode that the options of a tmpfs ask for.
pub(crate) fn tmpfs_mode(entry: &Value) -> Option<u32> {
    let asked = strings(&entry["options"]).filter_map(|option| option.strip_prefix("mode=")).last()?;
    u32::from_str_radix(asked, 8).ok().map(|mode| mode & 0o7777)
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
        // Without the right to unmount, the kernel does not look whether anything is mounted.
        Err(Errno::PERM) if is_no_mount(dir, name) => None,
        Err(error) => Some(Leftover::new(LeftoverKind::Mount, dir.path_of(name), &io::Error::from(error))),
    }
}

/// Whether it is known that nothing is mounted at `name` in `dir`. A kernel before Linux 5.8 does not say.
fn is_no_mount(dir: &Dir, name: &str) -> bool {
    match statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::empty()) {
        Ok(stat) => {
            let is_told = stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
            is_told && !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        }
        Err(error) => error == Errno::NOENT,
    }
}

/// The names of those flags of a mount that withhold something of its files: the mount at `source` has them, and so has a bind
/// mount of it. Setting the access of that is a remount, which clears what it does not name. In a user namespace the kernel
/// refuses such a remount.
pub(crate) fn withheld(source: &Path) -> impl Iterator<Item = &'static str> + use<> {
    let flags = withholding(source);
    let names =
        [(MountFlags::NOSUID, "nosuid"), (MountFlags::NODEV, "nodev"), (MountFlags::NOEXEC, "noexec")];
    names.into_iter().filter(move |(flag, _)| flags.contains(*flag)).map(|(_, name)| name)
}

/// Whether the mount at `source`, or its file system, is read-only.
pub(crate) fn cannot_be_written(source: &Path) -> bool {
    statvfs(source).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// The same as flags, with the one for links, which not every runtime knows by name. A new mount that shows the files at `source`
/// has to have them.
pub(crate) fn withholding(source: &Path) -> MountFlags {
    let has = statvfs(source).map_or(StatVfsMountFlags::empty(), |stat| stat.f_flag);
    let all = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSYMFOLLOW;
    mount_flags(has) & all
}

/// Adds flags to the mount at `point`, a path of ours; read-only also to the mounts below it.
pub(crate) fn restrict(point: &Path, flags: MountFlags) -> rustix::io::Result<()> {
    if !flags.is_empty() {
        add_flags_at(point, flags)?;
    }
    if flags.contains(MountFlags::RDONLY) { restrict_below(point) } else { Ok(()) }
}

/// Makes the mounts below `point` read-only, but not the one at it.
pub(crate) fn restrict_below(point: &Path) -> rustix::io::Result<()> {
    let all = mount_table::mounts().map_err(|_| Errno::IO)?;
    let mut below = all.into_iter().map(|mounted| mounted.point);
    below.try_for_each(|other| match other != point && other.starts_with(point) {
        true => add_flags_at(&other, MountFlags::RDONLY),
        false => Ok(()),
    })
}

fn add_flags_at(point: &Path, flags: MountFlags) -> rustix::io::Result<()> {
    // Somebody may replace a directory by a link meanwhile. Then it is not followed, and nothing else is changed.
    let open = OFlags::PATH | OFlags::CLOEXEC;
    let fd: OwnedFd = openat2(CWD, point, open, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    add_flags(fd.as_fd(), flags)
}

/// Adds flags to an open mount.
pub(crate) fn add_flags(mounted: BorrowedFd<'_>, flags: MountFlags) -> rustix::io::Result<()> {
    mount_remount(by_descriptor(mounted), MountFlags::BIND | flags | present(mounted)?, "")
}

/// A path that leads to an open file, whatever its own path leads to by now.
pub(crate) fn by_descriptor(file: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

/// `ST_NOSYMFOLLOW` in linux/statfs.h, since Linux 5.10.
const NOSYMFOLLOW: StatVfsMountFlags = StatVfsMountFlags::from_bits_retain(0x2000);

/// The flags that a mount has: a remount would clear the others.
fn present(mounted: BorrowedFd<'_>) -> rustix::io::Result<MountFlags> {
    Ok(mount_flags(fstatvfs(mounted)?.f_flag))
}

fn mount_flags(has: StatVfsMountFlags) -> MountFlags {
    let all = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    all.into_iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, flag)| flag).collect()
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
}
