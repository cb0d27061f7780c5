//! Secrets of a container: files in memory, each bound to where the container reads it.
//!
//! As root they are on a ramfs of their own, which is never swapped out and is unmounted with the bundle. An ordinary user
//! cannot mount one: the root directory has to be on a file system in memory then, as `$XDG_RUNTIME_DIR` is. A tmpfs may be
//! swapped out.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use executor_core::lifecycle::Leftover;
use executor_core::{IdMap, Secret};
use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

use crate::error::Error;
use crate::ids::{self, Ids};
use crate::mount_entry::unmount_point;

/// The directory in the bundle where they are.
const SECRETS: &str = "secrets";

/// What statfs(2) calls a tmpfs and a ramfs; see linux/magic.h.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Writes a secret of the bundle in `dir`; returns its file. `uid` and `gid` are ids of the container.
pub(crate) fn write(
    dir: &Path,
    number: usize,
    secret: &Secret,
    mode: u32,
    (uid, gid): (u32, u32),
    ids: &Ids,
) -> Result<PathBuf, Error> {
    let mapped = |map: &IdMap| map.host_uid(uid).is_some() && map.host_gid(gid).is_some();
    if !ids.map.as_ref().is_none_or(mapped) {
        return Err(Error::field("mount secret", format!("{uid}:{gid} is not in the container's id map")));
    }
    let owner = ids.on_the_host(uid, gid);
    if ids::rootless() && owner != ids.root {
        let why = format!("{uid}:{gid}: an ordinary user's secrets belong to the container's root, 0:0");
        return Err(Error::field("mount secret", why));
    }
    let place = dir.join(SECRETS);
    if !place.exists() {
        make(&place, ids)?;
    }
    let file = place.join(number.to_string());
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut opened| opened.write_all(secret.expose()));
    written.map_err(Error::io("write", &file))?;
    owner.give(&file)?;
    fs::set_permissions(&file, Permissions::from_mode(mode)).map_err(Error::io("set the mode of", &file))?;
    Ok(file)
}

/// Makes the directory. Only the container's root may look into it, whatever the modes of the secrets are.
fn make(place: &Path, ids: &Ids) -> Result<(), Error> {
    fs::create_dir(place).map_err(Error::io("make", place))?;
    if ids::rootless() {
        let kind = statfs(place).map_err(Error::io("stat", place))?.f_type;
        if !IN_MEMORY.contains(&kind) {
            let why = "an ordinary user's secrets need a root directory in memory, as $XDG_RUNTIME_DIR is";
            return Err(Error::field("mount secret", why));
        }
    } else {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("longshore", place, "ramfs", flags, None)
            .map_err(|error| Error::Mount { what: "a ramfs for secrets", source: error.into() })?;
    }
    fs::set_permissions(place, Permissions::from_mode(0o700)).map_err(Error::io("set the mode of", place))?;
    ids.root.give(place)
}

/// Unmounts what [`write`] mounted. Returns what is still mounted.
pub(crate) fn unmount(dir: &Path) -> Option<Leftover> {
    let place = dir.join(SECRETS);
    if ids::rootless() || !place.exists() {
        // An ordinary user's are removed with the bundle.
        return None;
    }
    unmount_point(&place)
}
