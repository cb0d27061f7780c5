//! Root file systems: a directory as it is, or a throw-away overlay of the host's own root.
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
use std::path::{Path, PathBuf};

use executor_core::lifecycle::StartFailure;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount as umount2};

use crate::{bad, from_io, kind_of};

/// Where the root file system is, below the bundle.
pub(crate) const MOUNT_POINT: &str = "rootfs";
const LAYERS: &str = "layers";

/// Directories of a host that may be file systems of their own and hold programs or data.
const MAY_BE_MOUNTS: [&str; 12] =
    ["bin", "etc", "gnu", "home", "lib", "lib64", "nix", "opt", "root", "sbin", "srv", "usr"];

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
pub(crate) fn overlay_of_host(dir: &Path) -> Result<PathBuf, StartFailure> {
    let (layers, root) = (dir.join(LAYERS), dir.join(MOUNT_POINT));
    for made in [&layers, &root] {
        fs::create_dir(made).map_err(|error| from_io("make", made, &error))?;
    }
    let mode = CString::from(c"mode=0700");
    mount("longshore", &layers, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, mode.as_c_str())
        .map_err(|error| cannot_mount("a tmpfs for", error))?;
    overlay(Path::new("/"), &layers.join("0"), &root)?;
    for (name, lower) in own_file_systems() {
        overlay(&lower, &layers.join(name), &root.join(name))?;
    }
    Ok(root)
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

fn overlay(lower: &Path, layer: &Path, point: &Path) -> Result<(), StartFailure> {
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    for made in [&upper, &work] {
        fs::create_dir_all(made).map_err(|error| from_io("make", made, &error))?;
    }
    let meta = fs::metadata(lower).map_err(|error| from_io("look at", lower, &error))?;
    fs::set_permissions(&upper, meta.permissions())
        .map_err(|error| from_io("set the mode of", &upper, &error))?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", escaped(lower), escaped(&upper), escaped(&work));
    let options = CString::new(options).map_err(|error| bad("rootfs", &error.to_string()))?;
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
    StartFailure::new(kind_of(&error), format!("rootfs: cannot mount {what} the host's root: {error}"))
}

/// Unmounts what [`overlay_of_host`] mounted, whole or half; answers with what is still there.
///
/// Detached mounts are gone from sight at once and from the kernel with their last user; by now there
/// is none but for the moment a new container takes to leave the host's mounts behind.
pub(crate) fn unmount(dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
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
