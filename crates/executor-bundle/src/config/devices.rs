//! The devices that a container asks for: nodes of the host by their paths, and what CDI specifications describe.
//!
//! The runtime makes the nodes. In the root file system or a volume they would stay, and some file systems take none. So it
//! makes those in the container's own /dev, and a node in another place is a bind mount of the host's.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use executor_core::{Device, DeviceRights, IdMap};
use rustix::fs::FileType;
use serde_json::{Value, json};

#[cfg(feature = "cdi")]
use super::cdi;
use crate::container_files::{ContainerFiles, PathKind};
use crate::error::Error;
use crate::json::list;
use crate::mount_entry;
use crate::rootfs_dir::{Found, RootfsDir};

/// Adds the devices to the configuration, with the rights that each gives.
pub(crate) fn add(config: &mut Value, devices: &[Device], map: Option<&IdMap>) -> Result<(), Error> {
    let mut named = Vec::new();
    for device in devices {
        match device {
            Device::Node { path, destination, rights } => {
                add_node(config, path, destination, *rights, map)?;
            }
            Device::Cdi(name) => named.push(name.clone()),
            other => return Err(Error::field("device", format!("{other} is not known here"))),
        }
    }
    #[cfg(feature = "cdi")]
    cdi::add(config, &named)?;
    #[cfg(not(feature = "cdi"))]
    if let Some(name) = named.first() {
        return Err(Error::field("device", format!("{name}: built without the feature cdi")));
    }
    Ok(())
}

/// The node at `path`, links followed, in the container at `destination`. It has the host's owner and mode there.
fn add_node(
    config: &mut Value,
    path: &Path,
    destination: &Path,
    rights: DeviceRights,
    map: Option<&IdMap>,
) -> Result<(), Error> {
    let meta = fs::metadata(path).map_err(Error::file("device", path))?;
    let Some(kind) = kind(&meta) else {
        let why = format!("{} is neither a character device nor a block device", path.display());
        return Err(Error::field("device", why));
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let mounts = list(config, &["mounts"])?;
    let there = mounts.iter().find(|mount| mount_entry::destination(mount) == destination);
    if there.is_some_and(|mount| !shows(mount, path)) {
        return Err(occupied(destination));
    }
    if is_in_memory(mounts, destination) {
        list(config, &["linux", "devices"])?.push(node(destination, kind, &meta));
    } else {
        // In a user namespace, the runtime may not take away what the host's mount has.
        let mut options = vec!["nosuid", "noexec"];
        options.extend(
            map.into_iter().flat_map(|_| mount_entry::withheld(path)).filter(|flag| *flag == "nodev"),
        );
        let options = [&["bind"], options.as_slice()].concat();
        mount_entry::put(mounts, mount_entry::mount(destination, "bind", path, &options));
    }
    list(config, &["linux", "resources", "devices"])?.push(json!({
        "allow": true,
        "type": kind,
        "major": major,
        "minor": minor,
        "access": rights.to_string(),
    }));
    Ok(())
}

/// Whether a path is in a tmpfs, which ends with the container.
fn is_in_memory(mounts: &[Value], path: &Path) -> bool {
    let is_above = |mount: &&Value| {
        let point = mount_entry::destination(mount);
        point != path && path.starts_with(&point)
    };
    mounts.iter().rev().find(is_above).is_some_and(|mount| mount["type"] == "tmpfs")
}

/// Fails if something else is where a device is to be: a runtime leaves what is there as it is. `mounts` are all of the
/// container.
pub(crate) fn check(view: &RootfsDir, mounts: &[Value], devices: &[Device]) -> Result<(), Error> {
    for device in devices {
        let Device::Node { path, destination, .. } = device else { continue };
        let seen = ContainerFiles::of(view).with_mounts(mounts.iter().filter(|mount| !shows(mount, path)))?;
        let (_, what) = seen.resolve(destination, &|_| true).map_err(Error::file("device", destination))?;
        let number = fs::metadata(path).map_err(Error::file("device", path))?.rdev();
        // An empty file may be the mount point that another container of the same root file system has.
        let is_empty = |found: &Found| found.is(FileType::RegularFile) && found.stat.st_size == 0;
        if matches!(what, PathKind::File(found) if found.stat.st_rdev != number && !is_empty(&found)) {
            return Err(occupied(destination));
        }
    }
    Ok(())
}

/// Whether an entry is a mount of this very file of the host.
fn shows(mount: &Value, path: &Path) -> bool {
    mount["type"] == "bind" && mount["source"].as_str().map(Path::new) == Some(path)
}

fn occupied(destination: &Path) -> Error {
    let place = destination.display();
    Error::field("device", format!("{place}: something else is there in the container; name another place"))
}

/// What the specification calls the kind of a device; `None` of a file that is no device.
pub(super) fn kind(meta: &fs::Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    if kind.is_char_device() {
        return Some("c");
    }
    kind.is_block_device().then_some("b")
}

/// An entry of `linux.devices`.
pub(super) fn node(path: &Path, kind: &str, meta: &fs::Metadata) -> Value {
    json!({
        "path": path,
        "type": kind,
        "major": rustix::fs::major(meta.rdev()),
        "minor": rustix::fs::minor(meta.rdev()),
        "fileMode": meta.mode() & 0o7777,
        "uid": meta.uid(),
        "gid": meta.gid(),
    })
}
