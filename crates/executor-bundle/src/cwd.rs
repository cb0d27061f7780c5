//! The working directory of a container's init, if it is missing. The runtime would make it too, but owned by the container's
//! root instead of the process's user.
//!
//! Before the container exists it can be made in the root file system and in a volume. A tmpfs is empty until then: as root,
//! we mount one that has a working directory in the bundle, and the runtime gets that. Elsewhere the runtime makes it.

use std::path::{Path, PathBuf};

use executor_disk::Dir;
use rustix::fs::FileType;
use serde_json::{Value, json};

use crate::container_files::{ContainerFiles, PathKind};
use crate::error::Error;
use crate::ids::{self, Ids, Owner};
use crate::mount_entry::destination;
use crate::nested::Options;
use crate::rootfs::BundleRootfs;
use crate::rootfs_dir::RootfsDir;
use crate::tmpfs;

/// The name of a tmpfs with a working directory, in the bundle's directory of prepared mounts.
const TMPFS: &str = "cwd";

/// Where the working directory is, without links, if it is missing.
pub(crate) fn missing(seen: &ContainerFiles<'_>, cwd: &Path) -> Result<Option<PathBuf>, Error> {
    let (at, what) = seen.resolve(cwd, &|_| true).map_err(Error::file("cwd", cwd))?;
    if matches!(&what, PathKind::File(found) if !found.is(FileType::Directory)) {
        return Err(Error::field("cwd", format!("{} is not a directory", cwd.display())));
    }
    Ok(matches!(what, PathKind::Missing).then_some(at))
}

/// Whether a mount is at or above this path.
fn covers(rootfs: &BundleRootfs, mount: &Value, at: &Path) -> bool {
    !rootfs.shows(mount) && at.starts_with(destination(mount))
}

/// A read-only root file system stays as it was, so the working directory that is missing at `at` is removed after the
/// container: as an entry for [`stubs`](crate::stubs). `None` if it is to be made by [`make`].
pub(crate) fn as_stub(rootfs: &BundleRootfs, mounts: &[Value], at: &Path, read_only: bool) -> Option<Value> {
    let is_inside = !mounts.iter().any(|mount| covers(rootfs, mount, at));
    (read_only && rootfs.is_kept && is_inside).then(|| json!({"destination": at}))
}

/// Makes `cwd`, which is [`missing`] at `at`, owned by `owner`. `view` has the files of `rootfs`, `mounts` are all mounts,
/// without links in their destinations. A tmpfs with options that only the runtime knows is left to it.
pub(crate) fn make(
    dir: &Dir,
    view: &RootfsDir,
    rootfs: &BundleRootfs,
    mounts: &mut [Value],
    (at, cwd): (&Path, &Path),
    owner: Owner,
    ids: &Ids,
) -> Result<(), Error> {
    let failed = || Error::file("cwd", cwd);
    let Some(mount) = mounts.iter_mut().rev().find(|mount| covers(rootfs, mount, at)) else {
        return view.make_dirs(cwd, owner).map_err(failed());
    };
    let inside = Path::new("/").join(at.strip_prefix(destination(mount)).unwrap_or(at));
    let may_write = mount["options"].as_array().is_none_or(|all| !all.contains(&json!("ro")));
    match mount["type"].as_str() {
        Some("bind") if may_write => {
            let source = Path::new(mount["source"].as_str().unwrap_or_default());
            RootfsDir::open(source)?.make_dirs(&inside, owner).map_err(failed())
        }
        Some("tmpfs") if !ids::rootless() => {
            let Some(options) = Options::of(mount, ids) else { return Ok(()) };
            let place = tmpfs::prepare(dir, TMPFS, mount, &options)?;
            RootfsDir::open(&place)?.make_dirs(&inside, owner).map_err(failed())
        }
        _ => Ok(()),
    }
}
