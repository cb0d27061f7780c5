//! What a caller holds: a container, and a process that was exec'd into it.
//!
//! Handles are clones of addresses and of what is watched. They work from any thread, under any
//! executor of futures or none. Dropping them changes nothing, for the executor owns the container, unless
//! the specification says that the last one cancels.

mod output;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Handler, Message, Recipient, WeakAddr};
use executor_lifecycle::registry::RequestToken;
use executor_lifecycle::{
    Cancel, ContainerId, ExecId, Exit, HostPid, Leftover, ProcessRef, Refusal, Refused, Signal, SignalScope,
    TerminalSize, Usage,
};
use tokio::sync::watch;

use crate::actors::{Container, Process};
use crate::events::View;
use crate::exits::{ExitRecipients, lost};
use crate::io::{self, Connected, Io, Streams};
use crate::messages::{self, ContainerParts, ProcessParts, ProcessStreams, ProcessView, RequestError};
use crate::{Error, Events, ExecSpec, ExitNotice, Notice, Resources, Samples, Snapshot};

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

/// Numbers the requests of one executor. A clone goes on with the same numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Arc<AtomicU64>);

impl Tokens {
    pub(crate) fn next(&self) -> RequestToken {
        RequestToken(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
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

    /// Sends a signal to init; before the start it waits.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let script = "trap 'exit 4' HUP; echo ready; while :; do sleep 1; done";
    /// let container = executor.run(ContainerSpec::host(["sh", "-c", script]).piped()).await?;
    /// container.io().take_stdout().expect("a pipe").next_chunk().await;
    /// container.signal(Signal::HUP).await?;
    /// assert_eq!(container.wait().await.status, ExitStatus::Code(4));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] when init has ended.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.signal_to(signal, SignalScope::Process).await
    }

    /// Sends a signal to init, to its process group, or to everything in the container.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn signal_to(&self, signal: Signal, scope: SignalScope) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Signal(signal, scope)).await;
        answer.ok_or_else(|| self.has_exited())?.map_err(|refused| self.refused(refused))
    }

