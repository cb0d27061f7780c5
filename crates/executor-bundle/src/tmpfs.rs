//! A tmpfs that the runtime would not make as it is asked for.
//!
//! runc mounts a tmpfs with its options, and then gives it the mode of the directory that it hides, also if `mode=` asks for
//! another. crun does not. As root we mount such a tmpfs in the bundle, and the runtime gets that. An ordinary user may not
//! mount: there the mode is what the runtime makes of it.

use std::path::{Path, PathBuf};

use executor_disk::Dir;
use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

use crate::error::Error;
use crate::ids::{self, Ids};
use crate::json::strings;
use crate::mount_entry::{destination, tmpfs_mode};
use crate::mounts::SELECTED;
use crate::nested::{Options, make_private};
use crate::rootfs_dir::RootfsDir;

/// Mounts each tmpfs that asks for another mode than its mount point has in the files of the root file system. Without those
/// that have options which only the runtime knows, those below another mount, and that at /dev, in which the runtime makes devices.
pub(crate) fn make(dir: &Dir, view: &RootfsDir, mounts: &mut [Value], ids: &Ids) -> Result<(), Error> {
    if ids::rootless() {
        return Ok(());
    }
    for number in 0..mounts.len() {
        let (before, rest) = mounts.split_at_mut(number);
        let Some(entry) = rest.first_mut().filter(|entry| entry["type"] == "tmpfs") else { continue };
        let point = destination(entry);
        let is_covered = before.iter().any(|above| point.starts_with(destination(above)));
        let is_dev = point == Path::new("/dev");
        let Some(asked) = tmpfs_mode(entry).filter(|_| !is_covered && !is_dev) else { continue };
        let has = view.find(&point).map_err(Error::io("find the mount point", &point))?;
        let differs = has.is_some_and(|found| found.stat.st_mode & 0o7777 != asked);
        if let Some(options) = Options::of(entry, ids).filter(|_| differs) {
            prepare(dir, &format!("tmpfs-{number}"), entry, &options)?;
        }
    }
    Ok(())
}

/// Mounts a tmpfs in the bundle, and makes its entry a bind mount of that. Returns its path. It is not read-only yet.
pub(crate) fn prepare(dir: &Dir, name: &str, entry: &mut Value, options: &Options) -> Result<PathBuf, Error> {
    let selected = dir.open_or_make_dir(SELECTED).map_err(Error::io("make", &dir.path_of(SELECTED)))?;
    let place = selected.path_of(name);
    selected.make_dir(name, 0o700).map_err(Error::io("make", &place))?;
    let at = selected.by_descriptor(name);
    let flags = options.flags.difference(MountFlags::RDONLY);
    mount("tmpfs", &at, "tmpfs", flags, options.data().as_c_str())
        .and_then(|()| make_private(&at))
        .map_err(Error::file("mount", &destination(entry)))?;
    let words = strings(&entry["options"]).filter(|word| !word.contains('=') && *word != "rbind");
    let words: Value = ["rbind"].into_iter().chain(words).collect();
    entry["options"] = words;
    entry["type"] = json!("bind");
    entry["source"] = json!(place);
    Ok(place)
}
