//! What the actors need from the system: a runtime that starts and ends processes, and a source of exits.
//!
//! Implementations do the I/O and decide nothing. Futures are polled on the executor's thread, a tokio runtime with
//! timers and I/O. They may await and must not block.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use executor_lifecycle::process::Kill;
use executor_lifecycle::{
    ContainerId, ExecId, HostPid, Leftover, OomKill, ProcessId, ProcessRef, RawExit, Signal, SignalScope,
    StartFailure, StartFailureKind, TerminalSize, Usage,
};
use futures::channel::mpsc;
pub use futures::future::BoxFuture;
pub use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, future, stream};
use serde::{Deserialize, Serialize};

use crate::{ChildStdio, ContainerSpec, ExecSpec, Kept, Resources, RuntimeError, StreamKind};

/// Creates containers, starts processes in them, and removes both.
///
/// No method blocks, unless it says so. [`signal`](Self::signal), [`kill`](Self::kill) and [`thaw`](Self::thaw) take effect
/// in the order of the calls: each acts before it returns, and its future only reports the result. All other requests
/// begin when their future is polled.
pub trait Runtime: Send + Sync + 'static {
    /// Takes the root directory. It is called once, before anything else, and blocks the thread of the builder.
    ///
    /// What dead executors left under `root` is removed and returned; what live ones own is left alone. A runtime
    /// that keeps nothing there does nothing.
    fn open(&self, root: &Path) -> Result<Vec<Swept>, RuntimeError> {
        let _ = root;
        Ok(Vec::new())
    }

    /// The same for an executor that is kept, of this name: what was left under it is not removed, but returned. Blocks. By
    /// default nothing outlives an executor.
    fn open_kept(&self, root: &Path, name: &str) -> Result<Kept, RuntimeError> {
        let _ = root;
        Err(RuntimeError::unsupported("keep", name))
    }

    /// Takes a container of [`open_kept`](Self::open_kept) up. The exits of these processes come from the [`ExitSource`], also
    /// those of the past; what else a runtime was making in it is killed. It must not block.
    fn adopt(&self, id: &ContainerId, processes: Vec<(ProcessId, HostPid)>) {
        let _ = (id, processes);
    }

    /// Keeps the end of a pipe for a successor, until the container is released. By default nothing is kept.
    fn hold(&self, process: &ProcessRef, stream: StreamKind, end: BorrowedFd<'_>) {
        let _ = (process, stream, end);
    }

    /// Gives an end up that was kept: it was closed.
    fn unhold(&self, process: &ProcessRef, stream: StreamKind) {
        let _ = (process, stream);
    }

    /// The executor ends, and what runs is to run on: [`close`](Self::close) ends nothing.
    fn detach(&self) {}

    /// Makes everything that `create` and `run` need. If it fails, nothing is left that others can see; `release` is
    /// called all the same.
    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, Result<(), StartFailure>>;

    /// Creates a prepared container, without executing its program. Returns the pid of its init; from then on the
    /// exit of init comes from the [`ExitSource`]. By default this is not supported.
    fn create(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let _ = (id, stdio);
        let failure =
            StartFailure::new(StartFailureKind::BadConfig, "this runtime cannot hold a container at created");
        future::ready(Err(failure)).boxed()
    }

    /// Executes the program of a created container. Returns when it runs. By default this is not supported.
    fn start(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), StartFailure>> {
        let _ = id;
        let failure =
            StartFailure::new(StartFailureKind::BadConfig, "this runtime cannot hold a container at created");
        future::ready(Err(failure)).boxed()
    }

    /// Creates and starts a prepared container. Returns the pid of init when it runs. The exit of init comes from the
    /// [`ExitSource`], and may come earlier than this result.
    fn run(&self, id: &ContainerId, stdio: ChildStdio) -> BoxFuture<'static, Result<HostPid, StartFailure>>;

    /// Starts another process in a running container. It returns and its exit comes as for `run`. An id can come
    /// again when the exec that had it has ended. Of an exec that could not be started, no exit may come after this
    /// result.
    fn exec(
        &self,
        id: &ContainerId,
        exec: ExecId,
        spec: ExecSpec,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>>;

    /// Makes a `create`, `start`, `run` or `exec` that is in flight return soon, with any result. It must not block.
    fn abandon(&self, process: &ProcessRef);

    /// Sends a signal to a process whose pid is known, and to the others that `scope` includes. Signals arrive in the
    /// order of the calls.
    fn signal(
        &self,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> BoxFuture<'static, Result<Delivery, RuntimeError>>;

    /// Changes the size of the terminal of a process. It may be called as soon as the process was requested: until
    /// the terminal exists, the last size is kept for it, and set before the program can read it. It must not block.
    /// By default there are no terminals.
    fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<(), RuntimeError> {
        let _ = size;
        Err(RuntimeError::unsupported("resize", process))
    }

    /// Sends SIGKILL to a process and its process group, and does what `how` adds.
    fn kill(&self, process: &ProcessRef, how: Kill) -> BoxFuture<'static, Result<Delivery, RuntimeError>>;

    /// Kills the processes that are left in a container whose init has ended. Returns when none is left. It is for
    /// containers without a pid namespace, where they do not end with init. By default none is ever left.
    fn kill_remaining(&self, id: &ContainerId) -> BoxFuture<'static, ()> {
        let _ = id;
        future::ready(()).boxed()
    }

    /// Freezes every process of a container. By default this is not supported.
    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        future::ready(Err(RuntimeError::unsupported("pause", id))).boxed()
    }

    /// Thaws every process of a container. By default there is nothing to thaw.
    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        let _ = id;
        future::ready(Ok(())).boxed()
    }

    /// Thaws every process of a container and all freezers below its own, at once, because processes in it are to be
    /// killed and a frozen process does not die. By default it does as `resume`.
    fn thaw(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        self.resume(id)
    }

    /// The pids, on the host, of all processes in a container.
    fn processes(&self, id: &ContainerId) -> BoxFuture<'static, Result<Vec<HostPid>, RuntimeError>>;

    /// Reads what a container has used so far. By default this is not supported.
    fn usage(&self, id: &ContainerId) -> BoxFuture<'static, Result<Usage, RuntimeError>> {
        future::ready(Err(RuntimeError::unsupported("read the usage", id))).boxed()
    }

    /// Changes the limits of a container that is created, running or paused. Absent fields keep their value.
    /// `resources` is valid. Updates of one container are carried out one after the other. By default this is
    /// not supported.
    fn update(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> BoxFuture<'static, Result<(), RuntimeError>> {
        let _ = resources;
        future::ready(Err(RuntimeError::unsupported("update", id))).boxed()
    }

    /// Ends what is left in a container and removes everything that it had. Returns what could not be removed.
    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<Leftover>>;

    /// Ends and releases every container that is left, and gives the root directory up. It is called when the actors
    /// have stopped, and blocks the executor's thread. Returns what could not be removed.
    fn close(&self) -> Vec<Leftover>;
}

