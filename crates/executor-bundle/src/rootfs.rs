//! Root file systems: a directory as it is, an overlay of the caller's layers, or a temporary overlay of the host's own
//! root.
//!
//! The upper layer of a temporary overlay is on a tmpfs that is mounted in the bundle. The kernel refuses an upper layer
//! that lies within the lower one, and a tmpfs disappears when it is unmounted. Files that are written there count against
//! the container's memory. Where the host's `/usr`, `/home` and the like are file systems of their own, each gets an overlay
//! of its own. The host's `/proc`, `/sys` and `/dev` are not shown, and `/run` is not if it is a file system of its own. The
//! roots of executors are hidden.

mod hidden;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use executor_core::lifecycle::Leftover;
use executor_core::{ContainerSpec, Rootfs, Security, UpperLayer};
use executor_disk::Dir;
use executor_disk::faults::{Op, change};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use self::hidden::{Hidden, Shown};
use crate::error::Error;
use crate::ids::{self, Owner};
use crate::kernel_fs;
use crate::mount_entry;
use crate::mount_entry::unmount_point;

/// The directory in the bundle where the root file system is mounted.
pub(crate) const MOUNT_POINT: &str = "rootfs";
const LAYERS: &str = "layers";

/// Directories of a host that may be file systems of their own and hold programs or data.
const MAY_BE_MOUNTS: [&str; 12] =
    ["bin", "etc", "gnu", "home", "lib", "lib64", "nix", "opt", "root", "sbin", "srv", "usr"];

/// The directories of the host that an ordinary user's container shows, each as an overlay.
const SHOWN: [&str; 13] =
    ["bin", "etc", "gnu", "home", "lib", "lib64", "nix", "opt", "root", "sbin", "srv", "usr", "var"];

/// The root file system of one container.
pub(crate) struct BundleRootfs {
    /// Its root directory on the host.
    pub(crate) root: PathBuf,
    /// A directory that has the files that the container will see.
    pub(crate) seen: PathBuf,
    /// The mounts that the runtime has to make in it, as entries of `config.json`.
    pub(crate) mounts: Vec<Value>,
    /// Whether files that are made in it outlast the container.
    pub(crate) is_kept: bool,
}

impl BundleRootfs {
    /// A root file system that is complete without mounts of the runtime's.
    fn at(root: PathBuf, is_kept: bool) -> Self {
        Self { seen: root.clone(), root, mounts: Vec::new(), is_kept }
    }
}

/// Makes a root file system. An overlay is mounted below `dir`. `owner` is the container's root on the host, `own` the root of
/// the executor, which a view of the host does not show.
pub(crate) fn make(dir: &Dir, spec: &ContainerSpec, owner: Owner, own: &Path) -> Result<BundleRootfs, Error> {
    match &spec.rootfs {
        Rootfs::Dir(path) => {
            let root = directory("rootfs", path)?;
            kernel_fs::check_root(spec, &root)?;
            Ok(BundleRootfs::at(root, true))
        }
        Rootfs::Host if ids::rootless() => view_of_host(dir, &Hidden::roots(own)?),
        Rootfs::Host => {
            let root = overlay_of_host(dir, devices(spec), owner, &Hidden::roots(own)?)?;
            Ok(BundleRootfs::at(root, false))
        }
        Rootfs::Overlay { .. } if ids::rootless() => {
            let why = "an overlay takes a mount, which an ordinary user cannot make; give a directory";
            Err(Error::field("rootfs", why))
        }
        Rootfs::Overlay { lower, upper } => {
            Ok(BundleRootfs::at(overlay_of_layers(dir, lower, upper.as_ref(), owner)?, upper.is_some()))
        }
        other => Err(unknown(other)),
    }
}

/// The flag of the overlay of the host's root. The container's devices are on a tmpfs of its own at /dev, so none in the
/// host's own directories has to work: a device node that somebody has left there would.
///
/// An insecure container may make device nodes anywhere. So may the layers of a caller be meant for: a build makes them with
/// debootstrap. A configuration of the caller's may have no such tmpfs, and the runtime makes the nodes in the overlay.
fn devices(spec: &ContainerSpec) -> MountFlags {
    match spec.security {
        Security::Sandbox if spec.config.is_none() => MountFlags::NODEV,
        Security::Sandbox | Security::Insecure => MountFlags::empty(),
    }
}

/// A kind of root file system that was added to the specification and is missing here.
fn unknown(rootfs: &Rootfs) -> Error {
    Error::field("rootfs", format!("{rootfs:?} is not known here"))
}

