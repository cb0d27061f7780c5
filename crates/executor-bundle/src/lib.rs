//! From a container's specification to an OCI bundle on disk.
//!
//! ```text
//!  ContainerSpec ──▶ rootfs: a directory, or an overlay of the host's root
//!        │               │
//!        │               ▼ looked at from within, links never followed out
//!        ├─────────▶ users: uid, gid, groups, home
//!        ├─────────▶ program: is there something that can be executed
//!        ├─────────▶ names: its own hosts and resolv.conf, read-only
//!        ▼
//!     config: the OCI specification ──▶ <dir>/config.json
//! ```
//! Everything here may block. Errors are [`StartFailure`]s: a bundle that cannot be made is a process
//! that cannot be started, and each says which field of the specification is to blame.

mod config;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod names;
mod program;
mod rootfs;
mod seccomp;
mod users;
mod within;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{ContainerId, HostPid, StartFailure, StartFailureKind};
use executor_core::{ContainerSpec, ExecSpec, NetworkNamespace, Rootfs};
use rustix::io::Errno;

pub use config::DEFAULT_HOSTNAME;

/// Writes the bundle of a container into `dir`, which exists: mounts its root file system if one has
/// to be mounted, and writes `config.json`.
///
/// # Errors
/// Names the field that cannot be carried out. What was mounted is left for [`unmake`].
pub fn write(
    dir: &Path,
    id: &ContainerId,
    spec: &ContainerSpec,
    cgroup: &str,
    network: &NetworkNamespace,
) -> Result<(), StartFailure> {
    let root = match &spec.rootfs {
        Rootfs::Dir(path) => rootfs::directory(path)?,
        Rootfs::Host => rootfs::overlay_of_host(dir)?,
    };
    check_mounts(spec)?;
    let within = within::Within::open(&root)?;
    let user = users::resolve(&within, spec.process.user.as_deref())?;
    let process = config::process(&spec.process, &user, spec.security)?;
    program::check(&within, &spec.process.args, &process, &spec.mounts)?;
    names::write(dir, spec)?;
    let config = config::container(id, spec, &root, &names::mounts(dir), process, cgroup, network)?;
    let json = serde_json::to_vec(&config).map_err(|error| bad("spec", &error.to_string()))?;
    let file = dir.join("config.json");
    write_private(&file, &json).map_err(|error| from_io("write", &file, &error))
}

/// The environment of a process may hold what others must not read.
fn write_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(bytes)
}

/// What `write` would write, as JSON for people, without making anything. A root file system that
/// would have to be mounted is looked at where it comes from.
///
/// # Errors
/// As [`write()`].
pub fn preview(
    id: &ContainerId,
    spec: &ContainerSpec,
    cgroup: &str,
    network: &NetworkNamespace,
) -> Result<String, StartFailure> {
    let (seen, root) = match &spec.rootfs {
        Rootfs::Dir(path) => {
            let root = rootfs::directory(path)?;
            (root.clone(), root)
        }
        Rootfs::Host => (PathBuf::from("/"), PathBuf::from(rootfs::MOUNT_POINT)),
    };
    check_mounts(spec)?;
    let user = users::resolve(&within::Within::open(&seen)?, spec.process.user.as_deref())?;
    let process = config::process(&spec.process, &user, spec.security)?;
    let names = names::mounts(Path::new(""));
    let config = config::container(id, spec, &root, &names, process, cgroup, network)?;
    serde_json::to_string_pretty(&config).map_err(|error| bad("spec", &error.to_string()))
}

/// The `process` object of a process to be added to a container whose init is `init`, as JSON.
///
/// # Errors
/// Names the field that cannot be carried out, or says that the container has ended.
pub fn process(spec: &ContainerSpec, init: HostPid, exec: &ExecSpec) -> Result<Vec<u8>, StartFailure> {
    let within = within::Within::of_process(init)?;
    let merged = config::merged(&spec.process, exec);
    let user = users::resolve(&within, merged.user.as_deref())?;
    let process = config::process(&merged, &user, spec.security)?;
    program::check(&within, &merged.args, &process, &[])?;
    serde_json::to_vec(&process).map_err(|error| bad("spec", &error.to_string()))
}

/// Unmounts what [`write()`] mounted below `dir`; answers with what could not be unmounted. Calling it
/// for a bundle that has nothing mounted, or does not exist, is fine.
pub fn unmake(dir: &Path) -> Vec<String> {
    rootfs::unmount(dir)
}

/// A source that does not exist is told before anything is started.
fn check_mounts(spec: &ContainerSpec) -> Result<(), StartFailure> {
    let missing = spec.mounts.iter().find_map(|mount| Some((mount, fs::metadata(&mount.source).err()?)));
    missing.map_or(Ok(()), |(mount, error)| Err(from_io("mount source:", &mount.source, &error)))
}

fn bad(field: &str, why: &str) -> StartFailure {
    StartFailure::new(StartFailureKind::BadConfig, format!("{field}: {why}"))
}

fn from_io(what: &str, path: &Path, error: &io::Error) -> StartFailure {
    StartFailure::new(kind_of(error), format!("{what} {}: {error}", path.display()))
}

fn kind_of(error: &io::Error) -> StartFailureKind {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => StartFailureKind::PermissionDenied,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE) => {
            StartFailureKind::NoResources
        }
        Some(_) | None => StartFailureKind::BadConfig,
    }
}
