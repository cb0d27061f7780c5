//! What the actors need of the world: a runtime that starts and ends things, and a source of exits.
//!
//! Implementations do the I/O and decide nothing. Futures are polled on the executor's thread, a
//! tokio runtime with timers and I/O: they may await, and must not block it.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use executor_lifecycle::{
    ContainerId, ExecId, HostPid, ProcessRef, RawExit, Signal, SignalScope, StartFailure, StartFailureKind,
    TerminalSize, Usage,
};
use futures::channel::mpsc;
pub use futures::future::BoxFuture;
pub use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};

use crate::{ChildStdio, ContainerSpec, ExecSpec};

/// Makes containers, starts processes in them, and takes both away again.
pub trait Runtime: Send + Sync + 'static {
    /// Takes possession of `root`, once, before anything else; blocks the builder's thread.
    ///
    /// What dead executors left under `root` is removed and reported; what live ones own is not
    /// touched. A runtime that keeps nothing there has nothing to do.
    fn open(&self, root: &Path) -> Result<Vec<Swept>, RuntimeError> {
        let _ = root;
        Ok(Vec::new())
    }

    /// Makes everything `start` needs, or begins to: what goes wrong later is the `start`'s to tell. When it
    /// fails, nothing of it is left for others to see, but `release` is called all the same.
    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, Result<(), StartFailure>>;

    /// Does what can be done beforehand of a `start` with these streams, for a container that is prepared: the `start`
    /// then has streams of nobody, and lets it go. By default it cannot be done.
    fn create(&self, id: &ContainerId, stdio: ChildStdio) -> BoxFuture<'static, Result<(), StartFailure>> {
        let _ = (id, stdio);
        let failure =
            StartFailure::new(StartFailureKind::BadConfig, "this runtime keeps no containers ready");
        futures::future::ready(Err(failure)).boxed()
    }

    /// Whether a container that was created can still be started. Must not block. By default it can.
    fn is_ready(&self, id: &ContainerId) -> bool {
        let _ = id;
        true
    }

    /// Starts init; answers when it runs. Its exit comes from the [`ExitSource`], perhaps earlier.
    fn start(&self, id: &ContainerId, stdio: ChildStdio)
    -> BoxFuture<'static, Result<HostPid, StartFailure>>;

    /// Starts another process in a running container; answers and ends as with `start`.
    fn exec(
        &self,
        id: &ContainerId,
        exec: ExecId,
        spec: ExecSpec,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>>;

    /// Gives up a `start` or `exec` that is under way: it shall answer soon, in any way. Must not block.
    fn abandon(&self, process: &ProcessRef);

    /// Sends a signal to a process that runs, and to those that `scope` says. Must not block.
    fn signal(
        &self,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> Result<Delivery, RuntimeError>;

    /// Gives the terminal of a process another size. Must not block. By default there are no terminals.
    fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<(), RuntimeError> {
        let _ = size;
        Err(RuntimeError::new("resize", "this runtime has no terminals").of(process))
    }

    /// Sends SIGKILL to a process and its process group, thawing the container if it is frozen.
    /// Without a pid namespace, killing init kills everything in the container. Must not block.
    fn kill(&self, process: &ProcessRef) -> Result<Delivery, RuntimeError>;

    /// Freezes every process of a container. By default it cannot be done.
    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        futures::future::ready(Err(RuntimeError::new("pause", "this runtime cannot").of(id))).boxed()
    }

    /// Thaws every process of a container. By default there is nothing to thaw.
    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        let _ = id;
        futures::future::ready(Ok(())).boxed()
    }

    /// The pids, on the host, of all processes in a container.
    fn processes(&self, id: &ContainerId) -> BoxFuture<'static, Result<Vec<HostPid>, RuntimeError>>;

    /// What a container has used so far. By default it is not known.
    fn usage(&self, id: &ContainerId) -> BoxFuture<'static, Result<Usage, RuntimeError>> {
        let error = RuntimeError::new("read the usage", "this runtime does not tell it").of(id);
        futures::future::ready(Err(error)).boxed()
    }

    /// Ends what is left in a container and gives back all it had. Answers with what could not be
    /// removed, in words; empty when all is well.
    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<String>>;

    /// Ends and releases everything this executor still has, and gives the root back; blocks the
    /// executor's thread when its actors have stopped. Answers as `release`.
    fn close(&self) -> Vec<String>;
}

/// Sees processes end.
pub trait ExitSource: Send + Sync + 'static {
    /// Every end of a process that [`Runtime::start`] or [`Runtime::exec`] started, once, in the
    /// order seen, exec'd processes never held back by their init. Called once; ends with the source.
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
    /// Tells an end. With the executor gone, nobody wants to know.
    pub fn tell(&self, process: ProcessRef, ending: RawExit) {
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Its id.
    pub container: String,
    /// How many of its processes had to be killed.
    pub killed: usize,
    /// What could not be removed; empty when all is well.
    pub left: Vec<String>,
}

/// An operation of a runtime that failed.
#[derive(Debug, thiserror::Error)]
#[error("{}{step}: {message}", subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default())]
pub struct RuntimeError {
    /// The container or process it was about, when it was about one.
    pub subject: Option<String>,
    /// The operation, as in `runc pause`.
    pub step: String,
    /// The cause, in the runtime's or the system's own words.
    pub message: String,
    /// What was underneath, where `message` does not say it already.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl RuntimeError {
    /// An operation that failed for the reason in `message`.
    pub fn new(step: impl Into<String>, message: impl Into<String>) -> Self {
        Self { subject: None, step: step.into(), message: message.into(), source: None }
    }

    /// The same, about a container or process.
    #[must_use]
    pub fn of(self, subject: impl std::fmt::Display) -> Self {
        Self { subject: Some(subject.to_string()), ..self }
    }
}
