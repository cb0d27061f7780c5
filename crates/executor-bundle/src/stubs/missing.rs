//! Which mount points a root file system does not have, including the directories above them.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::Error;
use crate::mount_entry::{TMPFS_MODE, tmpfs_mode};
use crate::rootfs_dir::RootfsDir;

/// A path that has to exist and does not.
pub(super) struct Missing {
    /// Within the root file system.
    pub(super) path: PathBuf,
    /// The device of the nearest directory above it that exists.
    pub(super) device: u64,
    /// Whether it is to be a directory. Otherwise it is to be a file.
    pub(super) is_dir: bool,
    /// Whether it is not removed with the mount point that it was made for.
    pub(super) stays: bool,
    pub(super) mode: u32,
}

/// The mode of a missing mount point. runc gives a tmpfs the mode of its mount point, whatever its options say.
fn mode(mount: &Value, is_dir: bool) -> u32 {
    if mount["type"] != "tmpfs" {
        return if is_dir { 0o755 } else { 0o644 };
    }
    tmpfs_mode(mount).unwrap_or(TMPFS_MODE)
}

/// The paths that are missing, in the order in which they can be made.
pub(super) fn missing(
    rootfs: &RootfsDir,
    mounts: &[Value],
    stays_below: &dyn Fn(&Path) -> bool,
) -> Result<Vec<Missing>, Error> {
    let mut all: Vec<Missing> = Vec::new();
    let root = Path::new("/");
    let root_device = rootfs.device().map_err(Error::io("stat", root))?;
    for (number, mount) in mounts.iter().enumerate() {
        let earlier =
            || mounts.iter().take(number).filter_map(|mount| mount["destination"].as_str().map(Path::new));
        let Some(destination) = mount["destination"].as_str().map(Path::new) else { continue };
        // A mount point below an earlier mount is made in the file system that is mounted there.
        let covered = earlier().any(|other| destination != other && destination.starts_with(other));
        if covered {
            continue;
        }
        let source = mount["source"].as_str().map(Path::new);
        let is_bind = mount["type"] == "bind";
        let is_dir = !is_bind || source.is_none_or(Path::is_dir);
        let (mut path, mut device) = (root.to_owned(), root_device);
        let names = destination.components().filter(|part| matches!(part, Component::Normal(_)));
        let depth = names.clone().count();
        for (name, number) in names.zip(1..) {
            path.push(name);
            let found = rootfs.find(&path).map_err(Error::io("find the mount point", &path))?;
            let is_target = number == depth;
            let stays = !is_target && stays_below(destination);
            if let Some(found) = &found {
                device = found.stat.st_dev;
            } else if let Some(same) = all.iter_mut().find(|stub| stub.path == path) {
                same.stays |= stays;
            } else {
                let mode = if is_target { mode(mount, is_dir) } else { 0o755 };
                all.push(Missing { path: path.clone(), device, is_dir: is_dir || !is_target, stays, mode });
            }
        }
    }
    Ok(all)
}
