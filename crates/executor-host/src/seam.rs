//! The one seam to everything that must be the parent of something.
//!
//! Whoever implements it spawns runtimes, waits for them, adopts the processes they leave behind,
//! signals these and tells of their ends. [`local`] does it in the embedder's own process; a helper
//! process that outlives the embedder can take the same place, since nothing beyond this file knows
//! who the parent is.

mod image;
pub(crate) mod local;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessRef, RawExit, Signal};
use executor_core::{BoxFuture, BoxStream, ChildStdio, Delivery};
use futures::future::Shared;

/// Spawns runtimes and collects exits. Nothing here blocks.
pub(crate) trait Spawner: Send + Sync {
    /// Executes a runtime.
    fn spawn(&self, call: Call) -> BoxFuture<'static, io::Result<RuntimeChild>>;

    /// Takes charge of a process that a runtime has started.
    fn adopt(&self, process: ProcessRef, pid: HostPid, parent: Parent) -> io::Result<()>;

    /// Whether a process that was adopted has not ended.
    fn lives(&self, process: &ProcessRef) -> bool;

    /// Signals a process that was adopted. After its end nothing is signalled.
    fn signal(&self, process: &ProcessRef, signal: Signal) -> io::Result<Delivery>;

    /// The same to the process group it leads, if it leads one.
    fn signal_group(&self, process: &ProcessRef, signal: Signal) -> io::Result<Delivery>;

    /// Sends SIGKILL to a process that was adopted and to its process group.
    fn kill(&self, process: &ProcessRef) -> io::Result<Delivery>;

    /// Ends and reaps children of ours that nobody adopted: what a runtime left half made.
    fn end_strays(&self, of: &Strays);

    /// From now on, reaps processes that end in a container and that nobody adopted, as they end. Needs a tokio
    /// runtime.
    fn reap_orphans(&self, containers: Containers) -> io::Result<()>;

    /// Reaps those of these processes that have become our children, have ended, and were not adopted.
    fn reap(&self, orphans: &[(HostPid, OwnedFd)]);

    /// Nothing of this container will be asked for any more.
    fn forget(&self, container: &ContainerId);

    /// The ends of adopted processes, with nothing known but the status; nothing for the second caller.
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)>;

    /// Kills and reaps every runtime and every adopted process, for when nobody collects any more.
    /// Blocks, at most for `patience`.
    fn end_all(&self, patience: Duration);
}

/// A runtime to be executed.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) stdio: ChildStdio,
    /// The executor it works for, by which a successor of ours can find it.
    pub(crate) mark: Option<String>,
}

/// Whose child an adopted process is.
pub(crate) enum Parent {
    /// Ours: we reap it.
    Us,
    /// The runtime's, which stays as its monitor.
    Runtime(RuntimeChild),
}

/// What tells that a process is in a container of an executor.
#[derive(Clone, Debug)]
pub(crate) enum Containers {
    /// Its cgroup: the containers of the executor of this name.
    Of(String),
    /// Its pid namespace, where no cgroups may be made: it lies below this process's.
    InNestedNamespaces,
}

/// Which strays are meant.
#[derive(Clone, Debug)]
pub(crate) struct Strays {
    /// Those in this container's cgroup, as its directory in each hierarchy.
    pub(crate) cgroup: String,
    /// Whether everything of the container is to be ended, not only what a runtime left half made.
    pub(crate) all: bool,
}

/// A runtime that was executed. It is reaped whether or not anyone waits; when it fails, what it has left
/// in its process group is ended first.
#[derive(Clone)]
pub(crate) struct RuntimeChild {
    pub(crate) ended: Shared<BoxFuture<'static, ExitStatus>>,
    pub(crate) kill: std::sync::Arc<dyn Fn() + Send + Sync>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnd {
    /// By itself.
    Ended(ExitStatus),
    /// It did not within the deadline, and was killed.
    Overdue,
    /// It was given up, and killed.
    Abandoned,
}

impl RuntimeChild {
    /// Waits until it has ended, at most until the deadline or until it is abandoned.
    pub(crate) async fn wait(
        &self,
        deadline: Duration,
        abandoned: impl Future<Output = ()>,
    ) -> io::Result<CallEnd> {
        let early = tokio::select! {
            status = self.ended.clone() => return Ok(CallEnd::Ended(status)),
            () = tokio::time::sleep(deadline) => CallEnd::Overdue,
            () = abandoned => CallEnd::Abandoned,
        };
        (self.kill)();
        self.ended.clone().await;
        Ok(early)
    }
}
