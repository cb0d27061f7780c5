//! A container: has its bundle made and released, owns its processes, tells its subscribers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, MessageResult, Recipient, ResponseFuture,
    WrapFuture,
};
use executor_lifecycle::container::{Container as Machine, ContainerEffect, ContainerEvent};
use executor_lifecycle::process::{Process as ProcessMachine, Timeout};
use executor_lifecycle::{
    ContainerId, Effects, EventKind, ExecId, Exit, ExitStatus, HostPid, ProcessId, ProcessRef, Refused, Usage,
};
use futures::FutureExt;
use tokio::sync::{oneshot, watch};
use tracing::Span;

use super::process::{Owner, Process, Work};
use super::{World, tell};
use crate::events::Hub;
use crate::messages::{
    Cancel, ContainerLost, Event, Exec, Exited, FreezeError, LaunchEnded, ListProcesses, Pause, ProcessLost,
    ProcessParts, ProcessStreams, ProcessView, ReadUsage, Released, RequestToken, Resize, Resume,
    SampleUsage, Signal, Start, Started, Subscribe, Unclaimed, Withdraw,
};
use crate::observe::{ContainerTook, ObservedMessage};
use crate::{ContainerSpec, Notice, RuntimeError, TimeLimit, usage};

/// The actor; one for each container. See [`executor_lifecycle::container`] for its states.
pub struct Container {
    id: ContainerId,
    machine: Machine,
    world: World,
    executor: Above,
    spec: Arc<ContainerSpec>,
    hub: Arc<Hub>,
    processes: HashMap<ProcessId, Supervised>,
    /// What the next `AddExec` effect is about.
    incoming: Option<Incoming>,
    freeze_replies: Vec<oneshot::Sender<Result<(), FreezeError>>>,
    /// Whether the runtime has prepared and created it before.
    is_ready: bool,
    released: bool,
}

/// What a container is made of.
pub(crate) struct Made {
    pub(crate) spec: ContainerSpec,
    pub(crate) streams: ProcessStreams,
    pub(crate) span: Span,
    /// Whether the runtime has prepared and created it already.
    pub(crate) is_ready: bool,
}

/// A process of this container, and what is needed to put another actor in its place.
struct Supervised {
    address: Addr<Process>,
    view: watch::Sender<ProcessView>,
    claim: Option<RequestToken>,
    span: Span,
}

/// A process that is to be added.
struct Incoming {
    work: Work,
    limit: Option<TimeLimit>,
    valid_codes: BTreeSet<u8>,
    claim: Option<RequestToken>,
    span: Span,
}

/// The executor, as its containers see it.
#[derive(Clone)]
pub(crate) struct Above {
    pub(crate) released: actix::WeakRecipient<Released>,
    pub(crate) lost: actix::WeakRecipient<ContainerLost>,
}

impl Container {
    /// Starts an actor for a container that is still to be made; [`Start`] makes it.
    pub(crate) fn spawn(
        id: ContainerId,
        made: Made,
        world: World,
        executor: Above,
        hub: Arc<Hub>,
    ) -> Addr<Self> {
        let Made { spec, streams, span, is_ready } = made;
        world.observer_slot.clone().begin(|context| {
            let init = Incoming {
                work: Work { exec: None, streams },
                limit: spec.process.time_limit,
                valid_codes: spec.process.valid_exit_codes.clone(),
                claim: None,
                span,
            };
            let mut container = Self {
                machine: Machine::new(id.clone()),
                id,
                world,
                executor,
                spec: Arc::new(spec),
                hub,
                processes: HashMap::new(),
                incoming: None,
                freeze_replies: Vec::new(),
                is_ready,
                released: false,
            };
            container.add_process(ProcessId::Init, init, context);
            container
        })
    }

    fn on(&mut self, event: ContainerEvent, context: &mut Context<Self>) -> Result<(), Refused> {
        let Self { id, machine, world, .. } = self;
        let taken = |event| ObservedMessage::Container(id.clone(), ContainerTook::Event(event));
        let effects =
            (world.observer_slot).watch_step(event, taken, |event| machine.step(world.clock.now(), event))?;
        self.perform(effects, context);
        Ok(())
    }

