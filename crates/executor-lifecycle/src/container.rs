//! A container: its init, the processes exec'd into it, where it is held, and the order of its events.
//!
//! ```text
//!       Create            Prepared               InitCreated           Start, ProcessStarted
//!  New ────────▶ Preparing ───────▶ Creating ───────────────▶ Created ─────▶ Starting ─────▶ Running
//!                    │  └─ Start came, no terminal ───────────────────────────▲               (thawed ◀──▶ frozen)
//!                    │ init ended        │ init ended           │ init ended  │ init ended    │ init ended
//!                    ▼                   ▼                      ▼             ▼               ▼
//!                 Exiting: execs are withdrawn or killed, and waited for; without a pid namespace the rest is killed
//!                    │ nothing is left of it: `Exited` is published
//!                    ▼
//!                 Exited: held while it is kept, or its bundle is still being made
//!                    │ Remove, Tick, Prepared, PrepareFailed
//!                    ▼
//!                 Releasing ── ReleaseEnded ──▶ Released
//! ```
//! `run` is `Create` and `Start` at once: the container is then held nowhere. `Exited` is published when init and every exec
//! have ended, and does not wait for the release. An exec asked for before the container runs is parked and launched by the
//! event. Neighbours: the `Container` actor feeds it, one [`process`](crate::process) machine per process reports to it, the
//! [`registry`](crate::registry) frees its id.

mod vocabulary;

use std::collections::BTreeMap;

pub use self::vocabulary::{ContainerEffect, ContainerEvent, ContainerTraits, KeepExited, Phase};

use crate::event::{Event, EventKind};
use crate::process::{Kill, Terms};
use crate::{
    Cancel, CancelCause, ContainerId, Effects, ExecId, Exit, HostPid, Leftover, ProcessId, Refusal, Refused,
    Signal, SignalScope, StartFailure, StartFailureKind, Timestamp,
};

/// The machine of one container.
///
/// ```
/// # use executor_lifecycle::container::{Container, ContainerEffect, ContainerEvent, ContainerTraits};
/// # use executor_lifecycle::{ContainerId, Refusal, Refused, Timestamp};
/// let mut container = Container::new(ContainerId::new("c").unwrap(), ContainerTraits::default());
/// let effects = container.step(Timestamp::default(), ContainerEvent::Create)?;
/// let [ContainerEffect::Publish(registered), ContainerEffect::Prepare] = effects.as_slice() else { panic!() };
/// assert_eq!((registered.seq, container.state()), (1, "preparing"));
/// let refused = container.step(Timestamp::default(), ContainerEvent::Pause).unwrap_err();
/// assert_eq!((refused.reason, &*refused.state), (Refusal::NotRunning, "preparing"));
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    id: ContainerId,
    traits: ContainerTraits,
    state: State,
    execs: BTreeMap<ExecId, ExecState>,
    /// How many execs were given an id of ours.
    numbered: u64,
    seq: u64,
    /// The bundle is being made; nothing can be released before that is over.
    preparing: bool,
    /// The program is to be executed.
    start_wanted: bool,
    cancelled: bool,
    /// Something in it was killed while the runtime was freezing it.
    thaw_wanted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    New,
    Preparing,
    Creating,
    Created,
    Starting,
    Running {
        freeze: Freeze,
    },
    Exiting {
        exit: Exit,
        rest: Rest,
    },
    /// Held for as long as `kept` says, and while the bundle is still being made.
    Exited {
        exit: Exit,
        kept: Kept,
    },
    Releasing {
        exit: Exit,
    },
    Released {
        exit: Exit,
    },
}

/// What did not end with init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rest {
    /// There is nothing, or it was not looked for yet.
    Unasked,
    /// It is being killed.
    Ending,
    /// Nothing is left.
    Ended,
}

/// How long a container that has exited is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kept {
    NotAny,
    Until(Timestamp),
    UntilRemoved,
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

type Answer = Result<Vec<ContainerEffect>, Refusal>;

impl Container {
    /// A container that is still to be made.
    pub const fn new(id: ContainerId, traits: ContainerTraits) -> Self {
        Self {
            id,
            traits,
            state: State::New,
            execs: BTreeMap::new(),
            numbered: 0,
            seq: 0,
            preparing: false,
            start_wanted: false,
            cancelled: false,
            thaw_wanted: false,
        }
    }

