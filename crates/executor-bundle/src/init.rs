//! The process 1 of a container that asks for one. It starts the container's program. `executor-programs` has it.

use std::path::Path;

use executor_disk::Dir;
use executor_programs::INIT;
use serde_json::Value;

use crate::error::Error;
use crate::json::list;
use crate::mount_entry::{bind_own, put};

/// Its name below the bundle.
const FILE: &str = "init";

/// Its path in the container: `/dev` is a tmpfs of the container's own, so no stub is needed.
const PLACE: &str = "/dev/longshore-init";

/// Whether this build has it: it needs a static C library.
#[must_use]
pub const fn has_init() -> bool {
    INIT.is_some()
}

/// Writes it to the bundle.
pub(crate) fn write(dir: &Dir) -> Result<(), Error> {
    let why = "this build of longshore has no init program: no static C library was found when it was built";
    let missing = || Error::field("init", why);
    let written = dir.write_new(FILE, INIT.ok_or_else(missing)?, 0o755);
    written.map(drop).map_err(Error::io("write", &dir.path_of(FILE)))
}

/// Puts it in front of the program.
pub(crate) fn add(config: &mut Value, dir: &Path) -> Result<(), Error> {
    put(list(config, &["mounts"])?, bind_own(&dir.join(FILE), Path::new(PLACE), &["ro"]));
    list(config, &["process", "args"])?.insert(0, PLACE.into());
    Ok(())
}
