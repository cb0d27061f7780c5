//! Mounts below a volume. The mount point is in the volume's source, and another process may change that at any time.
//!
//! The runtime resolves a destination, and then makes what is missing there. A process that replaces a directory by a link
//! in between makes it follow the link, on the host: this is how runc before 1.1.14 makes directories anywhere
//! (CVE-2024-45310). So we make the mount point, below the open source, where no link leads out of it.
//!
//! That alone leaves the runtime to resolve the destination once more. As root, we put the tree together as well:
//!
//! 1. The source of the volume is mounted in the bundle, and made private.
//! 2. What is mounted below it is mounted in the bundle too, with its options, and moved to the mount point by descriptor.
//! 3. The runtime gets the volume with all below it as one mount, and never hears of the destinations inside.
//!
//! A read-only volume with mounts of the host below it is put together as well on a kernel that does not know the option that
//! makes these read-only too.
//!
//! A file system of another kind than tmpfs is left to the runtime, and so is everything of an ordinary user, who may not
//! mount: there the runtime can be made to follow a link, with the rights of that user.
//!
//! While the container lives, the mount point is busy for the host: it can be neither renamed nor removed.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use executor_disk::{Dir, mount_table};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_change, move_mount};
use serde_json::{Value, json};

use crate::error::Error;
use crate::ids::{self, Ids};
use crate::mount_entry::{self, copy_mount, destination, restrict};
use crate::mounts::SELECTED;
use crate::rootfs_dir::RootfsDir;
use crate::stubs;

/// The directory in the bundle with a directory for each volume that has stubs.
const STUBS: &str = "nested";

/// Makes the mount points below volumes, and mounts what we can there. What is mounted is taken out of `mounts`.
/// `stays_below` are the mount points with directories above them that are not removed with them.
pub(crate) fn make(
    dir: &Dir,
    mounts: &mut Vec<Value>,
    stays_below: &dyn Fn(&Path) -> bool,
    ids: &Ids,
) -> Result<(), Error> {
    let covers: Vec<_> = (0..mounts.len()).map(|number| cover(mounts, number)).collect();
    for (number, volume) in mounts.iter().enumerate() {
        let inside = || covers.iter().enumerate().filter(|(_, cover)| **cover == Some(number));
        let points: Vec<_> = inside().filter_map(|(index, _)| within(volume, mounts.get(index)?)).collect();
        let Some(source) = directory(volume).filter(|_| !points.is_empty()) else { continue };
        let place = dir.open_or_make_dir(STUBS).and_then(|stubs| stubs.make_dir(number.to_string(), 0o700));
        let place = place.map_err(Error::io("make", &dir.path_of(STUBS)))?;
        let stays = |inside: &Path| {
            stays_below(&destination(volume).join(inside.strip_prefix("/").unwrap_or(inside)))
        };
        stubs::make_missing(&place, &source, &points, &stays, ids.root)?;
    }
    read_only_below(dir, mounts, ids, mount_entry::read_only_below().is_some())?;
    if ids::rootless() {
        return Ok(());
    }
    let mut attached = Vec::new();
    for number in 0..mounts.len() {
        // The outermost volume, through those that were attached to it.
        let (mut top, mut cover) = (None, covers.get(number).copied().flatten());
        while let Some(volume) = cover {
            top = Some(volume);
            cover = covers.get(volume).copied().flatten().filter(|_| attached.contains(&volume));
        }
        let (Some(top), Some(entry)) = (top, mounts.get(number).cloned()) else { continue };
        // A volume with other options, as those of propagation, is left to the runtime with all that is in it.
        let is_plain = |volume: &Value| directory(volume).is_some() && Options::of(volume, ids).is_some();
        let Some(volume) = mounts.get_mut(top).filter(|volume| is_plain(volume)) else { continue };
        let Some(options) = Options::of(&entry, ids) else { continue };
        let tree = stage(dir, top, volume)?;
        let point = within(volume, &entry).and_then(|point| point["destination"].as_str().map(PathBuf::from));
        attach(dir, number, &tree, &point.unwrap_or_default(), &entry, &options)?;
        attached.push(number);
    }
    let mut number = 0..;
    mounts.retain(|_| number.next().is_none_or(|number| !attached.contains(&number)));
    Ok(())
}

/// Makes read-only what is mounted below read-only volumes, unless the kernel `knows` the option `rro`: then the runtime does.
fn read_only_below(dir: &Dir, mounts: &mut [Value], ids: &Ids, knows: bool) -> Result<(), Error> {
    let is_asked = |entry: &Value| {
        let has = |option: &str| entry["options"].as_array().is_some_and(|all| all.contains(&json!(option)));
        !knows && has("ro") && has("rro")
    };
    for (number, volume) in mounts.iter_mut().enumerate().filter(|(_, volume)| is_asked(volume)) {
        let Some(source) = directory(volume) else { continue };
        let source = source.canonicalize().map_err(Error::file("mount source", &source))?;
        let below =
            mount_table::mounts_below(&source).map_err(Error::io("list the mounts below", &source))?;
        if below.iter().any(|point| *point != source) {
            if ids::rootless() || Options::of(volume, ids).is_none() {
                let why = format!("{}: {}", source.display(), mount_entry::NOT_READ_ONLY);
                return Err(Error::field("mount", why));
            }
            stage(dir, number, volume)?;
        }
        if let Some(options) = volume["options"].as_array_mut() {
            options.retain(|option| option != "rro");
        }
    }
    Ok(())
}