/// What [`make`] would make, as far as that is known without making it.
pub(crate) fn preview(rootfs: &Rootfs) -> Result<BundleRootfs, Error> {
    let (root, seen) = match rootfs {
        Rootfs::Dir(path) => {
            let root = directory("rootfs", path)?;
            (root.clone(), root)
        }
        Rootfs::Host => (PathBuf::from(MOUNT_POINT), PathBuf::from("/")),
        Rootfs::Overlay { lower, .. } => {
            let real = lower.iter().map(|layer| directory("layer", layer)).collect::<Result<Vec<_>, _>>()?;
            let first = real.into_iter().next();
            (PathBuf::from(MOUNT_POINT), first.unwrap_or_else(|| PathBuf::from("/")))
        }
        other => return Err(unknown(other)),
    };
    Ok(BundleRootfs { root, seen, mounts: Vec::new(), is_kept: true })
}

/// The real path of a directory that may be used as a root file system or a layer; `field` says which.
fn directory(field: &'static str, path: &Path) -> Result<PathBuf, Error> {
    let real = path.canonicalize().map_err(Error::file(field, path))?;
    mount_entry::utf8(field, &real)?;
    if !real.is_dir() {
        return Err(Error::field(field, format!("{} is not a directory", path.display())));
    }
    if real == Path::new("/") {
        let why = "the container would write to the host's own root; use the overlay of it (host)";
        return Err(Error::field(field, why));
    }
    Ok(real)
}

/// Mounts the overlay below `dir`. Returns its mount point.
fn overlay_of_host(dir: &Dir, flags: MountFlags, owner: Owner, hidden: &Hidden) -> Result<PathBuf, Error> {
    make_points(dir)?;
    let layers = mount_layers(dir)?;
    let host_root = Path::new("/");
    let upper = upper_of_host(&layers, "0", host_root, owner, hidden)?;
    let upper =
        upper.ok_or_else(|| Error::field("rootfs", "the host's root is the executor's root as well"))?;
    overlay(&[host_root], &upper, dir, MOUNT_POINT, flags)?;
    let mounted = dir.open_mounted_dir(MOUNT_POINT).map_err(Error::io("open", &dir.path_of(MOUNT_POINT)))?;
    for (name, lower) in own_file_systems() {
        if let Some(upper) = upper_of_host(&layers, name, &lower, owner, hidden)? {
            overlay(&[&lower], &upper, &mounted, name, flags)?;
        }
    }
    Ok(dir.path_of(MOUNT_POINT))
}

fn overlay_of_layers(
    dir: &Dir,
    lower: &[PathBuf],
    upper: Option<&UpperLayer>,
    owner: Owner,
) -> Result<PathBuf, Error> {
    make_points(dir)?;
    let lower = lower.iter().map(|layer| directory("layer", layer)).collect::<Result<Vec<_>, _>>()?;
    let lower: Vec<_> = lower.iter().map(PathBuf::as_path).collect();
    let upper = match upper {
        Some(upper) => UpperLayer {
            dir: directory("upper layer", &upper.dir)?,
            work: directory("upper layer", &upper.work)?,
        },
        None => {
            let layers = mount_layers(dir)?;
            temporary_upper(&layers, "0", lower.first().copied().unwrap_or(Path::new("/")), owner)?
        }
    };
    overlay(&lower, &upper, dir, MOUNT_POINT, MountFlags::empty())?;
    Ok(dir.path_of(MOUNT_POINT))
}

/// The temporary view of the host for an ordinary user: an empty root directory, on which the runtime mounts an overlay of
/// each of the host's directories. An ordinary user may mount overlays in his own user namespace, if he owns the upper
/// layers.
fn view_of_host(dir: &Dir, hidden: &Hidden) -> Result<BundleRootfs, Error> {
    let (layers, root) = make_points(dir)?;
    let mut mounts = Vec::new();
    for name in SHOWN {
        let lower = Path::new("/").join(name);
        let failed = || Error::io("make", &root.path_of(name));
        let Ok(meta) = fs::symlink_metadata(&lower) else { continue };
        if meta.is_symlink() {
            fs::read_link(&lower).and_then(|to| root.link_to(&to, name)).map_err(failed())?;
        } else if meta.is_dir() {
            root.make_dir(name, 0o755).map_err(failed())?;
            let upper = upper_of_host(&layers, name, &lower, Owner::ROOT, hidden)?;
            let Some(upper) = upper else { continue };
            let options = format!("userxattr,{}", overlay_options(&[&lower], &upper));
            let options: Vec<_> = split_options(&options);
            mounts.push(mount_entry::mount(&lower, "overlay", Path::new("overlay"), &options));
        }
    }
    let tmp = ["nosuid", "nodev", "mode=1777"];
    mounts.push(mount_entry::mount(Path::new("/tmp"), "tmpfs", Path::new("tmpfs"), &tmp));
    Ok(BundleRootfs { root: root.path().to_owned(), seen: PathBuf::from("/"), mounts, is_kept: false })
}

/// Splits mount options at their commas. The commas of a path are escaped.
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

/// Makes the directories of the layers and of the root file system.
fn make_points(dir: &Dir) -> Result<(Dir, Dir), Error> {
    let make = |name, mode| dir.make_dir(name, mode).map_err(Error::io("make", &dir.path_of(name)));
    // An ordinary user's is the root directory itself.
    Ok((make(LAYERS, 0o700)?, make(MOUNT_POINT, 0o755)?))
}

