//! From a container's specification to an OCI bundle on disk.
//!
//! ```text
//!  ContainerSpec ──▶ rootfs: a directory, an overlay of layers or of the host's root
//!        │               │
//!        │               ▼ looked at from within, links never followed out
//!        ├─────────▶ users: uid, gid, groups, home ──▶ ids: whom of the host they are
//!        ├─────────▶ program: is there something that can be executed
//!        ├─────────▶ mounts: sources looked at, selectors resolved
//!        ├─────────▶ names: its own hosts and resolv.conf, read-only
//!        ▼
//!     config: ours or the caller's ──▶ edit: seccomp, labels, cdi, init, ids ──▶ config.json
//!                                       └──▶ stubs: mount points that are missing in a kept rootfs
//! ```
//! Everything here may block. Errors are [`StartFailure`]s: a bundle that cannot be made is a process
//! that cannot be started, and each says which field of the specification is to blame.

mod capabilities;
mod config;
mod context;
mod error;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod init;
mod json;
mod mount_entry;
mod mounts;
mod names;
mod process;
mod rootfs;
mod rootfs_dir;
mod stubs;

use std::fs;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{HostPid, StartFailure};
use executor_core::{ContainerSpec, ExecSpec, IdMap, NetworkAttachment, NetworkNamespace};
use serde::Serialize;
use serde_json::Value;

use crate::config::{Configuration, labels};
use crate::context::BundleContext;
use crate::error::{bad, from_io};
use crate::process::users;
use crate::rootfs_dir::RootfsDir;

pub use context::Request;
pub use names::DEFAULT_HOSTNAME;

/// The `process` object of a container, below its bundle: its execs start from it.
const PROCESS: &str = "process.json";