/// Removes the stubs that [`make`] made. What was mounted there is unmounted already.
pub(crate) fn remove(dir: &Dir) {
    if let Ok(volumes) = dir.open_dir(STUBS) {
        for volume in volumes.names().unwrap_or_default() {
            if let Ok(place) = volumes.open_dir(volume) {
                stubs::remove(&place);
            }
        }
    }
    // What could not be opened stays. Its source is not held any longer.
    stubs::forget(&dir.path_of(STUBS));
}

/// The source of a bind mount, if it is a directory.
fn directory(entry: &Value) -> Option<PathBuf> {
    let source = Path::new(entry["source"].as_str().filter(|_| entry["type"] == "bind")?);
    source.is_dir().then(|| source.to_owned())
}

/// The mount in which the mount point of another one is: the deepest of those before it.
fn cover(mounts: &[Value], number: usize) -> Option<usize> {
    let point = mounts.get(number).map(destination)?;
    let earlier = mounts.iter().map(destination).enumerate().take(number);
    let above = earlier.filter(|(_, other)| *other != point && point.starts_with(other));
    above.max_by_key(|(_, other)| other.components().count()).map(|(number, _)| number)
}

/// The entry with its destination inside the volume.
fn within(volume: &Value, entry: &Value) -> Option<Value> {
    let point = destination(entry);
    let inside = point.strip_prefix(destination(volume)).ok()?;
    let mut entry = entry.clone();
    entry["destination"] = json!(Path::new("/").join(inside));
    Some(entry)
}

/// How a mount is made by us instead of the runtime.
pub(crate) struct Options {
    pub(crate) flags: MountFlags,
    /// The options of the file system.
    data: Vec<String>,
}

impl Options {
    /// The options of the file system, in the form of mount(2).
    pub(crate) fn data(&self) -> CString {
        CString::new(self.data.join(",")).unwrap_or_default()
    }

    /// `None` if it is left to the runtime.
    pub(crate) fn of(entry: &Value, ids: &Ids) -> Option<Self> {
        let is_tmpfs = entry["type"] == "tmpfs";
        if !is_tmpfs && entry["type"] != "bind" {
            return None;
        }
        let (mut flags, mut data) = (MountFlags::empty(), Vec::new());
        for option in entry["options"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            match option {
                "bind" | "rbind" | "rw" => {}
                "ro" | "rro" => flags |= MountFlags::RDONLY,
                "nosuid" => flags |= MountFlags::NOSUID,
                "nodev" => flags |= MountFlags::NODEV,
                "noexec" => flags |= MountFlags::NOEXEC,
                "suid" => flags.remove(MountFlags::NOSUID),
                "dev" => flags.remove(MountFlags::NODEV),
                "exec" => flags.remove(MountFlags::NOEXEC),
                "noatime" => flags |= MountFlags::NOATIME,
                "nodiratime" => flags |= MountFlags::NODIRATIME,
                "relatime" => flags |= MountFlags::RELATIME,
                _ if is_tmpfs && option.contains('=') => data.push(on_the_host(option, ids)?),
                _ => return None,
            }
        }
        if is_tmpfs && ids.map.is_some() {
            // Before those that name others.
            data.splice(0..0, [format!("uid={}", ids.root.uid), format!("gid={}", ids.root.gid)]);
        }
        Some(Self { flags, data })
    }
}

/// An option of a tmpfs as it is outside of the container's user namespace, where we mount it. `None` if the container does not
/// have the user or the group that it names.
fn on_the_host(option: &str, ids: &Ids) -> Option<String> {
    let (Some(map), Some((key, value))) = (&ids.map, option.split_once('=')) else {
        return Some(option.to_owned());
    };
    match key {
        "uid" => map.host_uid(value.parse().ok()?).map(|uid| format!("uid={uid}")),
        "gid" => map.host_gid(value.parse().ok()?).map(|gid| format!("gid={gid}")),
        _ => Some(option.to_owned()),
    }
}