    /// Whether its exit was published.
    pub const fn has_exited(&self) -> bool {
        matches!(&self.state, State::Exited { .. } | State::Releasing { .. } | State::Released { .. })
    }

    /// The name of its state, as in the diagram of `docs/message-semantics.md`.
    pub const fn state(&self) -> &'static str {
        match &self.state {
            State::New => "new",
            State::Preparing => "preparing",
            State::Creating => "creating",
            State::Created => "created",
            State::Starting => "starting",
            State::Running { freeze: Freeze::Thawed } => "running",
            State::Running { freeze: Freeze::Awaited | Freeze::Freezing } => "freezing",
            State::Running { freeze: Freeze::Frozen } => "frozen",
            State::Running { freeze: Freeze::Thawing } => "thawing",
            State::Exiting { rest: Rest::Ending, .. } => "ending_rest",
            State::Exiting { .. } => "exiting",
            State::Exited { .. } if self.preparing => "settling",
            State::Exited { .. } => "exited",
            State::Releasing { .. } => "releasing",
            State::Released { .. } => "released",
        }
    }

    /// When `Tick` is due next, if nothing else happens.
    pub const fn next_deadline(&self) -> Option<Timestamp> {
        match &self.state {
            State::Exited { kept: Kept::Until(until), .. } => Some(*until),
            State::Exited { kept: Kept::NotAny | Kept::UntilRemoved, .. }
            | State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. }
            | State::Releasing { .. }
            | State::Released { .. } => None,
        }
    }

    /// Takes one event.
    ///
    /// `Cancel` after the end is satisfied already: no effects. A completion that nothing waits for
    /// is [`Refusal::Stale`]; the other refusals say why a request cannot be met.
    pub fn step(
        &mut self,
        now: Timestamp,
        event: ContainerEvent,
    ) -> Result<Effects<ContainerEffect>, Refused> {
        let from = self.state();
        self.take(now, event).map(Effects::from).map_err(|reason| reason.from_state(from))
    }

    fn take(&mut self, now: Timestamp, event: ContainerEvent) -> Answer {
        match event {
            ContainerEvent::Create => self.create(now),
            ContainerEvent::Start(terms) => self.start(terms),
            ContainerEvent::Prepared => self.prepared(),
            ContainerEvent::PrepareFailed(failure) => self.prepare_failed(failure),
            ContainerEvent::InitCreated { pid } => self.init_created(now, pid),
            ContainerEvent::ProcessStarted { process: ProcessId::Init, pid } => self.init_started(now, pid),
            ContainerEvent::ProcessStarted { process: ProcessId::Exec(exec), pid } => {
                self.exec_started(now, exec, pid)
            }
            ContainerEvent::ProcessExited { process: ProcessId::Init, exit } => self.init_exited(now, exit),
            ContainerEvent::ProcessExited { process: ProcessId::Exec(exec), exit } => {
                self.exec_exited(now, exec, exit)
            }
            ContainerEvent::StillAlive(process) => self.still_alive(process),
            ContainerEvent::Exec(id) => self.exec(now, id),
            ContainerEvent::Cancel(cancel) => Ok(self.cancel(cancel)),
            ContainerEvent::End(cancel) => Ok(self.end(cancel)),
            ContainerEvent::Remove => self.remove(),
            ContainerEvent::Signal(signal, scope) => self.signal(signal, scope),
            ContainerEvent::Resize(_) if !self.traits.has_terminal => Err(Refusal::NoTerminal),
            ContainerEvent::Resize(size) => self.for_init(ContainerEffect::ResizeInit(size)),
            ContainerEvent::Pause => self.pause(),
            ContainerEvent::Resume => self.resume(),
            ContainerEvent::PauseEnded { frozen } => self.pause_ended(now, frozen),
            ContainerEvent::ResumeEnded { thawed } => self.resume_ended(now, thawed),
            ContainerEvent::ListProcesses => self.while_it_stands(ContainerEffect::ListProcesses),
            ContainerEvent::ReadUsage => self.while_it_stands(ContainerEffect::ReadUsage),
            ContainerEvent::RestEnded => self.rest_ended(now),
            ContainerEvent::ReleaseEnded { left } => self.release_ended(now, left),
            ContainerEvent::Tick => Ok(self.tick(now)),
        }
    }

    fn create(&mut self, now: Timestamp) -> Answer {
        if self.state != State::New {
            return Err(Refusal::Stale);
        }
        self.state = State::Preparing;
        self.preparing = true;
        Ok(vec![self.publish(now, EventKind::Registered), ContainerEffect::Prepare])
    }

    fn start(&mut self, terms: Terms) -> Answer {
        match &self.state {
            State::New => return Err(Refusal::NotRunning),
            State::Exiting { exit, .. }
            | State::Exited { exit, .. }
            | State::Releasing { exit }
            | State::Released { exit } => return Err(Refusal::stopped(exit)),
            State::Starting | State::Running { .. } => return Err(Refusal::Started),
            State::Preparing | State::Creating | State::Created if self.cancelled => {
                return Err(Refusal::Cancelled);
            }
            State::Preparing | State::Creating | State::Created if self.start_wanted => {
                return Err(Refusal::Started);
            }
            State::Preparing | State::Creating | State::Created => {}
        }
        self.start_wanted = true;
        let mut effects = vec![ContainerEffect::ArmInit(terms)];
        if self.state == State::Created {
            effects.push(self.launch_init());
        }
        Ok(effects)
    }

    fn launch_init(&mut self) -> ContainerEffect {
        self.state = State::Starting;
        ContainerEffect::Launch(ProcessId::Init)
    }

    fn prepared(&mut self) -> Answer {
        self.preparation_ended(None)
    }

    fn prepare_failed(&mut self, failure: StartFailure) -> Answer {
        self.preparation_ended(Some(failure))
    }

    fn preparation_ended(&mut self, failure: Option<StartFailure>) -> Answer {
        if !std::mem::replace(&mut self.preparing, false) {
            return Err(Refusal::Stale);
        }
        match (&self.state, failure) {
            (State::Preparing, Some(failure)) => {
                self.state = State::Starting;
                Ok(vec![ContainerEffect::Withdraw(ProcessId::Init, failure)])
            }
            (State::Preparing, None) if self.start_wanted && !self.traits.has_terminal => {
                Ok(vec![self.launch_init()])
            }
            (State::Preparing, None) => {
                self.state = State::Creating;
                Ok(vec![ContainerEffect::CreateInit])
            }
            (State::Exited { .. }, _) => Ok(self.release_when_over()),
            (
                State::New
                | State::Creating
                | State::Created
                | State::Starting
                | State::Running { .. }
                | State::Exiting { .. }
                | State::Releasing { .. }
                | State::Released { .. },
                _,
            ) => Ok(Vec::new()),
        }
    }

    fn init_created(&mut self, now: Timestamp, pid: HostPid) -> Answer {
        if self.state != State::Creating {
            return Err(Refusal::Stale);
        }
        self.state = State::Created;
        let mut effects = vec![self.publish(now, EventKind::Created { pid })];
        if self.start_wanted {
            effects.push(self.launch_init());
        }
        Ok(effects)
    }

    fn init_started(&mut self, now: Timestamp, pid: HostPid) -> Answer {
        if self.state != State::Starting {
            return Err(Refusal::Stale);
        }
        self.state = State::Running { freeze: Freeze::Thawed };
        let mut effects = vec![self.publish(now, EventKind::Started { pid })];
        for (exec, state) in &mut self.execs {
            *state = ExecState::Launched;
            effects.push(ContainerEffect::Launch(ProcessId::Exec(exec.clone())));
        }
        Ok(effects)
    }

    fn init_exited(&mut self, now: Timestamp, exit: Exit) -> Answer {
        match self.state {
            State::Preparing | State::Creating | State::Created | State::Starting | State::Running { .. } => {
            }
            State::New
            | State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => return Err(Refusal::Stale),
        }
        let gone =
            StartFailure::new(StartFailureKind::ContainerGone, format!("the container has ended: {exit}"));
        let kill = Cancel::now().cause(CancelCause::ContainerExited);
        let mut effects: Vec<_> = (self.execs.iter())
            .map(|(exec, state)| match state {
                ExecState::Parked => ContainerEffect::Withdraw(ProcessId::Exec(exec.clone()), gone.clone()),
                ExecState::Launched | ExecState::Running => {
                    ContainerEffect::CancelProcess(ProcessId::Exec(exec.clone()), kill)
                }
            })
            .collect();
        self.state = State::Exiting { exit, rest: Rest::Unasked };
        effects.extend(self.exited_when_empty(now));
        Ok(effects)
    }

    fn exec_started(&mut self, now: Timestamp, exec: ExecId, pid: HostPid) -> Answer {
        match self.execs.get_mut(&exec) {
            Some(state @ ExecState::Launched) => *state = ExecState::Running,
            Some(ExecState::Parked | ExecState::Running) | None => return Err(Refusal::Stale),
        }
        let mut effects = vec![self.publish(now, EventKind::ExecStarted { exec, pid })];
        effects.extend(self.freeze_when_settled());
        Ok(effects)
    }

    fn exec_exited(&mut self, now: Timestamp, exec: ExecId, exit: Exit) -> Answer {
        if self.execs.remove(&exec).is_none() {
            return Err(Refusal::Stale);
        }
        let mut effects = vec![self.publish(now, EventKind::ExecExited { exec, exit })];
        effects.extend(self.freeze_when_settled());
        effects.extend(self.exited_when_empty(now));
        Ok(effects)
    }

    fn exec(&mut self, now: Timestamp, id: Option<ExecId>) -> Answer {
        let state = match &self.state {
            State::New => return Err(Refusal::NotRunning),
            State::Exiting { exit, .. }
            | State::Exited { exit, .. }
            | State::Releasing { exit }
            | State::Released { exit } => return Err(Refusal::stopped(exit)),
            State::Preparing | State::Creating | State::Created | State::Starting | State::Running { .. }
                if self.cancelled =>
            {
                return Err(Refusal::Cancelled);
            }
            State::Preparing | State::Creating | State::Created | State::Starting => ExecState::Parked,
            State::Running { freeze: Freeze::Thawed } => ExecState::Launched,
            State::Running {
                freeze: Freeze::Awaited | Freeze::Freezing | Freeze::Frozen | Freeze::Thawing,
            } => return Err(Refusal::Paused),
        };
        let exec = match id {
            Some(id) if self.execs.contains_key(&id) => return Err(Refusal::ExecIdTaken),
            Some(id) => id,
            None => self.next_exec(),
        };
        self.execs.insert(exec.clone(), state);
        let mut effects = vec![
            ContainerEffect::AddExec(exec.clone()),
            self.publish(now, EventKind::ExecAdded { exec: exec.clone() }),
        ];
        if state == ExecState::Launched {
            effects.push(ContainerEffect::Launch(ProcessId::Exec(exec)));
        }
        Ok(effects)
    }

    /// An id of ours that no caller has taken for an exec of its own.
    fn next_exec(&mut self) -> ExecId {
        loop {
            self.numbered += 1;
            let id = ExecId::numbered(self.numbered);
            if !self.execs.contains_key(&id) {
                return id;
            }
        }
    }

    /// Execs first: once init is dead its pid namespace kills them, and there is nothing left to signal.
    fn cancel(&mut self, cancel: Cancel) -> Vec<ContainerEffect> {
        match &self.state {
            State::Preparing | State::Creating | State::Created | State::Starting | State::Running { .. } => {
            }
            State::New
            | State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => return Vec::new(),
        }
        self.cancelled = true;
        let execs = self.execs.keys().map(|exec| ProcessId::Exec(exec.clone()));
        let mut effects: Vec<_> = execs
            .chain([ProcessId::Init])
            .map(|process| ContainerEffect::CancelProcess(process, cancel))
            .collect();
        effects.extend(self.thaw_the_killed());
        effects
    }

    fn end(&mut self, cancel: Cancel) -> Vec<ContainerEffect> {
        self.traits.keep_exited = KeepExited::No;
        match &mut self.state {
            State::Exited { kept, .. } => {
                *kept = Kept::NotAny;
                self.release_when_over()
            }
            State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. }
            | State::Releasing { .. }
            | State::Released { .. } => self.cancel(cancel),
        }
    }

    fn remove(&mut self) -> Answer {
        match &mut self.state {
            State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. } => Err(Refusal::NotExited),
            State::Exited { kept, .. } => {
                *kept = Kept::NotAny;
                Ok(self.release_when_over())
            }
            State::Releasing { .. } | State::Released { .. } => Ok(Vec::new()),
        }
    }

    /// What is frozen does not die of a SIGKILL before it is thawed.
    fn signal(&mut self, signal: Signal, scope: SignalScope) -> Answer {
        let mut effects = self.for_init(ContainerEffect::SignalInit(signal, scope))?;
        if signal == Signal::KILL {
            effects.extend(self.thaw_the_killed());
        }
        Ok(effects)
    }

    /// A process that does not die of a SIGKILL is frozen: with the container, or by the container's own doing.
    fn still_alive(&mut self, process: ProcessId) -> Answer {
        match &self.state {
            State::Running { freeze: Freeze::Freezing | Freeze::Frozen } => {
                Ok(self.thaw_the_killed().into_iter().collect())
            }
            _ if !self.is_there(&process) => Err(Refusal::Stale),
            State::Created | State::Starting | State::Running { .. } | State::Exiting { .. } => {
                let everything = self.traits.shares_pids && process == ProcessId::Init;
                Ok(vec![ContainerEffect::KillAgain(process, Kill { everything, thaw: true })])
            }
            State::New
            | State::Preparing
            | State::Creating
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refusal::Stale),
        }
    }

    /// Whether this process was accepted and its end not reported.
    fn is_there(&self, process: &ProcessId) -> bool {
        match process {
            ProcessId::Init => !matches!(self.state, State::Exiting { .. }),
            ProcessId::Exec(exec) => self.execs.contains_key(exec),
        }
    }

    /// What was killed is to die: now, or when the runtime has frozen it.
    fn thaw_the_killed(&mut self) -> Option<ContainerEffect> {
        match &mut self.state {
            State::Running { freeze: freeze @ Freeze::Awaited } => {
                *freeze = Freeze::Thawed;
                None
            }
            State::Running { freeze: Freeze::Freezing } => {
                self.thaw_wanted = true;
                None
            }
            State::Running { freeze: freeze @ Freeze::Frozen } => {
                *freeze = Freeze::Thawing;
                Some(ContainerEffect::Thaw)
            }
            State::Running { freeze: Freeze::Thawed | Freeze::Thawing }
            | State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => None,
        }
    }

    /// What init's own machine decides on, as long as there is an init.
    fn for_init(&self, effect: ContainerEffect) -> Answer {
        match self.state {
            State::New => Err(Refusal::NotRunning),
            State::Preparing | State::Creating | State::Created | State::Starting | State::Running { .. } => {
                Ok(vec![effect])
            }
            State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refusal::Exited),
        }
    }

    /// What can be asked while there is something in it.
    fn while_it_stands(&self, effect: ContainerEffect) -> Answer {
        match self.state {
            State::New | State::Preparing | State::Creating | State::Starting => Err(Refusal::NotRunning),
            State::Created | State::Running { .. } => Ok(vec![effect]),
            State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refusal::Exited),
        }
    }

    fn pause(&mut self) -> Answer {
        let cancelled = self.cancelled;
        match self.freeze()? {
            Freeze::Thawed if cancelled => Err(Refusal::Cancelled),
            freeze @ Freeze::Thawed => {
                *freeze = Freeze::Awaited;
                Ok(self.freeze_when_settled())
            }
            Freeze::Awaited | Freeze::Freezing | Freeze::Frozen | Freeze::Thawing => Err(Refusal::Paused),
        }
    }

    fn resume(&mut self) -> Answer {
        match self.freeze()? {
            freeze @ Freeze::Frozen => {
                *freeze = Freeze::Thawing;
                Ok(vec![ContainerEffect::Resume])
            }
            Freeze::Thawed | Freeze::Awaited | Freeze::Freezing | Freeze::Thawing => Err(Refusal::NotPaused),
        }
    }

    fn freeze(&mut self) -> Result<&mut Freeze, Refusal> {
        match &mut self.state {
            State::New | State::Preparing | State::Creating | State::Created | State::Starting => {
                Err(Refusal::NotRunning)
            }
            State::Running { freeze } => Ok(freeze),
            State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refusal::Exited),
        }
    }

    fn pause_ended(&mut self, now: Timestamp, frozen: bool) -> Answer {
        let is_killed = std::mem::take(&mut self.thaw_wanted) || self.cancelled;
        match self.freeze() {
            Ok(freeze @ Freeze::Freezing) => {
                *freeze = match (frozen, is_killed) {
                    (false, _) => Freeze::Thawed,
                    (true, false) => Freeze::Frozen,
                    (true, true) => Freeze::Thawing,
                };
                let mut effects = Vec::new();
                if frozen {
                    effects.push(self.publish(now, EventKind::Paused));
                }
                if frozen && is_killed {
                    effects.push(ContainerEffect::Thaw);
                }
                Ok(effects)
            }
            Ok(Freeze::Thawed | Freeze::Awaited | Freeze::Frozen | Freeze::Thawing) | Err(_) => {
                Err(Refusal::Stale)
            }
        }
    }

    fn resume_ended(&mut self, now: Timestamp, thawed: bool) -> Answer {
        match self.freeze() {
            Ok(freeze @ Freeze::Thawing) => {
                *freeze = if thawed { Freeze::Thawed } else { Freeze::Frozen };
                Ok(if thawed { vec![self.publish(now, EventKind::Resumed)] } else { Vec::new() })
            }
            Ok(Freeze::Thawed | Freeze::Awaited | Freeze::Freezing | Freeze::Frozen) | Err(_) => {
                Err(Refusal::Stale)
            }
        }
    }

    fn rest_ended(&mut self, now: Timestamp) -> Answer {
        match &mut self.state {
            State::Exiting { rest: rest @ Rest::Ending, .. } => {
                *rest = Rest::Ended;
                Ok(self.exited_when_empty(now))
            }
            State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { rest: Rest::Unasked | Rest::Ended, .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refusal::Stale),
        }
    }

    fn release_ended(&mut self, now: Timestamp, left: Vec<Leftover>) -> Answer {
        let State::Releasing { exit } = &self.state else {
            return Err(Refusal::Stale);
        };
        self.state = State::Released { exit: exit.clone() };
        Ok(vec![ContainerEffect::Finished(self.event(now, EventKind::Released { left }))])
    }

    fn tick(&mut self, now: Timestamp) -> Vec<ContainerEffect> {
        match &mut self.state {
            State::Exited { kept: kept @ Kept::Until(_), .. } => {
                if matches!(kept, Kept::Until(until) if *until > now) {
                    return Vec::new();
                }
                *kept = Kept::NotAny;
                self.release_when_over()
            }
            State::Exited { kept: Kept::NotAny | Kept::UntilRemoved, .. }
            | State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Vec::new(),
        }
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

    /// Publishes the exit, once init and every exec have ended, and all that shares their pid namespace with the host.
    fn exited_when_empty(&mut self, now: Timestamp) -> Vec<ContainerEffect> {
        let State::Exiting { exit, rest } = &mut self.state else {
            return Vec::new();
        };
        if !self.execs.is_empty() {
            return Vec::new();
        }
        match rest {
            Rest::Ending => return Vec::new(),
            // There is something in it only once its bundle was made.
            Rest::Unasked if self.traits.shares_pids && !self.preparing => {
                *rest = Rest::Ending;
                return vec![ContainerEffect::EndRest];
            }
            Rest::Unasked | Rest::Ended => {}
        }
        let exit = exit.clone();
        let kept = match self.traits.keep_exited {
            KeepExited::No => Kept::NotAny,
            KeepExited::For(time) => Kept::Until(now.after(time)),
            KeepExited::UntilRemoved => Kept::UntilRemoved,
        };
        self.state = State::Exited { exit: exit.clone(), kept };
        let mut effects = vec![self.publish(now, EventKind::Exited { exit })];
        effects.extend(self.release_when_over());
        effects
    }

    /// Gives everything back, once it is not kept any more and its bundle is not being made.
    fn release_when_over(&mut self) -> Vec<ContainerEffect> {
        match &self.state {
            State::Exited { exit, kept: Kept::NotAny } if !self.preparing => {
                self.state = State::Releasing { exit: exit.clone() };
                vec![ContainerEffect::Release]
            }
            State::Exited { .. }
            | State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Vec::new(),
        }
    }

    fn publish(&mut self, at: Timestamp, kind: EventKind) -> ContainerEffect {
        ContainerEffect::Publish(self.event(at, kind))
    }

    fn event(&mut self, at: Timestamp, kind: EventKind) -> Event {
        self.seq += 1;
        Event { seq: self.seq, container: self.id.clone(), at, kind }
    }
}
