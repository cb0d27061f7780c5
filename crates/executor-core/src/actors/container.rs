//! A container: has its bundle made and released, owns its processes, publishes its events.

mod facts;
mod requests;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient, WrapFuture};
use executor_lifecycle::container::{Container as Machine, ContainerEffect, ContainerEvent};
use executor_lifecycle::process::{Inherited, Kill, ProcessNote, ProcessTraits, Terms};
use executor_lifecycle::registry::RequestToken;
use executor_lifecycle::{
    ContainerId, Effects, EventKind, ExecId, Exit, ExitStatus, ProcessId, ProcessRef, Refusal, Refused,
};
use futures::future::LocalBoxFuture;
use tokio::sync::{oneshot, watch};
use tracing::Span;

use super::process::{Owner, Process, Work};
use super::{Ticker, World, send_fact};
use crate::events::Hub;
use crate::exits::{ExitRecipients, lost};
use crate::io::{Io, Streams};
use crate::messages::{
    Arm, Cancel, ContainerLost, Create, Launch, ProcessParts, ProcessStreams, ProcessView, Released,
    RequestError, Resize, Signal, Withdraw,
};
use crate::observe::ObservedMessage;
use crate::{ContainerSpec, RuntimeError, StreamKind};

/// Execs that have ended and can still be found, with what their shared outputs replay; then the oldest is forgotten.
const ENDED_EXECS: usize = 64;

/// The actor; one for each container. See [`executor_lifecycle::container`] for its states.
pub struct Container {
    id: ContainerId,
    machine: Machine,
    world: World,
    executor: Above,
    spec: Arc<ContainerSpec>,
    hub: Arc<Hub>,
    processes: HashMap<ProcessId, Supervised>,
    /// Execs that have ended, the oldest first.
    ended: VecDeque<ProcessParts>,
    /// The exec that the next `AddExec` effect is about, and afterwards the id it was given.
    incoming: Option<Incoming>,
    added: Option<ExecId>,
    freeze_replies: Vec<oneshot::Sender<Result<(), RequestError>>>,
    /// Whether what is held under the name of a process is that process's. A later exec may have the name of one whose streams
    /// are not over.
    held: HashMap<ProcessId, Weak<AtomicBool>>,
    ticker: Ticker,
    released: bool,
}

/// A process of this container, and what is needed to put another actor in its place.
struct Supervised {
    address: Addr<Process>,
    view: watch::Sender<ProcessView>,
    exit_recipients: Arc<ExitRecipients>,
    io: Io,
    token: Option<RequestToken>,
    span: Span,
}

impl Drop for Supervised {
    /// Its end was not seen: those that wait for its exit get the same as those that ask for it.
    fn drop(&mut self) {
        let started_at = self.view.borrow().started_at;
        self.exit_recipients.publish(&lost(started_at));
    }
}

/// A process that is to be added.
struct Incoming {
    work: Work,
    view: ProcessView,
    /// What is expected of it from now on; of init that is said when it is to be started.
    terms: Option<Terms>,
    token: Option<RequestToken>,
    span: Span,
}

/// A container that another executor has left.
pub(crate) struct AdoptedContainer {
    pub(crate) id: ContainerId,
    pub(crate) spec: Arc<ContainerSpec>,
    pub(crate) machine: Machine,
    pub(crate) effects: Vec<ContainerEffect>,
    pub(crate) processes: Vec<AdoptedProcess>,
    pub(crate) span: Span,
}

/// A process that another executor has left.
pub(crate) struct AdoptedProcess {
    pub(crate) id: ProcessId,
    pub(crate) how: Inherited,
    pub(crate) note: ProcessNote,
    pub(crate) streams: ProcessStreams,
    /// The ends of an exec's pipes, for its first handle.
    pub(crate) ours: Streams,
}

/// The executor, as its containers see it.
#[derive(Clone)]
pub(crate) struct Above {
    pub(crate) released: actix::WeakRecipient<Released>,
    pub(crate) lost: actix::WeakRecipient<ContainerLost>,
}

