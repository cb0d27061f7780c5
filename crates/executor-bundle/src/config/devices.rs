//! The devices that a container asks for: nodes of the host by their paths, and what CDI specifications describe.
//!
//! The runtime makes the nodes. In the root file system or a volume they would stay, and some file systems take none. So it
//! makes those in the container's own /dev, and a node in another place is a bind mount of the host's.
//!
//! In a user namespace nobody makes nodes, and the runtime binds what the host has at the path of the container. If the device
//! has another path on the host, that would be another device, or none. So it is a bind mount of ours as well.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
#[cfg(feature = "cdi")]
use std::path::PathBuf;

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
    if !named.is_empty() {
        let others = list(config, &["linux", "devices"])?.len();
        cdi::add(config, &named)?;
        if map.is_some() {
            bind_those_of_other_paths(config, others)?;
        }
    }
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
    let may_be_made = map.is_none() || path == destination;
    if may_be_made && is_in_memory(mounts, destination) {
        list(config, &["linux", "devices"])?.push(node(destination, kind, &meta));
    } else {
        bind(mounts, path, destination, map.is_some());
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

/// Mounts the node at `path` of the host at `destination`.
fn bind(mounts: &mut Vec<Value>, path: &Path, destination: &Path, in_user_namespace: bool) {
    let mut options = vec!["bind", "nosuid", "noexec"];
    // In a user namespace, the runtime may not take away what the host's mount has.
    if in_user_namespace && mount_entry::withheld(path).any(|flag| flag == "nodev") {
        options.push("nodev");
    }
    mount_entry::put(mounts, mount_entry::mount(destination, "bind", path, &options));
}

/// Replaces the nodes after the first `others` by bind mounts, if the host has another path for that device.
#[cfg(feature = "cdi")]
fn bind_those_of_other_paths(config: &mut Value, others: usize) -> Result<(), Error> {
    let mut nodes = list(config, &["linux", "devices"])?.split_off(others);
    let mut binds = Vec::new();
    nodes.retain(|node| match path_on_the_host(node) {
        Some((path, destination)) if path != destination => {
            binds.push((path, destination));
            false
        }
        Some(_) | None => true,
    });
    list(config, &["linux", "devices"])?.extend(nodes);
    for (path, destination) in binds {
        bind(list(config, &["mounts"])?, &path, &destination, true);
    }
    Ok(())
}

/// Where the host has the device of an entry, and where the container is to have it. `None` if the kernel knows no such device.
#[cfg(feature = "cdi")]
fn path_on_the_host(node: &Value) -> Option<(PathBuf, PathBuf)> {
    let destination = PathBuf::from(node["path"].as_str()?);
    let (major, minor) = (node["major"].as_i64()?, node["minor"].as_i64()?);
    let is_here = fs::metadata(&destination).is_ok_and(|meta| {
        let (of_major, of_minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        kind(&meta) == node["type"].as_str() && (i64::from(of_major), i64::from(of_minor)) == (major, minor)
    });
    if is_here {
        return Some((destination.clone(), destination));
    }
    let class = if node["type"] == "b" { "block" } else { "char" };
    let about = fs::read_to_string(format!("/sys/dev/{class}/{major}:{minor}/uevent")).ok()?;
    let name = about.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some((Path::new("/dev").join(name), destination))
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
