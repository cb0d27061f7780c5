//! The devices that a container asks for: nodes of the host by their paths, and what CDI specifications describe.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use executor_core::{Device, DeviceRights};
use serde_json::{Value, json};

#[cfg(feature = "cdi")]
use super::cdi;
use crate::error::Error;
use crate::json::list;

/// Adds the devices to the configuration, with the rights that each gives.
pub(crate) fn add(config: &mut Value, devices: &[Device]) -> Result<(), Error> {
    let mut named = Vec::new();
    for device in devices {
        match device {
            Device::Node { path, destination, rights } => add_node(config, path, destination, *rights)?,
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
fn add_node(config: &mut Value, path: &Path, destination: &Path, rights: DeviceRights) -> Result<(), Error> {
    let meta = fs::metadata(path).map_err(Error::file("device", path))?;
    let Some(kind) = kind(&meta) else {
        let why = format!("{} is neither a character device nor a block device", path.display());
        return Err(Error::field("device", why));
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    list(config, &["linux", "devices"])?.push(node(destination, kind, &meta));
    list(config, &["linux", "resources", "devices"])?.push(json!({
        "allow": true,
        "type": kind,
        "major": major,
        "minor": minor,
        "access": rights.to_string(),
    }));
    Ok(())
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
