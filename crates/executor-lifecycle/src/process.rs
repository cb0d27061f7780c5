//! One process, init or exec'd: from the request to run it to the one report of its exit.
//!
//! ```text
//!            Launch                        Started                   Ended
//!  Waiting ─────────────▶ Starting ─────────────────▶ Running ─────────────▶ Exited
//!     │                    ▲     │ StartFailed                                ▲ ▲ ▲
//!     │ Create      Launch │     ├─── there is no init yet ───────────────────┘ │ │
//!     ▼                    │     └─── init was created ──▶ Undoing ─── Ended ───┘ │
//!  Creating ─ Created ─▶ Created ─────────────────────────────────── Ended ───────┘
//! ```
//! Not drawn: `Waiting` also ends by `Withdraw`, by `Cancel` and by the time limit, and `Creating` by `StartFailed`.
//!
//! Two events may come before the state they belong to, and are kept until then. A cancel that comes before the pid is
//! known is carried out once it is. An `Ended` that comes before the runtime's answer is reported after it.
//!
//! Neighbours: the `Process` actor feeds this machine. The [`container`](crate::container) machine says when to create and
//! to launch, and receives the reports.
//!
//! | file | holds |
//! |---|---|
//! | `vocabulary` | events, effects, and the values in them |
//! | `start` | from the request to a program that runs |
//! | `cancel` | cancels, SIGKILL and deadlines |
//! | `end` | the exit and its reason |
//! | `adopt` | what another executor has left |

mod adopt;
mod cancel;
mod end;
mod start;
mod vocabulary;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::adopt::{Inherited, ProcessNote};
pub use self::vocabulary::{
    Kill, LaunchStep, OrphanState, ProcessEffect, ProcessEvent, ProcessTraits, Terms, TimeLimit,
};

use crate::{
    Cancel, CancelCause, Effects, ExitReason, HostPid, RawExit, Refusal, Refused, Signal, SignalScope,
    TerminalSize, Timestamp,
};

/// How long a start that is to be cancelled may go on before it is abandoned.
///
/// A runtime that finishes leaves nothing half made, so it gets this time. A runtime that hangs must not
/// hold up the cancel for ever.
pub const START_PATIENCE: Duration = Duration::from_secs(5);

/// How long after a SIGKILL that could not be delivered it is tried again.
pub const KILL_RETRY: Duration = Duration::from_millis(100);

/// How long after a SIGKILL that was delivered it is repeated if the process has not ended: it may be frozen.
pub const KILL_AGAIN: Duration = Duration::from_secs(1);

/// The machine of one process.
///
/// A cancel that comes before the pid is known is kept, and carried out once it is known:
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
    /// Its time counts.
    is_armed: bool,
    cancelling: Option<Cancelling>,
    /// When the time limit is reached, and the cancel that follows.
    timeout: Option<(Timestamp, Cancel)>,
    /// Signals that came before the program, and are sent once it runs.
    parked_signals: Vec<(Signal, SignalScope)>,
    /// The last size that came before the runtime was asked for anything.
    pending_size: Option<TerminalSize>,
    /// We have sent SIGKILL: an exit by that signal is not the OOM killer's.
    sent_sigkill: bool,
    /// Exit codes other than 0 that count as success.
    valid_codes: BTreeSet<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    /// The runtime was asked for nothing yet.
    Waiting,
    /// The runtime is creating it; the program is not executed.
    Creating {
        /// The exit, if it came before the runtime's answer.
        early: Option<RawExit>,
    },
    /// It is created, and its program is not executed yet.
    Created {
        pid: HostPid,
    },
    /// The runtime is starting it.
    Starting {
        /// Known if it was created before.
        pid: Option<HostPid>,
        /// The exit, if it came before the runtime's answer.
        early: Option<RawExit>,
        /// When the start is abandoned, because a process that was created has ended and the runtime does not answer.
        abandon_at: Option<Timestamp>,
    },
    /// It was created and could not be started, so it is being killed.
    Undoing {
        /// Why the start failed. Absent if the container was gone: then the process's own exit says why.
        reason: Option<ExitReason>,
        /// When SIGKILL is repeated.
        retry_at: Timestamp,
    },
    Running {
        pid: HostPid,
        started_at: Timestamp,
    },
    Exited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Cancelling {
    cancel: Cancel,
    stage: CancelStage,
}

