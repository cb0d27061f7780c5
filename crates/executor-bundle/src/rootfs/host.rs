//! The host's own root file system, as a container sees it.
//!
//! An overlay shows one file system, and beneath a mount the directory that it covers. So every mount of the host has an
//! overlay of its own. A mount that cannot be the lower layer of an overlay, such as one of a single file, is shown read-only,
//! and empty if that file was removed since. What lies beneath a mount that is not shown is not shown either (`covered.rs`).
//! Nothing that the container writes reaches the host.
//!
//! These are not shown:
//!
//! - `/proc`, `/sys`, `/dev` and `/run`, and the kernel's file systems wherever they are. `/run` is shown if it is no file
//!   system of its own, but nothing that is mounted below it.
//! - the mounts of other container engines, and the roots of executors: both hold the files and the secrets of containers. A root
//!   is known if it is this executor's, a usual one, or has mounts of ours below it. One of another executor with a path of its
//!   own is shown if none of its containers has an overlay or a volume that was put together.
//! - automatic mounts that nobody has used, and those in a ramfs.
//!
//! An ordinary user may mount overlays in his own user namespace, but not of a directory with mounts below it: the kernel
//! would have to show what is beneath them. Such a directory is shown read-only, with all that is mounted below.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use executor_core::{ContainerSpec, Security, UpperLayer};
use executor_disk::Dir;
use executor_disk::mount_table::{Mount as Mounted, is_visible};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
};
use serde_json::Value;

use super::covered;
use super::hidden::{self, HiddenDirs, VisiblePart};
use super::overlay::{Layers, split_options};
use super::{BundleRootfs, MOUNT_POINT, make_points, mount_layers, temporary_upper};
use crate::error::Error;
use crate::ids::Owner;
use crate::kernel_fs;
use crate::mount_entry::{self, copy_mount, read_only_below, withheld, withholding};
use crate::rootfs_dir::RootfsDir;

/// The directories of the host that an ordinary user's container shows.
const SHOWN: [&str; 13] =
    ["bin", "etc", "gnu", "home", "lib", "lib64", "nix", "opt", "root", "sbin", "srv", "usr", "var"];

/// Directories of the host with mounts that are not shown.
const NOT_SHOWN: [&str; 8] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
];

/// Mounts the overlays below `dir`.
pub(super) fn overlay(
    dir: &Dir,
    spec: &ContainerSpec,
    owner: Owner,
    hidden: &HiddenDirs,
) -> Result<BundleRootfs, Error> {
    make_points(dir)?;
    let (layers, flags) = (mount_layers(dir)?, devices(spec));
    let (root, shown) = (Path::new("/"), shown(&hidden.mounts));
    let upper = upper_layer(&layers, "0", root, owner, hidden, &shown)?;
    let upper =
        upper.ok_or_else(|| Error::field("rootfs", "the host's root is the executor's root as well"))?;
    Layers { lower: &[root], upper: &upper }.mount_at(dir, MOUNT_POINT, flags | withholding(root))?;
    let view = BundleRootfs::at(dir.path_of(MOUNT_POINT), false);
    for (number, mounted) in shown.iter().enumerate() {
        let point = &mounted.point;
        // The mount point is missing in a view that hides a directory above it.
        let Some(at) = RootfsDir::open(&view.root)?.find(point).map_err(failed(point))? else { continue };
        let name = (number + 1).to_string();
        let Some(tree) = below_root(&layers, &name, point, owner, hidden, &shown, flags)? else { continue };
        let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        let attach = |mount: &OwnedFd| move_mount(mount, "", at.as_fd(), "", by_descriptor);
        let (ShownMount::Overlay(mount) | ShownMount::Itself(mount)) = &tree;
        let tree = match attach(mount) {
            // It was removed since it was mounted, and the kernel mounts nothing that has no name. What it covers is not shown.
            Err(Errno::NOENT) => {
                let empty = empty_file(&layers, &name).map_err(failed(point))?;
                attach(&empty).map_err(failed(point))?;
                ShownMount::Itself(empty)
            }
            attached => attached.map(|()| tree).map_err(failed(point))?,
        };
        if let ShownMount::Itself(mount) = &tree {
            mount_change(mount_entry::by_descriptor(mount), MountPropagationFlags::PRIVATE)
                .and_then(|()| mount_entry::add_flags(mount.as_fd(), MountFlags::RDONLY | flags))
                .map_err(failed(point))?;
        }
    }
    Ok(view)
}

