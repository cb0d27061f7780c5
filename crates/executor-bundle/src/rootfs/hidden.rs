//! What a temporary view of the host does not show: the executors' roots. They hold the environments of all containers, and
//! the marks that executors know their own processes by.
//!
//! An overlay shows what is on one file system, below one directory of it. The root may be there, although another path
//! leads to it: a bind mount of the host's. So what is compared is the place in the file system.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use executor_disk::mount_table::{self, Mount as Mounted};
use executor_disk::{Dir, give};
use rustix::fs::{FileType, Timespec, Timestamps, futimens, mknodat};

use super::host::executor_root;
use crate::error::Error;
use crate::ids;

/// Directories of the host that no view shows.
pub(super) struct HiddenDirs {
    pub(super) mounts: Vec<Mounted>,
    places: Vec<Place>,
}

/// Where a directory is, whichever path leads to it.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    device: u64,
    /// From the root of the file system.
    path: PathBuf,
}

impl Place {
    /// `None` if the directory does not exist.
    fn of(dir: &Path, mounts: &[Mounted]) -> Option<Self> {
        let real = dir.canonicalize().ok()?;
        let has = |mount: &&Mounted| real.starts_with(&mount.point) && mount_table::is_visible(mount, mounts);
        let mount = mounts.iter().filter(has).max_by_key(|mount| mount.point.components().count())?;
        let inside = real.strip_prefix(&mount.point).ok()?;
        Some(Self { device: mount.device, path: mount.root.join(inside) })
    }
}

/// What an overlay may show.
pub(super) enum VisiblePart {
    Nothing,
    /// All but these paths in it.
    But(Vec<PathBuf>),
}

impl HiddenDirs {
    /// The roots of executors: this one's, the usual ones, and those that mounts are known by.
    pub(super) fn roots(own: &Path) -> Result<Self, Error> {
        let mounts = mount_table::mounts().map_err(Error::io("list the mounts above", own))?;
        let usual = [PathBuf::from("/run/longshore"), executor_core::default_root()];
        let mounted = mounts.iter().filter_map(executor_root);
        let all: BTreeSet<_> = usual.iter().map(PathBuf::as_path).chain([own]).chain(mounted).collect();
        let mut places: Vec<_> = all.into_iter().filter_map(|root| Place::of(root, &mounts)).collect();
        places.dedup();
        Ok(Self { mounts, places })
    }

    /// Hides another directory.
    pub(super) fn add(&mut self, dir: &Path) {
        self.places.extend(Place::of(dir, &self.mounts));
    }

    /// What an overlay of `lower` may show.
    pub(super) fn in_overlay_of(&self, lower: &Path) -> VisiblePart {
        let Some(shown) = Place::of(lower, &self.mounts) else { return VisiblePart::But(Vec::new()) };
        let mut inside = Vec::new();
        for hidden in self.places.iter().filter(|hidden| hidden.device == shown.device) {
            if shown.path.starts_with(&hidden.path) {
                return VisiblePart::Nothing;
            }
            inside.extend(hidden.path.strip_prefix(&shown.path).ok().map(Path::to_owned));
        }
        VisiblePart::But(inside)
    }

    /// The paths at and below `dir`, mounts included, that lead to what is hidden.
    pub(super) fn below(&self, dir: &Path) -> Vec<PathBuf> {
        let is_seen =
            |mount: &&Mounted| mount.point.starts_with(dir) && mount_table::is_visible(mount, &self.mounts);
        let points = self.mounts.iter().filter(is_seen).map(|mount| mount.point.as_path());
        let of_mount = |point: &Path| match self.in_overlay_of(point) {
            VisiblePart::Nothing => vec![point.to_owned()],
            VisiblePart::But(inside) => inside.into_iter().map(|inside| point.join(inside)).collect(),
        };
        let mut all: Vec<_> = [dir].into_iter().chain(points).flat_map(of_mount).collect();
        all.sort();
        all.dedup();
        all.retain(|place| place.is_dir());
        all
    }
}

/// Hides the path `inside` an overlay of `lower`, whose upper layer is `upper`: by a whiteout, in directories that look like
/// those of the host.
pub(super) fn hide(upper: &Dir, lower: &Path, inside: &Path) -> io::Result<()> {
    let Some(name) = inside.file_name() else { return Ok(()) };
    let mut dirs = vec![upper.try_clone()?];
    let mut host = lower.to_owned();
    for part in inside.parent().into_iter().flat_map(Path::components) {
        host.push(part);
        let Some(above) = dirs.last() else { break };
        let made = match above.open_any_dir(part.as_os_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => like(above, Path::new(&part), &host)?,
            found => found?,
        };
        dirs.push(made);
    }
    if let Some(dir) = dirs.last().filter(|dir| !matches!(dir.stat_of(name), Ok(Some(_)))) {
        mknodat(dir, name, FileType::CharacterDevice, 0.into(), 0)?;
    }
    // A directory's times change with what is made in it.
    let mut host = lower.to_owned();
    let names = inside.components().map(Some).chain([None]);
    for (dir, part) in dirs.iter().zip(names) {
        if let Ok(meta) = fs::symlink_metadata(&host) {
            let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
            let last_access = time(meta.atime(), meta.atime_nsec());
            let last_modification = time(meta.mtime(), meta.mtime_nsec());
            futimens(dir, &Timestamps { last_access, last_modification })?;
        }
        host.extend(part);
    }
    Ok(())
}

/// Makes a directory with the mode and the owner of one of the host. What an ordinary user makes is the user's.
fn like(above: &Dir, name: &Path, host: &Path) -> io::Result<Dir> {
    let meta = fs::symlink_metadata(host).ok();
    let made =
        above.make_dir(name, meta.as_ref().map_or(0o755, |meta| meta.permissions().mode() & 0o7777))?;
    if let Some(meta) = meta.filter(|_| !ids::rootless()) {
        give(&made, meta.uid(), meta.gid())?;
    }
    Ok(made)
}
