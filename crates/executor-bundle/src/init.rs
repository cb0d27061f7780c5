//! A process 1 of ours in front of the program: `init/main.rs`, built by `build.rs` as a static program that runs in
//! any root file system.

use std::path::Path;

use executor_core::lifecycle::StartFailure;
use serde_json::Value;

use crate::error::{bad, from_io};
use crate::{file, json, mount_entry};

#[cfg(has_init)]
const PROGRAM: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/longshore-init")));
#[cfg(not(has_init))]
const PROGRAM: Option<&[u8]> = None;

/// Its name below the bundle.
const FILE: &str = "init";

/// Where the container finds it: in a file system of its own, where no stub is needed.
const PLACE: &str = "/dev/longshore-init";

/// Puts it in front of the program.
pub(crate) fn add(config: &mut Value, dir: &Path) -> Result<(), StartFailure> {
    let place = mount_entry::bind(&dir.join(FILE), Path::new(PLACE), "ro");
    mount_entry::put(json::list(config, &["mounts"])?, place);
    json::list(config, &["process", "args"])?.insert(0, PLACE.into());
    Ok(())
}

/// Writes it below the bundle.
pub(crate) fn write(dir: &Path) -> Result<(), StartFailure> {
    let program = PROGRAM.ok_or_else(|| bad("init", "built without it, for want of a static C library"))?;
    let path = dir.join(FILE);
    file::write_new(&path, program, 0o755).map_err(|error| from_io("write", &path, &error))
}