/// A source of exits.
pub trait ExitSource: Send + Sync + 'static {
    /// A stream of the exits of all processes that [`Runtime::create`], [`Runtime::run`] or [`Runtime::exec`]
    /// started, each once. The exit of a process must not wait for another container, nor that of an exec for its
    /// init. It is called once. The stream ends with the source.
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)>;

    /// A stream of the kills of the OOM killer, each when it happens, those of a container in their order. It is called
    /// once. By default it is empty: then a kill is published with the exit that shows it.
    fn oom_kills(&self) -> BoxStream<'static, (ContainerId, OomKill)> {
        stream::empty().boxed()
    }
}

/// A queue of exits on their way to the reaper, and one of kills, for an [`ExitSource`] that sends each itself. Clones
/// share the queues.
#[derive(Clone, Debug, Default)]
pub struct ExitQueue {
    exits: Queue<(ProcessRef, RawExit)>,
    oom_kills: Queue<(ContainerId, OomKill)>,
}

#[derive(Debug)]
struct Queue<T> {
    sender: mpsc::UnboundedSender<T>,
    receiver: Arc<Mutex<Option<mpsc::UnboundedReceiver<T>>>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded();
        Self { sender, receiver: Arc::new(Mutex::new(Some(receiver))) }
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), receiver: Arc::clone(&self.receiver) }
    }
}

impl<T: Send + 'static> Queue<T> {
    fn take(&self) -> BoxStream<'static, T> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        receiver.map_or_else(|| stream::empty().boxed(), StreamExt::boxed)
    }
}

impl ExitQueue {
    /// Sends the end of a process to the reaper. If the executor has stopped, it is dropped.
    pub fn send(&self, process: ProcessRef, exit: RawExit) {
        drop(self.exits.sender.unbounded_send((process, exit)));
    }

    /// The stream for [`ExitSource::exits`]. It is empty if it was taken before.
    pub fn take(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        self.exits.take()
    }

    /// Sends a kill of the OOM killer to the executor. If that has stopped, it is dropped.
    pub fn send_oom_kill(&self, container: ContainerId, kill: OomKill) {
        drop(self.oom_kills.sender.unbounded_send((container, kill)));
    }

    /// The stream for [`ExitSource::oom_kills`]. It is empty if it was taken before.
    pub fn take_oom_kills(&self) -> BoxStream<'static, (ContainerId, OomKill)> {
        self.oom_kills.take()
    }
}

/// The result of sending a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The kernel accepted the signal.
    Sent,
    /// The process has ended, which counts as success.
    Gone,
}

/// A container of a dead executor that was removed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Swept {
    /// Its id.
    pub container: String,
    /// How many of its processes were alive and were killed.
    pub killed: usize,
    /// What could not be removed. Empty if all was.
    pub left: Vec<Leftover>,
}

impl Swept {
    /// A container with this id. `killed` of its processes were killed, and `left` could not be removed.
    pub fn new(container: impl Into<String>, killed: usize, left: Vec<Leftover>) -> Self {
        Self { container: container.into(), killed, left }
    }
}
