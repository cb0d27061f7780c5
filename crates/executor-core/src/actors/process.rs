//! A process: asks the runtime to create and start it, the reaper for its end, and reports to its container.

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient, WeakRecipient, WrapFuture,
};
use executor_lifecycle::process::{
    Inherited, Kill, LaunchStep, OrphanState, Process as Machine, ProcessEffect, ProcessEvent, ProcessNote,
};
use executor_lifecycle::{
    Effects, Exit, HostPid, ProcessId, ProcessRef, Refused, Signal as SignalNumber, SignalScope,
};
use futures::FutureExt;
use tokio::sync::watch;

use super::{Ticker, World, deliver, send_fact};
use crate::ExecSpec;
use crate::messages::{
    Arm, Cancel, Create, Created, Ended, Exited, Launch, LaunchEnded, ProcessLost, ProcessStreams,
    ProcessView, Resize, Signal, Started, StillAlive, Watch, Withdraw,
};
use crate::metrics::CancelMeter;
use crate::observe::ObservedMessage;

/// The actor; one for each process. See [`executor_lifecycle::process`] for its states.
pub struct Process {
    id: ProcessRef,
    machine: Machine,
    world: World,
    container: Owner,
    work: Option<Work>,
    view: watch::Sender<ProcessView>,
    ticker: Ticker,
    cancel_meter: CancelMeter,
}

/// What is to be started, and its streams. Gone once the process runs.
pub(crate) struct Work {
    /// The exec's specification; absent for init, which the runtime has prepared.
    pub(crate) exec: Option<ExecSpec>,
    pub(crate) streams: ProcessStreams,
}

/// The container of a process, as the process sees it.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) created: WeakRecipient<Created>,
    pub(crate) still_alive: WeakRecipient<StillAlive>,
    pub(crate) started: WeakRecipient<Started>,
    pub(crate) exited: WeakRecipient<Exited>,
    pub(crate) lost: WeakRecipient<ProcessLost>,
    pub(crate) launch_ended: WeakRecipient<LaunchEnded>,
}

impl Process {
    /// Starts an actor for a process that waits to be created or launched.
    pub(crate) fn spawn(
        id: ProcessRef,
        world: World,
        container: Owner,
        mut work: Work,
        view: watch::Sender<ProcessView>,
    ) -> Addr<Self> {
        work.streams.ends.open_input();
        world.observer_slot.clone().begin(|_| {
            let machine = Machine::new(view.borrow().traits);
            let (work, ticker, cancel_meter) = (Some(work), Ticker::default(), CancelMeter::new());
            Self { id, machine, world, container, work, view, ticker, cancel_meter }
        })
    }

    /// Starts an actor in place of one that panicked, to end what that one was in charge of.
    pub(crate) fn replace(
        id: ProcessRef,
        world: World,
        container: Owner,
        view: watch::Sender<ProcessView>,
    ) -> Addr<Self> {
        world.observer_slot.clone().begin(|context| {
            let (traits, remains) = {
                let ProcessView { traits, asked, pid, started_at, ended, .. } = &*view.borrow();
                let ended = ended.clone();
                (*traits, OrphanState { asked: *asked, pid: *pid, started_at: *started_at, ended })
            };
            let (machine, effects) = Machine::orphaned(world.clock.now(), traits, remains);
            let (ticker, mut cancel_meter) = (Ticker::default(), CancelMeter::new());
            cancel_meter.stepped(&machine, world.clock);
            let mut process = Self { id, machine, world, container, work: None, view, ticker, cancel_meter };
            process.perform(effects, context);
            process
        })
    }

    /// Starts an actor for a process that another executor has left. `view` is as that one has published it.
    pub(crate) fn adopt(
        id: ProcessRef,
        world: World,
        container: Owner,
        (note, how): (ProcessNote, Inherited),
        mut streams: ProcessStreams,
        view: watch::Sender<ProcessView>,
    ) -> Addr<Self> {
        streams.ends.open_input();
        world.observer_slot.clone().begin(|context| {
            let traits = view.borrow().traits;
            let (machine, effects) = Machine::adopted(world.clock.now(), traits, note, how);
            let (ticker, mut cancel_meter) = (Ticker::default(), CancelMeter::new());
            cancel_meter.stepped(&machine, world.clock);
            let work = Some(Work { exec: None, streams });
            let mut process = Self { id, machine, world, container, work, view, ticker, cancel_meter };
            if matches!(how, Inherited::Running { .. }) {
                process.open_outputs();
            }
            process.perform(effects, context);
            process
        })
    }

