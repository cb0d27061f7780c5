//! Drives runc, and what takes runc's command line (crun, youki), for `executor-core`.
//!
//! ```text
//!  Runtime, ExitSource (ports)
//!        │ implemented by
//!        ▼
//!  driver ──▶ oci: what a runtime can do ◀── command_line: argv, one log for each call ──▶ failure: whose fault it is
//!    │                                            └──▶ image: the program in memory
//!    └──▶ executor-host: children and exits, cgroups, the root, terminals
//! ```
//! A container is started with `run --detach`: the runtime exits, init becomes a child of ours (we
//! are its subreaper), and the runtime's exit status 0 is the readiness. There is no monitor process.
//! An embedder that refuses to become a subreaper gets [`Mode::Foreground`], in which the runtime
//! stays as the monitor of its container.

mod command_line;
mod driver;
mod error;
mod failure;
mod find;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod kick;
mod oci;

pub use command_line::CommandLine;
pub use driver::{Mode, Runc, RuncBuilder};
pub use error::{Error, Result};
pub use executor_host::{Bundles, Place, cgroups_path, default_cgroup_parent, sweep};
pub use find::{CANDIDATES, NoRuntime, find_runtime};
pub use oci::{Features, Launch, OciRuntime, RuntimeCall, State};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what no panic can leave half changed: all that is done under these locks is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
