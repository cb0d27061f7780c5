//! A process: asks the runtime to start it, the reaper for its end, and tells its container.

use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Recipient, SpawnHandle, WeakRecipient,
};
use executor_lifecycle::process::{Process as Machine, ProcessEffect, ProcessEvent};
use executor_lifecycle::{Effects, Exit, HostPid, ProcessId, ProcessRef, Refused, Timestamp};
use tokio::sync::watch;

use super::{World, deliver, tell};
use crate::ExecSpec;
use crate::messages::{
    Cancel, Ended, Exited, LaunchEnded, ProcessLost, ProcessStreams, ProcessView, Resize, Signal, Start,
    Started, Watch, Withdraw,
};
use crate::observe::ObservedMessage;

/// The actor; one for each process. See [`executor_lifecycle::process`] for its states.
pub struct Process {
    id: ProcessRef,
    machine: Machine,
    world: World,
    container: Owner,
    work: Option<Work>,
    view: watch::Sender<ProcessView>,
    tick: Option<(Timestamp, SpawnHandle)>,
}

/// What is to be started, and its streams. Gone once the runtime has it.
pub(crate) struct Work {
    /// The exec's specification; absent for init, which the runtime has prepared.
    pub(crate) exec: Option<ExecSpec>,
    pub(crate) streams: ProcessStreams,
}

/// The container of a process, as the process sees it.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) started: WeakRecipient<Started>,
    pub(crate) exited: WeakRecipient<Exited>,
    pub(crate) lost: WeakRecipient<ProcessLost>,
    pub(crate) launch_ended: WeakRecipient<LaunchEnded>,
}

impl Process {
    /// Starts an actor for a process that waits to be launched.
    pub(crate) fn spawn(
        id: ProcessRef,
        machine: Machine,
        world: World,
        container: Owner,
        work: Work,
        view: watch::Sender<ProcessView>,
    ) -> Addr<Self> {
        world.observer_slot.clone().begin(|context| {
            let mut process = Self { id, machine, world, container, work: Some(work), view, tick: None };
            process.set_tick(context);
            process
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
            let now = world.clock.now();
            let (asked, running) = {
                let view = view.borrow();
                (view.asked, view.pid.zip(view.started_at))
            };
            let (machine, effects) = Machine::orphaned(now, asked, running);
            let mut process = Self { id, machine, world, container, work: None, view, tick: None };
            if running.is_some() {
                process.watch(context);
            }
            process.perform(effects, context);
            process
        })
    }

    fn on(&mut self, event: ProcessEvent, context: &mut Context<Self>) -> Result<(), Refused> {
        let Self { id, machine, world, .. } = self;
        let taken = |event| ObservedMessage::Process(id.clone(), event);
        let effects =
            (world.observer_slot).watch_step(event, taken, |event| machine.step(world.clock.now(), event))?;
        self.perform(effects, context);
        Ok(())
    }

    /// For events that nobody waits for an answer to.
    fn take(&mut self, event: ProcessEvent, context: &mut Context<Self>) {
        if let Err(refused) = self.on(event, context) {
            tracing::trace!(process = %self.id, %refused);
        }
    }

    fn perform(&mut self, effects: Effects<ProcessEffect>, context: &mut Context<Self>) {
        for effect in effects {
            match effect {
                ProcessEffect::Launch => self.launch(context),
                ProcessEffect::AbandonStart => self.world.runtime.abandon(&self.id),
                ProcessEffect::Signal(signal, scope) => {
                    if let Err(error) = self.world.runtime.signal(&self.id, signal, scope) {
                        tracing::warn!(process = %self.id, %signal, %error, "signal");
                    }
                }
                ProcessEffect::Resize(size) => {
                    if let Err(error) = self.world.runtime.resize(&self.id, size) {
                        tracing::warn!(process = %self.id, %error, "resize");
                    }
                }
                ProcessEffect::Kill => {
                    if let Err(error) = self.world.runtime.kill(&self.id) {
                        tracing::warn!(process = %self.id, %error, "kill");
                        self.take(ProcessEvent::KillFailed, context);
                    }
                }
                ProcessEffect::ReportStarted { pid } => self.report_started(pid, context),
                ProcessEffect::ReportExited(exit) => self.report_exited(exit),
            }
        }
        self.set_tick(context);
    }

