//! From a container's specification to an OCI bundle on disk.
//!
//! ```text
//!  ContainerSpec ──▶ ids: which ids of the host its users have
//!        ├─────────▶ rootfs: a directory, an overlay of layers or of the host's root
//!        ├─────────▶ mounts: sources looked at, selectors resolved ──▶ secrets: files in memory
//!        │              └──────▶ kernel_fs: what a sandbox does not get
//!        ├─────────▶ process ──▶ users: uid, gid, groups, home   (both by rootfs_dir: looked at from
//!        │              ├──────▶ program: can it be executed      inside, links never followed out)
//!        │              ├──────▶ files: what runtimes read of the container's
//!        │              └──────▶ seen: its files where mounts will show them, for the two above
//!        ├─────────▶ names: its own hosts and resolv.conf, read-only
//!        ▼
//!     context ──▶ config ──▶ defaults, or the caller's own
//!                    └─────▶ edit: limits, network, seccomp, labels, cdi, init, ids ──▶ config.json
//!                                       ├──▶ nested: mounts below a volume, put together by us
//!                                       └──▶ stubs: mount points that are missing in a kept rootfs
//! ```
//! The helpers error, json and mount_entry do not know the specification. No module imports one that stands above it
//! in this picture. Every function here may block. An [`Error`] says which operation failed on which file, and has the
//! cause as its source; one place turns it into a start failure.

mod capabilities;
mod config;
mod context;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod init;
mod json;
mod kernel_fs;
mod mount_entry;
mod mounts;
mod names;
mod nested;
mod process;
mod rootfs;
mod rootfs_dir;
mod secrets;
mod stubs;

use std::path::Path;

use executor_core::lifecycle::{HostPid, Leftover};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkNamespace};
use executor_disk::Dir;
use serde_json::{Value, json};

use crate::config::{Configuration, host, labels};
use crate::context::BundleContext;
use crate::ids::{Ids, Owner};
use crate::process::check_program;
use crate::process::seen::Seen;
use crate::process::users::User;
use crate::rootfs::BundleRootfs;
use crate::rootfs_dir::RootfsDir;

pub use context::Request;
pub use error::Error;
pub use init::has_init;
pub use names::DEFAULT_HOSTNAME;

/// Makes the bundle of a container in `dir`, which exists, and returns the text of its `config.json`.
///
/// An overlay is mounted below `dir`. In a root file system that is kept, missing mount points are made. `network` is the
/// network that the container was given.
///
/// # Errors
/// Names the field of the specification that cannot be carried out. Call [`unmake`] then as well: it removes what was
/// mounted and made.
pub fn write(dir: &Dir, request: &Request<'_>, network: &NetworkAttachment) -> Result<Vec<u8>, Error> {
    let spec = request.spec;
    mount_entry::utf8("root", dir.path())?;
    if let NetworkNamespace::At(path) = &network.namespace {
        mount_entry::utf8("network", path)?;
    }
    let ids = Ids::of(spec);
    ids.check(spec)?;
    let rootfs = rootfs::make(dir, spec, ids.root, request.root)?;

    let mounts = mounts::requested(Some(dir), spec, &ids)?;
    let view = RootfsDir::open(&rootfs.seen)?;
    view.check_dev()?;
    let process = process::of_init(&view, spec, &ids)?;
    if spec.init {
        init::write(dir)?;
    }
    let files = names::write(dir, spec, network, ids.root)?;
    let context = BundleContext {
        id: request.id,
        spec,
        dir: dir.path(),
        cgroup: request.cgroup,
        rootfs: &rootfs,
        mounts: &mounts.entries,
        files: &files,
        network: &network.namespace,
        map: ids.map.as_ref(),
        capabilities: &process.capabilities,
    };
    let mut config = Configuration::of(&context, process.json)?;
    look_inside(&mut config, &view, &rootfs, spec, &process.user, &ids)?;
    // The runtime would make it too, but owned by the container's root instead of the process's user.
    let cwd = &spec.process.cwd;
    if rootfs.mounts.is_empty() && !mounts.cover(cwd) {
        view.make_dirs(cwd, process.owner).map_err(Error::file("cwd", cwd))?;
    }
    if let Some(mounts) = config.json["mounts"].as_array_mut() {
        nested::make(dir, mounts, spec.remove_stub_parents, &ids)?;
    }
    if rootfs.is_kept {
        stubs::make_missing(dir, &rootfs.root, config.mounts(), spec.remove_stub_parents, ids.root)?;
    } else if ids.root != Owner::ROOT && rootfs.mounts.is_empty() {
        // The runtime would make them as the container's root, who may not write to what is the host's root's.
        stubs::make_all(&rootfs.root, config.mounts(), ids.root)?;
    }
    host::note_mounts(dir, &config.json)?;
    process::keep(dir, &config.json["process"])?;
    config.text()
}

