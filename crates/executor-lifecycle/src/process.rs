//! One process, init or exec'd: from the request to run it to the one report of its end.
//!
//! ```text
//!            Launch                        Started                   Ended
//!  Waiting ─────────────▶ Starting ─────────────────▶ Running ─────────────▶ Exited
//!     │                    ▲     │ StartFailed                                ▲ ▲ ▲
//!     │ Create      Launch │     ├─── there is no init yet ───────────────────┘ │ │
//!     ▼                    │     └─── init was created ──▶ Undoing ─── Ended ───┘ │
//!  Creating ─ Created ─▶ Created ─────────────────────────────────── Ended ───────┘
//! ```
//! `Waiting` also ends by `Withdraw`, `Cancel` and the time limit; `Creating` by `StartFailed`. A cancel is kept beside the
//! state: nothing is lost when it comes before the pid is known. An `Ended` that overtakes its answer is kept too.
//! Neighbours: the `Process` actor feeds it; the [`container`](crate::container) machine says when to create and to launch,
//! and receives the reports.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Cancel, CancelCause, Effects, Exit, ExitReason, ExitStatus, HostPid, RawExit, Refusal, Refused, Signal,
    SignalScope, StartFailure, StartFailureKind, TerminalSize, Timestamp,
};

/// How long a start that is to be cancelled may go on before it is abandoned.
///
/// A runtime that is left to finish leaves nothing half made, so it gets time to; one that hangs
/// must not hold the cancel for ever.
pub const START_PATIENCE: Duration = Duration::from_secs(5);

/// When a SIGKILL that could not be delivered is tried again.
pub const KILL_RETRY: Duration = Duration::from_millis(100);

/// When a SIGKILL that was delivered is repeated because the process is still there: it may be frozen.
pub const KILL_AGAIN: Duration = Duration::from_secs(1);

/// The machine of one process.
///
/// A cancel that comes before the pid is known is kept, and carried out when it is:
///
/// ```
/// # use executor_lifecycle::process::{Kill, Process, ProcessEffect, ProcessEvent, ProcessTraits};
/// # use executor_lifecycle::{Cancel, HostPid, Refused, Timestamp};
/// let (now, pid) = (Timestamp::default(), HostPid::new(42).unwrap());
/// let mut process = Process::new(ProcessTraits::default());
/// assert_eq!(process.step(now, ProcessEvent::Launch)?.as_slice(), [ProcessEffect::Launch]);
/// assert_eq!(process.step(now, ProcessEvent::Cancel(Cancel::now()))?.as_slice(), []);
/// let effects = process.step(now, ProcessEvent::Started { pid })?;
/// let [ProcessEffect::Watch, ProcessEffect::ReportStarted { .. }, kill] = effects.as_slice() else { panic!() };
/// assert_eq!(*kill, ProcessEffect::Kill(Kill::default()));
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    traits: ProcessTraits,
    state: State,
    cancelling: Option<Cancelling>,
    /// When the time of the process is over, and what is done then.
    timeout: Option<(Timestamp, Cancel)>,
    /// Signals that wait for the program.
    parked: Vec<(Signal, SignalScope)>,
    /// The last size asked for before the runtime was asked for anything.
    resize: Option<TerminalSize>,
    sent_sigkill: bool,
    /// Exit codes beside 0 that count as success.
    valid_codes: BTreeSet<u8>,
}

/// What a process is like, from its specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessTraits {
    /// It has a terminal.
    pub has_terminal: bool,
    /// It is the init of a container without a pid namespace: nothing ends with it by itself.
    pub shares_pids: bool,
}

/// What is expected of a process, from the moment its time counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The most time it may take.
    pub time_limit: Option<TimeLimit>,
    /// Exit codes beside 0 that count as success.
    pub valid_codes: BTreeSet<u8>,
}