fn failed<E: Into<io::Error>>(point: &Path) -> impl FnOnce(E) -> Error + use<E> {
    Error::io("show the host's", point)
}

/// A mount of an empty file.
fn empty_file(layers: &Dir, name: &str) -> io::Result<OwnedFd> {
    let file = layers.write_new(format!("{name}.empty"), b"", 0o444)?;
    Ok(copy_mount(&file, Path::new(""))?)
}

/// What a view has at a mount point.
enum ShownMount {
    Overlay(OwnedFd),
    /// The mount of the host, which is made read-only.
    Itself(OwnedFd),
}

/// `None` if the mount is not shown, or gone.
fn below_root(
    layers: &Dir,
    name: &str,
    point: &Path,
    owner: Owner,
    hidden: &HiddenDirs,
    shown: &[&Mounted],
    flags: MountFlags,
) -> Result<Option<ShownMount>, Error> {
    let Ok(meta) = fs::symlink_metadata(point) else { return Ok(None) };
    let VisiblePart::But(inside) = hidden.in_overlay_of(point) else { return Ok(None) };
    if meta.is_dir() {
        let owner = if meta.uid() == 0 { owner } else { Owner { uid: meta.uid(), gid: meta.gid() } };
        let Some(upper) = upper_layer(layers, name, point, owner, hidden, shown)? else { return Ok(None) };
        match (Layers { lower: &[point], upper: &upper }).assemble(flags | withholding(point)) {
            Ok(tree) => return Ok(Some(ShownMount::Overlay(tree))),
            Err(error @ (Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC)) => {
                return Err(failed(point)(error));
            }
            // Not every file system can be a layer.
            Err(_) => {}
        }
    }
    // It would be shown with what is hidden in it.
    if !inside.is_empty() {
        return Ok(None);
    }
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match open_tree(CWD, point, clone) {
        Err(Errno::NOENT) => Ok(None),
        tree => tree.map(|tree| Some(ShownMount::Itself(tree))).map_err(failed(point)),
    }
}

/// The mounts of the host that its view shows beside its root, those above others first.
fn shown(mounts: &[Mounted]) -> Vec<&Mounted> {
    let executors: Vec<_> = mounts.iter().filter_map(executor_root).collect();
    let is_shown = |mounted: &&Mounted| {
        let is_below = |dir: &Path| mounted.point.starts_with(dir);
        mounted.point != Path::new("/")
            && !NOT_SHOWN.iter().map(Path::new).any(is_below)
            && !executors.iter().any(|root| is_below(root))
            && !kernel_fs::is_kernel_kind(&mounted.kind)
            && !["autofs", "mqueue", "ramfs", "rpc_pipefs"].contains(&mounted.kind.as_str())
            && is_visible(mounted, mounts)
    };
    let mut shown: Vec<_> = mounts.iter().filter(is_shown).collect();
    shown.sort_by_key(|mounted| mounted.point.components().count());
    shown
}

/// The root of the executor that has made a mount: it is `ROOT/containers/ID/…`.
pub(super) fn executor_root(mounted: &Mounted) -> Option<&Path> {
    let containers = mounted.point.parent()?.parent()?;
    let is_ours = mounted.source == Path::new("longshore") && containers.ends_with("containers");
    containers.parent().filter(|root| is_ours && *root != Path::new("/"))
}

/// The flag of the overlays. The container's devices are on a tmpfs of its own at /dev, so none in the host's own
/// directories has to work: a device node that somebody has left there would.
///
/// An insecure container may make device nodes anywhere. So may the layers of a caller be meant for: a build makes them with
/// debootstrap. A configuration of the caller's may have no such tmpfs, and the runtime makes the nodes in the overlay.
fn devices(spec: &ContainerSpec) -> MountFlags {
    match spec.security {
        Security::Sandbox if spec.config.is_none() => MountFlags::NODEV,
        Security::Sandbox | Security::Insecure => MountFlags::empty(),
    }
}

/// An upper layer for a view of the host's directory `lower`, which shows neither what is hidden nor what the host's own mounts
/// cover. `None` if all of it is hidden.
fn upper_layer(
    layers: &Dir,
    name: &str,
    lower: &Path,
    owner: Owner,
    hidden: &HiddenDirs,
    shown: &[&Mounted],
) -> Result<Option<UpperLayer>, Error> {
    let VisiblePart::But(mut inside) = hidden.in_overlay_of(lower) else { return Ok(None) };
    let covered = covered::in_overlay_of(lower, &hidden.mounts, shown).map_err(failed(lower))?;
    let is_hidden = |path: &PathBuf| inside.iter().any(|hidden| path.starts_with(hidden));
    let covered: Vec<_> = covered.into_iter().filter(|path| !is_hidden(path)).collect();
    inside.extend(covered);
    let layer = temporary_upper(layers, name, lower, owner)?;
    let hide = || {
        let upper = layers.open_any_dir(name)?.open_any_dir("upper")?;
        inside.iter().try_for_each(|inside| hidden::hide(&upper, lower, inside))
    };
    hide().map_err(Error::io::<io::Error>("hide directories of the host in", layers.path()))?;
    Ok(Some(layer))
}

