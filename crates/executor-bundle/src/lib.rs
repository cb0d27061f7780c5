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
//!        │              └──────▶ container_files: its files where mounts will show them, for the two above
//!        ├─────────▶ names: its own hosts and resolv.conf, read-only
//!        ▼
//!     context ──▶ config ──▶ defaults, or the caller's own
//!                    └─────▶ edit: limits, network, seccomp, labels, cdi, init, ids ──▶ config.json
//!                                       ├──▶ container_files: links to mount points, as the container will see them
//!                                       ├──▶ cwd: a working directory that is missing
//!                                       ├──▶ tmpfs: the modes that a runtime would not give
//!                                       ├──▶ nested: mounts below a volume, put together by us
//!                                       └──▶ stubs: mount points that are missing in a kept rootfs
//! ```
//! The helpers error, json and mount_entry do not know the specification. No module imports one that stands above it
//! in this picture. Every function here may block. An [`Error`] says which operation failed on which file, and has the
//! cause as its source; one place turns it into a start failure.

mod capabilities;
mod config;
mod container_files;
mod context;
mod cwd;
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
mod tmpfs;

use std::path::{Path, PathBuf};

use executor_core::lifecycle::{HostPid, Leftover, LeftoverKind};
use executor_core::{ContainerSpec, ExecSpec, Mount, MountSource, NetworkAttachment, NetworkNamespace};
use executor_disk::Dir;
use serde_json::{Value, json};

use crate::config::{Configuration, devices, host, labels};
use crate::container_files::ContainerFiles;
use crate::context::BundleContext;
use crate::ids::{Ids, Owner};
use crate::process::check_program;
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
    let mut asked = Vec::new();
    if let Some(all) = config.json["mounts"].as_array_mut() {
        asked = resolve_points(&view, all, &rootfs, spec, &mounts.covered)?;
    }
    let missing_cwd = look_inside(&mut config, &view, &rootfs, spec, &process.user, &process.cwd, &ids)?;
    if let Some(all) = config.json["mounts"].as_array_mut() {
        let stub = missing_cwd.as_ref().and_then(|at| cwd::as_stub(&rootfs, all, at, spec.read_only));
        if let Some(missing) = missing_cwd.filter(|_| stub.is_none()) {
            cwd::make(dir, &view, &rootfs, all, (&missing, &process.cwd), process.owner, &ids)?;
        }
        tmpfs::make(dir, &view, all, &ids)?;
        place(dir, &context, (&asked, stub), &ids, all)?;
    }
    host::note_mounts(dir, &config.json)?;
    process::keep(dir, &config.json["process"])?;
    config.text()
}

/// Looks at the files of a container as it will see them: what the runtime will read, the program, and the working directory.
/// Returns the path of that, without links, if it is missing and can be made by us.
fn look_inside(
    config: &mut Configuration,
    view: &RootfsDir,
    rootfs: &BundleRootfs,
    spec: &ContainerSpec,
    user: &User,
    cwd: &Path,
    ids: &Ids,
) -> Result<Option<PathBuf>, Error> {
    let all = config.json["mounts"].as_array();
    devices::check(view, all.map_or(&[], Vec::as_slice), &spec.devices)?;
    let all = all.into_iter().flatten();
    let seen = ContainerFiles::of(view).with_mounts(all.filter(|mount| !rootfs.shows(mount)))?;
    process::files::check(&seen)?;
    let program = spec.process.args.first().map(String::as_str);
    let found = check_program(&seen, spec, program, &config.json["process"], user, ids)?;
    let missing_cwd = if rootfs.is_complete { cwd::missing(&seen, cwd)? } else { None };
    // Our own init looks for the program itself.
    if let Some(path) = found.filter(|_| !spec.init) {
        config.json["process"]["args"][0] = json!(path);
    }
    Ok(missing_cwd)
}

/// Makes the mount points of `mounts`, and another directory that is removed with them. What we can mount ourselves is taken
/// out.
fn place(
    dir: &Dir,
    context: &BundleContext<'_>,
    (asked, stub): (&[PathBuf], Option<Value>),
    ids: &Ids,
    mounts: &mut Vec<Value>,
) -> Result<(), Error> {
    let BundleContext { spec, rootfs, .. } = *context;
    let stays_below = |point: &Path| !spec.remove_stub_parents && asked.iter().any(|asked| asked == point);
    nested::make(dir, mounts, &stays_below, ids)?;
    if rootfs.is_kept {
        let points: Vec<_> = mounts.iter().cloned().chain(stub).collect();
        stubs::make_missing(dir, &rootfs.root, &points, &stays_below, ids.root)?;
    } else if rootfs.is_complete && (ids.root != Owner::ROOT || rootfs.has_mounts_to_restrict(spec)) {
        // The runtime would make them as the container's root, who may not write to what is the host's root's, or when they
        // cannot be made any more.
        stubs::make_all(&rootfs.root, mounts, ids.root)?;
    }
    if rootfs.has_mounts_to_restrict(spec) {
        let failed = Error::io("make read-only what is mounted below", &rootfs.root);
        mount_entry::restrict_below(&rootfs.root).map_err(failed)?;
    }
    Ok(())
}