/// Makes the bundle of a container in `dir`, which exists: mounts its root file system if one has to be
/// mounted, makes what is missing in one that is kept, and answers with the text of its `config.json`. `network` is
/// asked for when all is looked at that does not depend on it.
///
/// # Errors
/// Names the field that cannot be carried out. What was mounted or made is left for [`unmake`].
pub fn write(
    dir: &Path,
    request: &Request<'_>,
    network: impl FnOnce() -> Result<NetworkAttachment, StartFailure>,
) -> Result<Vec<u8>, StartFailure> {
    let spec = request.spec;
    let map = ids::of(spec);
    let rootfs = rootfs::make(dir, &spec.rootfs, map.as_ref())?;
    let mounts = mounts::asked(Some(dir), spec, map.is_some())?;
    let within = RootfsDir::open(&rootfs.seen)?;
    let covered = covered(spec);
    let process = process::of_init(&within, spec, map.as_ref(), &covered)?;
    let own = ["/proc", "/dev", "/sys"].map(PathBuf::from);
    let is_covered = covered.iter().chain(&own).any(|place| spec.process.cwd.starts_with(place));
    if rootfs.mounts.is_empty() && !is_covered {
        make_cwd(&within, spec, &process, map.as_ref())?;
    }
    if spec.init {
        init::write(dir)?;
    }
    let network = network()?;
    let files = match names::are_ours(spec) {
        true => names::write(dir, spec, &network, map.as_ref())?,
        false => Vec::new(),
    };
    let network = &network.namespace;
    let &Request { id, spec, cgroup } = request;
    let ground =
        BundleContext { id, spec, rootfs: &rootfs, files, mounts, cgroup, network, map: map.as_ref(), dir };
    let config = Configuration::of(&ground, process)?;
    if rootfs.is_kept {
        let mounts = config.json["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
        stubs::make(dir, &rootfs.root, mounts, spec.remove_stub_parents, map.as_ref())?;
    }
    // An exec is a program of its own, with nothing in front of it.
    let file = dir.join(PROCESS);
    // The environment of a process may hold what others must not read.
    file::write_new(&file, &text(&config.json["process"])?, 0o600)
        .map_err(|error| from_io("write", &file, &error))?;
    text(&config)
}

fn text(json: &impl Serialize) -> Result<Vec<u8>, StartFailure> {
    serde_json::to_vec(json).map_err(|error| bad("spec", &error.to_string()))
}

/// Where something is mounted that the root file system does not show.
fn covered(spec: &ContainerSpec) -> Vec<PathBuf> {
    let theirs = spec.config.as_ref().and_then(|config| config.json()["mounts"].as_array());
    let theirs =
        theirs.into_iter().flatten().filter_map(|mount| mount["destination"].as_str()).map(PathBuf::from);
    spec.mounts.iter().map(|mount| mount.destination.clone()).chain(theirs).collect()
}

/// The runtime would make it too, and leave it to the container's root.
fn make_cwd(
    within: &RootfsDir,
    spec: &ContainerSpec,
    process: &Value,
    map: Option<&IdMap>,
) -> Result<(), StartFailure> {
    let id =
        |name: &str| process["user"][name].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
    let cwd = &spec.process.cwd;
    let made = within.make_dirs(cwd, ids::on_the_host(map, id("uid"), id("gid")));
    made.map_err(|error| from_io("cwd:", cwd, &error))
}

/// What `write` would answer, as JSON for people, without making anything. A root file system that
/// would have to be mounted is looked at where it comes from.
///
/// # Errors
/// As [`write()`].
pub fn preview(request: &Request<'_>, network: &NetworkNamespace) -> Result<String, StartFailure> {
    let &Request { id, spec, cgroup } = request;
    let map = ids::of(spec);
    let rootfs = rootfs::preview(&spec.rootfs)?;
    let mut user = users::resolve(&RootfsDir::open(&rootfs.seen)?, spec.process.user.as_deref())?;
    ids::check(&mut user, map.as_ref())?;
    let process = process::process(spec, &user)?;
    let dir = Path::new("");
    let files = if names::are_ours(spec) { names::mounts(dir) } else { Vec::new() };
    let mounts = mounts::asked(None, spec, map.is_some())?;
    let ground =
        BundleContext { id, spec, rootfs: &rootfs, files, mounts, cgroup, network, map: map.as_ref(), dir };
    let config = Configuration::of(&ground, process)?;
    labels::release(dir);
    let text = config.whole().and_then(|config| serde_json::to_string_pretty(&config));
    text.map_err(|error| bad("spec", &error.to_string()))
}

/// The `process` object of a process to be added to the container in `dir` whose init is `init`, as JSON.
///
/// # Errors
/// Names the field that cannot be carried out, or says that the container has ended.
pub fn process(
    dir: &Path,
    spec: &ContainerSpec,
    init: HostPid,
    exec: &ExecSpec,
) -> Result<Vec<u8>, StartFailure> {
    let file = dir.join(PROCESS);
    let json = fs::read(&file).map_err(|error| from_io("read", &file, &error))?;
    let own: Value = serde_json::from_slice(&json).map_err(|error| bad("spec", &error.to_string()))?;
    let within = RootfsDir::of_process(init)?;
    let map = ids::of(spec);
    let mut user = users::resolve(&within, exec.user.as_deref().or(spec.process.user.as_deref()))?;
    ids::check(&mut user, map.as_ref())?;
    let other = exec.user.is_some().then_some(&user);
    let process = process::exec(own, &spec.process, exec, other);
    process::check_program(&within, &process, exec.args.first(), &user, map.as_ref(), &[])?;
    Ok(process.to_string().into_bytes())
}

/// Gives back what [`write()`] took, for the bundle in `dir`: unmounts what it mounted, takes mount points out of a
/// root file system that is kept. Answers with what could not be unmounted. Calling it for a bundle that has
/// nothing of the kind, or does not exist, is fine.
pub fn unmake(dir: &Path) -> Vec<String> {
    stubs::remove(dir);
    labels::release(dir);
    let mut left = mounts::unmount_selected(dir);
    left.extend(rootfs::unmount(dir));
    left
}
