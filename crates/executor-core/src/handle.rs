//! What a caller holds: a container, and a process that was exec'd into it.
//!
//! Handles are clones of addresses and of what is watched. They work from any thread, under any
//! executor of futures or none. Dropping them changes nothing, for the executor owns the container, unless
//! the specification says that the last one cancels.

mod ask;
mod output;
mod process;
mod requests;

use std::sync::{Arc, Weak};

use actix::{Recipient, WeakAddr};
use executor_lifecycle::{ContainerId, ExecId, Exit, HostPid, Leftover, ProcessRef, Refusal, Refused};
use tokio::sync::watch;

use self::ask::{OnDrop, ask};
pub(crate) use self::ask::{Tokens, ask_or_cancel};
use crate::actors::{Container, Process};
use crate::events::View;
use crate::exits::{ExitRecipients, lost};
use crate::io::{self, Connected, Io, Streams};
use crate::messages::{self, ContainerParts, ProcessStreams, ProcessView, RequestError};
use crate::{Error, Events, ExecSpec, ExitNotice, Notice, Snapshot};

/// The state of a container whose actor has ended.
const RELEASED: &str = "released";

/// A container of an executor.
#[derive(Clone)]
pub struct ContainerHandle {
    id: ContainerId,
    address: WeakAddr<Container>,
    view: View,
    io: Io,
    tokens: Tokens,
    /// What is expected of init, for a container that is still to be started.
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
        let ContainerParts { address, view, shared } = parts;
        Self { id, address, view, io: Io::new(streams, shared), tokens, _cancel: None }
    }

    /// The same, with what the specification says of a handle.
    pub(crate) fn with(self, cancel_on_drop: bool) -> Self {
        let cancel = cancel_on_drop.then(|| OnDrop::cancel(&self.address));
        Self { _cancel: cancel, ..self }
    }

    /// The streams of its init.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// Its id.
    pub const fn id(&self) -> &ContainerId {
        &self.id
    }

    /// How it stands now.
    pub fn snapshot(&self) -> Snapshot {
        self.view.snapshot()
    }

    /// Its events: a snapshot of now, then everything after it, up to `Released`.
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

    /// Sends its events to an actor of yours: a snapshot, then every event after it, each when the actor has handled the
    /// former. The actor may live in another actix `System`. For the exit alone, [`notify_exit`](Self::notify_exit) is simpler.
    ///
    /// # Errors
    /// [`Error::Refused`] when the container is released: nothing will come any more.
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the subscription may or may not exist.
    pub async fn subscribe(&self, to: Recipient<Notice>) -> Result<(), Error> {
        ask(&self.address, messages::Subscribe(to)).await.ok_or_else(|| self.has_exited())
    }

    /// Sends its exit to an actor of yours: one [`ExitNotice`], exactly once, when init and every exec have ended, or at once
    /// when they have. When the executor stops without having seen the end, the exit's reason is `Lost`. The actor may live in
    /// another actix `System`; an actor that has ended gets nothing.
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

    /// Waits until init exists, held at created or started; answers with its pid on the host.
    ///
    /// # Errors
    /// [`Error::NotStarted`] when it never will, with the reason in the exit.
    pub async fn created(&self) -> Result<HostPid, Error> {
        self.pid_once(|snapshot| snapshot.pid.is_some()).await
    }

    /// Has the program executed of a container that [`Executor::create`](crate::Executor::create) made, as soon as that
    /// can be done; it need not stand at created yet. Answers when the intent is kept: [`started`](Self::started)
    /// waits for the program.
    ///
    /// The specification's time limit counts from this call.
    ///
    /// Dropped before it has answered, it may or may not have been asked.
    ///
    /// # Errors
    /// [`Error::Refused`] when it was started before, is being cancelled, or has ended.
    pub async fn start(&self) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Start(None)).await;
        answer.unwrap_or_else(|| Err(self.gone())).map_err(|refused| self.refused(refused))
    }

    /// Gives back what is kept of a container that has exited; see [`KeepExited`](crate::KeepExited). Answers when that has
    /// begun: [`released`](Self::released) waits for it, and then the id is free. One that is released has been removed.
    ///
    /// Dropped before it has answered, it may or may not have been asked.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has not exited.
    pub async fn remove(&self) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Remove).await;
        answer.unwrap_or(Ok(())).map_err(|refused| self.refused(refused))
    }

    /// Waits until init runs; answers with its pid on the host.
    ///
    /// # Errors
    /// [`Error::NotStarted`] when it never will, with the reason in the exit.
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

    /// Waits until init and every exec have ended; answers at once when they have.
    ///
    /// It reads no output. A process whose pipes nobody reads is held back when they are full, and does not end:
    /// [`output`](Self::output) reads them while it waits.
    ///
    /// When the executor stops without having seen the end, the exit's reason is `Lost`.
    pub async fn wait(&self) -> Exit {
        let ended = self.view.wait_for(|snapshot| snapshot.exit.is_some()).await;
        ended.and_then(|snapshot| snapshot.exit).unwrap_or_else(|| lost(self.snapshot().started_at))
    }

    /// Waits until everything it had is given back and its id is free; answers with what could not
    /// be removed.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the executor stops before.
    pub async fn released(&self) -> Result<Vec<Leftover>, Error> {
        let released = self.view.wait_for(|snapshot| snapshot.left.is_some()).await;
        released.and_then(|snapshot| snapshot.left).ok_or(Error::Stopped)
    }

    /// Finds a process that was exec'd into it, by its id: one that has not ended, or one of the last 64 that have. Outputs
    /// that are [`Stdio::Shared`](crate::Stdio::Shared) can be attached to.
    ///
    /// # Errors
    /// [`Error::NoProcess`] when there is none.
    pub async fn process(&self, exec: &ExecId) -> Result<ProcessHandle, Error> {
        let parts = ask(&self.address, messages::FindProcess(exec.clone())).await.flatten();
        let process = || ProcessRef::exec(self.id.clone(), exec.clone());
        let parts = parts.ok_or_else(|| Error::NoProcess { process: process() })?;
        Ok(ProcessHandle::new(parts, Streams::default(), false))
    }

    /// Adds a process. Before the container runs it is parked, and started by the event. A future of it
    /// that is dropped before it has answered cancels what it asked for.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`], and [`Error::Refused`] in a container that has ended, is paused or is
    /// being cancelled, or where the id is taken by an exec that has not ended.
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
        let (token, cancel_on_drop) = (self.tokens.next(), spec.cancel_on_drop);
        let span = tracing::info_span!("exec", container = %self.id, exit.code = tracing::field::Empty);
        let ours = streams;
        let streams = ProcessStreams { stdio, ends, shared };
        let exec = messages::Exec { spec, streams, token, span };
        let answer = ask_or_cancel(&self.address, exec, token).await.unwrap_or_else(|| Err(self.gone()));
        let parts = answer.map_err(|refused| self.refused(refused))?;
        Ok(ProcessHandle::new(parts, ours, cancel_on_drop))
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
        Error::Refused { process: ProcessRef::init(self.id.clone()), refused }
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