impl Container {
    /// Starts an actor for a container that is still to be made; [`Create`] has it made.
    pub(crate) fn spawn(
        id: ContainerId,
        spec: Arc<ContainerSpec>,
        streams: ProcessStreams,
        span: Span,
        world: World,
        executor: Above,
        hub: Arc<Hub>,
    ) -> Addr<Self> {
        world.observer_slot.clone().begin(|context| {
            let view = ProcessView { traits: spec.init_traits(), ..ProcessView::default() };
            let init = Incoming { work: Work { exec: None, streams }, view, terms: None, token: None, span };
            let machine = Machine::new(id.clone(), spec.traits());
            let mut container = Self::new(id, machine, world, executor, spec, hub);
            container.add_process(ProcessId::Init, init, context);
            container
        })
    }

    /// Starts an actor for a container that another executor has left.
    pub(crate) fn adopt(
        adopted: AdoptedContainer,
        world: World,
        executor: Above,
        hub: Arc<Hub>,
    ) -> Addr<Self> {
        let AdoptedContainer { id, spec, machine, effects, processes, span } = adopted;
        world.observer_slot.clone().begin(|context| {
            let mut container = Self::new(id, machine, world, executor, spec, hub);
            for process in processes {
                container.adopt_process(process, &span, context);
            }
            container.perform(effects.into(), context);
            container
        })
    }

    fn new(
        id: ContainerId,
        machine: Machine,
        world: World,
        executor: Above,
        spec: Arc<ContainerSpec>,
        hub: Arc<Hub>,
    ) -> Self {
        Self {
            id,
            machine,
            world,
            executor,
            spec,
            hub,
            processes: HashMap::new(),
            ended: VecDeque::new(),
            incoming: None,
            added: None,
            freeze_replies: Vec::new(),
            held: HashMap::new(),
            ticker: Ticker::default(),
            released: false,
        }
    }

    fn on(&mut self, event: ContainerEvent, context: &mut Context<Self>) -> Result<(), Refused> {
        let Self { id, machine, world, .. } = self;
        let shown = |event| ObservedMessage::Container(id.clone(), event);
        let effects =
            (world.observer_slot).watch_step(event, shown, |event| machine.step(world.clock.now(), event))?;
        self.perform(effects, context);
        Ok(())
    }

    /// For events that have no reply.
    fn take(&mut self, event: ContainerEvent, context: &mut Context<Self>) {
        if let Err(refused) = self.on(event, context) {
            tracing::trace!(container = %self.id, state = %refused.state, %refused);
        }
    }

    fn perform(&mut self, effects: Effects<ContainerEffect>, context: &mut Context<Self>) {
        for effect in effects {
            match effect {
                ContainerEffect::Prepare => self.prepare(context),
                ContainerEffect::AddExec(exec) => {
                    if let Some(incoming) = self.incoming.take() {
                        self.added = Some(exec.clone());
                        self.add_process(ProcessId::Exec(exec), incoming, context);
                    }
                }
                ContainerEffect::ArmInit(terms) => self.command(&ProcessId::Init, Arm(terms)),
                ContainerEffect::CreateInit => self.command(&ProcessId::Init, Create),
                ContainerEffect::Launch(process) => self.command(&process, Launch),
                ContainerEffect::Withdraw(process, failure) => self.command(&process, Withdraw(failure)),
                ContainerEffect::CancelProcess(process, cancel) => self.command(&process, Cancel(cancel)),
                ContainerEffect::KillAgain(process, how) => self.kill_again(process, how),
                ContainerEffect::SignalInit(signal, scope) => self.send_to_init(Signal(signal, scope)),
                ContainerEffect::ResizeInit(size) => self.send_to_init(Resize(size)),
                ContainerEffect::Pause => self.freeze(context),
                ContainerEffect::Resume => self.thaw(self.world.runtime.resume(&self.id), context),
                ContainerEffect::Thaw => self.thaw(self.world.runtime.thaw(&self.id), context),
                // The handlers that asked have the reply, and ask the runtime.
                ContainerEffect::ListProcesses | ContainerEffect::ReadUsage | ContainerEffect::Update => {}
                ContainerEffect::Publish(event) => self.publish(event),
                ContainerEffect::KillRemaining => self.kill_remaining(context),
                ContainerEffect::Release => self.release(context),
                ContainerEffect::Finished(event) => {
                    self.released = true;
                    self.reply_freeze_after_the_end();
                    send_fact(&self.executor.released, Released { event });
                }
            }
        }
        self.ticker.set(self.machine.next_deadline(), self.world.clock, context, |container, context| {
            container.ticker.clear();
            container.take(ContainerEvent::Tick, context);
        });
    }