/// The view for an ordinary user: an empty root directory, on which the runtime mounts each of the host's directories.
pub(super) fn view(dir: &Dir, hidden: &HiddenDirs) -> Result<BundleRootfs, Error> {
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
            // The kernel refuses an upper layer within the lower one.
            if has_mounts_below(&lower, &hidden.mounts) || dir.path().starts_with(&lower) {
                mounts.extend(read_only(&lower, hidden)?);
                continue;
            }
            let upper = upper_layer(&layers, name, &lower, Owner::ROOT, hidden, &[])?;
            let Some(upper) = upper else { continue };
            let layers = format!("userxattr,{}", Layers { lower: &[&lower], upper: &upper }.options());
            let flags = withheld(&lower).map(|flag| -> &str { flag });
            let options: Vec<_> = split_options(&layers).into_iter().chain(flags).collect();
            mounts.push(mount_entry::mount(&lower, "overlay", Path::new("overlay"), &options));
        }
    }
    let tmp = ["nosuid", "nodev", "mode=1777"];
    mounts.push(mount_entry::mount(Path::new("/tmp"), "tmpfs", Path::new("tmpfs"), &tmp));
    let seen = PathBuf::from("/");
    Ok(BundleRootfs { root: root.path().to_owned(), seen, mounts, is_kept: false, is_complete: false })
}

fn has_mounts_below(dir: &Path, mounts: &[Mounted]) -> bool {
    let is_below = |mounted: &&Mounted| mounted.point != dir && mounted.point.starts_with(dir);
    mounts.iter().filter(is_below).any(|mounted| is_visible(mounted, mounts))
}

/// The mounts of a directory with all that is mounted below it, read-only, and of nothing over what is hidden.
fn read_only(dir: &Path, hidden: &HiddenDirs) -> Result<Vec<Value>, Error> {
    let Some(below) = read_only_below() else {
        let why = format!(
            "something is mounted below {}, and this kernel cannot show that read-only (Linux 5.12 can); give a directory",
            dir.display()
        );
        return Err(Error::field("rootfs", why));
    };
    let mut options = vec!["rbind", "ro", below];
    options.extend(withheld(dir));
    let mut mounts = vec![mount_entry::mount(dir, "bind", dir, &options)];
    for place in hidden.below(dir) {
        let empty = ["nosuid", "nodev", "noexec", "ro", "mode=700", "size=4k"];
        mounts.push(mount_entry::mount(&place, "tmpfs", Path::new("tmpfs"), &empty));
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_are_a_containers_are_not_shown() {
        let mount = |id, point: &str, kind: &str, source: &str| Mounted {
            id,
            parent: 1,
            root: "/".into(),
            point: point.into(),
            kind: kind.into(),
            source: source.into(),
            device: 0,
            super_options: String::new(),
        };
        let mounts = [
            mount(1, "/", "ext4", "/dev/a"),
            mount(2, "/home/ann/data", "ext4", "/dev/b"),
            mount(3, "/var", "tmpfs", "tmpfs"),
            mount(4, "/var/lib/docker/overlay2/x/merged", "overlay", "overlay"),
            mount(5, "/srv/r/containers/c/rootfs", "overlay", "longshore"),
            mount(6, "/srv/r/containers/c/mounts/0", "ext4", "/dev/b"),
            mount(7, "/srv/chroot/proc", "proc", "proc"),
            mount(8, "/run/user/1000", "tmpfs", "tmpfs"),
            mount(9, "/mnt", "autofs", "auto"),
            mount(10, "/srv/r2", "ext4", "/dev/c"),
        ];
        let points: Vec<_> = shown(&mounts).into_iter().map(|mounted| mounted.point.as_path()).collect();
        assert_eq!(points, ["/var", "/srv/r2", "/home/ann/data"].map(Path::new));
        assert!(
            has_mounts_below(Path::new("/home"), &mounts) && !has_mounts_below(Path::new("/mnt"), &mounts)
        );
    }
}