/// Mounts a tmpfs for temporary layers. Returns its root directory.
fn mount_layers(dir: &Dir) -> Result<Dir, Error> {
    let failed = Error::io::<io::Error>("mount a tmpfs at", &dir.path_of(LAYERS));
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    change(Op::Mount, dir.path(), LAYERS)
        .and_then(|()| Ok(mount("longshore", dir.by_descriptor(LAYERS), "tmpfs", flags, c"mode=0700")?))
        .and_then(|()| dir.open_mounted_dir(LAYERS))
        .map_err(failed)
}

/// The directories of the host that are on another file system than its root.
fn own_file_systems() -> impl Iterator<Item = (&'static str, PathBuf)> {
    let device =
        |path: &Path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|meta| meta.dev());
    let root = device(Path::new("/"));
    (MAY_BE_MOUNTS.into_iter())
        .map(|name| (name, Path::new("/").join(name)))
        .filter(move |(_, path)| device(path).is_some_and(|device| Some(device) != root))
}

/// Makes an upper layer in the directory `name` of `layers`. Its root directory has the mode of `lower`, and belongs to
/// `owner`.
fn temporary_upper(layers: &Dir, name: &str, lower: &Path, owner: Owner) -> Result<UpperLayer, Error> {
    let mode = fs::metadata(lower).map_err(Error::io("stat", lower))?.permissions().mode() & 0o7777;
    let make = || {
        let layer = layers.make_dir(name, 0o700)?;
        let (upper, work) = (layer.make_dir("upper", mode)?, layer.make_dir("work", 0o700)?);
        owner.give(&upper)?;
        Ok(UpperLayer { dir: upper.path().to_owned(), work: work.path().to_owned() })
    };
    make().map_err(Error::io::<io::Error>("make a layer in", layers.path()))
}

/// An upper layer for a view of the host's directory `lower`, which does not show what is hidden. `None` if all of it is.
fn upper_of_host(
    layers: &Dir,
    name: &str,
    lower: &Path,
    owner: Owner,
    hidden: &Hidden,
) -> Result<Option<UpperLayer>, Error> {
    let Shown::But(inside) = hidden.in_overlay_of(lower) else { return Ok(None) };
    let layer = temporary_upper(layers, name, lower, owner)?;
    let hide = || {
        let upper = layers.open_any_dir(name)?.open_any_dir("upper")?;
        inside.iter().try_for_each(|inside| hidden::hide(&upper, lower, inside))
    };
    hide().map_err(Error::io::<io::Error>("hide the executor's root in", layers.path()))?;
    Ok(Some(layer))
}

fn overlay_options(lower: &[&Path], upper: &UpperLayer) -> String {
    let lower = lower.iter().map(|layer| escaped(layer)).collect::<Vec<_>>().join(":");
    format!("lowerdir={lower},upperdir={},workdir={}", escaped(&upper.dir), escaped(&upper.work))
}

/// Mounts an overlay at `point` in `dir`.
fn overlay(
    lower: &[&Path],
    upper: &UpperLayer,
    dir: &Dir,
    point: &str,
    flags: MountFlags,
) -> Result<(), Error> {
    let mount = || {
        let options = CString::new(overlay_options(lower, upper))?;
        change(Op::Mount, dir.path(), point)?;
        Ok(mount("longshore", dir.by_descriptor(point), "overlay", flags, options.as_c_str())?)
    };
    mount().map_err(Error::io::<io::Error>("mount an overlay at", &dir.path_of(point)))
}

/// Escapes a path in overlay options, where a comma ends an option and a colon ends a path.
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

/// Unmounts what [`make`] mounted, also if it failed half way. Returns what is still mounted.
pub(crate) fn unmount(dir: &Dir) -> Vec<Leftover> {
    if ids::rootless() {
        // An ordinary user cannot have mounted anything.
        return Vec::new();
    }
    [MOUNT_POINT, LAYERS].iter().filter_map(|point| unmount_point(dir, point)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_is_not_the_hosts_root_will_do() {
        for bad in ["/nowhere/rootfs", "/etc/passwd", "/", "/usr/.."] {
            assert!(directory("rootfs", Path::new(bad)).is_err(), "{bad} was taken");
        }
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(directory("rootfs", dir.path()).unwrap(), dir.path().canonicalize().unwrap());
    }

    #[test]
    fn paths_do_not_end_options() {
        assert_eq!(split_options(r"a,lowerdir=/x\,y:/z,b"), ["a", r"lowerdir=/x\,y:/z", "b"]);
        assert_eq!(escaped(Path::new(r"/a,b:c\d")), r"/a\,b\:c\\d");
    }

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Dir::open_checked(dir.path()).unwrap();
        assert_eq!(unmount(&dir), []);
        dir.make_dir(MOUNT_POINT, 0o700).unwrap();
        assert_eq!(unmount(&dir), []);
    }
}