/// The most time a process may take, and how it is ended then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeLimit {
    /// How long.
    pub after: Duration,
    /// What happens then.
    pub cancel: Cancel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    /// Nothing was asked of the runtime.
    Waiting,
    /// The runtime makes it, short of executing the program. `early` is an end that overtook the answer.
    Creating {
        early: Option<RawExit>,
    },
    /// It waits for its program to be executed.
    Created {
        pid: HostPid,
    },
    /// The runtime starts it. The pid is known of one that was created: if that ends, a runtime that still gives no answer
    /// is given up at `abandon_at`.
    Starting {
        pid: Option<HostPid>,
        early: Option<RawExit>,
        abandon_at: Option<Timestamp>,
    },
    /// A process that was created could not be started; it is killed, again at this moment.
    Undoing {
        /// Why; where the container was gone before its program was executed, its end says why.
        reason: Option<ExitReason>,
        retry_at: Timestamp,
    },
    Running {
        pid: HostPid,
        started_at: Timestamp,
    },
    Exited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cancelling {
    cancel: Cancel,
    stage: CancelStage,
}

/// How far a cancel has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CancelStage {
    /// The pid is not known yet, or the program not executed; the start is abandoned at this moment.
    Pending { abandon_at: Timestamp },
    /// The start is being given up.
    Abandoning,
    /// The first signal is out; SIGKILL follows at this moment.
    Signalled { kill_at: Timestamp },
    /// SIGKILL is out; it is repeated at this moment if the process is still there.
    Killed { retry_at: Timestamp },
}

/// What can happen to a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProcessEvent {
    /// Its time counts from now on.
    Arm(Terms),
    /// The container is ready for it: make it, short of executing the program.
    Create,
    /// The container is ready for it: start it.
    Launch,
    /// The container will never be ready for it.
    Withdraw(StartFailure),
    /// The runtime made it.
    Created {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// The runtime started it.
    Started {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// The runtime could not make it, or not start it.
    StartFailed(StartFailure),
    /// The exit source saw it end.
    Ended(RawExit),
    /// It is to be ended.
    Cancel(Cancel),
    /// It is to get a signal.
    Signal(Signal, SignalScope),
    /// Its terminal is to have this size.
    Resize(TerminalSize),
    /// SIGKILL could not be delivered, and it is not because the process is gone.
    KillFailed,
    /// A deadline may have come.
    Tick,
}

/// What is to be done for a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProcessEffect {
    /// Have the runtime make it, short of executing the program; comes back as `Created` or `StartFailed`.
    Create,
    /// Have the runtime start it; comes back as `Started` or `StartFailed`.
    Launch,
    /// Have the runtime execute the program of what it created; comes back as `Started` or `StartFailed`.
    StartCreated,
    /// Give the creation or the start up: end the runtime, remove what it left; comes back as `StartFailed`.
    AbandonStart,
    /// Ask for its end, which comes back as `Ended`.
    Watch,
    /// Send it a signal.
    Signal(Signal, SignalScope),
    /// Give its terminal this size, also if it has none yet: the size is set before the program can ask for it.
    Resize(TerminalSize),
    /// Send SIGKILL to it and its process group; a failure comes back as `KillFailed`.
    Kill(Kill),
    /// Tell the container that it was killed and has not ended: something may be frozen. Comes again while it does not end.
    ReportStillAlive,
    /// Tell the container that it was created.
    ReportCreated {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Tell the container that it runs.
    ReportStarted {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Tell the container that it ended. Comes exactly once, and nothing comes after it.
    ReportExited(Exit),
}

/// What a kill does beside sending SIGKILL to a process and its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kill {
    /// Everything else in the container is killed as well: there is no pid namespace that ends with this process.
    pub everything: bool,
    /// The container is thawed with all freezers below its own: an earlier SIGKILL has not ended the process.
    pub thaw: bool,
}

/// What is known of a process whose actor failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Remains {
    /// What the runtime was asked for last; it answers, or has answered.
    pub asked: Option<Asked>,
    /// The pid, once it was reported.
    pub pid: Option<HostPid>,
    /// When it was reported to run.
    pub started_at: Option<Timestamp>,
    /// How it ended, once that was delivered: it is not delivered again.
    pub ended: Option<RawExit>,
}

/// What a runtime can be asked for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// [`ProcessEffect::Create`].
    Create,
    /// [`ProcessEffect::Launch`].
    Launch,
    /// [`ProcessEffect::StartCreated`].
    StartCreated,
}

impl Process {
    /// A process that waits.
    pub const fn new(traits: ProcessTraits) -> Self {
        Self {
            traits,
            state: State::Waiting,
            cancelling: None,
            timeout: None,
            parked: Vec::new(),
            resize: None,
            sent_sigkill: false,
            valid_codes: BTreeSet::new(),
        }
    }

