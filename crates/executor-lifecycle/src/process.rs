//! One process, init or exec'd: from the wish to run it to the one report of its end.
//!
//! ```text
//!            Launch             Started                 Ended
//!  Waiting ──────────▶ Starting ─────────▶ Running{pid} ───────▶ Exited
//!     │                   │                                        ▲
//!     └─ Cancel, Withdraw, └─ StartFailed ──────────────────────────┘
//!        Tick after the timeout
//! ```
//! A cancel is kept beside the state: nothing is lost when it comes before the pid is known. An
//! `Ended` that overtakes its `Started` is kept too. Neighbours: the `Process` actor feeds it; the
//! [`container`](crate::container) machine says when to launch and is told of start and end.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::{
    Cancel, CancelCause, Effects, Exit, ExitReason, ExitStatus, HostPid, RawExit, Refused, Signal,
    SignalScope, StartFailure, TerminalSize, Timestamp,
};

/// How long a start that is to be cancelled may go on before it is abandoned.
///
/// A runtime that is left to finish leaves nothing half made, so it gets time to; one that hangs
/// must not hold the cancel for ever.
pub const START_PATIENCE: Duration = Duration::from_secs(5);

/// When a SIGKILL that could not be delivered is tried again.
pub const KILL_RETRY: Duration = Duration::from_millis(100);

/// When a SIGKILL that was delivered is repeated because the process is still there: someone may have
/// frozen it.
pub const KILL_AGAIN: Duration = Duration::from_secs(1);

/// The machine of one process.
///
/// A cancel that comes before the pid is known is kept, and carried out when it is:
///
/// ```
/// # use executor_lifecycle::process::{Process, ProcessEffect, ProcessEvent};
/// # use executor_lifecycle::{Cancel, HostPid, Refused, Timestamp};
/// let (now, pid) = (Timestamp::default(), HostPid::new(42).unwrap());
/// let mut process = Process::new(None);
/// assert_eq!(process.step(now, ProcessEvent::Launch)?.as_slice(), [ProcessEffect::Launch]);
/// assert_eq!(process.step(now, ProcessEvent::Cancel(Cancel::now()))?.as_slice(), []);
/// let effects = process.step(now, ProcessEvent::Started { pid })?;
/// assert_eq!(effects.as_slice(), [ProcessEffect::ReportStarted { pid }, ProcessEffect::Kill]);
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    state: State,
    cancelling: Option<Cancelling>,
    timeout: Option<Timeout>,
    parked: Vec<(Signal, SignalScope)>,
    /// The last size asked for before the start.
    resize: Option<TerminalSize>,
    sent_sigkill: bool,
    /// Exit codes beside 0 that count as success.
    valid_codes: BTreeSet<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Waiting,
    /// `early` is an ending that overtook its `Started`.
    Starting {
        early: Option<RawExit>,
    },
    Running {
        pid: HostPid,
        started_at: Timestamp,
    },
    Exited,
}

/// The most time a process may take, from the moment it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeout {
    /// When the time is over.
    pub at: Timestamp,
    /// What is done then.
    pub cancel: Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cancelling {
    cancel: Cancel,
    strike: Strike,
}

