//! This machine, for the drivers of `executor-core`: what is not an OCI runtime's.
//!
//! ```text
//!  driver ──▶ client ──▶ seam: values and file descriptors ──▶ local: the embedder's process, one thread
//!    │                                                            └──▶ children (decides) ──▶ kernel (does)
//!    ├──▶ root: the lock, who owns which container, sweeping what dead executors left ──▶ journal, tree
//!    ├──▶ cgroup: who is in a container, what it has used, ending it, giving it back ──▶ procfs, pidfd
//!    └──▶ terminal: the console socket, and the copying
//! ```
//! Children belong to a process, and statuses are collected once. So all that must be the parent of something is behind
//! [`ProcessHost`], which takes values: a process that outlives the embedder can take its place.

mod bundles;
pub mod cgroup;
mod children;
mod client;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod journal;
mod kernel;
mod local;
mod pidfd;
pub mod procfs;
mod root;
mod seam;
pub mod terminal;
mod tree;

pub use bundles::{Bundles, Place};
pub use cgroup::place::cgroups_path;
pub use children::RUNTIMES;
pub use client::{Adopted, Call, CallEnd, ClientSink, Ended, HostClient};
pub use error::{Error, Result};
pub use local::LocalHost;
pub use pidfd::watch;
pub use root::{EXECUTOR_VARIABLE, Reservation, Root, default_cgroup_parent, log_prefix, sweep};
pub use seam::{
    CallId, Command, Containers, Delivered, Event, EventSink, FileIdentity, Image, ImageFate, Members,
    OsError, Parent, ProcessHost, Request, StdioSource, Token,
};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what no panic can leave half changed: all that is done under these locks is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