    fn show(&self, took: ContainerTook) {
        self.world.observer_slot.show(|| ObservedMessage::Container(self.id.clone(), took));
    }

    /// For events that nobody waits for an answer to.
    fn take(&mut self, event: ContainerEvent, context: &mut Context<Self>) {
        if let Err(refused) = self.on(event, context) {
            tracing::trace!(container = %self.id, %refused);
        }
    }

    fn perform(&mut self, effects: Effects<ContainerEffect>, context: &mut Context<Self>) {
        for effect in effects {
            match effect {
                ContainerEffect::Prepare => self.prepare(context),
                ContainerEffect::AddExec(exec) => {
                    if let Some(incoming) = self.incoming.take() {
                        self.add_process(ProcessId::Exec(exec), incoming, context);
                    }
                }
                ContainerEffect::Launch(process) => self.command(process, Start),
                ContainerEffect::Withdraw(process, failure) => self.command(process, Withdraw(failure)),
                ContainerEffect::CancelProcess(process, cancel) => self.command(process, Cancel(cancel)),
                ContainerEffect::SignalInit(signal, scope) => self.tell_init(Signal(signal, scope)),
                ContainerEffect::ResizeInit(size) => self.tell_init(Resize(size)),
                ContainerEffect::Pause => self.freeze(context),
                ContainerEffect::Resume => self.thaw(context),
                ContainerEffect::Publish(event) => self.publish(event),
                ContainerEffect::Release => self.release(context),
                ContainerEffect::Finished => {
                    self.released = true;
                    tell(&self.executor.released, Released(self.id.clone()));
                }
            }
        }
    }

    fn add_process(&mut self, id: ProcessId, incoming: Incoming, context: &Context<Self>) {
        let Incoming { work, limit, valid_codes, claim, span } = incoming;
        let now = self.world.clock.now();
        let timeout = limit.map(|limit| Timeout { at: now.after(limit.after), cancel: limit.cancel });
        let machine = ProcessMachine::new(timeout).valid_codes(valid_codes);
        let terminal = work.streams.stdio.terminal.is_some();
        let view = watch::Sender::new(ProcessView { terminal, ..ProcessView::default() });
        let process = ProcessRef { container: self.id.clone(), process: id };
        let address =
            Process::spawn(process, machine, self.world.clone(), owner(context), work, view.clone());
        self.processes.insert(id, Supervised { address, view, claim, span });
    }