/// How far a cancel has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Strike {
    /// The pid is not known yet; the start is abandoned at this moment.
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
    /// The container is ready for it: start it.
    Launch,
    /// The container will never be ready for it.
    Withdraw(StartFailure),
    /// The runtime started it.
    Started {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// The runtime could not start it.
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
    /// Have the runtime start it; comes back as `Started` or `StartFailed`.
    Launch,
    /// Give the start up: end the runtime, remove what it left; comes back as `StartFailed`.
    AbandonStart,
    /// Send it a signal.
    Signal(Signal, SignalScope),
    /// Give its terminal this size.
    Resize(TerminalSize),
    /// Send SIGKILL to it and its process group; a failure comes back as `KillFailed`. Comes again
    /// while the process does not end.
    Kill,
    /// Tell the container that it runs.
    ReportStarted {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Tell the container that it ended. Comes exactly once, and nothing comes after it.
    ReportExited(Exit),
}

impl Process {
    /// A process that waits to be launched.
    pub const fn new(timeout: Option<Timeout>) -> Self {
        Self {
            state: State::Waiting,
            cancelling: None,
            timeout,
            parked: Vec::new(),
            resize: None,
            sent_sigkill: false,
            valid_codes: BTreeSet::new(),
        }
    }

    /// The same, with exit codes beside 0 that count as success.
    #[must_use]
    pub fn valid_codes(self, valid_codes: BTreeSet<u8>) -> Self {
        Self { valid_codes, ..self }
    }

    /// A process whose actor failed, in the hands of another: it is ended, and its end reported.
    ///
    /// `asked` tells whether the runtime was asked to start it, and so will answer; `running` what it
    /// has answered.
    pub fn orphaned(
        now: Timestamp,
        asked: bool,
        running: Option<(HostPid, Timestamp)>,
    ) -> (Self, Effects<ProcessEffect>) {
        let mut orphan = Self::new(None);
        orphan.state = match (running, asked) {
            (Some((pid, started_at)), _) => State::Running { pid, started_at },
            (None, true) => State::Starting { early: None },
            (None, false) => State::Waiting,
        };
        let effects = orphan.cancel(now, Cancel::now().cause(CancelCause::Abandoned));
        (orphan, effects.into())
    }

    /// The name of its state, as in the diagram of `docs/message-semantics.md`.
    pub const fn state(&self) -> &'static str {
        match (&self.state, self.cancelling) {
            (State::Waiting, _) => "waiting",
            (State::Starting { .. }, None) => "starting",
            (State::Starting { .. }, Some(Cancelling { strike: Strike::Abandoning, .. })) => "abandoning",
            (State::Starting { .. }, Some(_)) => "starting_cancelled",
            (State::Running { .. }, None) => "running",
            (State::Running { .. }, Some(Cancelling { strike: Strike::Killed { .. }, .. })) => "killed",
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
        if self.has_exited() {
            return None;
        }
        match self.cancelling {
            None => self.timeout.map(|timeout| timeout.at),
            Some(Cancelling { strike, .. }) => match strike {
                Strike::Pending { abandon_at } => Some(abandon_at),
                Strike::Abandoning => None,
                Strike::Signalled { kill_at } => Some(kill_at),
                Strike::Killed { retry_at } => Some(retry_at),
            },
        }
    }

    /// Takes one event.
    ///
    /// `Cancel` after the end is satisfied already: no effects. A completion that nobody waits for
    /// is `Refused::Stale`, a signal to the dead `Refused::Exited`.
    pub fn step(&mut self, now: Timestamp, event: ProcessEvent) -> Result<Effects<ProcessEffect>, Refused> {
        match event {
            ProcessEvent::Launch => self.launch(),
            ProcessEvent::Withdraw(failure) => self.withdraw(now, failure),
            ProcessEvent::Started { pid } => self.started(now, pid),
            ProcessEvent::StartFailed(failure) => self.start_failed(now, failure),
            ProcessEvent::Ended(ending) => self.ended(now, ending),
            ProcessEvent::Cancel(cancel) => Ok(self.cancel(now, cancel)),
            ProcessEvent::Signal(signal, scope) => self.signal(signal, scope),
            ProcessEvent::Resize(size) => self.resize(size),
            ProcessEvent::KillFailed => self.kill_failed(now),
            ProcessEvent::Tick => Ok(self.tick(now)),
        }
        .map(Effects::from)
    }

    fn launch(&mut self) -> Result<Vec<ProcessEffect>, Refused> {
        match self.state {
            State::Waiting => {
                self.state = State::Starting { early: None };
                Ok(vec![ProcessEffect::Launch])
            }
            State::Starting { .. } | State::Running { .. } | State::Exited => Err(Refused::Stale),
        }
    }

    fn withdraw(&mut self, now: Timestamp, failure: StartFailure) -> Result<Vec<ProcessEffect>, Refused> {
        match self.state {
            State::Waiting => Ok(self.never_ran(now, ExitReason::StartFailed(failure))),
            State::Starting { .. } | State::Running { .. } | State::Exited => Err(Refused::Stale),
        }
    }

    fn started(&mut self, now: Timestamp, pid: HostPid) -> Result<Vec<ProcessEffect>, Refused> {
        let early = match &self.state {
            State::Starting { early } => early.clone(),
            State::Waiting | State::Running { .. } | State::Exited => return Err(Refused::Stale),
        };
        self.state = State::Running { pid, started_at: now };
        let mut effects = vec![ProcessEffect::ReportStarted { pid }];
        if let Some(ending) = early {
            effects.push(self.exited(now, Some(now), ending));
            return Ok(effects);
        }
        effects.extend(self.resize.take().map(ProcessEffect::Resize));
        for (signal, scope) in std::mem::take(&mut self.parked) {
            effects.push(self.send(signal, scope));
        }
        if let Some(Cancelling { cancel, .. }) = self.cancelling {
            effects.push(self.strike(now, cancel, cancel.is_immediate()));
        }
        Ok(effects)
    }

    fn start_failed(&mut self, now: Timestamp, failure: StartFailure) -> Result<Vec<ProcessEffect>, Refused> {
        match (&self.state, self.cancelling) {
            (State::Starting { .. }, None) => Ok(self.never_ran(now, ExitReason::StartFailed(failure))),
            (State::Starting { .. }, Some(Cancelling { cancel, .. })) => {
                Ok(self.never_ran(now, cancelled(cancel.cause, false)))
            }
            (State::Waiting | State::Running { .. } | State::Exited, _) => Err(Refused::Stale),
        }
    }

    fn ended(&mut self, now: Timestamp, ending: RawExit) -> Result<Vec<ProcessEffect>, Refused> {
        match &mut self.state {
            State::Starting { early: early @ None } => {
                *early = Some(ending);
                Ok(Vec::new())
            }
            State::Running { started_at, .. } => {
                let started_at = *started_at;
                Ok(vec![self.exited(now, Some(started_at), ending)])
            }
            State::Waiting | State::Starting { early: Some(_) } | State::Exited => Err(Refused::Stale),
        }
    }

    /// The first cancel gives cause and signal; a later one can only make the end come sooner.
    fn cancel(&mut self, now: Timestamp, cancel: Cancel) -> Vec<ProcessEffect> {
        match self.state {
            State::Exited => Vec::new(),
            State::Waiting => self.never_ran(now, cancelled(cancel.cause, false)),
            State::Starting { .. } => {
                let abandon_at = now.after(START_PATIENCE);
                let pending = self
                    .cancelling
                    .get_or_insert(Cancelling { cancel, strike: Strike::Pending { abandon_at } });
                if cancel.is_immediate() {
                    pending.cancel = cancel.cause(pending.cancel.cause);
                }
                Vec::new()
            }
            State::Running { .. } => match self.cancelling.map(|ongoing| ongoing.strike) {
                Some(Strike::Killed { .. }) => Vec::new(),
                Some(Strike::Signalled { kill_at }) => {
                    let sooner = kill_at.min(now.after(cancel.grace));
                    if cancel.is_immediate() {
                        return vec![self.strike(now, cancel, true)];
                    }
                    self.set_strike(cancel, Strike::Signalled { kill_at: sooner });
                    Vec::new()
                }
                None | Some(Strike::Pending { .. } | Strike::Abandoning) => {
                    vec![self.strike(now, cancel, cancel.is_immediate())]
                }
            },
        }
    }

    /// Sizes asked for before the start come to one: the last.
    fn resize(&mut self, size: TerminalSize) -> Result<Vec<ProcessEffect>, Refused> {
        match self.state {
            State::Waiting | State::Starting { .. } => {
                self.resize = Some(size);
                Ok(Vec::new())
            }
            State::Running { .. } => Ok(vec![ProcessEffect::Resize(size)]),
            State::Exited => Err(Refused::Exited),
        }
    }

    fn signal(&mut self, signal: Signal, scope: SignalScope) -> Result<Vec<ProcessEffect>, Refused> {
        match self.state {
            State::Waiting | State::Starting { .. } => {
                self.parked.push((signal, scope));
                Ok(Vec::new())
            }
            State::Running { .. } => Ok(vec![self.send(signal, scope)]),
            State::Exited => Err(Refused::Exited),
        }
    }

    fn kill_failed(&mut self, now: Timestamp) -> Result<Vec<ProcessEffect>, Refused> {
        let (State::Running { .. }, Some(Cancelling { strike: Strike::Killed { retry_at }, .. })) =
            (&self.state, &mut self.cancelling)
        else {
            return Err(Refused::Stale);
        };
        *retry_at = now.after(KILL_RETRY);
        Ok(Vec::new())
    }

    fn tick(&mut self, now: Timestamp) -> Vec<ProcessEffect> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        match (self.cancelling, self.timeout) {
            (None, Some(timeout)) => self.cancel(now, timeout.cancel.cause(CancelCause::TimedOut)),
            (None, None) => Vec::new(),
            (Some(Cancelling { cancel, strike }), _) => match strike {
                Strike::Pending { .. } => {
                    self.set_strike(cancel, Strike::Abandoning);
                    vec![ProcessEffect::AbandonStart]
                }
                Strike::Abandoning => Vec::new(),
                Strike::Signalled { .. } | Strike::Killed { .. } => vec![self.strike(now, cancel, true)],
            },
        }
    }

    /// Sends the cancel's first signal, or SIGKILL when `kill` is set.
    fn strike(&mut self, now: Timestamp, cancel: Cancel, kill: bool) -> ProcessEffect {
        if kill {
            self.set_strike(cancel, Strike::Killed { retry_at: now.after(KILL_AGAIN) });
            self.sent_sigkill = true;
            ProcessEffect::Kill
        } else {
            self.set_strike(cancel, Strike::Signalled { kill_at: now.after(cancel.grace) });
            ProcessEffect::Signal(cancel.signal, SignalScope::Process)
        }
    }

    fn set_strike(&mut self, cancel: Cancel, strike: Strike) {
        self.cancelling.get_or_insert(Cancelling { cancel, strike }).strike = strike;
    }

    fn send(&mut self, signal: Signal, scope: SignalScope) -> ProcessEffect {
        self.sent_sigkill |= signal == Signal::KILL;
        ProcessEffect::Signal(signal, scope)
    }

    fn never_ran(&mut self, now: Timestamp, reason: ExitReason) -> Vec<ProcessEffect> {
        self.state = State::Exited;
        let status = ExitStatus::Unknown;
        vec![ProcessEffect::ReportExited(Exit {
            status,
            reason,
            success: false,
            started_at: None,
            exited_at: now,
            usage: None,
        })]
    }

    fn exited(&mut self, now: Timestamp, started_at: Option<Timestamp>, ending: RawExit) -> ProcessEffect {
        self.state = State::Exited;
        let reason = self.reason(&ending);
        let RawExit { status, usage } = ending;
        let success = match status {
            ExitStatus::Code(code) => code == 0 || self.valid_codes.contains(&code),
            ExitStatus::Signal(_) | ExitStatus::Unknown => false,
        };
        ProcessEffect::ReportExited(Exit { status, reason, success, started_at, exited_at: now, usage })
    }

    /// Why a process that ran has ended. A cancel that was never carried out is no reason.
    fn reason(&self, ending: &RawExit) -> ExitReason {
        match self.cancelling.map(|Cancelling { cancel, strike }| (cancel.cause, strike)) {
            Some((cause, Strike::Signalled { .. })) => return cancelled(cause, false),
            Some((cause, Strike::Killed { .. })) => return cancelled(cause, true),
            None | Some((_, Strike::Pending { .. } | Strike::Abandoning)) => {}
        }
        let oom_kills = ending.usage.as_ref().map_or(0, |usage| usage.oom_kills);
        match ending.status {
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