    /// A process whose actor failed, in the hands of another: it is ended, and its end reported.
    pub fn orphaned(
        now: Timestamp,
        traits: ProcessTraits,
        remains: Remains,
    ) -> (Self, Effects<ProcessEffect>) {
        let Remains { asked, pid, started_at, ended } = remains;
        let mut orphan = Self::new(traits);
        orphan.state = match (pid, started_at, asked) {
            (Some(pid), Some(started_at), _) => State::Running { pid, started_at },
            (Some(_), None, Some(Asked::StartCreated)) => {
                State::Starting { pid, early: None, abandon_at: None }
            }
            (Some(pid), None, Some(Asked::Create | Asked::Launch) | None) => State::Created { pid },
            (None, _, Some(Asked::Create)) => State::Creating { early: None },
            (None, _, Some(Asked::Launch | Asked::StartCreated)) => {
                State::Starting { pid: None, early: None, abandon_at: None }
            }
            (None, _, None) => State::Waiting,
        };
        let kill = Cancel::now().cause(CancelCause::Abandoned);
        let effects = match ended {
            Some(raw) => {
                let effects = orphan.ended(now, raw).unwrap_or_default();
                effects.into_iter().chain(orphan.cancel(now, kill)).collect()
            }
            None => {
                let watch = pid.map(|_| ProcessEffect::Watch);
                watch.into_iter().chain(orphan.cancel(now, kill)).collect::<Vec<_>>()
            }
        };
        (orphan, effects.into())
    }