    /// Gives init's terminal another size; before the start the last one waits.
    ///
    /// # Errors
    /// [`Error::Refused`] when init has ended, or has no terminal.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let answer = ask(&self.address, messages::Resize(size)).await;
        answer.ok_or_else(|| self.has_exited())?.map_err(|refused| self.refused(refused))
    }

    /// Ends everything in it, and waits for the end. The intent is kept from the call on, whether
    /// or not the future is awaited.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "3600"])).await?;
    /// container.started().await?;
    /// // Without a handler for it, an init ignores SIGTERM: SIGKILL follows.
    /// let exit = container.cancel(Cancel::with_grace(Duration::from_secs(5))).await;
    /// assert_eq!(exit.reason, ExitReason::Cancelled { cause: CancelCause::Requested, killed: true });
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub fn cancel(&self, cancel: Cancel) -> impl Future<Output = Exit> + Send + 'static {
        order_cancel(&self.address, cancel);
        let container = self.clone();
        async move { container.wait().await }
    }

    /// Freezes every process; answers when they stand still.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "60"])).await?;
    /// container.started().await?;
    /// container.pause().await?;
    /// assert!(container.exec(ExecSpec::new(["true"])).await.is_err()); // it would hang
    /// container.resume().await?;
    /// assert!(container.exec(ExecSpec::new(["true"])).await?.wait().await.is_success());
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] when it does not run or is frozen already, [`Error::Runtime`].
    pub async fn pause(&self) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Pause).await)
    }

    /// Thaws every process; answers when they go on.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not frozen, [`Error::Runtime`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Resume).await)
    }

    /// The host pids of all its processes.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing runs in it, [`Error::Runtime`].
    pub async fn processes(&self) -> Result<Vec<HostPid>, Error> {
        self.answer(ask(&self.address, messages::ListProcesses).await)
    }

    /// What it has used so far. What it had used by its end is in its exit.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing runs in it, [`Error::Runtime`] when the runtime does not say.
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.answer(ask(&self.address, messages::ReadUsage).await)
    }

    /// Changes its limits while it is created, running or paused, and completes when they apply to all its processes.
    /// The fields have the units of [`Resources`]. Absent fields keep their value; there is no way to remove a limit, except
    /// that `memory_swap` can be `u64::MAX`.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "60"])).await?;
    /// container.started().await?;
    /// container.update(Resources::default().memory(64 << 20)).await?;
    /// container.update(Resources::default().pids(100)).await?; // the memory stays limited
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// - [`Error::InvalidSpec`] for values that [`Executor::run`](crate::Executor::run) rejects as well. Nothing is changed.
    /// - [`Error::Refused`] if it is not created yet, or has exited. Nothing is changed.
    /// - [`Error::Runtime`] if the runtime or the kernel refuses: for CPUs that the machine does not have, for less memory
    ///   than is in use, or for more memory than the present limit of memory and swap together (give `memory_swap` as
    ///   well). If several limits were given, some of them may have been changed.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on the limits are changed even if the future is
    /// dropped. Updates of one container are carried out one after the other.
    pub async fn update(&self, resources: Resources) -> Result<(), Error> {
        resources.validate()?;
        self.answer(ask(&self.address, messages::Update(resources)).await)
    }

    /// What it has used, every so often from now on until its end. The last sample is what its exit tells. A
    /// reader that is slow is sent less, and holds nothing up.
    pub async fn samples(&self, every: Duration) -> Samples {
        let every = every.max(Duration::from_millis(1));
        ask(&self.address, messages::SampleUsage { every }).await.unwrap_or_else(Samples::none)
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

impl ProcessHandle {
    fn new(parts: ProcessParts, streams: Streams, cancel_on_drop: bool) -> Self {
        let ProcessParts { id, address, view, exit_recipients, shared } = parts;
        let cancel = cancel_on_drop.then(|| OnDrop::cancel(&address));
        Self { id, address, view, exit_recipients, io: Io::new(streams, shared), _cancel: cancel }
    }

    /// Which process it is.
    pub const fn id(&self) -> &ProcessRef {
        &self.id
    }

    /// Waits until it runs; answers with its pid on the host.
    ///
    /// # Errors
    /// [`Error::NotStarted`] when it never will, with the reason in the exit.
    pub async fn started(&self) -> Result<HostPid, Error> {
        let known = self.wait_for(|view| view.started_at.is_some() || view.exit.is_some()).await;
        match known {
            Some(ProcessView { started_at: Some(_), pid: Some(pid), .. }) => Ok(pid),
            Some(ProcessView { exit: Some(exit), .. }) => {
                Err(Error::NotStarted { process: self.id.clone(), exit: exit.into() })
            }
            Some(_) | None => Err(Error::Stopped),
        }
    }

    /// Waits until it has ended; answers at once when it has. It reads no output; [`output`](Self::output) does.
    ///
    /// When the executor stops without having seen the end, the exit's reason is `Lost`.
    pub async fn wait(&self) -> Exit {
        let ended = self.wait_for(|view| view.exit.is_some()).await;
        ended.and_then(|view| view.exit).unwrap_or_else(|| lost(self.view.borrow().started_at))
    }

    /// Sends its exit to an actor of yours: one [`ExitNotice`], exactly once; see
    /// [`ContainerHandle::notify_exit`].
    pub fn notify_exit(&self, to: Recipient<ExitNotice>) {
        if let Some(exits) = self.exit_recipients.upgrade() {
            return exits.add(to);
        }
        let view = self.view.borrow();
        let exit = view.exit.clone().unwrap_or_else(|| lost(view.started_at));
        to.do_send(ExitNotice { process: self.id.clone(), exit });
    }

    /// Sends it a signal; before the start it waits.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.signal_to(signal, SignalScope::Process).await
    }

    /// Sends a signal to it, to its process group, or to everything in the container.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn signal_to(&self, signal: Signal, scope: SignalScope) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Signal(signal, scope)).await)
    }

    /// Gives its terminal another size; before the start the last one waits.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended, or has no terminal.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Resize(size)).await)
    }

    fn answer(&self, answer: Option<Result<(), Refused>>) -> Result<(), Error> {
        let answer = answer.unwrap_or_else(|| Err(Refusal::Exited.from_state("exited")));
        answer.map_err(|refused| Error::Refused { process: self.id.clone(), refused })
    }

    /// Ends it with its process group, and waits for the end. The intent is kept from the call on,
    /// whether or not the future is awaited.
    ///
    /// In a container that is paused a process may not die of SIGKILL (cgroup v1). The whole container is thawed then, after a
    /// second, and its events say so.
    pub fn cancel(&self, cancel: Cancel) -> impl Future<Output = Exit> + Send + 'static {
        order_cancel(&self.address, cancel);
        let process = self.clone();
        async move { process.wait().await }
    }

    /// Its streams.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    async fn wait_for(&self, known: impl FnMut(&ProcessView) -> bool) -> Option<ProcessView> {
        self.view.clone().wait_for(known).await.ok().map(|view| view.clone())
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

