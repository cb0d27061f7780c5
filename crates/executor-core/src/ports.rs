//! What the actors need of the world: a runtime that starts and ends things, and a source of exits.
//!
//! Implementations do the I/O and decide nothing. Futures are polled on the executor's thread, a
//! tokio runtime with timers and I/O: they may await, and must not block it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use executor_lifecycle::process::Kill;
use executor_lifecycle::{
    ContainerId, ExecId, HostPid, Leftover, ProcessRef, RawExit, Signal, SignalScope, StartFailure,
    StartFailureKind, TerminalSize, Usage,
};
use futures::channel::mpsc;
pub use futures::future::BoxFuture;
pub use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, future, stream};
use serde::{Deserialize, Serialize};

use crate::{ChildStdio, ContainerSpec, ExecSpec, Resources, RuntimeError};

/// Makes containers, starts processes in them, and takes both away again.
///
/// No method blocks. What a method has to put in order with other calls (signals, kills, thaws) it does before it
/// returns; the future only says what came of it, and nobody has to poll it for the request to be carried out.
pub trait Runtime: Send + Sync + 'static {
    /// Takes possession of `root`, once, before anything else; blocks the builder's thread.
    ///
    /// What dead executors left under `root` is removed and reported; what live ones own is not
    /// touched. A runtime that keeps nothing there has nothing to do.
    fn open(&self, root: &Path) -> Result<Vec<Swept>, RuntimeError> {
        let _ = root;
        Ok(Vec::new())
    }

    /// Makes everything `create` and `run` need. When it fails, nothing of it is left for others to see, but `release`
    /// is called all the same.
    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, Result<(), StartFailure>>;

    /// Makes a prepared container up to the point where its program would be executed; answers with the pid of its init,
    /// whose exit comes from the [`ExitSource`] from then on. By default it cannot be done.
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

    /// Executes the program of a created container; answers when it runs. By default it cannot be done.
    fn start(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), StartFailure>> {
        let _ = id;
        let failure =
            StartFailure::new(StartFailureKind::BadConfig, "this runtime cannot hold a container at created");
        future::ready(Err(failure)).boxed()
    }

    /// `create` and `start` in one, for a prepared container: answers when init runs. Its exit comes from the
    /// [`ExitSource`], perhaps earlier.
    fn run(&self, id: &ContainerId, stdio: ChildStdio) -> BoxFuture<'static, Result<HostPid, StartFailure>>;

    /// Starts another process in a running container; answers and ends as with `run`. An id comes again when the exec that
    /// had it has ended: of one that could not be started the [`ExitSource`] must say nothing after the answer.
    fn exec(
        &self,
        id: &ContainerId,
        exec: ExecId,
        spec: ExecSpec,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>>;

    /// Gives up a `create`, `start`, `run` or `exec` that is under way: it shall answer soon, in any way. Must not block.
    fn abandon(&self, process: &ProcessRef);

    /// Sends a signal to a process whose pid is known, and to those that `scope` says. Signals arrive in the order of the
    /// calls.
    fn signal(
        &self,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> BoxFuture<'static, Result<Delivery, RuntimeError>>;

    /// Gives the terminal of a process another size. May come as soon as the process was asked for: until there is a
    /// terminal, the last size is kept for it, and set before the program can ask. Must not block. By default there are
    /// no terminals.
    fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<(), RuntimeError> {
        let _ = size;
        Err(RuntimeError::unsupported("resize", process))
    }

    /// Sends SIGKILL to a process and its process group, and does what else `how` says.
    fn kill(&self, process: &ProcessRef, how: Kill) -> BoxFuture<'static, Result<Delivery, RuntimeError>>;

    /// Kills what is left in a container whose init has ended, and answers when nothing is: for one without a pid
    /// namespace, where nothing ends with init by itself. By default nothing is ever left.
    fn kill_remaining(&self, id: &ContainerId) -> BoxFuture<'static, ()> {
        let _ = id;
        future::ready(()).boxed()
    }

    /// Freezes every process of a container. By default it cannot be done.
    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        future::ready(Err(RuntimeError::unsupported("pause", id))).boxed()
    }

    /// Thaws every process of a container. By default there is nothing to thaw.
    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        let _ = id;
        future::ready(Ok(())).boxed()
    }

    /// Thaws every process of a container and all freezers below its own, at once: processes in it are to be killed,
    /// and a frozen one does not die. By default as `resume`.
    fn thaw(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        self.resume(id)
    }

    /// The pids, on the host, of all processes in a container.
    fn processes(&self, id: &ContainerId) -> BoxFuture<'static, Result<Vec<HostPid>, RuntimeError>>;

    /// What a container has used so far. By default it is not known.
    fn usage(&self, id: &ContainerId) -> BoxFuture<'static, Result<Usage, RuntimeError>> {
        future::ready(Err(RuntimeError::unsupported("read the usage", id))).boxed()
    }

    /// Changes the limits of a container that is created, running or paused. Absent fields keep their value. `resources`
    /// are valid. Updates of one container are carried out one after the other. By default it cannot be done.
    fn update(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> BoxFuture<'static, Result<(), RuntimeError>> {
        let _ = resources;
        future::ready(Err(RuntimeError::unsupported("update", id))).boxed()
    }

    /// Ends what is left in a container and gives back all it had. Answers with what could not be removed.
    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<Leftover>>;

    /// Ends and releases everything this executor still has, and gives the root back; blocks the
    /// executor's thread when its actors have stopped. Answers as `release`.
    fn close(&self) -> Vec<Leftover>;
}

/// Sees processes end.
pub trait ExitSource: Send + Sync + 'static {
    /// Every end of a process that [`Runtime::create`], [`Runtime::run`] or [`Runtime::exec`] made, once. The end of one
    /// container's process never waits for another container, nor an exec's for its init. Called once; ends with
    /// the source.
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)>;
}

/// The ends that a runtime has seen, on their way to the reaper: what an [`ExitSource`] needs when exits
/// are told to it. A clone is the same one.
#[derive(Clone, Debug)]
pub struct ExitQueue {
    sender: mpsc::UnboundedSender<(ProcessRef, RawExit)>,
    receiver: Arc<Mutex<Option<Ends>>>,
}

type Ends = mpsc::UnboundedReceiver<(ProcessRef, RawExit)>;

impl Default for ExitQueue {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded();
        Self { sender, receiver: Arc::new(Mutex::new(Some(receiver))) }
    }
}

impl ExitQueue {
    /// Sends the end of a process to the reaper. If the executor has stopped, it is dropped.
    pub fn send(&self, process: ProcessRef, ending: RawExit) {
        drop(self.sender.unbounded_send((process, ending)));
    }

    /// The ends, for [`ExitSource::exits`]; nothing when they were taken before.
    pub fn take(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        receiver.map_or_else(|| stream::empty().boxed(), StreamExt::boxed)
    }
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The kernel took it.
    Sent,
    /// The process is gone, which is success.
    Gone,
}

/// A container of a dead executor that was removed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Swept {
    /// Its id.
    pub container: String,
    /// How many of its processes had to be killed.
    pub killed: usize,
    /// What could not be removed; empty when all is well.
    pub left: Vec<Leftover>,
}

impl Swept {
    /// The container with this id, of which `killed` processes were killed and `left` could not be removed.
    pub fn new(container: impl Into<String>, killed: usize, left: Vec<Leftover>) -> Self {
        Self { container: container.into(), killed, left }
    }
}
