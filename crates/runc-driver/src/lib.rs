//! A driver of `executor-core` for runc, and for runtimes with the same command line (crun, youki).
//!
//! ```text
//!  Runtime, ExitSource (ports)
//!        │ implemented by
//!        ▼
//!  driver ──▶ oci: what a runtime can do ◀── command_line: argv, one log for each call ──▶ failure: why a start failed
//!    │                                            └──▶ image: a copy of the program in memory
//!    └──▶ executor-host: children and exits, cgroups, the root, terminals
//! ```
//! A container is started with `run --detach`. The runtime exits, and init becomes a child of this process,
//! which is a subreaper. The container runs when the runtime has exited with status 0. There is no monitor
//! process.
//!
//! An embedder that must not become a subreaper uses [`Mode::Foreground`]. Then the runtime stays as the
//! monitor of its container.

mod command_line;
mod driver;
mod error;
mod failure;
mod find;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod id_helpers;
mod image;
mod kick;
mod oci;
mod vulnerabilities;

pub use command_line::CommandLine;
pub use driver::{Mode, Runc, RuncBuilder};
use error::{Error, Result};
/// An error of a runtime's call, or of the driver's work.
pub use error::{Error as DriverError, Result as DriverResult};
pub use executor_disk::Dir;
pub use executor_host::{
    Bundles, HostClient, Place, cgroups_path, default_cgroup_parent, forget_name, sweep,
};
pub use find::{CANDIDATES, NoRuntime, find_runtime};
pub use oci::{Launch, OciFeatures, OciRuntime, OciState, RuntimeCall, RuntimeParts};
pub use vulnerabilities::{KnownVulnerability, known_vulnerabilities};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, even a poisoned one. Each change under these locks is a single step, so a panic cannot
/// leave half of one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