    /// The runtime is asked in a task of its own, which outlives this actor if that fails.
    fn launch(&mut self, context: &Context<Self>) {
        let Some(work) = &mut self.work else { return };
        let ProcessRef { container, process } = &self.id;
        let stdio = std::mem::take(&mut work.streams.stdio);
        let answer = match (process, work.exec.take()) {
            (ProcessId::Exec(exec), Some(spec)) => self.world.runtime.exec(container, *exec, spec, stdio),
            (ProcessId::Init | ProcessId::Exec(_), _) => self.world.runtime.start(container, stdio),
        };
        // Nobody waits for this.
        self.view.send_if_modified(|view| {
            view.asked = true;
            false
        });
        let (process, owner) = (*process, self.container.clone());
        let own: Recipient<LaunchEnded> = context.address().recipient();
        let own = own.downgrade();
        actix_rt::spawn(async move {
            let fact = LaunchEnded { process, answer: answer.await };
            match own.upgrade() {
                Some(own) => {
                    let to_owner = fact.clone();
                    deliver(&own, fact, move |_| tell(&owner.launch_ended, to_owner));
                }
                None => tell(&owner.launch_ended, fact),
            }
        });
    }

    fn watch(&self, context: &Context<Self>) {
        let watch = Watch { process: self.id.clone(), to: context.address().recipient() };
        self.world.reaper.do_send(watch);
    }

    fn report_started(&mut self, pid: HostPid, context: &Context<Self>) {
        self.watch(context);
        let now = self.world.clock.now();
        self.view.send_modify(|view| {
            view.pid = Some(pid);
            view.started_at = Some(now);
        });
        if let Some(work) = self.work.take() {
            let view = self.view.subscribe();
            work.streams.copiers.run(|| {
                let mut view = view.clone();
                async move {
                    let _actor_gone = view.wait_for(|view| view.exit.is_some()).await;
                }
            });
        }
        tell(&self.container.started, Started { process: self.id.process, pid });
    }

    fn report_exited(&mut self, exit: Exit) {
        self.work = None;
        self.view.send_modify(|view| view.exit = Some(exit.clone()));
        tell(&self.container.exited, Exited { process: self.id.process, exit });
    }

    /// Has `Tick` come at the machine's next deadline.
    fn set_tick(&mut self, context: &mut Context<Self>) {
        let deadline = self.machine.next_deadline();
        if self.tick.map(|(at, _)| at) == deadline {
            return;
        }
        if let Some((_, handle)) = self.tick.take() {
            context.cancel_future(handle);
        }
        self.tick = deadline.map(|at| {
            // Timers have a resolution of 1 ms and may come early by less; then the machine waits on.
            let wait = self.world.clock.until(at) + Duration::from_millis(1);
            let sleep = actix::fut::wrap_future::<_, Self>(tokio::time::sleep(wait));
            let handle = context.spawn(sleep.map(|(), process, context| {
                process.tick = None;
                process.take(ProcessEvent::Tick, context);
            }));
            (at, handle)
        });
    }
}

impl Actor for Process {
    type Context = Context<Self>;
}

impl Drop for Process {
    /// `do_send`, because nothing may be awaited here: when the container is gone as well, its own
    /// last breath has told the executor.
    fn drop(&mut self) {
        if !self.machine.has_exited()
            && let Some(container) = self.container.lost.upgrade()
        {
            container.do_send(ProcessLost(self.id.process));
        }
    }
}

impl Handler<Start> for Process {
    type Result = ();

    fn handle(&mut self, _: Start, context: &mut Context<Self>) {
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

    fn handle(&mut self, LaunchEnded { answer, .. }: LaunchEnded, context: &mut Context<Self>) {
        let event = match answer {
            Ok(pid) => ProcessEvent::Started { pid },
            Err(failure) => ProcessEvent::StartFailed(failure),
        };
        self.take(event, context);
    }
}

impl Handler<Ended> for Process {
    type Result = ();

    fn handle(&mut self, Ended(ending): Ended, context: &mut Context<Self>) {
        self.take(ProcessEvent::Ended(ending), context);
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
        if !self.view.borrow().terminal {
            return Err(Refused::NoTerminal);
        }
        self.on(ProcessEvent::Resize(size), context)
    }
}

impl Handler<Signal> for Process {
    type Result = Result<(), Refused>;

    fn handle(&mut self, Signal(signal, scope): Signal, context: &mut Context<Self>) -> Self::Result {
        self.on(ProcessEvent::Signal(signal, scope), context)
    }
}