    /// A process actor that is gone has said so, and its place is being taken by one that ends the
    /// process anyway: nothing is lost with the command.
    fn command<M>(&self, process: ProcessId, command: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        Process: Handler<M>,
    {
        if let Some(supervised) = self.processes.get(&process) {
            supervised.address.do_send(command);
        }
    }

    /// Init's own machine may refuse it: then init has ended first.
    fn tell_init<M>(&self, message: M)
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

    fn publish(&mut self, event: executor_lifecycle::Event) {
        tracing::debug!(container = %self.id, seq = event.seq, kind = ?event.kind);
        self.trace(&event.kind);
        self.hub.publish(event);
        let phase = self.machine.phase();
        if phase > executor_lifecycle::container::Phase::Paused {
            self.reply_freeze(|| Err(Refused::Exited.into()));
        }
    }

    /// Tells the spans of a run and of an exec what becomes of them.
    fn trace(&self, kind: &EventKind) {
        let span = |process| self.processes.get(&process).map(|supervised| &supervised.span);
        let exited = |span: &Span, exit: &Exit| {
            if let ExitStatus::Code(code) = exit.status {
                span.record("exit.code", code);
            }
            span.in_scope(|| tracing::info!(%exit, "exited"));
        };
        match kind {
            EventKind::Created => {
                span(ProcessId::Init).inspect(|span| span.in_scope(|| tracing::info!("Container created")));
            }
            EventKind::Started { pid } => {
                span(ProcessId::Init).inspect(|span| span.in_scope(|| tracing::info!(%pid, "started")));
            }
            EventKind::ExecStarted { exec, pid } => {
                span(ProcessId::Exec(*exec))
                    .inspect(|span| span.in_scope(|| tracing::info!(%pid, "started")));
            }
            EventKind::Exited { exit } => {
                span(ProcessId::Init).inspect(|span| exited(span, exit));
            }
            EventKind::ExecExited { exec, exit } => {
                span(ProcessId::Exec(*exec)).inspect(|span| exited(span, exit));
            }
            EventKind::Paused | EventKind::Resumed | EventKind::Released { .. } => {}
        }
    }

    fn prepare(&self, context: &mut Context<Self>) {
        let prepared = match self.is_ready {
            true => futures::future::ready(Ok(())).boxed(),
            false => self.world.runtime.prepare(&self.id, Arc::clone(&self.spec)),
        };
        context.spawn(prepared.into_actor(self).map(|answer, container, context| {
            let event = match answer {
                Ok(()) => ContainerEvent::Prepared,
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

    fn thaw(&self, context: &mut Context<Self>) {
        let thawed = self.world.runtime.resume(&self.id);
        context.spawn(thawed.into_actor(self).map(|answer, container, context| {
            container.take(ContainerEvent::ResumeEnded { thawed: answer.is_ok() }, context);
            container.answer_freeze(answer);
        }));
    }

    /// At most one freeze or thaw is under way, so its answer is everyone's who waits; a runtime's
    /// error goes to the first.
    fn answer_freeze(&mut self, answer: Result<(), RuntimeError>) {
        let mut error = answer.err();
        self.reply_freeze(|| error.take().map_or(Ok(()), |error| Err(error.into())));
    }

    fn reply_freeze(&mut self, mut reply: impl FnMut() -> Result<(), FreezeError>) {
        for waiting in self.freeze_replies.drain(..) {
            let _caller_gone = waiting.send(reply());
        }
    }

    fn freeze_request(
        &mut self,
        request: ContainerEvent,
        context: &mut Context<Self>,
    ) -> ResponseFuture<Result<(), FreezeError>> {
        let (reply, answer) = oneshot::channel();
        match self.on(request, context) {
            Ok(()) => self.freeze_replies.push(reply),
            Err(refused) => return futures::future::ready(Err(refused.into())).boxed(),
        }
        async move { answer.await.unwrap_or(Err(Refused::Exited.into())) }.boxed()
    }

    fn release(&self, context: &mut Context<Self>) {
        let released = self.world.runtime.release(&self.id);
        context.spawn(released.into_actor(self).map(|left, container, context| {
            container.take(ContainerEvent::ReleaseEnded { left }, context);
        }));
    }
}

fn owner(context: &Context<Container>) -> Owner {
    let address = context.address();
    Owner {
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

impl Handler<Start> for Container {
    type Result = ();

    fn handle(&mut self, _: Start, context: &mut Context<Self>) {
        self.take(ContainerEvent::Create, context);
    }
}

impl Handler<Exec> for Container {
    type Result = Result<ProcessParts, Refused>;

    fn handle(&mut self, exec: Exec, context: &mut Context<Self>) -> Self::Result {
        let Exec { spec, streams, claim, span } = exec;
        let exec: ExecId = self.machine.next_exec();
        let (limit, valid_codes) = (spec.time_limit, spec.valid_exit_codes.clone());
        let work = Work { exec: Some(spec), streams };
        self.incoming = Some(Incoming { work, limit, valid_codes, claim: Some(claim), span });
        let accepted = self.on(ContainerEvent::Exec, context);
        self.incoming = None;
        accepted?;
        let Some(supervised) = self.processes.get(&ProcessId::Exec(exec)) else {
            return Err(Refused::Stale);
        };
        Ok(ProcessParts {
            id: ProcessRef::exec(self.id.clone(), exec),
            address: supervised.address.downgrade(),
            view: supervised.view.subscribe(),
        })
    }
}

impl Handler<Cancel> for Container {
    type Result = ();

    fn handle(&mut self, Cancel(cancel): Cancel, context: &mut Context<Self>) {
        self.take(ContainerEvent::Cancel(cancel), context);
    }
}

impl Handler<Resize> for Container {
    type Result = Result<(), Refused>;

    fn handle(&mut self, Resize(size): Resize, context: &mut Context<Self>) -> Self::Result {
        if self.spec.process.terminal.is_none() {
            return Err(Refused::NoTerminal);
        }
        self.on(ContainerEvent::Resize(size), context)
    }
}

impl Handler<Unclaimed> for Container {
    type Result = ();

    fn handle(&mut self, Unclaimed(claim): Unclaimed, _: &mut Context<Self>) {
        self.show(ContainerTook::Unclaimed);
        let unclaimed = self.processes.iter().find(|(_, supervised)| supervised.claim == Some(claim));
        if let Some((process, _)) = unclaimed {
            self.command(*process, Cancel(executor_lifecycle::Cancel::now()));
        }
    }
}

impl Handler<Signal> for Container {
    type Result = Result<(), Refused>;

    fn handle(&mut self, Signal(signal, scope): Signal, context: &mut Context<Self>) -> Self::Result {
        self.on(ContainerEvent::Signal(signal, scope), context)
    }
}

impl Handler<Pause> for Container {
    type Result = ResponseFuture<Result<(), FreezeError>>;

    fn handle(&mut self, _: Pause, context: &mut Context<Self>) -> Self::Result {
        self.freeze_request(ContainerEvent::Pause, context)
    }
}

impl Handler<Resume> for Container {
    type Result = ResponseFuture<Result<(), FreezeError>>;

    fn handle(&mut self, _: Resume, context: &mut Context<Self>) -> Self::Result {
        self.freeze_request(ContainerEvent::Resume, context)
    }
}

impl Handler<ListProcesses> for Container {
    type Result = ResponseFuture<Result<Vec<HostPid>, RuntimeError>>;

    fn handle(&mut self, _: ListProcesses, _: &mut Context<Self>) -> Self::Result {
        self.show(ContainerTook::ListProcesses);
        self.world.runtime.processes(&self.id)
    }
}

impl Handler<ReadUsage> for Container {
    type Result = ResponseFuture<Result<Usage, RuntimeError>>;

    fn handle(&mut self, _: ReadUsage, _: &mut Context<Self>) -> Self::Result {
        self.show(ContainerTook::ReadUsage);
        self.world.runtime.usage(&self.id)
    }
}

impl Handler<SampleUsage> for Container {
    type Result = MessageResult<SampleUsage>;

    fn handle(&mut self, SampleUsage { every }: SampleUsage, _: &mut Context<Self>) -> Self::Result {
        self.show(ContainerTook::SampleUsage);
        MessageResult(usage::sample(self.world.clone(), self.id.clone(), self.hub.view(), every))
    }
}

impl Handler<Subscribe> for Container {
    type Result = ();

    fn handle(&mut self, Subscribe(subscriber): Subscribe, _: &mut Context<Self>) {
        self.show(ContainerTook::Subscribe);
        let mut events = self.hub.view().subscribe();
        actix_rt::spawn(async move {
            while let Some(notice) = events.next().await {
                let notice: Notice = notice;
                if subscriber.send(Event(notice)).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Handler<Started> for Container {
    type Result = ();

    fn handle(&mut self, Started { process, pid }: Started, context: &mut Context<Self>) {
        self.take(ContainerEvent::ProcessStarted { process, pid }, context);
    }
}

impl Handler<Exited> for Container {
    type Result = ();

    /// With an exec'd process goes its actor: what handles still ask of it is answered by its end.
    fn handle(&mut self, Exited { process, exit }: Exited, context: &mut Context<Self>) {
        self.take(ContainerEvent::ProcessExited { process, exit }, context);
        if process != ProcessId::Init {
            self.processes.remove(&process);
        }
    }
}

impl Handler<ProcessLost> for Container {
    type Result = ();

    fn handle(&mut self, ProcessLost(process): ProcessLost, context: &mut Context<Self>) {
        self.show(ContainerTook::ProcessLost(process));
        let Some(lost) = self.processes.get_mut(&process) else {
            return;
        };
        tracing::error!(container = %self.id, %process, "the actor of a process failed; the process is ended");
        let id = ProcessRef { container: self.id.clone(), process };
        lost.address = Process::replace(id, self.world.clone(), owner(context), lost.view.clone());
    }
}

impl Handler<LaunchEnded> for Container {
    type Result = ();

    /// The actor that asked the runtime is gone; its replacement takes the answer.
    fn handle(&mut self, ended: LaunchEnded, _: &mut Context<Self>) {
        self.command(ended.process, ended);
    }
}
