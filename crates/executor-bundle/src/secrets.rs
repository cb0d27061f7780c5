//! Secrets of a container: files in memory, each bound to where the container reads it.
//!
//! As root they are on a ramfs of their own, which is never swapped out and is unmounted with the bundle. An ordinary user
//! cannot mount one: the root directory has to be on a file system in memory then, as `$XDG_RUNTIME_DIR` is. A tmpfs may be
//! swapped out.

use std::os::fd::AsFd;
use std::path::PathBuf;

use executor_core::lifecycle::Leftover;
use executor_core::{IdMap, Secret};
use executor_disk::Dir;
use executor_disk::faults::{Op, change};
use rustix::fs::{Mode, fchmod, fstatfs};
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
    dir: &Dir,
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
    let place = open(dir, ids)?;
    let name = number.to_string();
    let written = place.make_file(&name, 0o600).and_then(|file| {
        executor_disk::write(&file, &place.path_of(&name), secret.expose())?;
        owner.give(&file)?;
        Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
    });
    written.map_err(Error::io("write", &place.path_of(&name)))?;
    Ok(place.path_of(&name))
}

/// Opens the directory of the secrets, which is made for the first one. Only the container's root may look into it, whatever
/// the modes of the secrets are.
fn open(dir: &Dir, ids: &Ids) -> Result<Dir, Error> {
    let failed = |op| Error::io::<std::io::Error>(op, &dir.path_of(SECRETS));
    let open = || if ids::rootless() { dir.open_dir(SECRETS) } else { dir.open_mounted_dir(SECRETS) };
    if dir.has(SECRETS) {
        return open().map_err(failed("open"));
    }
    let made = dir.make_dir(SECRETS, 0o700).map_err(failed("make"))?;
    if ids::rootless() {
        let kind = fstatfs(made.as_fd()).map_err(|error| failed("stat")(error.into()))?.f_type;
        if !IN_MEMORY.contains(&kind) {
            let why = "an ordinary user's secrets need a root directory in memory, as $XDG_RUNTIME_DIR is";
            return Err(Error::field("mount secret", why));
        }
        return Ok(made);
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    change(Op::Mount, dir.path(), SECRETS)
        .and_then(|()| Ok(mount("longshore", dir.by_descriptor(SECRETS), "ramfs", flags, None)?))
        .map_err(failed("mount a ramfs at"))?;
    let place = open().map_err(failed("open"))?;
    place.set_mode(0o700).and_then(|()| ids.root.give(&place)).map_err(failed("set the owner of"))?;
    Ok(place)
}

/// Unmounts what [`write`] mounted. Returns what is still mounted.
pub(crate) fn unmount(dir: &Dir) -> Option<Leftover> {
    if ids::rootless() || !dir.has(SECRETS) {
        // An ordinary user's are removed with the bundle.
        return None;
    }
    unmount_point(dir, SECRETS)
}