    fn on(&mut self, event: ProcessEvent, context: &mut Context<Self>) -> Result<(), Refused> {
        let Self { id, machine, world, .. } = self;
        let shown = |event| ObservedMessage::Process(id.clone(), event);
        let noted = world.history.is_kept().then(|| machine.note());
        let effects =
            (world.observer_slot).watch_step(event, shown, |event| machine.step(world.clock.now(), event))?;
        if let Some(noted) = noted
            && !machine.has_exited()
            && machine.note() != noted
        {
            world.history.note(id, machine.note());
        }
        self.cancel_meter.stepped(&self.machine, self.world.clock);
        self.perform(effects, context);
        Ok(())
    }

    /// For events that have no reply.
    fn take(&mut self, event: ProcessEvent, context: &mut Context<Self>) {
        if let Err(refused) = self.on(event, context) {
            tracing::trace!(process = %self.id, state = %refused.state, %refused);
        }
    }

    fn perform(&mut self, effects: Effects<ProcessEffect>, context: &mut Context<Self>) {
        for effect in effects {
            match effect {
                ProcessEffect::Create => self.ask(LaunchStep::Create, context),
                ProcessEffect::Launch => self.ask(LaunchStep::Launch, context),
                ProcessEffect::StartCreated => self.ask(LaunchStep::StartCreated, context),
                ProcessEffect::AbandonStart => self.world.runtime.abandon(&self.id),
                ProcessEffect::Watch => self.watch(context),
                ProcessEffect::Signal(signal, scope) => self.signal(signal, scope),
                ProcessEffect::Resize(size) => {
                    if let Err(error) = self.world.runtime.resize(&self.id, size) {
                        tracing::warn!(process = %self.id, %error, "resize");
                    }
                }
                ProcessEffect::Kill(how) => self.kill(how, context),
                ProcessEffect::ReportStillAlive => {
                    send_fact(&self.container.still_alive, StillAlive(self.id.process.clone()));
                }
                ProcessEffect::ReportCreated { pid } => self.report_created(pid),
                ProcessEffect::ReportStarted { pid } => self.report_started(pid),
                ProcessEffect::ReportExited(exit) => self.report_exited(exit),
            }
        }
        self.ticker.set(self.machine.next_deadline(), self.world.clock, context, |process, context| {
            process.ticker.clear();
            process.take(ProcessEvent::Tick, context);
        });
    }

    /// The runtime is asked in a task of its own, which outlives this actor if that fails.
    fn ask(&mut self, asked: LaunchStep, context: &Context<Self>) {
        let ProcessRef { container, process } = &self.id;
        let runtime = &self.world.runtime;
        let (exec, stdio) = match &mut self.work {
            Some(work) => (work.exec.take(), std::mem::take(&mut work.streams.stdio)),
            None => return,
        };
        let answer = match (asked, process, exec) {
            (LaunchStep::Create, _, _) => runtime.create(container, stdio),
            (LaunchStep::Launch, ProcessId::Exec(id), Some(spec)) => {
                runtime.exec(container, id.clone(), spec, stdio)
            }
            (LaunchStep::Launch, ProcessId::Init | ProcessId::Exec(_), _) => runtime.run(container, stdio),
            (LaunchStep::StartCreated, _, _) => {
                let (started, pid) = (runtime.start(container), self.view.borrow().pid);
                async move { started.await.and_then(|()| pid.ok_or_else(no_pid)) }.boxed()
            }
        };
        // No handle waits for this.
        self.view.send_if_modified(|view| {
            view.asked = Some(asked);
            false
        });
        let (process, owner) = (process.clone(), self.container.clone());
        let own: Recipient<LaunchEnded> = context.address().recipient();
        let own = own.downgrade();
        actix_rt::spawn(async move {
            let fact = LaunchEnded { process, asked, answer: answer.await };
            match own.upgrade() {
                Some(own) => {
                    let to_owner = fact.clone();
                    deliver(&own, fact, move |_| send_fact(&owner.launch_ended, to_owner));
                }
                None => send_fact(&owner.launch_ended, fact),
            }
        });
    }

    fn watch(&self, context: &Context<Self>) {
        let watch = Watch { process: self.id.clone(), to: context.address().recipient() };
        self.world.reaper.do_send(watch);
    }

    /// It is sent by the call; what came of it is for the log.
    fn signal(&self, signal: SignalNumber, scope: SignalScope) {
        let sent = self.world.runtime.signal(&self.id, signal, scope);
        let id = self.id.clone();
        actix_rt::spawn(async move {
            if let Err(error) = sent.await {
                tracing::warn!(process = %id, %signal, %error, "signal");
            }
        });
    }