/// Asks an actor; `None` when it has ended. The message is sent by the call, before it is awaited.
fn ask<A, M>(address: &WeakAddr<A>, message: M) -> impl Future<Output = Option<M::Result>> + Send + use<A, M>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result: Send> + Send + 'static,
{
    let request = address.upgrade().map(|address| address.send(message));
    async move { request?.await.ok() }
}

/// Asks for something that is cancelled if nobody waits for the answer any more.
pub(crate) async fn ask_or_cancel<A, M>(
    address: &WeakAddr<A>,
    message: M,
    token: RequestToken,
) -> Option<M::Result>
where
    A: Actor + Handler<M> + Handler<messages::Unclaimed>,
    A::Context: ToEnvelope<A, M> + ToEnvelope<A, messages::Unclaimed>,
    M: Message<Result: Send> + Send + 'static,
{
    let answer = ask(address, message);
    let unclaimed = OnDrop::new(address.clone(), messages::Unclaimed(token));
    let answer = answer.await;
    unclaimed.defuse();
    answer
}

/// An intent is not a question: it arrives whether or not anyone waits. To whom it does not, has ended.
fn order_cancel<A>(address: &WeakAddr<A>, cancel: Cancel)
where
    A: Actor + Handler<messages::Cancel>,
    A::Context: ToEnvelope<A, messages::Cancel>,
{
    if let Some(address) = address.upgrade() {
        address.do_send(messages::Cancel(cancel));
    }
}

/// Tells an actor something when it is dropped before it was defused.
struct OnDrop<A: Actor, M>
where
    A: Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result: Send> + Send + Copy + 'static,
{
    address: Option<WeakAddr<A>>,
    message: M,
}

impl<A: Actor, M> OnDrop<A, M>
where
    A: Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result: Send> + Send + Copy + 'static,
{
    const fn new(address: WeakAddr<A>, message: M) -> Self {
        Self { address: Some(address), message }
    }

    fn defuse(mut self) {
        self.address = None;
    }
}

impl<A: Actor> OnDrop<A, messages::Cancel>
where
    A: Handler<messages::Cancel>,
    A::Context: ToEnvelope<A, messages::Cancel>,
{
    fn cancel(address: &WeakAddr<A>) -> Arc<Self> {
        Arc::new(Self::new(address.clone(), messages::Cancel(Cancel::now())))
    }
}

impl<A: Actor, M> Drop for OnDrop<A, M>
where
    A: Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result: Send> + Send + Copy + 'static,
{
    fn drop(&mut self) {
        if let Some(address) = self.address.take().and_then(|address| address.upgrade()) {
            address.do_send(self.message);
        }
    }
}