/// How far a cancel has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CancelStage {
    /// The program does not run yet. The start is abandoned at `abandon_at`.
    Pending { abandon_at: Timestamp },
    /// The start is being abandoned.
    Abandoning,
    /// The first signal was sent. SIGKILL follows at `kill_at`.
    Signalled { kill_at: Timestamp },
    /// SIGKILL was sent. It is repeated at `retry_at` if the process has not ended.
    Killed { retry_at: Timestamp },
}

impl Process {
    /// A process in its first state, `Waiting`.
    pub const fn new(traits: ProcessTraits) -> Self {
        Self {
            traits,
            state: State::Waiting,
            is_armed: false,
            cancelling: None,
            timeout: None,
            parked_signals: Vec::new(),
            pending_size: None,
            sent_sigkill: false,
            valid_codes: BTreeSet::new(),
        }
    }

    /// A process whose actor failed, taken over by another actor: it is killed, and its exit is reported.
    pub fn orphaned(
        now: Timestamp,
        traits: ProcessTraits,
        remains: OrphanState,
    ) -> (Self, Effects<ProcessEffect>) {
        let OrphanState { asked, pid, started_at, ended } = remains;
        let mut orphan = Self::new(traits);
        orphan.state = match (pid, started_at, asked) {
            (Some(pid), Some(started_at), _) => State::Running { pid, started_at },
            (Some(_), None, Some(LaunchStep::StartCreated)) => {
                State::Starting { pid, early: None, abandon_at: None }
            }
            (Some(pid), None, Some(LaunchStep::Create | LaunchStep::Launch) | None) => State::Created { pid },
            (None, _, Some(LaunchStep::Create)) => State::Creating { early: None },
            (None, _, Some(LaunchStep::Launch | LaunchStep::StartCreated)) => {
                State::Starting { pid: None, early: None, abandon_at: None }
            }
            (None, _, None) => State::Waiting,
        };
        let kill = Cancel::now().cause(CancelCause::Abandoned);
        let mut effects = Vec::new();
        match ended {
            Some(raw) => effects.extend(orphan.ended(now, raw).unwrap_or_default()),
            None if pid.is_some() => effects.push(ProcessEffect::Watch),
            None => {}
        }
        effects.extend(orphan.cancel(now, kill));
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

    /// Whether its exit was reported.
    pub const fn has_exited(&self) -> bool {
        matches!(self.state, State::Exited)
    }

    /// Whether it is being ended, by a cancel or its time limit. A process that waits ends at once instead.
    pub const fn is_cancelled(&self) -> bool {
        self.cancelling.is_some()
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
    /// A `Cancel` after the end is satisfied already and has no effects. A completion that this state does not
    /// wait for is [`Refusal::Stale`]. A signal to a process that has ended is [`Refusal::Exited`].
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
        self.is_armed = true;
        self.timeout = terms.time_limit.map(|limit| (now.after(limit.after), limit.cancel));
        self.valid_codes = terms.valid_codes;
        Vec::new()
    }

    /// Before the runtime is asked for the process, only the last size counts.
    fn resize(&mut self, size: TerminalSize) -> Result<Vec<ProcessEffect>, Refusal> {
        if !self.traits.has_terminal {
            return Err(Refusal::NoTerminal);
        }
        match self.state {
            State::Waiting => {
                self.pending_size = Some(size);
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
                self.parked_signals.push((signal, scope));
                Ok(Vec::new())
            }
            State::Running { .. } => Ok(vec![self.send(signal, scope)]),
            State::Undoing { .. } | State::Exited => Err(Refusal::Exited),
        }
    }

    fn send(&mut self, signal: Signal, scope: SignalScope) -> ProcessEffect {
        self.sent_sigkill |= signal == Signal::KILL;
        ProcessEffect::Signal(signal, scope)
    }
}
