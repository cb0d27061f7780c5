//! Handles: a container, and a process that was exec'd into it. [`requests`] and [`process`] have most of their
//! methods, [`output`] reads to the end, and [`ask`] sends the messages.
//!
//! A handle is made of weak addresses and of watched values. It works on any thread, under any executor of futures or
//! none. Dropping it changes nothing, because the executor owns the container, unless the specification says that the
//! last handle cancels.

mod ask;
mod output;
mod process;
mod requests;

use std::sync::{Arc, Weak};

use actix::{Recipient, WeakAddr};
use executor_lifecycle::{
    ContainerId, ExecId, Exit, HostPid, Leftover, ProcessId, ProcessRef, Refusal, Refused,
};
use tokio::sync::watch;

use self::ask::OnDrop;
pub(crate) use self::ask::{Tokens, ask, ask_or_cancel};
use crate::actors::{Container, Process};
use crate::events::View;
use crate::exits::{ExitRecipients, lost};
use crate::io::{self, Connected, Io, Streams};
use crate::messages::{self, ContainerParts, ProcessStreams, ProcessView, RequestError};
use crate::{ContainerSpec, Error, Events, ExecSpec, ExitNotice, Notice, Snapshot};

/// The state that a refusal names when the actor of the container has ended.
const RELEASED: &str = "released";

/// A container of an executor.
#[derive(Clone)]
pub struct ContainerHandle {
    id: ContainerId,
    address: WeakAddr<Container>,
    view: View,
    io: Io,
    spec: Arc<ContainerSpec>,
    tokens: Tokens,
    /// If present, dropping the last clone cancels the container.
    _cancel: Option<Arc<OnDrop<Container, messages::Cancel>>>,
}

/// A process that was exec'd into a container.
#[derive(Clone)]
pub struct ProcessHandle {
    id: ProcessRef,
    address: WeakAddr<Process>,
    view: watch::Receiver<ProcessView>,
    exit_recipients: Weak<ExitRecipients>,
    io: Io,
    _cancel: Option<Arc<OnDrop<Process, messages::Cancel>>>,
}

impl ContainerHandle {
    pub(crate) fn new(id: ContainerId, parts: ContainerParts, streams: Streams, tokens: Tokens) -> Self {
        let ContainerParts { address, view, shared, spec } = parts;
        Self { id, address, view, io: Io::new(streams, shared), spec, tokens, _cancel: None }
    }

    /// With `cancel_on_drop`, dropping the last clone of this handle cancels the container.
    pub(crate) fn with(self, cancel_on_drop: bool) -> Self {
        let cancel = cancel_on_drop.then(|| OnDrop::cancel(&self.address));
        Self { _cancel: cancel, ..self }
    }

    /// The streams of init.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// The id.
    pub const fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Its specification, with its id absent if it was generated. A stream that is a file of the embedder's is null in it. Of a container that
    /// another executor has left, secrets are not in it. Of one that was kept ready, it is the one that it was made of.
    pub fn spec(&self) -> &ContainerSpec {
        &self.spec
    }

    /// The container as of its last event. This does not ask the executor: handles watch a value that the actor
    /// publishes.
    pub fn snapshot(&self) -> Snapshot {
        self.view.snapshot()
    }