    fn kill(&self, how: Kill, context: &mut Context<Self>) {
        let killed = self.world.runtime.kill(&self.id, how);
        context.spawn(killed.into_actor(self).map(|answer, process, context| {
            if let Err(error) = answer {
                tracing::warn!(process = %process.id, %error, "kill");
                process.take(ProcessEvent::KillFailed, context);
            }
        }));
    }

    fn report_created(&self, pid: HostPid) {
        self.view.send_modify(|view| (view.asked, view.pid) = (None, Some(pid)));
        send_fact(&self.container.created, Created { pid });
    }

    fn report_started(&mut self, pid: HostPid) {
        let now = self.world.clock.now();
        self.view.send_modify(|view| {
            (view.asked, view.pid, view.started_at) = (None, Some(pid), Some(now));
        });
        self.open_outputs();
        send_fact(&self.container.started, Started { process: self.id.process.clone(), pid });
    }

    fn open_outputs(&mut self) {
        let Some(work) = self.work.take() else { return };
        let view = self.view.subscribe();
        work.streams.ends.open_outputs(|| {
            let mut view = view.clone();
            async move { view.wait_for(|view| view.exit.is_some()).await.is_ok() }
        });
    }

    fn report_exited(&mut self, exit: Exit) {
        self.work = None;
        self.cancel_meter.exited(&self.world.meters, &self.id.process, &exit);
        send_fact(&self.container.exited, Exited { process: self.id.process.clone(), exit });
    }
}

/// A start is asked for when the pid was reported.
fn no_pid() -> executor_lifecycle::StartFailure {
    let kind = executor_lifecycle::StartFailureKind::RuntimeBroken;
    executor_lifecycle::StartFailure::new(kind, "it was started before it was created")
}

impl Actor for Process {
    type Context = Context<Self>;
}

impl Drop for Process {
    /// `do_send`, because nothing may be awaited here: when the container is gone as well, its own
    /// `Drop` has reported to the executor.
    fn drop(&mut self) {
        if !self.machine.has_exited()
            && let Some(container) = self.container.lost.upgrade()
        {
            container.do_send(ProcessLost(self.id.process.clone()));
        }
    }
}

impl Handler<Arm> for Process {
    type Result = ();

    fn handle(&mut self, Arm(terms): Arm, context: &mut Context<Self>) {
        self.take(ProcessEvent::Arm(terms), context);
    }
}

impl Handler<Create> for Process {
    type Result = ();

    fn handle(&mut self, _: Create, context: &mut Context<Self>) {
        self.take(ProcessEvent::Create, context);
    }
}

impl Handler<Launch> for Process {
    type Result = ();

    fn handle(&mut self, _: Launch, context: &mut Context<Self>) {
        self.take(ProcessEvent::Launch, context);
    }
}

impl Handler<Withdraw> for Process {
    type Result = ();

    fn handle(&mut self, Withdraw(failure): Withdraw, context: &mut Context<Self>) {
        self.take(ProcessEvent::Withdraw(failure), context);
    }
}

impl Handler<LaunchEnded> for Process {
    type Result = ();

    fn handle(&mut self, LaunchEnded { asked, answer, .. }: LaunchEnded, context: &mut Context<Self>) {
        let event = match (asked, answer) {
            (LaunchStep::Create, Ok(pid)) => ProcessEvent::Created { pid },
            (LaunchStep::Launch | LaunchStep::StartCreated, Ok(pid)) => ProcessEvent::Started { pid },
            (LaunchStep::Create | LaunchStep::Launch | LaunchStep::StartCreated, Err(failure)) => {
                self.view.send_if_modified(|view| {
                    view.asked = None;
                    false
                });
                ProcessEvent::StartFailed(failure)
            }
        };
        self.take(event, context);
    }
}

impl Handler<Ended> for Process {
    type Result = ();

    fn handle(&mut self, Ended(raw): Ended, context: &mut Context<Self>) {
        self.view.send_if_modified(|view| {
            view.ended = Some(raw.clone());
            false
        });
        self.take(ProcessEvent::Ended(raw), context);
    }
}

impl Handler<Cancel> for Process {
    type Result = ();

    fn handle(&mut self, Cancel(cancel): Cancel, context: &mut Context<Self>) {
        self.take(ProcessEvent::Cancel(cancel), context);
    }
}

impl Handler<Resize> for Process {
    type Result = Result<(), Refused>;

    fn handle(&mut self, Resize(size): Resize, context: &mut Context<Self>) -> Self::Result {
        self.on(ProcessEvent::Resize(size), context)
    }
}

impl Handler<Signal> for Process {
    type Result = Result<(), Refused>;

    fn handle(&mut self, Signal(signal, scope): Signal, context: &mut Context<Self>) -> Self::Result {
        self.on(ProcessEvent::Signal(signal, scope), context)
    }
}