/// Mounts the volume's source in the bundle, unless it is there already, and gives that to the runtime. Returns its path.
fn stage(dir: &Dir, number: usize, volume: &mut Value) -> Result<PathBuf, Error> {
    let selected = dir.open_or_make_dir(SELECTED).map_err(Error::io("make", &dir.path_of(SELECTED)))?;
    let name = format!("volume-{number}");
    let point = selected.path_of(&name);
    if selected.has(&name) {
        return Ok(point);
    }
    let source = PathBuf::from(volume["source"].as_str().unwrap_or_default());
    let failed = || Error::file::<std::io::Error>("mount source", &source);
    selected.make_dir(&name, 0o700).map_err(Error::io("make", &point))?;
    copy_mount(CWD, &source)
        .and_then(|copy| mount_entry::attach(&copy, &selected, &name))
        // Otherwise what is mounted below it would appear at the source, too.
        .and_then(|()| make_private(&selected.by_descriptor(&name)))
        .map_err(|error| failed()(error.into()))?;
    volume["source"] = json!(point);
    // What is read-only below the volume becomes so here: the runtime would do it to what we attach, too.
    if let Some(options) = volume["options"].as_array_mut() {
        let count = options.len();
        options.retain(|option| option != "rro");
        if options.len() < count {
            restrict(&point, MountFlags::RDONLY).map_err(|error| failed()(error.into()))?;
        }
    }
    Ok(point)
}

/// Mounts an entry in the bundle, and moves it to its mount point in the tree of the volume.
fn attach(
    dir: &Dir,
    number: usize,
    tree: &Path,
    inside: &Path,
    entry: &Value,
    options: &Options,
) -> Result<(), Error> {
    let source = Path::new(entry["source"].as_str().unwrap_or_default());
    let failed = || Error::file::<std::io::Error>("mount", &destination(entry));
    let selected = dir.open_dir(SELECTED).map_err(Error::io("open", &dir.path_of(SELECTED)))?;
    let name = format!("inside-{number}");
    let staged = selected.by_descriptor(&name);
    let found = RootfsDir::open(tree)?.find(inside).map_err(failed())?;
    let found = found.ok_or_else(|| failed()(Errno::NOENT.into()))?;
    let is_dir = entry["type"] == "tmpfs" || source.is_dir();
    let made = match is_dir {
        true => selected.make_dir(&name, 0o700).map(drop),
        false => selected.make_file(&name, 0o600).map(drop),
    };
    made.map_err(Error::io("make", &selected.path_of(&name)))?;
    let mounted = if entry["type"] == "tmpfs" {
        mount("tmpfs", &staged, "tmpfs", options.flags, options.data().as_c_str())
    } else {
        copy_mount(CWD, source).and_then(|copy| mount_entry::attach(&copy, &selected, &name))
    };
    mounted.and_then(|()| make_private(&staged)).map_err(|error| failed()(error.into()))?;
    if entry["type"] != "tmpfs" {
        restrict(&selected.path_of(&name), options.flags).map_err(|error| failed()(error.into()))?;
    }
    // A mount below a shared one cannot be moved, and the bundle may be on one. A copy can.
    let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    copy_mount(CWD, &staged)
        .and_then(|copy| move_mount(copy.as_fd(), "", found.as_fd(), "", by_descriptor))
        .map_err(|error| failed()(error.into()))
}

pub(crate) fn make_private(point: &Path) -> rustix::io::Result<()> {
    mount_change(point, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a kernel without the option.
    #[test]
    fn ro_below() {
        if ids::rootless() {
            return;
        }
        let (bundle, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let below = volume.path().join("below");
        std::fs::create_dir(&below).unwrap();
        mount("longshore-test", &below, "tmpfs", MountFlags::empty(), None).unwrap();
        let entry =
            |source: &Path| mount_entry::mount(Path::new("/v"), "bind", source, &["rbind", "ro", "rro"]);
        let mut mounts = [entry(volume.path()), entry(Path::new("/usr/bin"))];
        let dir = Dir::open_checked(bundle.path()).unwrap();
        read_only_below(&dir, &mut mounts, &Ids::new(None), false).unwrap();
        let staged = bundle.path().join(SELECTED).join("volume-0");
        assert_eq!(mounts[0]["source"], json!(staged));
        assert_eq!(mounts[1]["source"], "/usr/bin");
        assert!(mounts.iter().all(|mount| mount["options"] == json!(["rbind", "ro"])));
        let refused = std::fs::write(staged.join("below/x"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        std::fs::write(below.join("x"), "").unwrap();
        assert_eq!(crate::mounts::unmount_selected(&dir), []);
        rustix::mount::unmount(&below, rustix::mount::UnmountFlags::DETACH).unwrap();
    }

    #[test]
    fn the_deepest_mount_before_it_has_the_mount_point() {
        let at = |place: &str| mount_entry::mount(Path::new(place), "bind", Path::new("/etc"), &[]);
        let mounts = ["/v", "/v/a", "/w", "/v/a/b", "/v/c", "/x/y", "/x"].map(at);
        let covers: Vec<_> = (0..mounts.len()).map(|number| cover(&mounts, number)).collect();
        assert_eq!(covers, [None, Some(0), None, Some(1), Some(0), None, None]);
        assert_eq!(within(&mounts[1], &mounts[3]).unwrap()["destination"], "/b");
    }
}
