//! Freezers: thawing what a container has frozen, and saying what somebody else has.
//!
//! A process of a frozen cgroup of v1 does not die of SIGKILL. A cgroup is frozen if it is frozen itself, or one above it is.
//! A container that is given the hierarchies of the host can freeze them all:
//!
//! ```text
//! <parent>                       the embedder's: if it is frozen, that is a pause from outside, and stays
//! <parent>/longshore             ours: thawed, and nothing else in it
//! <parent>/longshore/<executor>  ours: thawed, and nothing else in it
//! …/<executor>/<id>              the container's: thawed with all below
//! ```
//! Another container that is paused is frozen itself, and stays so.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::place::ours_above;
use super::{hierarchies, may_have, tree};

/// The files that freeze a cgroup, of v1 and of v2, and what is written to them to thaw it.
const FREEZERS: [(&str, &str); 2] = [("freezer.state", "THAWED"), ("cgroup.freeze", "0")];

/// The file of v1 that says that a cgroup itself is frozen, and not only one above it. On v2 a frozen process can be killed.
const FROZEN: &str = "freezer.self_freezing";

/// Thaws the cgroup directories of a container, all below, and our own above, so that killed processes can exit. A directory
/// that is not frozen stays as it is.
pub(crate) fn thaw<'a>(dirs: impl Iterator<Item = &'a Path>) {
    for dir in dirs.filter(|dir| may_have(dir, "freezer.state")) {
        // From the top, since a cgroup below a frozen one stays frozen.
        ours_above(dir).for_each(thaw_one);
        tree(dir).iter().rev().for_each(|dir| thaw_one(dir));
        if let Some(frozen) = frozen_by_others(dir) {
            tracing::warn!(dir = %dir.display(), frozen = %frozen.display(), "a cgroup above ours is frozen: no process below can end before it is thawed");
        }
    }
}

/// Whether one of the cgroup directories of a container is frozen itself.
pub(super) fn is_frozen<'a>(mut dirs: impl Iterator<Item = &'a Path>) -> bool {
    let says =
        |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim() == "1");
    dirs.any(|dir| says(dir, FROZEN) || says(dir, "cgroup.freeze"))
}

fn thaw_one(dir: &Path) {
    for (file, thawed) in FREEZERS {
        let opened = OpenOptions::new().write(true).open(dir.join(file));
        let written = opened.and_then(|mut file| file.write_all(thawed.as_bytes()));
        if let Err(error) = written
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(dir = %dir.display(), file, %error, "a cgroup was not thawed");
        }
    }
}

/// The frozen cgroup above our own directories, if a process in `dir` cannot be killed for that reason: on v1.
fn frozen_by_others(dir: &Path) -> Option<PathBuf> {
    let point =
        hierarchies().filter(|point| dir.starts_with(point)).max_by_key(|point| point.as_os_str().len())?;
    let above = dir.ancestors().skip(1).take_while(|above| above.starts_with(point));
    let is_frozen = |dir: &&Path| fs::read_to_string(dir.join(FROZEN)).is_ok_and(|text| text.trim() == "1");
    above.filter(is_frozen).last().map(Path::to_owned)
}

/// Why a cgroup directory could not be removed: `error`, or the frozen cgroup above it that keeps its processes.
pub(super) fn explained(dir: &Path, error: io::Error) -> io::Error {
    match frozen_by_others(dir) {
        Some(frozen) if error.kind() == ErrorKind::ResourceBusy => io::Error::new(
            ErrorKind::ResourceBusy,
            format!(
                "its processes cannot end, because {} above it is frozen by somebody else; thaw that cgroup, then sweep",
                frozen.display()
            ),
        ),
        Some(_) | None => error,
    }
}
