//! A process 1 of ours in front of the program: `init/main.rs`, built by `build.rs` as a static program that runs in
//! any root file system.

use std::path::Path;

use serde_json::Value;

use crate::error::Error;
use crate::file;
use crate::json::list;
use crate::mount_entry::{bind, put};

#[cfg(has_init)]
const PROGRAM: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/longshore-init")));
#[cfg(not(has_init))]
const PROGRAM: Option<&[u8]> = None;

/// Its name below the bundle.
const FILE: &str = "init";

/// Where the container finds it: in a file system of its own, where no stub is needed.
const PLACE: &str = "/dev/longshore-init";

/// Writes it below the bundle.
pub(crate) fn write(dir: &Path) -> Result<(), Error> {
    let missing = || Error::field("init", "built without it, for want of a static C library");
    file::write_new(&dir.join(FILE), PROGRAM.ok_or_else(missing)?, 0o755)
}

/// Puts it in front of the program.
pub(crate) fn add(config: &mut Value, dir: &Path) -> Result<(), Error> {
    put(list(config, &["mounts"])?, bind(&dir.join(FILE), Path::new(PLACE), "ro"));
    list(config, &["process", "args"])?.insert(0, PLACE.into());
    Ok(())
}