/// Looks at the files of a container as it will see them: what the runtime will read, and the program.
fn look_inside(
    config: &mut Configuration,
    view: &RootfsDir,
    rootfs: &BundleRootfs,
    spec: &ContainerSpec,
    user: &User,
    ids: &Ids,
) -> Result<(), Error> {
    let is_seen = |mount: &&Value| !rootfs.mounts.contains(mount);
    let seen = Seen::of_new(view, config.mounts().iter().filter(is_seen))?;
    process::files::check(&seen)?;
    let program = spec.process.args.first().map(String::as_str);
    let found = check_program(&seen, spec, program, &config.json["process"], user, ids)?;
    // Our own init looks for the program itself.
    if let Some(path) = found.filter(|_| !spec.init) {
        config.json["process"]["args"][0] = json!(path);
    }
    Ok(())
}

/// What [`write()`] would return, as indented JSON, without making anything. Users and paths are looked up in the
/// directories that would be mounted.
///
/// # Errors
/// As [`write()`].
pub fn preview(request: &Request<'_>, network: &NetworkNamespace) -> Result<String, Error> {
    let spec = request.spec;
    let dir = Path::new("");
    let ids = Ids::of(spec);
    ids.check(spec)?;
    let rootfs = rootfs::preview(&spec.rootfs)?;
    let process = process::of_init(&RootfsDir::open(&rootfs.seen)?, spec, &ids)?;
    let context = BundleContext {
        id: request.id,
        spec,
        dir,
        cgroup: request.cgroup,
        rootfs: &rootfs,
        mounts: &mounts::requested(None, spec, &ids)?.entries,
        files: &names::places(dir, spec, network),
        network,
        map: ids.map.as_ref(),
        capabilities: &process.capabilities,
    };
    let config = Configuration::of(&context, process.json);
    labels::release(dir);
    config?.pretty()
}

/// The `process` object, as JSON, of an exec in the container whose bundle is in `dir` and whose init is `init`.
///
/// # Errors
/// Names the field of `exec` that cannot be carried out, or says that the container has ended.
pub fn process(dir: &Dir, spec: &ContainerSpec, init: HostPid, exec: &ExecSpec) -> Result<Vec<u8>, Error> {
    let root = RootfsDir::of_process(init)?;
    process::files::check_running(&root)?;
    let process = process::exec(dir, &root, spec, exec)?;
    Ok(process.to_string().into_bytes())
}

/// The group of the host that must be able to pass through the bundle's directory: that of the container's root, if it is
/// another user than this process's.
pub fn passing_group(spec: &ContainerSpec) -> Option<u32> {
    let ids = Ids::of(spec);
    (!ids::rootless() && ids.root != Owner::ROOT).then_some(ids.root.gid)
}

/// Undoes [`write()`] for the bundle in `dir`: unmounts what it mounted, and removes the mount points that it made in a
/// root file system that is kept. Returns what could not be unmounted. A bundle that does not exist, or that needs none of
/// this, is fine.
pub fn unmake(dir: &Dir) -> Vec<Leftover> {
    stubs::remove(dir);
    labels::release(dir.path());
    let mut left = mounts::unmount_selected(dir);
    nested::remove(dir);
    left.extend(secrets::unmount(dir));
    left.extend(rootfs::unmount(dir));
    left.extend(host::mounts_left(dir));
    left
}
