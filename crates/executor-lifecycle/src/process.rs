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

mod cancel;
mod end;
mod start;
mod vocabulary;

use std::collections::BTreeSet;
use std::time::Duration;

pub use self::vocabulary::{
    Asked, Kill, ProcessEffect, ProcessEvent, ProcessTraits, Remains, Terms, TimeLimit,
};

use crate::{
    Cancel, CancelCause, Effects, ExitReason, HostPid, RawExit, Refusal, Refused, Signal, SignalScope,
    TerminalSize, Timestamp,
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

    fn send(&mut self, signal: Signal, scope: SignalScope) -> ProcessEffect {
        self.sent_sigkill |= signal == Signal::KILL;
        ProcessEffect::Signal(signal, scope)
    }
}