    fn add_process(&mut self, id: ProcessId, incoming: Incoming, context: &Context<Self>) {
        let Incoming { mut work, view, terms, token, span } = incoming;
        let view = watch::Sender::new(view);
        let io = Io::new(Streams::default(), work.streams.shared.clone());
        let process = ProcessRef { container: self.id.clone(), process: id.clone() };
        // The ends of a terminal's pipes lead to this process, which copies: the runtime holds the terminal.
        if self.world.history.is_kept() && !view.borrow().traits.has_terminal {
            self.release_former(&process);
            for (kind, end) in work.streams.ends.unopened() {
                self.world.runtime.hold(&process, kind, end);
            }
            let unhold = self.unhold(&process);
            work.streams.ends.when_closed(unhold);
        }
        let exit_recipients = Arc::new(ExitRecipients::new(process.clone()));
        let address = Process::spawn(process, self.world.clone(), owner(context), work, view.clone());
        if let Some(terms) = terms {
            address.do_send(Arm(terms));
        }
        self.processes.insert(id, Supervised { address, view, exit_recipients, io, token, span });
    }

    /// Gives up what is held of an exec that had the name before.
    fn release_former(&mut self, process: &ProcessRef) {
        self.held.retain(|_, is_current| is_current.strong_count() > 0);
        let former = self.held.remove(&process.process).and_then(|is_current| is_current.upgrade());
        if former.is_some_and(|is_current| is_current.swap(false, Ordering::Relaxed)) {
            for kind in [StreamKind::Stdin, StreamKind::Stdout, StreamKind::Stderr] {
                self.world.runtime.unhold(process, kind);
            }
        }
    }

