//! Root file systems: a directory as it is, an overlay of the caller's layers, or a throw-away overlay of the
//! host's own root.
//!
//! The overlay's upper layer is a tmpfs of its own, mounted below the bundle: the kernel refuses an
//! upper layer that lies within the lower one, and a tmpfs is gone when it is unmounted. What is
//! written there counts against the container's memory. The host's `/usr`, `/home` and the like are
//! covered the same way where they are file systems of their own; its `/proc`, `/sys`, `/dev` and
//! `/run` are not shown.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::StartFailure;
use executor_core::{IdMap, Rootfs, UpperLayer};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount as umount2};
use serde_json::Value;

use crate::error::{bad, from_io, kind_of};
use crate::ids;
use crate::mount_entry::mount as mount_entry;

/// Where the root file system is, below the bundle.
pub(crate) const MOUNT_POINT: &str = "rootfs";
const LAYERS: &str = "layers";

/// Directories of a host that may be file systems of their own and hold programs or data.
const MAY_BE_MOUNTS: [&str; 12] =
    ["bin", "etc", "gnu", "home", "lib", "lib64", "nix", "opt", "root", "sbin", "srv", "usr"];

/// The same as they are for an ordinary user, who has no right to the others; each is an overlay.
const SHOWN: [&str; 13] =
    ["bin", "etc", "gnu", "home", "lib", "lib64", "nix", "opt", "root", "sbin", "srv", "usr", "var"];

/// A root file system that is there.
pub(crate) struct Made {
    /// Its root.
    pub(crate) root: PathBuf,
    /// Where what it will show can be looked at.
    pub(crate) seen: PathBuf,
    /// What the runtime has to mount to make it whole.
    pub(crate) mounts: Vec<Value>,
    /// Whether what is made in it is there afterwards.
    pub(crate) is_kept: bool,
}

/// Makes a root file system; what has to be mounted is mounted below `dir`.
pub(crate) fn make(dir: &Path, rootfs: &Rootfs, map: Option<&IdMap>) -> Result<Made, StartFailure> {
    match rootfs {
        Rootfs::Dir(path) => {
            let root = directory(path)?;
            Ok(Made { seen: root.clone(), root, mounts: Vec::new(), is_kept: true })
        }
        Rootfs::Host if ids::rootless() => view_of_host(dir),
        Rootfs::Host => {
            let root = overlay_of_host(dir, map)?;
            Ok(Made { seen: root.clone(), root, mounts: Vec::new(), is_kept: false })
        }
        Rootfs::Overlay { .. } if ids::rootless() => Err(bad(
            "rootfs",
            "an overlay takes a mount, which an ordinary user cannot make; give a directory",
        )),
        Rootfs::Overlay { lower, upper } => {
            let root = overlay_of_layers(dir, lower, upper.as_ref(), map)?;
            Ok(Made { seen: root.clone(), root, mounts: Vec::new(), is_kept: upper.is_some() })
        }
    }
}

/// What [`make`] would make, as far as that can be said without making it.
pub(crate) fn preview(rootfs: &Rootfs) -> Result<Made, StartFailure> {
    let (root, seen) = match rootfs {
        Rootfs::Dir(path) => {
            let root = directory(path)?;
            (root.clone(), root)
        }
        Rootfs::Host => (PathBuf::from(MOUNT_POINT), PathBuf::from("/")),
        Rootfs::Overlay { lower, .. } => {
            (PathBuf::from(MOUNT_POINT), lower.first().cloned().unwrap_or_else(|| PathBuf::from("/")))
        }
    };
    Ok(Made { root, seen, mounts: Vec::new(), is_kept: true })
}

pub(crate) fn directory(path: &Path) -> Result<PathBuf, StartFailure> {
    let real = path.canonicalize().map_err(|error| from_io("rootfs:", path, &error))?;
    if !real.is_dir() {
        return Err(bad("rootfs", &format!("{} is not a directory", path.display())));
    }
    if real == Path::new("/") {
        return Err(bad("rootfs", "the host's own root would be written to; use the overlay of it (host)"));
    }
    Ok(real)
}

/// Mounts the overlay below `dir` and answers with its mount point.
fn overlay_of_host(dir: &Path, map: Option<&IdMap>) -> Result<PathBuf, StartFailure> {
    let (layers, root) = make_points(dir)?;
    mount_layers(&layers)?;
    overlay(&[Path::new("/")], &throw_away(&layers.join("0"), Path::new("/"), map)?, &root)?;
    for (name, lower) in own_file_systems() {
        overlay(&[&lower], &throw_away(&layers.join(name), &lower, map)?, &root.join(name))?;
    }
    Ok(root)
}

fn overlay_of_layers(
    dir: &Path,
    lower: &[PathBuf],
    upper: Option<&UpperLayer>,
    map: Option<&IdMap>,
) -> Result<PathBuf, StartFailure> {
    let (layers, root) = make_points(dir)?;
    let lower = lower.iter().map(|layer| directory(layer)).collect::<Result<Vec<_>, _>>()?;
    let lower: Vec<_> = lower.iter().map(PathBuf::as_path).collect();
    let upper = match upper {
        Some(upper) => UpperLayer { dir: directory(&upper.dir)?, work: directory(&upper.work)? },
        None => {
            mount_layers(&layers)?;
            throw_away(&layers.join("0"), lower.first().copied().unwrap_or(Path::new("/")), map)?
        }
    };
    overlay(&lower, &upper, &root)?;
    Ok(root)
}

