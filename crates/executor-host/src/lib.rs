//! This machine, for drivers: everything that a driver of `executor-core` needs besides the OCI runtime.
//!
//! ```text
//!  driver ──▶ client ──▶ seam: values and file descriptors ──▶ local: the embedder's process, one thread
//!    │                                                            └──▶ children (decides) ──▶ kernel (does)
//!    │                                                                  └──▶ oom: the kernel's log, notices of cgroups
//!    │                 └── keeper: the parent is a process that outlives the embedder's, the same decisions
//!    ├──▶ root: which executor owns which container, sweeping what dead executors left ──▶ journal, tree
//!    ├──▶ cgroup: a container's processes and usage, killing and removing ──▶ procfs, pidfd
//!    └──▶ terminal: the console socket, and copying between terminal and pipes
//! ```
//! Only the parent of a process can reap it, and only once. Therefore everything that must be done by the
//! parent is behind [`ProcessHost`]. Only values and file descriptors cross that trait, so a process that
//! outlives the embedder can implement it.

mod bundles;
pub mod cgroup;
mod children;
mod client;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod host_thread;
pub mod journal;
pub mod keeper;
mod kernel;
mod local;
pub mod memory_file;
mod null;
mod oom;
mod pidfd;
pub mod procfs;
mod root;
mod seam;
mod spawn;
mod subreaper;
pub mod terminal;

pub use bundles::{Bundles, Place};
pub use cgroup::place::cgroups_path;
pub use children::RUNTIMES;
pub use client::{Adopted, Call, CallEnd, ClientSink, Ended, HostClient};
pub use error::{Error, Result};
pub use local::LocalHost;
pub use pidfd::watch;
pub use root::{
    EXECUTOR_VARIABLE, LedgerFile, RECORD, Reservation, Root, default_cgroup_parent, forget_name, log_prefix,
    sweep,
};
pub use seam::{
    CallId, Command, Containers, Delivered, Event, EventSink, FileIdentity, Image, ImageFate, Members,
    OsError, Parent, ProcessEnd, ProcessHost, Request, StdioSource, Token,
};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, even a poisoned one. Each change under these locks is a single step, so a panic cannot
/// leave half of one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
