//! Drives runc, and what takes runc's command line (crun, youki), for `executor-core`.
//!
//! ```text
//!  Runtime, ExitSource (ports)
//!        │ implemented by
//!        ▼
//!  driver ──────▶ command_line: argv, one log for each call ──▶ failure: whose fault it is
//!    │  │  └─────▶ root: the lock, who owns which container, sweeping what dead executors left
//!    │  └────────▶ cgroup, procfs: what is in a container, ending it, giving it back
//!    ▼
//!  spawner: the one seam to everything that must be the parent of something
//! ```
//! A container is started with `run --detach`: the runtime exits, init becomes a child of ours (we
//! are its subreaper), and the runtime's exit status 0 is the readiness. There is no monitor process.
//! An embedder that refuses to become a subreaper gets [`Mode::Foreground`], in which the runtime
//! stays as the monitor of its container.

mod bundles;
mod cgroup;
mod command_line;
mod driver;
mod failure;
mod find;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod journal;
mod kick;
mod pidfd;
mod procfs;
mod root;
mod spawner;
mod terminal;

pub use bundles::{Bundles, Place};
pub use command_line::{CommandLine, Features, State};
pub use driver::{Mode, Runc, RuncBuilder};
pub use find::{CANDIDATES, NoRuntime, find_runtime};
pub use root::{default_cgroup_parent, sweep};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what no panic can leave half changed: all that is done under these locks is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
