//! Root file systems: a directory as it is, an overlay of the caller's layers, or a temporary overlay of the host's own
//! root.
//!
//! The upper layer of a temporary overlay is on a tmpfs that is mounted in the bundle. The kernel refuses an upper layer
//! that lies within the lower one, and a tmpfs disappears when it is unmounted. Files that are written there count against
//! the container's memory.
//!
//! A root file system that is read-only is so with all that is mounted below it. The runtime does that for its root only.

mod covered;
mod hidden;
mod host;
mod overlay;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::Leftover;
use executor_core::{ContainerSpec, Rootfs, UpperLayer};
use executor_disk::Dir;
use executor_disk::faults::{Op, change};
use executor_disk::mount_table::{self, is_visible};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use self::hidden::HiddenDirs;
use self::overlay::Layers;
use crate::error::Error;
use crate::ids::{self, Owner};
use crate::kernel_fs;
use crate::mount_entry::{self, read_only_below, unmount_point, withheld, withholding};

/// The directory in the bundle where the root file system is mounted.
pub(crate) const MOUNT_POINT: &str = "rootfs";
const LAYERS: &str = "layers";

/// The root file system of one container.
pub(crate) struct BundleRootfs {
    /// Its root directory on the host.
    pub(crate) root: PathBuf,
    /// A directory that has the files that the container will see.
    pub(crate) seen: PathBuf,
    /// The mounts that the runtime has to make in it, as entries of `config.json`. What they show is in `seen` already.
    pub(crate) mounts: Vec<Value>,
    /// Whether files that are made in it outlast the container.
    pub(crate) is_kept: bool,
    /// Whether its files are below `root` before the runtime makes the mounts.
    pub(crate) is_complete: bool,
}

impl BundleRootfs {
    /// A root file system that is complete without mounts of the runtime's.
    fn at(root: PathBuf, is_kept: bool) -> Self {
        Self { seen: root.clone(), root, mounts: Vec::new(), is_kept, is_complete: true }
    }

    /// Whether `seen` has what a mount shows.
    pub(crate) fn shows(&self, mount: &Value) -> bool {
        self.mounts.contains(mount)
    }

    /// Whether the mounts below its root have to be made read-only by us, when their mount points are there. The root itself is
    /// left to the runtime: crun makes one writable that the configuration does not say is read-only.
    pub(crate) fn has_mounts_to_restrict(&self, spec: &ContainerSpec) -> bool {
        spec.rootfs == Rootfs::Host && self.is_complete && is_read_only(spec)
    }
}

/// Makes a root file system. An overlay is mounted below `dir`. `owner` is the container's root on the host, `own` the root of
/// the executor, which a view of the host does not show.
pub(crate) fn make(dir: &Dir, spec: &ContainerSpec, owner: Owner, own: &Path) -> Result<BundleRootfs, Error> {
    match &spec.rootfs {
        Rootfs::Dir(path) => {
            let root = directory("rootfs", path)?;
            kernel_fs::check_root(spec, &root)?;
            let mounts = if is_read_only(spec) { read_only_mounts(&root)? } else { Vec::new() };
            Ok(BundleRootfs { mounts, ..BundleRootfs::at(root, true) })
        }
        Rootfs::Host if ids::rootless() => host::view(dir, &HiddenDirs::roots(own)?),
        Rootfs::Host => host::overlay(dir, spec, owner, &HiddenDirs::roots(own)?),
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

/// Whether nothing may be written to the root file system.
fn is_read_only(spec: &ContainerSpec) -> bool {
    let asked = spec.config.as_ref().map(|config| &config.json()["root"]["readonly"]);
    spec.read_only || asked.is_some_and(|asked| asked == true)
}

/// The mounts below a root directory, as mounts that are read-only. What the container's own file systems cover is left out.
fn read_only_mounts(root: &Path) -> Result<Vec<Value>, Error> {
    let all = mount_table::mounts().map_err(Error::io("list the mounts below", root))?;
    let mut below: Vec<_> = all
        .iter()
        .filter_map(|mounted| Some((mounted.point.strip_prefix(root).ok()?, mounted)))
        .filter(|(inside, mounted)| {
            let is_covered = ["proc", "sys", "dev"].iter().any(|own| inside.starts_with(own));
            !is_covered && !inside.as_os_str().is_empty() && is_visible(mounted, &all)
        })
        .map(|(inside, _)| inside)
        .collect();
    below.sort_by_key(|inside| inside.components().count());
    let mut mounts: Vec<Value> = Vec::new();
    for inside in below {
        let (source, point) = (root.join(inside), Path::new("/").join(inside));
        // A mount of a directory has what is below that, too.
        if mounts.iter().any(|mount| point.starts_with(mount_entry::destination(mount))) {
            continue;
        }
        mount_entry::utf8("rootfs", &source)?;
        let is_dir = source.is_dir();
        if is_dir && ids::rootless() && read_only_below().is_none() {
            return Err(Error::field("rootfs", mount_entry::NOT_READ_ONLY));
        }
        let mut options = vec!["rbind", "ro"];
        options.extend(is_dir.then_some("rro"));
        options.extend(withheld(&source));
        mounts.push(mount_entry::mount(&point, "bind", &source, &options));
    }
    Ok(mounts)
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
    Ok(BundleRootfs { root, seen, mounts: Vec::new(), is_kept: true, is_complete: true })
}

/// One for a bundle in `dir` that is used without us, so that no mount of ours can be in it.
pub(crate) fn export(dir: &Dir, rootfs: &Rootfs, own: &Path) -> Result<BundleRootfs, Error> {
    match rootfs {
        Rootfs::Dir(_) => preview(rootfs),
        Rootfs::Host => {
            let mut hidden = HiddenDirs::roots(own)?;
            hidden.add(dir.path());
            host::view(dir, &hidden)
        }
        Rootfs::Overlay { .. } => {
            let why = "layers take a mount that no bundle can have; give a directory, or host";
            Err(Error::field("rootfs", why))
        }
        other => Err(unknown(other)),
    }
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

fn overlay_of_layers(
    dir: &Dir,
    lower: &[PathBuf],
    upper: Option<&UpperLayer>,
    owner: Owner,
) -> Result<PathBuf, Error> {
    make_points(dir)?;
    let lower = lower.iter().map(|layer| directory("layer", layer)).collect::<Result<Vec<_>, _>>()?;
    let lower: Vec<_> = lower.iter().map(PathBuf::as_path).collect();
    // An overlay has flags of its own. What the file systems of all layers withhold, it withholds too. One layer of data says
    // nothing of the programs of another.
    let all = lower.iter().map(|layer| withholding(layer));
    let flags = all.reduce(|one, other| one & other).unwrap_or(MountFlags::empty());
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
    Layers { lower: &lower, upper: &upper }.mount_at(dir, MOUNT_POINT, flags)?;
    Ok(dir.path_of(MOUNT_POINT))
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
    fn nothing_mounted_is_nothing_to_unmount() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Dir::open_checked(dir.path()).unwrap();
        assert_eq!(unmount(&dir), []);
        dir.make_dir(MOUNT_POINT, 0o700).unwrap();
        assert_eq!(unmount(&dir), []);
    }
}