/// What [`write()`] would return, as indented JSON, without making anything. Users and paths are looked up in the
/// directories that would be mounted.
///
/// # Errors
/// As [`write()`].
pub fn preview(request: &Request<'_>, network: &NetworkNamespace) -> Result<String, Error> {
    describe(None, request, network)
}

/// Makes a bundle in `dir`, which a runtime runs without us. What takes a mount of ours is an error: layers, selectors and
/// secrets. A view of the host is that of an ordinary user, and what is written to it stays in `dir`.
///
/// # Errors
/// As [`write()`]; also if `dir` has such files already.
pub fn export(dir: &Dir, request: &Request<'_>, network: &NetworkNamespace) -> Result<(), Error> {
    let needs_us = |mount: &Mount| {
        matches!(mount.source, MountSource::Secret { .. } | MountSource::Bind { selector: Some(_), .. })
    };
    if let Some(mount) = request.spec.mounts.iter().find(|mount| needs_us(mount)) {
        return Err(Error::field("mount", format!("{mount}: this takes a mount that no bundle can have")));
    }
    if matches!(network, NetworkNamespace::At(_)) {
        return Err(Error::field(
            "network",
            "a bundle cannot have one that is made for a container; give none or host",
        ));
    }
    // An ordinary user may make no cgroup.
    let request = Request { cgroup: request.cgroup.filter(|_| !ids::rootless()), ..*request };
    // What is wrong with the request is known before anything is made.
    describe(None, &request, network)?;
    let before = dir.names().map_err(Error::io("list", dir.path()))?;
    let write = |config: String| {
        let written = dir.write_new("config.json", config.as_bytes(), 0o600);
        written.map(drop).map_err(Error::io("write", &dir.path_of("config.json")))
    };
    let exported = describe(Some(dir), &request, network).and_then(write);
    if exported.is_err() {
        // It can be tried again.
        for name in dir.names().unwrap_or_default().iter().filter(|name| !before.contains(name)) {
            let _what_stays_is_named_the_next_time = dir.remove_tree(name, LeftoverKind::File);
        }
    }
    exported
}

/// The configuration as indented JSON. With `dir`, the files that it names are made there.
fn describe(dir: Option<&Dir>, request: &Request<'_>, network: &NetworkNamespace) -> Result<String, Error> {
    let spec = request.spec;
    let place = dir.map_or(Path::new(""), Dir::path);
    mount_entry::utf8("bundle", place)?;
    let ids = Ids::of(spec);
    ids.check(spec)?;
    let rootfs = match dir {
        Some(dir) => rootfs::export(dir, &spec.rootfs, request.root)?,
        None => rootfs::preview(&spec.rootfs)?,
    };
    let view = RootfsDir::open(&rootfs.seen)?;
    let process = process::of_init(&view, spec, &ids)?;
    let files = match dir {
        Some(dir) => names::write(dir, spec, &network.clone().into(), ids.root)?,
        None => names::places(place, spec, network),
    };
    if let Some(dir) = dir.filter(|_| spec.init) {
        init::write(dir)?;
    }
    let context = BundleContext {
        id: request.id,
        spec,
        dir: place,
        cgroup: request.cgroup,
        rootfs: &rootfs,
        mounts: &mounts::requested(None, spec, &ids)?.entries,
        files: &files,
        network,
        map: ids.map.as_ref(),
        capabilities: &process.capabilities,
    };
    let config = Configuration::of(&context, process.json);
    labels::release(place);
    let config = config?;
    // The links stay in it. Where they lead is checked.
    let mut mounts = config.json["mounts"].as_array().cloned().unwrap_or_default();
    resolve_points(&view, &mut mounts, &rootfs, spec, &[])?;
    config.pretty()
}

/// Replaces destinations by their mount points, and returns those of the destinations in `asked`. Refuses a mount that leads
/// to what is the container's own.
fn resolve_points(
    view: &RootfsDir,
    mounts: &mut Vec<Value>,
    rootfs: &BundleRootfs,
    spec: &ContainerSpec,
    asked: &[PathBuf],
) -> Result<Vec<PathBuf>, Error> {
    let is_shown = |mount: &Value| rootfs.shows(mount);
    let check = |destination: &Path, point: &Path| kernel_fs::check_point(spec, destination, point);
    container_files::resolve_points(view, mounts, is_shown, asked, spec.config.is_some(), check)
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
