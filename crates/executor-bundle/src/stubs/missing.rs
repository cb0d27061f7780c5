//! Which mount points a root file system does not have, and the directories above them.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::Error;
use crate::rootfs_dir::RootfsDir;

/// A path that does not exist and has to.
pub(super) struct Missing {
    pub(super) path: PathBuf,
    /// That of the nearest directory above it that is there.
    pub(super) device: u64,
    pub(super) is_dir: bool,
    /// Whether something is to be mounted right there.
    pub(super) is_target: bool,
}

/// In the order in which they can be made.
pub(super) fn missing(within: &RootfsDir, mounts: &[Value]) -> Result<Vec<Missing>, Error> {
    let mut all: Vec<Missing> = Vec::new();
    let root = Path::new("/");
    let of_root = within.device().map_err(Error::io("look at", root))?;
    let destinations = || mounts.iter().filter_map(|mount| mount["destination"].as_str().map(Path::new));
    for (index, mount) in mounts.iter().enumerate() {
        let Some(destination) = destinations().nth(index) else { continue };
        // What lies below another mount is made in that.
        let covered = destinations().any(|other| destination != other && destination.starts_with(other));
        if covered {
            continue;
        }
        let source = mount["source"].as_str().map(Path::new);
        let is_bind = mount["type"] == "bind";
        let is_dir = !is_bind || source.is_none_or(Path::is_dir);
        let (mut path, mut device) = (root.to_owned(), of_root);
        let normal = destination.components().filter(|part| matches!(part, Component::Normal(_)));
        let count = normal.clone().count();
        for (part, number) in normal.zip(1..) {
            path.push(part);
            let found = within.find(&path).map_err(Error::io("look at the mount point", &path))?;
            if let Some(found) = &found {
                device = found.stat.st_dev;
            } else if all.iter().all(|stub| stub.path != path) {
                let is_target = number == count;
                all.push(Missing { path: path.clone(), device, is_dir: is_dir || !is_target, is_target });
            }
        }
    }
    Ok(all)
}