/// For an ordinary user: an empty root, upon which the runtime mounts an overlay of each of the host's directories.
/// In his own user namespace he may, if the upper layers are his.
fn view_of_host(dir: &Path) -> Result<Made, StartFailure> {
    let (layers, root) = make_points(dir)?;
    let mut mounts = Vec::new();
    for name in SHOWN {
        let (lower, point) = (Path::new("/").join(name), root.join(name));
        let Ok(meta) = fs::symlink_metadata(&lower) else { continue };
        if meta.is_symlink() {
            let link = fs::read_link(&lower).and_then(|to| symlink(to, &point));
            link.map_err(|error| from_io("make", &point, &error))?;
        } else if meta.is_dir() {
            fs::create_dir(&point).map_err(|error| from_io("make", &point, &error))?;
            let upper = throw_away(&layers.join(name), &lower, None)?;
            let options = format!("userxattr,{}", overlay_options(&[&lower], &upper));
            let options: Vec<_> = split_options(&options);
            mounts.push(mount_entry(&lower, "overlay", Path::new("overlay"), &options));
        }
    }
    let tmp = ["nosuid", "nodev", "mode=1777"];
    mounts.push(mount_entry(Path::new("/tmp"), "tmpfs", Path::new("tmpfs"), &tmp));
    Ok(Made { root, seen: PathBuf::from("/"), mounts, is_kept: false })
}

/// At the commas that end an option; those of a path are escaped.
fn split_options(options: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, character) in options.char_indices() {
        if character == ',' && !escaped {
            all.extend(options.get(start..index));
            start = index + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    all.extend(options.get(start..));
    all
}

fn make_points(dir: &Path) -> Result<(PathBuf, PathBuf), StartFailure> {
    let (layers, root) = (dir.join(LAYERS), dir.join(MOUNT_POINT));
    for made in [&layers, &root] {
        fs::create_dir(made).map_err(|error| from_io("make", made, &error))?;
    }
    Ok((layers, root))
}

fn mount_layers(layers: &Path) -> Result<(), StartFailure> {
    let mode = CString::from(c"mode=0700");
    mount("longshore", layers, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, mode.as_c_str())
        .map_err(|error| cannot_mount("a tmpfs for", error))
}

/// Those of the host's directories that lie on another file system than its root.
fn own_file_systems() -> impl Iterator<Item = (&'static str, PathBuf)> {
    let device =
        |path: &Path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|meta| meta.dev());
    let root = device(Path::new("/"));
    (MAY_BE_MOUNTS.into_iter())
        .map(|name| (name, Path::new("/").join(name)))
        .filter(move |(_, path)| device(path).is_some_and(|device| Some(device) != root))
}

/// An upper layer below `layer` that is gone with it, as accessible as the layer below it and the container's root's.
fn throw_away(layer: &Path, lower: &Path, map: Option<&IdMap>) -> Result<UpperLayer, StartFailure> {
    let (dir, work) = (layer.join("upper"), layer.join("work"));
    for made in [&dir, &work] {
        fs::create_dir_all(made).map_err(|error| from_io("make", made, &error))?;
    }
    let meta = fs::metadata(lower).map_err(|error| from_io("look at", lower, &error))?;
    fs::set_permissions(&dir, meta.permissions())
        .map_err(|error| from_io("set the mode of", &dir, &error))?;
    ids::give_to_root(map, &dir)?;
    Ok(UpperLayer { dir, work })
}

fn overlay_options(lower: &[&Path], upper: &UpperLayer) -> String {
    let lower = lower.iter().map(|layer| escaped(layer)).collect::<Vec<_>>().join(":");
    format!("lowerdir={lower},upperdir={},workdir={}", escaped(&upper.dir), escaped(&upper.work))
}

fn overlay(lower: &[&Path], upper: &UpperLayer, point: &Path) -> Result<(), StartFailure> {
    let options = CString::new(overlay_options(lower, upper));
    let options = options.map_err(|error| bad("rootfs", &error.to_string()))?;
    mount("longshore", point, "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(|error| cannot_mount("an overlay of", error))
}

/// Overlay options end at a comma and their paths at a colon.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if matches!(character, '\\' | ',' | ':') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

fn cannot_mount(what: &str, error: Errno) -> StartFailure {
    let error = io::Error::from(error);
    StartFailure::new(kind_of(&error), format!("rootfs: cannot mount {what} it: {error}"))
}

/// Unmounts what [`make`] mounted, whole or half; answers with what is still there.
///
/// Detached mounts are gone from sight at once and from the kernel with their last user; by now there
/// is none but for the moment a new container takes to leave the host's mounts behind.
pub(crate) fn unmount(dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    if ids::rootless() {
        // Nothing could be mounted either.
        return left;
    }
    for point in [dir.join(MOUNT_POINT), dir.join(LAYERS)] {
        match umount2(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Not a mount point, or not there at all.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => left.push(format!("mount {}: {}", point.display(), io::Error::from(error))),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_is_not_the_hosts_root_will_do() {
        for bad in ["/nowhere/rootfs", "/etc/passwd", "/", "/usr/.."] {
            assert!(directory(Path::new(bad)).is_err(), "{bad} was taken");
        }
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(directory(dir.path()).unwrap(), dir.path().canonicalize().unwrap());
    }

    #[test]
    fn paths_do_not_end_options() {
        assert_eq!(split_options(r"a,lowerdir=/x\,y:/z,b"), ["a", r"lowerdir=/x\,y:/z", "b"]);
        assert_eq!(escaped(Path::new(r"/a,b:c\d")), r"/a\,b\:c\\d");
    }

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(MOUNT_POINT)).unwrap();
        assert_eq!(unmount(dir.path()), Vec::<String>::new());
        assert_eq!(unmount(Path::new("/nowhere")), Vec::<String>::new());
    }
}
