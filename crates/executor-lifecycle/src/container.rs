//! A container: its init, the processes exec'd into it, and the order the world is told in.
//!
//! ```text
//!       Create            Prepared             ProcessStarted(init)
//!  New ────────▶ Preparing ────────▶ Starting ──────────────────────▶ Running
//!                    │                   │                    (thawed ◀──▶ frozen)
//!                    │ init ended        │ init ended              │ init ended
//!                    ▼                   ▼                         ▼
//!                 Exiting: execs are withdrawn or killed, and waited for
//!                    │ the last exec ended: `Exited` is told
//!                    ├───── the bundle is still being made ──▶ Settling
//!                    ▼                                            │ Prepared, PrepareFailed
//!                 Releasing ◀─────────────────────────────────────┘
//!                    │ ReleaseEnded: `Released` is told
//!                    ▼
//!                 Released
//! ```
//! `Exited` is told when init and every exec have ended, and does not wait for the release. An exec
//! asked for before the container runs is parked and launched by the event. Neighbours: the
//! `Container` actor feeds it, one [`process`](crate::process) machine per process reports to it.

mod vocabulary;

use std::collections::BTreeMap;

pub use self::vocabulary::{ContainerEffect, ContainerEvent, Phase};

use crate::event::{Event, EventKind};
use crate::{
    Cancel, CancelCause, ContainerId, Effects, ExecId, Exit, HostPid, ProcessId, Refused, StartFailure,
    StartFailureKind, Timestamp,
};

/// The machine of one container.
///
/// ```
/// # use executor_lifecycle::container::{Container, ContainerEffect, ContainerEvent, Phase};
/// # use executor_lifecycle::{ContainerId, Refused, Timestamp};
/// let mut container = Container::new(ContainerId::new("c").unwrap());
/// let effects = container.step(Timestamp::default(), ContainerEvent::Create)?;
/// let [ContainerEffect::Publish(created), ContainerEffect::Prepare] = effects.as_slice() else { panic!() };
/// assert_eq!((created.seq, container.phase(), container.state()), (1, Phase::Creating, "preparing"));
/// assert_eq!(container.step(Timestamp::default(), ContainerEvent::Pause), Err(Refused::NotRunning));
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    id: ContainerId,
    state: State,
    execs: BTreeMap<ExecId, ExecState>,
    last_exec: ExecId,
    seq: u64,
    /// The bundle is being made; nothing can be released before that is over.
    preparing: bool,
    cancelled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    New,
    Preparing,
    Starting,
    Running { freeze: Freeze },
    Exiting { exit: Exit },
    Settling { exit: Exit },
    Releasing { exit: Exit },
    Released { exit: Exit },
}

/// Whether the runtime has been asked to freeze the container, and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Freeze {
    Thawed,
    /// A freeze is wanted; it waits for the execs that are just being started, which would hang.
    Awaited,
    Freezing,
    Frozen,
    Thawing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ExecState {
    /// The container does not run yet.
    Parked,
    /// The runtime is starting it.
    Launched,
    Running,
}

impl Container {
    /// A container that is still to be made.
    pub const fn new(id: ContainerId) -> Self {
        Self {
            id,
            state: State::New,
            execs: BTreeMap::new(),
            last_exec: ExecId(0),
            seq: 0,
            preparing: false,
            cancelled: false,
        }
    }

    /// The id the next accepted `Exec` gets.
    pub const fn next_exec(&self) -> ExecId {
        ExecId(self.last_exec.0 + 1)
    }

    /// Where it is in its life.
    pub const fn phase(&self) -> Phase {
        match &self.state {
            State::New | State::Preparing | State::Starting => Phase::Creating,
            State::Running { freeze: Freeze::Frozen | Freeze::Thawing } => Phase::Paused,
            State::Running { freeze: Freeze::Thawed | Freeze::Awaited | Freeze::Freezing }
            | State::Exiting { .. } => Phase::Running,
            State::Settling { .. } | State::Releasing { .. } => Phase::Exited,
            State::Released { .. } => Phase::Released,
        }
    }