    /// Gives up what is held of a stream that is over.
    fn unhold(&mut self, process: &ProcessRef) -> impl Fn(StreamKind) + Send + Sync + 'static {
        let is_current = Arc::new(AtomicBool::new(true));
        self.held.insert(process.process.clone(), Arc::downgrade(&is_current));
        let (runtime, process) = (Arc::clone(&self.world.runtime), process.clone());
        move |kind| {
            if is_current.load(Ordering::Relaxed) {
                runtime.unhold(&process, kind);
            }
        }
    }

    fn adopt_process(&mut self, adopted: AdoptedProcess, span: &Span, context: &Context<Self>) {
        let AdoptedProcess { id, how, note, mut streams, ours } = adopted;
        let (pid, started_at) = match how {
            Inherited::Created { pid } => (Some(pid), None),
            Inherited::Running { pid, started_at } => (Some(pid), Some(started_at)),
            Inherited::Interrupted => (None, None),
        };
        let traits = match id {
            ProcessId::Init => self.spec.init_traits(),
            ProcessId::Exec(_) => ProcessTraits { has_terminal: note.has_terminal, shares_pids: false },
        };
        let view = ProcessView { traits, pid, started_at, ..ProcessView::default() };
        let (view, io) = (watch::Sender::new(view), Io::new(ours, streams.shared.clone()));
        let process = ProcessRef { container: self.id.clone(), process: id.clone() };
        let unhold = self.unhold(&process);
        streams.ends.when_closed(unhold);
        let exit_recipients = Arc::new(ExitRecipients::new(process.clone()));
        let (world, left) = (self.world.clone(), (note, how));
        let address = Process::adopt(process, world, owner(context), left, streams, view.clone());
        let supervised = Supervised { address, view, exit_recipients, io, token: None, span: span.clone() };
        self.processes.insert(id, supervised);
    }

    /// If the process actor has ended, the container starts another one in its place, which ends the process in any
    /// case. So nothing is lost with the command.
    fn command<M>(&self, process: &ProcessId, command: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        Process: Handler<M>,
    {
        if let Some(supervised) = self.processes.get(process) {
            supervised.address.do_send(command);
        }
    }

    /// The machine of init may refuse it: then init has ended first.
    fn send_to_init<M>(&self, message: M)
    where
        M: actix::Message<Result = Result<(), Refused>> + Send + 'static,
        Process: Handler<M>,
    {
        if let Some(init) = self.processes.get(&ProcessId::Init) {
            let sent = init.address.send(message);
            actix_rt::spawn(async move {
                if let Ok(Err(refused)) = sent.await {
                    tracing::debug!(%refused, message = std::any::type_name::<M>(), "init ended first");
                }
            });
        }
    }

    /// If the kill fails, the process reports again that it is alive.
    fn kill_again(&self, process: ProcessId, how: Kill) {
        let process = ProcessRef { container: self.id.clone(), process };
        let killed = self.world.runtime.kill(&process, how);
        actix_rt::spawn(async move {
            if let Err(error) = killed.await {
                tracing::warn!(%process, %error, "kill again");
            }
        });
    }

    fn publish(&mut self, event: executor_lifecycle::Event) {
        tracing::debug!(container = %self.id, seq = event.seq, kind = ?event.kind);
        self.trace(&event.kind);
        self.hub.publish(event);
        if self.machine.has_exited() {
            self.reply_freeze_after_the_end();
        }
    }

    /// Records in the spans of a run and of an exec what becomes of them.
    fn trace(&self, kind: &EventKind) {
        let span = |process: &ProcessId| self.processes.get(process).map(|supervised| &supervised.span);
        let exec_span = |exec: &ExecId| span(&ProcessId::Exec(exec.clone()));
        let exited = |span: &Span, exit: &Exit| {
            if let ExitStatus::Code(code) = exit.status {
                span.record("exit.code", code);
            }
            span.in_scope(|| tracing::info!(%exit, "exited"));
        };
        match kind {
            EventKind::Registered => {
                span(&ProcessId::Init).inspect(|span| span.in_scope(|| tracing::info!("Container created")));
            }
            EventKind::Started { pid } => {
                span(&ProcessId::Init).inspect(|span| span.in_scope(|| tracing::info!(%pid, "started")));
            }
            EventKind::ExecStarted { exec, pid } => {
                exec_span(exec).inspect(|span| span.in_scope(|| tracing::info!(%pid, "started")));
            }
            EventKind::Exited { exit } => {
                span(&ProcessId::Init).inspect(|span| exited(span, exit));
            }
            EventKind::ExecExited { exec, exit } => {
                exec_span(exec).inspect(|span| exited(span, exit));
            }
            EventKind::OutOfMemory(kill) => {
                let init = span(&ProcessId::Init);
                let pid = kill.pid.map(tracing::field::display);
                init.inspect(|span| span.in_scope(|| tracing::warn!(pid, kills = kill.kills, "OOM kill")));
            }
            EventKind::Created { .. }
            | EventKind::ExecAdded { .. }
            | EventKind::Paused
            | EventKind::Resumed
            | EventKind::Released { .. }
            | _ => {}
        }
    }

    fn prepare(&self, context: &mut Context<Self>) {
        let prepared = self.world.runtime.prepare(&self.id, Arc::clone(&self.spec));
        context.spawn(prepared.into_actor(self).map(|answer, container, context| {
            let event = match answer {
                Ok(()) => {
                    container.hub.meter.prepared();
                    ContainerEvent::Prepared
                }
                Err(failure) => ContainerEvent::PrepareFailed(failure),
            };
            container.take(event, context);
        }));
    }

    fn freeze(&self, context: &mut Context<Self>) {
        let frozen = self.world.runtime.pause(&self.id);
        context.spawn(frozen.into_actor(self).map(|answer, container, context| {
            container.take(ContainerEvent::PauseEnded { frozen: answer.is_ok() }, context);
            container.answer_freeze(answer);
        }));
    }

    fn thaw(&self, thawed: LocalBoxFuture<'static, Result<(), RuntimeError>>, context: &mut Context<Self>) {
        context.spawn(thawed.into_actor(self).map(|answer, container, context| {
            container.take(ContainerEvent::ResumeEnded { thawed: answer.is_ok() }, context);
            container.answer_freeze(answer);
        }));
    }

    /// At most one freeze or thaw is under way, so its answer goes to all that wait; a runtime's
    /// error goes to the first.
    fn answer_freeze(&mut self, answer: Result<(), RuntimeError>) {
        let mut error = answer.err();
        self.reply_freeze(|| error.take().map_or(Ok(()), |error| Err(error.into())));
    }

    fn reply_freeze_after_the_end(&mut self) {
        let state = self.machine.state();
        self.reply_freeze(|| Err(Refusal::Exited.from_state(state).into()));
    }

    fn reply_freeze(&mut self, mut reply: impl FnMut() -> Result<(), RequestError>) {
        for waiting in self.freeze_replies.drain(..) {
            let _caller_gone = waiting.send(reply());
        }
    }

    fn kill_remaining(&self, context: &mut Context<Self>) {
        let ended = self.world.runtime.kill_remaining(&self.id);
        context.spawn(ended.into_actor(self).map(|(), container, context| {
            container.take(ContainerEvent::RemainingEnded, context);
        }));
    }

    fn release(&self, context: &mut Context<Self>) {
        let released = self.world.runtime.release(&self.id);
        let measured = self.world.meters.release(self.world.clock);
        context.spawn(released.into_actor(self).map(|left, container, context| {
            measured();
            container.take(ContainerEvent::ReleaseEnded { left }, context);
        }));
    }

    /// What a handle has of a process of this container.
    fn parts(&self, process: &ProcessId) -> Option<ProcessParts> {
        let Supervised { address, view, exit_recipients, io, .. } = self.processes.get(process)?;
        Some(ProcessParts {
            id: ProcessRef { container: self.id.clone(), process: process.clone() },
            address: address.downgrade(),
            view: view.subscribe(),
            exit_recipients: Arc::downgrade(exit_recipients),
            io: io.clone(),
        })
    }

    /// Drops the actor of an exec that has ended. Handles then answer from its exit.
    fn bury(&mut self, process: &ProcessId) {
        self.ended.extend(self.parts(process));
        if self.ended.len() > ENDED_EXECS {
            self.ended.pop_front();
        }
        self.processes.remove(process);
    }
}

fn owner(context: &Context<Container>) -> Owner {
    let address = context.address();
    Owner {
        created: weak(address.clone()),
        still_alive: weak(address.clone()),
        started: weak(address.clone()),
        exited: weak(address.clone()),
        lost: weak(address.clone()),
        launch_ended: weak(address),
    }
}

fn weak<M>(address: Addr<Container>) -> actix::WeakRecipient<M>
where
    M: actix::Message<Result = ()> + Send + 'static,
    Container: Handler<M>,
{
    Recipient::from(address).downgrade()
}

impl Actor for Container {
    type Context = Context<Self>;
}

impl Drop for Container {
    /// As for a process: see there why this is a `do_send`.
    fn drop(&mut self) {
        if !self.released
            && let Some(executor) = self.executor.lost.upgrade()
        {
            executor.do_send(ContainerLost(self.id.clone()));
        }
    }
}