    /// The name of its state, as in the diagram of `docs/message-semantics.md`.
    pub const fn state(&self) -> &'static str {
        match (&self.state, self.cancelling) {
            (State::Waiting, _) => "waiting",
            (State::Creating { .. }, None) => "creating",
            (State::Starting { .. }, None) => "starting",
            (
                State::Creating { .. } | State::Starting { .. },
                Some(Cancelling { stage: CancelStage::Abandoning, .. }),
            ) => "abandoning",
            (State::Creating { .. }, Some(_)) => "creating_cancelled",
            (State::Starting { .. }, Some(_)) => "starting_cancelled",
            (State::Created { .. }, None) => "created",
            (State::Created { .. }, Some(_)) => "created_killed",
            (State::Undoing { .. }, _) => "undoing",
            (State::Running { .. }, None) => "running",
            (State::Running { .. }, Some(Cancelling { stage: CancelStage::Killed { .. }, .. })) => "killed",
            (State::Running { .. }, Some(_)) => "signalled",
            (State::Exited, _) => "exited",
        }
    }

    /// Whether its end was reported.
    pub const fn has_exited(&self) -> bool {
        matches!(self.state, State::Exited)
    }

    /// When `Tick` is due next, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::Exited => return None,
            State::Undoing { retry_at, .. } => return Some(retry_at),
            State::Starting { early: Some(_), abandon_at: Some(at), .. } => return Some(at),
            State::Waiting
            | State::Creating { .. }
            | State::Created { .. }
            | State::Starting { .. }
            | State::Running { .. } => {}
        }
        match self.cancelling {
            None => self.timeout.map(|(at, _)| at),
            Some(Cancelling { stage, .. }) => match stage {
                CancelStage::Pending { abandon_at } => Some(abandon_at),
                CancelStage::Abandoning => None,
                CancelStage::Signalled { kill_at } => Some(kill_at),
                CancelStage::Killed { retry_at } => Some(retry_at),
            },
        }
    }

    /// Takes one event.
    ///
    /// `Cancel` after the end is satisfied already: no effects. A completion that nothing waits for
    /// is [`Refusal::Stale`], a signal to the dead [`Refusal::Exited`].
    pub fn step(&mut self, now: Timestamp, event: ProcessEvent) -> Result<Effects<ProcessEffect>, Refused> {
        let from = self.state();
        match event {
            ProcessEvent::Arm(terms) => Ok(self.arm(now, terms)),
            ProcessEvent::Create => self.create(),
            ProcessEvent::Launch => self.launch(),
            ProcessEvent::Withdraw(failure) => self.withdraw(now, failure),
            ProcessEvent::Created { pid } => self.created(now, pid),
            ProcessEvent::Started { pid } => self.started(now, pid),
            ProcessEvent::StartFailed(failure) => self.start_failed(now, failure),
            ProcessEvent::Ended(raw) => self.ended(now, raw),
            ProcessEvent::Cancel(cancel) => Ok(self.cancel(now, cancel)),
            ProcessEvent::Signal(signal, scope) => self.signal(signal, scope),
            ProcessEvent::Resize(size) => self.resize(size),
            ProcessEvent::KillFailed => self.kill_failed(now),
            ProcessEvent::Tick => Ok(self.tick(now)),
        }
        .map(Effects::from)
        .map_err(|reason| reason.from_state(from))
    }

    fn arm(&mut self, now: Timestamp, terms: Terms) -> Vec<ProcessEffect> {
        self.timeout = terms.time_limit.map(|limit| (now.after(limit.after), limit.cancel));
        self.valid_codes = terms.valid_codes;
        Vec::new()
    }

    fn create(&mut self) -> Result<Vec<ProcessEffect>, Refusal> {
        match self.state {
            State::Waiting => {
                self.state = State::Creating { early: None };
                Ok(self.with_size(ProcessEffect::Create))
            }
            State::Creating { .. }
            | State::Created { .. }
            | State::Starting { .. }
            | State::Undoing { .. }
            | State::Running { .. }
            | State::Exited => Err(Refusal::Stale),
        }
    }

    fn launch(&mut self) -> Result<Vec<ProcessEffect>, Refusal> {
        match self.state {
            State::Waiting => {
                self.state = State::Starting { pid: None, early: None, abandon_at: None };
                Ok(self.with_size(ProcessEffect::Launch))
            }
            // One that is being killed is not started any more: its end is on the way.
            State::Created { .. } if self.cancelling.is_some() => Ok(Vec::new()),
            State::Created { pid } => {
                self.state = State::Starting { pid: Some(pid), early: None, abandon_at: None };
                Ok(vec![ProcessEffect::StartCreated])
            }
            State::Creating { .. }
            | State::Starting { .. }
            | State::Undoing { .. }
            | State::Running { .. }
            | State::Exited => Err(Refusal::Stale),
        }
    }

    /// The size that was asked for goes to the runtime first.
    fn with_size(&mut self, request: ProcessEffect) -> Vec<ProcessEffect> {
        self.resize.take().map(ProcessEffect::Resize).into_iter().chain([request]).collect()
    }

    fn withdraw(&mut self, now: Timestamp, failure: StartFailure) -> Result<Vec<ProcessEffect>, Refusal> {
        match self.state {
            State::Waiting => Ok(vec![self.never_ran(now, ExitReason::StartFailed(failure))]),
            State::Creating { .. }
            | State::Created { .. }
            | State::Starting { .. }
            | State::Undoing { .. }
            | State::Running { .. }
            | State::Exited => Err(Refusal::Stale),
        }
    }

    fn created(&mut self, now: Timestamp, pid: HostPid) -> Result<Vec<ProcessEffect>, Refusal> {
        let State::Creating { early } = &self.state else { return Err(Refusal::Stale) };
        let early = early.clone();
        self.state = State::Created { pid };
        let mut effects = vec![ProcessEffect::Watch, ProcessEffect::ReportCreated { pid }];
        if let Some(raw) = early {
            effects.push(self.exited(now, None, raw));
            return Ok(effects);
        }
        // There is no program yet that any other signal could be meant for.
        let (kills, rest) =
            std::mem::take(&mut self.parked).into_iter().partition(|(signal, _)| *signal == Signal::KILL);
        self.parked = rest;
        let kills: Vec<(Signal, SignalScope)> = kills;
        effects.extend(kills.into_iter().map(|(signal, scope)| self.send(signal, scope)));
        if let Some(Cancelling { cancel, .. }) = self.cancelling {
            effects.push(self.kill(now, cancel));
        }
        Ok(effects)
    }

    fn started(&mut self, now: Timestamp, pid: HostPid) -> Result<Vec<ProcessEffect>, Refusal> {
        let State::Starting { pid: known, early, .. } = &self.state else { return Err(Refusal::Stale) };
        let (known, early) = (*known, early.clone());
        self.state = State::Running { pid, started_at: now };
        let mut effects: Vec<_> = known.is_none().then_some(ProcessEffect::Watch).into_iter().collect();
        effects.push(ProcessEffect::ReportStarted { pid });
        if let Some(raw) = early {
            effects.push(self.exited(now, Some(now), raw));
            return Ok(effects);
        }
        for (signal, scope) in std::mem::take(&mut self.parked) {
            effects.push(self.send(signal, scope));
        }
        match self.cancelling {
            // It was killed before it ran, and its end is on the way.
            None | Some(Cancelling { stage: CancelStage::Killed { .. }, .. }) => {}
            Some(Cancelling {
                cancel,
                stage: CancelStage::Pending { .. } | CancelStage::Abandoning | CancelStage::Signalled { .. },
            }) => effects.push(self.begin_cancel(now, cancel)),
        }
        Ok(effects)
    }

    fn start_failed(&mut self, now: Timestamp, failure: StartFailure) -> Result<Vec<ProcessEffect>, Refusal> {
        let was_gone = failure.kind == StartFailureKind::ContainerGone;
        let reason = match self.cancelling {
            None => ExitReason::StartFailed(failure),
            Some(Cancelling { cancel, stage }) => {
                cancelled(cancel.cause, matches!(stage, CancelStage::Killed { .. }))
            }
        };
        match &self.state {
            State::Creating { .. } | State::Starting { pid: None, .. } => {
                Ok(vec![self.never_ran(now, reason)])
            }
            State::Starting { pid: Some(_), early: Some(raw), .. } => {
                let raw = raw.clone();
                let reason = if was_gone { self.reason(&raw) } else { reason };
                Ok(vec![self.ended_unstarted(now, reason, raw)])
            }
            State::Starting { pid: Some(_), early: None, .. } => {
                let reason = Some(reason).filter(|_| !was_gone);
                self.sent_sigkill |= reason.is_some();
                self.state = State::Undoing { reason, retry_at: now.after(KILL_AGAIN) };
                Ok(vec![ProcessEffect::Kill(Kill { everything: self.traits.shares_pids, thaw: false })])
            }
            State::Waiting
            | State::Created { .. }
            | State::Undoing { .. }
            | State::Running { .. }
            | State::Exited => Err(Refusal::Stale),
        }
    }

    fn ended(&mut self, now: Timestamp, raw: RawExit) -> Result<Vec<ProcessEffect>, Refusal> {
        match &mut self.state {
            State::Creating { early: early @ None } => {
                *early = Some(raw);
                Ok(Vec::new())
            }
            State::Starting { pid, early: early @ None, abandon_at } => {
                *early = Some(raw);
                *abandon_at = pid.map(|_| now.after(START_PATIENCE));
                Ok(Vec::new())
            }
            State::Created { .. } => Ok(vec![self.exited(now, None, raw)]),
            State::Undoing { reason, .. } => {
                let reason = reason.clone().unwrap_or_else(|| self.reason(&raw));
                Ok(vec![self.ended_unstarted(now, reason, raw)])
            }
            State::Running { started_at, .. } => {
                let started_at = *started_at;
                Ok(vec![self.exited(now, Some(started_at), raw)])
            }
            State::Waiting
            | State::Creating { early: Some(_) }
            | State::Starting { early: Some(_), .. }
            | State::Exited => Err(Refusal::Stale),
        }
    }

    /// The first cancel gives cause and signal; a later one can only make the end come sooner.
    fn cancel(&mut self, now: Timestamp, cancel: Cancel) -> Vec<ProcessEffect> {
        match self.state {
            State::Exited | State::Undoing { .. } => Vec::new(),
            State::Waiting => vec![self.never_ran(now, cancelled(cancel.cause, false))],
            State::Creating { .. } | State::Starting { pid: None, .. } => {
                self.keep_cancel(now, cancel);
                Vec::new()
            }
            State::Starting { pid: Some(_), .. } => {
                self.keep_cancel(now, cancel);
                match self.cancelling {
                    Some(Cancelling { stage: CancelStage::Killed { .. }, .. }) => Vec::new(),
                    Some(_) if cancel.is_immediate() => vec![self.kill(now, cancel)],
                    Some(_) | None => Vec::new(),
                }
            }
            // There is no program that could do something with a grace.
            State::Created { .. } => match self.cancelling {
                Some(_) => Vec::new(),
                None => vec![self.kill(now, cancel)],
            },
            State::Running { .. } => match self.cancelling.map(|ongoing| ongoing.stage) {
                Some(CancelStage::Killed { .. }) => Vec::new(),
                Some(CancelStage::Signalled { kill_at }) => {
                    if cancel.is_immediate() {
                        return vec![self.kill(now, cancel)];
                    }
                    let sooner = kill_at.min(now.after(cancel.grace));
                    self.set_stage(cancel, CancelStage::Signalled { kill_at: sooner });
                    Vec::new()
                }
                None | Some(CancelStage::Pending { .. } | CancelStage::Abandoning) => {
                    vec![self.begin_cancel(now, cancel)]
                }
            },
        }
    }

    /// Keeps a cancel until the program runs, or will never.
    fn keep_cancel(&mut self, now: Timestamp, cancel: Cancel) {
        let stage = CancelStage::Pending { abandon_at: now.after(START_PATIENCE) };
        let kept = self.cancelling.get_or_insert(Cancelling { cancel, stage });
        if cancel.is_immediate() {
            kept.cancel = cancel.cause(kept.cancel.cause);
        }
    }

    /// Until the runtime is asked for the process, sizes come to one: the last.
    fn resize(&mut self, size: TerminalSize) -> Result<Vec<ProcessEffect>, Refusal> {
        if !self.traits.has_terminal {
            return Err(Refusal::NoTerminal);
        }
        match self.state {
            State::Waiting => {
                self.resize = Some(size);
                Ok(Vec::new())
            }
            State::Creating { .. }
            | State::Created { .. }
            | State::Starting { .. }
            | State::Running { .. } => Ok(vec![ProcessEffect::Resize(size)]),
            State::Undoing { .. } | State::Exited => Err(Refusal::Exited),
        }
    }

    fn signal(&mut self, signal: Signal, scope: SignalScope) -> Result<Vec<ProcessEffect>, Refusal> {
        match self.state {
            State::Created { .. } | State::Starting { pid: Some(_), .. } if signal == Signal::KILL => {
                Ok(vec![self.send(signal, scope)])
            }
            State::Waiting | State::Creating { .. } | State::Created { .. } | State::Starting { .. } => {
                self.parked.push((signal, scope));
                Ok(Vec::new())
            }
            State::Running { .. } => Ok(vec![self.send(signal, scope)]),
            State::Undoing { .. } | State::Exited => Err(Refusal::Exited),
        }
    }

    fn kill_failed(&mut self, now: Timestamp) -> Result<Vec<ProcessEffect>, Refusal> {
        let retry_at = match (&mut self.state, &mut self.cancelling) {
            (State::Undoing { retry_at, .. }, _) => retry_at,
            (
                State::Created { .. } | State::Starting { pid: Some(_), .. } | State::Running { .. },
                Some(Cancelling { stage: CancelStage::Killed { retry_at }, .. }),
            ) => retry_at,
            _ => return Err(Refusal::Stale),
        };
        *retry_at = now.after(KILL_RETRY);
        Ok(Vec::new())
    }

    fn tick(&mut self, now: Timestamp) -> Vec<ProcessEffect> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        if let State::Undoing { retry_at, .. } = &mut self.state {
            *retry_at = now.after(KILL_AGAIN);
            return vec![ProcessEffect::ReportStillAlive];
        }
        if let State::Starting { abandon_at: abandon_at @ Some(_), .. } = &mut self.state {
            *abandon_at = None;
            return vec![ProcessEffect::AbandonStart];
        }
        let is_starting = matches!(self.state, State::Creating { .. } | State::Starting { .. });
        let has_pid = !matches!(self.state, State::Creating { .. } | State::Starting { pid: None, .. });
        match (self.cancelling, self.timeout) {
            (None, Some((_, cancel))) => self.cancel(now, cancel.cause(CancelCause::TimedOut)),
            (None, None) => Vec::new(),
            (Some(Cancelling { cancel, stage }), _) => match stage {
                CancelStage::Pending { .. } if !has_pid => {
                    self.set_stage(cancel, CancelStage::Abandoning);
                    vec![ProcessEffect::AbandonStart]
                }
                CancelStage::Abandoning => Vec::new(),
                CancelStage::Pending { .. } | CancelStage::Signalled { .. } | CancelStage::Killed { .. } => {
                    let kill = self.kill(now, cancel);
                    // A runtime that hangs does not notice that there is nothing left to start.
                    [kill].into_iter().chain(is_starting.then_some(ProcessEffect::AbandonStart)).collect()
                }
            },
        }
    }

    /// Sends the cancel's first signal.
    fn begin_cancel(&mut self, now: Timestamp, cancel: Cancel) -> ProcessEffect {
        if cancel.is_immediate() {
            return self.kill(now, cancel);
        }
        self.set_stage(cancel, CancelStage::Signalled { kill_at: now.after(cancel.grace) });
        ProcessEffect::Signal(cancel.signal, SignalScope::Process)
    }

    /// Sends SIGKILL. If an earlier one has not ended it, the container may be frozen, which its machine knows.
    fn kill(&mut self, now: Timestamp, cancel: Cancel) -> ProcessEffect {
        let killed = matches!(self.cancelling, Some(Cancelling { stage: CancelStage::Killed { .. }, .. }));
        self.set_stage(cancel, CancelStage::Killed { retry_at: now.after(KILL_AGAIN) });
        self.sent_sigkill = true;
        if killed {
            return ProcessEffect::ReportStillAlive;
        }
        ProcessEffect::Kill(Kill { everything: self.traits.shares_pids, thaw: false })
    }

    fn set_stage(&mut self, cancel: Cancel, stage: CancelStage) {
        self.cancelling.get_or_insert(Cancelling { cancel, stage }).stage = stage;
    }

    fn send(&mut self, signal: Signal, scope: SignalScope) -> ProcessEffect {
        self.sent_sigkill |= signal == Signal::KILL;
        ProcessEffect::Signal(signal, scope)
    }

    /// There never was a process.
    fn never_ran(&mut self, now: Timestamp, reason: ExitReason) -> ProcessEffect {
        self.ended_unstarted(now, reason, RawExit::with(ExitStatus::Unknown))
    }

    /// There was a process, or none, and its program was not executed.
    fn ended_unstarted(&mut self, now: Timestamp, reason: ExitReason, raw: RawExit) -> ProcessEffect {
        self.state = State::Exited;
        let RawExit { status, usage } = raw;
        ProcessEffect::ReportExited(Exit {
            status,
            reason,
            success: false,
            started_at: None,
            exited_at: now,
            usage,
        })
    }

    fn exited(&mut self, now: Timestamp, started_at: Option<Timestamp>, raw: RawExit) -> ProcessEffect {
        let reason = self.reason(&raw);
        if started_at.is_none() {
            return self.ended_unstarted(now, reason, raw);
        }
        self.state = State::Exited;
        let RawExit { status, usage } = raw;
        let success = match status {
            ExitStatus::Code(code) => code == 0 || self.valid_codes.contains(&code),
            ExitStatus::Signal(_) | ExitStatus::Unknown => false,
        };
        ProcessEffect::ReportExited(Exit { status, reason, success, started_at, exited_at: now, usage })
    }

    /// Why a process has ended. A cancel that was never carried out is no reason.
    fn reason(&self, raw: &RawExit) -> ExitReason {
        match self.cancelling.map(|Cancelling { cancel, stage }| (cancel.cause, stage)) {
            Some((cause, CancelStage::Signalled { .. })) => return cancelled(cause, false),
            Some((cause, CancelStage::Killed { .. })) => return cancelled(cause, true),
            None | Some((_, CancelStage::Pending { .. } | CancelStage::Abandoning)) => {}
        }
        let oom_kills = raw.usage.as_ref().map_or(0, |usage| usage.oom_kills);
        match raw.status {
            ExitStatus::Unknown => ExitReason::Lost,
            ExitStatus::Signal(Signal::KILL) if oom_kills > 0 && !self.sent_sigkill => {
                ExitReason::OutOfMemory
            }
            ExitStatus::Code(_) | ExitStatus::Signal(_) => ExitReason::Normal,
        }
    }
}

const fn cancelled(cause: CancelCause, killed: bool) -> ExitReason {
    match cause {
        CancelCause::TimedOut => ExitReason::TimedOut { killed },
        CancelCause::Requested
        | CancelCause::ContainerExited
        | CancelCause::Shutdown
        | CancelCause::Abandoned => ExitReason::Cancelled { cause, killed },
    }
}