    /// Subscribes to the events of the container: a snapshot first, then each event after it, up to `Released`.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "1"])).await?;
    /// container.started().await?;
    /// let mut events = container.events();
    /// assert!(matches!(events.next().await, Some(Notice::Snapshot(now)) if now.seq == 2));
    /// assert!(matches!(events.next().await, Some(Notice::Event(exited)) if exited.seq == 3));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub fn events(&self) -> Events {
        self.view.subscribe()
    }

    /// Sends the events to an actor of yours: a snapshot first, then each event after it. The next one is sent when
    /// the actor has handled the former. The actor may run in another actix `System`. If you need only the exit, use
    /// [`notify_exit`](Self::notify_exit).
    ///
    /// # Errors
    /// [`Error::Refused`] if the container is released, because no more events will come.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on the subscription exists, even if the future
    /// is dropped.
    pub async fn subscribe(&self, to: Recipient<Notice>) -> Result<(), Error> {
        ask(&self.address, messages::Subscribe(to)).await.ok_or_else(|| self.has_exited())
    }

    /// Sends the exit to an actor of yours: one [`ExitNotice`], exactly once, when init and every exec have ended. If
    /// they have ended already, it is sent at once. If the executor stops before it sees the end, the reason of the
    /// exit is `Lost`. The actor may run in another actix `System`. If the actor has ended, the notice is dropped.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// use actix::{Actor, Context, Handler};
    ///
    /// struct Scheduler;
    ///
    /// impl Actor for Scheduler {
    ///     type Context = Context<Self>;
    /// }
    ///
    /// impl Handler<ExitNotice> for Scheduler {
    ///     type Result = ();
    ///
    ///     fn handle(&mut self, notice: ExitNotice, _: &mut Context<Self>) {
    ///         println!("{}: {}", notice.process, notice.exit);
    ///     }
    /// }
    ///
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let scheduler = Scheduler.start();
    /// let container = executor.run(ContainerSpec::host(["true"])).await?;
    /// container.notify_exit(scheduler.recipient());
    /// # container.released().await?;
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub fn notify_exit(&self, to: Recipient<ExitNotice>) {
        self.view.notify_exit(to);
    }

    /// Waits until init exists, held at created or started. Returns its pid on the host, as the runtime reported it.
    ///
    /// # Errors
    /// [`Error::NotStarted`] if it ended first; the exit has the reason. [`Error::Stopped`] if the executor stops
    /// first.
    ///
    /// # Cancel safety
    /// The future only waits. It can be dropped at any time.
    pub async fn created(&self) -> Result<HostPid, Error> {
        self.pid_once(|snapshot| snapshot.pid.is_some()).await
    }

    /// Starts the program of a container that [`Executor::create`](crate::Executor::create) made. The container need
    /// not be created yet: the program starts as soon as it is. Returns when the request is accepted;
    /// [`started`](Self::started) waits for the program.
    ///
    /// The time limit of the specification counts from this call.
    ///
    /// # Errors
    /// [`Error::Refused`] if it was started before, is being cancelled, or has ended.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on it is carried out, even if the future is dropped.
    pub async fn start(&self) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Start(None)).await;
        answer.unwrap_or_else(|| Err(self.gone())).map_err(|refused| self.refused(refused))
    }

    /// Releases a container that has exited and is kept; see [`KeepExited`](crate::KeepExited). Returns when the
    /// release has begun; [`released`](Self::released) waits until the id is free. If the container is released
    /// already, this succeeds.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has not exited.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on it is carried out, even if the future is dropped.
    pub async fn remove(&self) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Remove).await;
        answer.unwrap_or(Ok(())).map_err(|refused| self.refused(refused))
    }

    /// Waits until the program of init runs. Returns the pid of init on the host.
    ///
    /// # Errors
    /// [`Error::NotStarted`] if it ended first; the exit has the reason. [`Error::Stopped`] if the executor stops
    /// first.
    ///
    /// # Cancel safety
    /// The future only waits. It can be dropped at any time.
    pub async fn started(&self) -> Result<HostPid, Error> {
        self.pid_once(|snapshot| snapshot.started_at.is_some()).await
    }

    async fn pid_once(&self, known: impl Fn(&Snapshot) -> bool) -> Result<HostPid, Error> {
        let known = self.view.wait_for(|snapshot| known(snapshot) || snapshot.exit.is_some()).await;
        let process = || ProcessRef::init(self.id.clone());
        match known {
            Some(Snapshot { started_at: None, exit: Some(exit), .. }) => {
                Err(Error::NotStarted { process: process(), exit: exit.into() })
            }
            Some(Snapshot { pid: Some(pid), .. }) => Ok(pid),
            Some(_) | None => Err(Error::Stopped),
        }
    }

    /// Waits until init and every exec have ended, and returns the exit of init.
    ///
    /// This reads no output. A process blocks when its pipe is full and does not end then: [`output`](Self::output)
    /// reads and waits.
    ///
    /// If the executor stops before it sees the end, the reason of the exit is `Lost`.
    ///
    /// # Cancel safety
    /// The future only waits. It can be dropped at any time.
    pub async fn wait(&self) -> Exit {
        let ended = self.view.wait_for(|snapshot| snapshot.exit.is_some()).await;
        ended.and_then(|snapshot| snapshot.exit).unwrap_or_else(|| lost(self.snapshot().started_at))
    }

    /// Waits until the container is released and its id is free. Returns what could not be removed.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the executor stops first.
    ///
    /// # Cancel safety
    /// The future only waits. It can be dropped at any time.
    pub async fn released(&self) -> Result<Vec<Leftover>, Error> {
        let released = self.view.wait_for(|snapshot| snapshot.left.is_some()).await;
        released.and_then(|snapshot| snapshot.left).ok_or(Error::Stopped)
    }

    /// Finds a process that was exec'd into the container, by its id: one that has not ended, or one of the last 64
    /// that have. Its pipes belong to the first handle; outputs that are [`Stdio::Shared`](crate::Stdio::Shared) can
    /// be read. Of a process that another executor has left, the first one to take a pipe has it.
    ///
    /// # Errors
    /// [`Error::NoProcess`] if there is none.
    ///
    /// # Cancel safety
    /// Nothing is changed. The future can be dropped at any time.
    pub async fn process(&self, exec: &ExecId) -> Result<ProcessHandle, Error> {
        let parts = ask(&self.address, messages::FindProcess(exec.clone())).await.flatten();
        let process = || ProcessRef::exec(self.id.clone(), exec.clone());
        let parts = parts.ok_or_else(|| Error::NoProcess { process: process() })?;
        Ok(ProcessHandle::new(parts, None, false))
    }

    /// Starts another process in the container. If the container does not run yet, the process waits and is started
    /// with it. Returns when the process is registered; [`ProcessHandle::started`] waits until it runs.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`]. [`Error::Pipe`] if a pipe cannot be made. [`Error::Refused`] if the container has
    /// ended, is paused or is being cancelled, or if an exec that has not ended has the id.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. If the future is dropped after that and before it
    /// returns, the process is cancelled, because no one has a handle of it.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "60"])).await?;
    /// let exec = container.exec(ExecSpec::new(["sh", "-c", "exit 5"])).await?; // need not run yet
    /// assert_eq!(exec.wait().await.status, ExitStatus::Code(5));
    ///
    /// container.cancel(Cancel::now()).await;
    /// let late = container.exec(ExecSpec::new(["true"])).await;
    /// let Err(Error::Refused { refused, .. }) = late else { panic!("it ran") };
    /// assert!(matches!(refused.reason, Refusal::StoppedWithError { .. }));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn exec(&self, mut spec: ExecSpec) -> Result<ProcessHandle, Error> {
        spec.validate()?;
        let Connected { stdio, ends, streams, shared } =
            io::connect(std::mem::take(&mut spec.stdio), spec.terminal).map_err(Error::Pipe)?;
        let (token, cancel_on_drop, id) = (self.tokens.next(), spec.cancel_on_drop, spec.id.clone());
        let span = tracing::info_span!("exec", container = %self.id, exit.code = tracing::field::Empty);
        let ours = streams;
        let streams = ProcessStreams { stdio, ends, shared };
        let exec = messages::Exec { spec, streams, token, span };
        let answer = ask_or_cancel(&self.address, exec, token).await.unwrap_or_else(|| Err(self.gone()));
        let process = || id.map_or(ProcessId::Init, ProcessId::Exec);
        let parts = answer.map_err(|refused| self.refused_for(process(), refused))?;
        Ok(ProcessHandle::new(parts, Some(ours), cancel_on_drop))
    }

    fn answer<T>(&self, answer: Option<Result<T, RequestError>>) -> Result<T, Error> {
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(RequestError::Runtime(error))) => Err(Error::Runtime(error)),
            Some(Err(RequestError::Refused(refused))) => Err(self.refused(refused)),
            None => Err(self.has_exited()),
        }
    }

    fn refused(&self, refused: Refused) -> Error {
        self.refused_for(ProcessId::Init, refused)
    }

    fn refused_for(&self, process: ProcessId, refused: Refused) -> Error {
        Error::Refused { process: ProcessRef { container: self.id.clone(), process }, refused }
    }

    /// The refusal of a container whose actor has ended.
    fn has_exited(&self) -> Error {
        self.refused(Refusal::Exited.from_state(RELEASED))
    }

    /// Why a container whose actor has ended takes no exec.
    fn gone(&self) -> Refused {
        let exit = self.snapshot().exit;
        exit.as_ref().map_or(Refusal::Exited, Refusal::stopped).from_state(RELEASED)
    }
}

impl std::fmt::Debug for ContainerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ContainerHandle").field(&self.id.as_str()).finish()
    }
}

impl std::fmt::Debug for ProcessHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ProcessHandle").field(&self.id.to_string()).finish()
    }
}