    /// The name of its state, as in the diagram of `docs/message-semantics.md`.
    pub const fn state(&self) -> &'static str {
        match &self.state {
            State::New => "new",
            State::Preparing => "preparing",
            State::Starting => "starting",
            State::Running { freeze: Freeze::Thawed } => "running",
            State::Running { freeze: Freeze::Awaited | Freeze::Freezing } => "freezing",
            State::Running { freeze: Freeze::Frozen } => "frozen",
            State::Running { freeze: Freeze::Thawing } => "thawing",
            State::Exiting { .. } => "exiting",
            State::Settling { .. } => "settling",
            State::Releasing { .. } => "releasing",
            State::Released { .. } => "released",
        }
    }

    /// Takes one event.
    ///
    /// `Cancel` after the end is satisfied already: no effects. A completion that nobody waits for
    /// is `Refused::Stale`; the other refusals say why a request cannot be met.
    pub fn step(
        &mut self,
        now: Timestamp,
        event: ContainerEvent,
    ) -> Result<Effects<ContainerEffect>, Refused> {
        match event {
            ContainerEvent::Create => self.create(now),
            ContainerEvent::Prepared => self.prepared(),
            ContainerEvent::PrepareFailed(failure) => self.prepare_failed(failure),
            ContainerEvent::ProcessStarted { process: ProcessId::Init, pid } => self.init_started(now, pid),
            ContainerEvent::ProcessStarted { process: ProcessId::Exec(exec), pid } => {
                self.exec_started(now, exec, pid)
            }
            ContainerEvent::ProcessExited { process: ProcessId::Init, exit } => self.init_exited(now, exit),
            ContainerEvent::ProcessExited { process: ProcessId::Exec(exec), exit } => {
                self.exec_exited(now, exec, exit)
            }
            ContainerEvent::Exec => self.exec(),
            ContainerEvent::Cancel(cancel) => Ok(self.cancel(cancel)),
            ContainerEvent::Signal(signal, scope) => {
                self.for_init(ContainerEffect::SignalInit(signal, scope))
            }
            ContainerEvent::Resize(size) => self.for_init(ContainerEffect::ResizeInit(size)),
            ContainerEvent::Pause => self.pause(),
            ContainerEvent::Resume => self.resume(),
            ContainerEvent::PauseEnded { frozen } => self.pause_ended(now, frozen),
            ContainerEvent::ResumeEnded { thawed } => self.resume_ended(now, thawed),
            ContainerEvent::ReleaseEnded { left } => self.release_ended(now, left),
        }
        .map(Effects::from)
    }

    fn create(&mut self, now: Timestamp) -> Result<Vec<ContainerEffect>, Refused> {
        if self.state != State::New {
            return Err(Refused::Stale);
        }
        self.state = State::Preparing;
        self.preparing = true;
        Ok(vec![self.publish(now, EventKind::Created), ContainerEffect::Prepare])
    }

    fn prepared(&mut self) -> Result<Vec<ContainerEffect>, Refused> {
        self.preparation_ended(ContainerEffect::Launch(ProcessId::Init))
    }

    fn prepare_failed(&mut self, failure: StartFailure) -> Result<Vec<ContainerEffect>, Refused> {
        self.preparation_ended(ContainerEffect::Withdraw(ProcessId::Init, failure))
    }

    fn preparation_ended(&mut self, init: ContainerEffect) -> Result<Vec<ContainerEffect>, Refused> {
        if !std::mem::replace(&mut self.preparing, false) {
            return Err(Refused::Stale);
        }
        match &self.state {
            State::Preparing => {
                self.state = State::Starting;
                Ok(vec![init])
            }
            State::Settling { exit } => {
                self.state = State::Releasing { exit: exit.clone() };
                Ok(vec![ContainerEffect::Release])
            }
            State::New
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Ok(Vec::new()),
        }
    }

    fn init_started(&mut self, now: Timestamp, pid: HostPid) -> Result<Vec<ContainerEffect>, Refused> {
        if self.state != State::Starting {
            return Err(Refused::Stale);
        }
        self.state = State::Running { freeze: Freeze::Thawed };
        let mut effects = vec![self.publish(now, EventKind::Started { pid })];
        for (exec, state) in &mut self.execs {
            *state = ExecState::Launched;
            effects.push(ContainerEffect::Launch(ProcessId::Exec(*exec)));
        }
        Ok(effects)
    }

    fn init_exited(&mut self, now: Timestamp, exit: Exit) -> Result<Vec<ContainerEffect>, Refused> {
        match self.state {
            State::Preparing | State::Starting | State::Running { .. } => {}
            State::New
            | State::Exiting { .. }
            | State::Settling { .. }
            | State::Releasing { .. }
            | State::Released { .. } => return Err(Refused::Stale),
        }
        let gone =
            StartFailure::new(StartFailureKind::ContainerGone, format!("the container has ended: {exit}"));
        let kill = Cancel::now().cause(CancelCause::ContainerExited);
        let mut effects: Vec<_> = (self.execs.iter())
            .map(|(exec, state)| match state {
                ExecState::Parked => ContainerEffect::Withdraw(ProcessId::Exec(*exec), gone.clone()),
                ExecState::Launched | ExecState::Running => {
                    ContainerEffect::CancelProcess(ProcessId::Exec(*exec), kill)
                }
            })
            .collect();
        self.state = State::Exiting { exit };
        effects.extend(self.exited_when_empty(now));
        Ok(effects)
    }

    fn exec_started(
        &mut self,
        now: Timestamp,
        exec: ExecId,
        pid: HostPid,
    ) -> Result<Vec<ContainerEffect>, Refused> {
        match self.execs.get_mut(&exec) {
            Some(state @ ExecState::Launched) => *state = ExecState::Running,
            Some(ExecState::Parked | ExecState::Running) | None => return Err(Refused::Stale),
        }
        let mut effects = vec![self.publish(now, EventKind::ExecStarted { exec, pid })];
        effects.extend(self.freeze_when_settled());
        Ok(effects)
    }

    fn exec_exited(
        &mut self,
        now: Timestamp,
        exec: ExecId,
        exit: Exit,
    ) -> Result<Vec<ContainerEffect>, Refused> {
        if self.execs.remove(&exec).is_none() {
            return Err(Refused::Stale);
        }
        let mut effects = vec![self.publish(now, EventKind::ExecExited { exec, exit })];
        effects.extend(self.freeze_when_settled());
        effects.extend(self.exited_when_empty(now));
        Ok(effects)
    }

    fn exec(&mut self) -> Result<Vec<ContainerEffect>, Refused> {
        let state = match &self.state {
            State::New => return Err(Refused::NotRunning),
            State::Exiting { exit }
            | State::Settling { exit }
            | State::Releasing { exit }
            | State::Released { exit } => {
                return Err(Refused::stopped(exit));
            }
            State::Preparing | State::Starting | State::Running { .. } if self.cancelled => {
                return Err(Refused::Cancelled);
            }
            State::Preparing | State::Starting => ExecState::Parked,
            State::Running { freeze: Freeze::Thawed } => ExecState::Launched,
            State::Running {
                freeze: Freeze::Awaited | Freeze::Freezing | Freeze::Frozen | Freeze::Thawing,
            } => {
                return Err(Refused::Paused);
            }
        };
        let exec = self.next_exec();
        self.last_exec = exec;
        self.execs.insert(exec, state);
        let mut effects = vec![ContainerEffect::AddExec(exec)];
        if state == ExecState::Launched {
            effects.push(ContainerEffect::Launch(ProcessId::Exec(exec)));
        }
        Ok(effects)
    }

    /// Execs first: once init is dead its pid namespace kills them, and nobody could be signalled.
    fn cancel(&mut self, cancel: Cancel) -> Vec<ContainerEffect> {
        let thaw = match &mut self.state {
            State::Preparing
            | State::Starting
            | State::Running { freeze: Freeze::Thawed | Freeze::Freezing } => false,
            State::Running { freeze: freeze @ Freeze::Awaited } => {
                *freeze = Freeze::Thawed;
                false
            }
            State::Running { freeze: freeze @ Freeze::Frozen } => {
                *freeze = Freeze::Thawing;
                true
            }
            State::Running { freeze: Freeze::Thawing } => false,
            State::New
            | State::Exiting { .. }
            | State::Settling { .. }
            | State::Releasing { .. }
            | State::Released { .. } => return Vec::new(),
        };
        self.cancelled = true;
        let execs = self.execs.keys().map(|exec| ProcessId::Exec(*exec));
        let mut effects: Vec<_> = execs
            .chain([ProcessId::Init])
            .map(|process| ContainerEffect::CancelProcess(process, cancel))
            .collect();
        if thaw {
            effects.push(ContainerEffect::Resume);
        }
        effects
    }

    /// What init's own machine decides on, as long as there is an init.
    fn for_init(&self, effect: ContainerEffect) -> Result<Vec<ContainerEffect>, Refused> {
        match self.state {
            State::New => Err(Refused::NotRunning),
            State::Preparing | State::Starting | State::Running { .. } => Ok(vec![effect]),
            State::Exiting { .. }
            | State::Settling { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refused::Exited),
        }
    }

    fn pause(&mut self) -> Result<Vec<ContainerEffect>, Refused> {
        let cancelled = self.cancelled;
        match self.freeze()? {
            Freeze::Thawed if cancelled => Err(Refused::Cancelled),
            freeze @ Freeze::Thawed => {
                *freeze = Freeze::Awaited;
                Ok(self.freeze_when_settled())
            }
            Freeze::Awaited | Freeze::Freezing | Freeze::Frozen | Freeze::Thawing => Err(Refused::Paused),
        }
    }

    fn resume(&mut self) -> Result<Vec<ContainerEffect>, Refused> {
        match self.freeze()? {
            freeze @ Freeze::Frozen => {
                *freeze = Freeze::Thawing;
                Ok(vec![ContainerEffect::Resume])
            }
            Freeze::Thawed | Freeze::Awaited | Freeze::Freezing | Freeze::Thawing => Err(Refused::NotPaused),
        }
    }

    fn freeze(&mut self) -> Result<&mut Freeze, Refused> {
        match &mut self.state {
            State::New | State::Preparing | State::Starting => Err(Refused::NotRunning),
            State::Running { freeze } => Ok(freeze),
            State::Exiting { .. }
            | State::Settling { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refused::Exited),
        }
    }

    fn pause_ended(&mut self, now: Timestamp, frozen: bool) -> Result<Vec<ContainerEffect>, Refused> {
        let cancelled = self.cancelled;
        match self.freeze() {
            Ok(freeze @ Freeze::Freezing) => {
                *freeze = match (frozen, cancelled) {
                    (false, _) => Freeze::Thawed,
                    (true, false) => Freeze::Frozen,
                    (true, true) => Freeze::Thawing,
                };
                let mut effects = Vec::new();
                if frozen {
                    effects.push(self.publish(now, EventKind::Paused));
                }
                if frozen && cancelled {
                    effects.push(ContainerEffect::Resume);
                }
                Ok(effects)
            }
            Ok(Freeze::Thawed | Freeze::Awaited | Freeze::Frozen | Freeze::Thawing) | Err(_) => {
                Err(Refused::Stale)
            }
        }
    }

    fn resume_ended(&mut self, now: Timestamp, thawed: bool) -> Result<Vec<ContainerEffect>, Refused> {
        match self.freeze() {
            Ok(freeze @ Freeze::Thawing) => {
                *freeze = if thawed { Freeze::Thawed } else { Freeze::Frozen };
                Ok(if thawed { vec![self.publish(now, EventKind::Resumed)] } else { Vec::new() })
            }
            Ok(Freeze::Thawed | Freeze::Awaited | Freeze::Freezing | Freeze::Frozen) | Err(_) => {
                Err(Refused::Stale)
            }
        }
    }

    fn release_ended(&mut self, now: Timestamp, left: Vec<String>) -> Result<Vec<ContainerEffect>, Refused> {
        let State::Releasing { exit } = &self.state else {
            return Err(Refused::Stale);
        };
        self.state = State::Released { exit: exit.clone() };
        // Whoever is told that the id is free shall find it so.
        Ok(vec![ContainerEffect::Finished, self.publish(now, EventKind::Released { left })])
    }

    /// The freeze that was waiting for execs to start, once none is starting any more.
    fn freeze_when_settled(&mut self) -> Vec<ContainerEffect> {
        if self.execs.values().any(|state| *state == ExecState::Launched) {
            return Vec::new();
        }
        if let State::Running { freeze: freeze @ Freeze::Awaited } = &mut self.state {
            *freeze = Freeze::Freezing;
            return vec![ContainerEffect::Pause];
        }
        Vec::new()
    }

    /// Tells the exit, once init and every exec have ended.
    fn exited_when_empty(&mut self, now: Timestamp) -> Vec<ContainerEffect> {
        let State::Exiting { exit } = &self.state else {
            return Vec::new();
        };
        if !self.execs.is_empty() {
            return Vec::new();
        }
        let exit = exit.clone();
        let mut effects = vec![self.publish(now, EventKind::Exited { exit: exit.clone() })];
        if self.preparing {
            self.state = State::Settling { exit };
        } else {
            self.state = State::Releasing { exit };
            effects.push(ContainerEffect::Release);
        }
        effects
    }

    fn publish(&mut self, at: Timestamp, kind: EventKind) -> ContainerEffect {
        self.seq += 1;
        ContainerEffect::Publish(Event { seq: self.seq, container: self.id.clone(), at, kind })
    }
}
