//! The end of a process, and the reason that its exit gives.

use super::{CancelStage, Cancelling, Process, ProcessEffect, START_PATIENCE, State};
use crate::{CancelCause, Exit, ExitReason, ExitStatus, OomEvidence, RawExit, Refusal, Signal, Timestamp};

impl Process {
    pub(super) fn ended(&mut self, now: Timestamp, raw: RawExit) -> Result<Vec<ProcessEffect>, Refusal> {
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

    /// The exit of a process that never existed.
    pub(super) fn never_ran(&mut self, now: Timestamp, reason: ExitReason) -> ProcessEffect {
        self.ended_unstarted(now, reason, RawExit::with(ExitStatus::Unknown))
    }

    /// The exit of a process whose program was not executed, whether the process existed or not.
    pub(super) fn ended_unstarted(
        &mut self,
        now: Timestamp,
        reason: ExitReason,
        raw: RawExit,
    ) -> ProcessEffect {
        self.state = State::Exited;
        let RawExit { status, usage, oom: _, at } = raw;
        let at = moment(at, None, now);
        ProcessEffect::ReportExited(Exit::new(status, reason, &self.valid_codes, None, at).with_usage(usage))
    }

    pub(super) fn exited(
        &mut self,
        now: Timestamp,
        started_at: Option<Timestamp>,
        raw: RawExit,
    ) -> ProcessEffect {
        let reason = self.reason(&raw);
        if started_at.is_none() {
            return self.ended_unstarted(now, reason, raw);
        }
        self.state = State::Exited;
        let RawExit { status, usage, oom: _, at } = raw;
        let at = moment(at, started_at, now);
        ProcessEffect::ReportExited(
            Exit::new(status, reason, &self.valid_codes, started_at, at).with_usage(usage),
        )
    }

    /// Why a process has ended. A cancel that was never carried out does not count.
    pub(super) fn reason(&self, raw: &RawExit) -> ExitReason {
        match self.cancelling.map(|Cancelling { cancel, stage }| (cancel.cause, stage)) {
            Some((cause, CancelStage::Signalled { .. })) => return cancelled(cause, false),
            Some((cause, CancelStage::Killed { .. })) => return cancelled(cause, true),
            None | Some((_, CancelStage::Pending { .. } | CancelStage::Abandoning)) => {}
        }
        match raw.status {
            ExitStatus::Unknown => ExitReason::Lost,
            ExitStatus::Code(_) | ExitStatus::Signal(_) if self.was_oom_killed(raw) => {
                ExitReason::OutOfMemory
            }
            ExitStatus::Code(_) | ExitStatus::Signal(_) => ExitReason::Normal,
        }
    }

    /// Whether the OOM killer has ended it. A count of kills decides only if nothing else is known to have sent the
    /// SIGKILL. Code 137 is SIGKILL too, if whoever reports the exit has evidence for it: a process 1 that reports the end
    /// of its program, or a monitor.
    const fn was_oom_killed(&self, raw: &RawExit) -> bool {
        let may_be_sigkill = matches!(raw.status, ExitStatus::Signal(Signal::KILL) | ExitStatus::Code(137));
        match (raw.oom, &raw.usage) {
            (Some(OomEvidence::Killed), _) => true,
            (Some(OomEvidence::NotKilled), _) | (None, None) => false,
            (Some(OomEvidence::Counted(kills)), _) => kills > 0 && may_be_sigkill && !self.sent_sigkill,
            (None, Some(usage)) => {
                let is_sigkill = matches!(raw.status, ExitStatus::Signal(Signal::KILL));
                usage.oom_kills > 0 && is_sigkill && !self.sent_sigkill
            }
        }
    }
}

/// The moment of an exit. It is noted by another clock than the executor's: an exit is neither before the start nor in the future.
fn moment(noted: Option<Timestamp>, started_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    noted.unwrap_or(now).max(started_at.unwrap_or_default()).min(now)
}

pub(super) const fn cancelled(cause: CancelCause, killed: bool) -> ExitReason {
    match cause {
        CancelCause::TimedOut => ExitReason::TimedOut { killed },
        CancelCause::Requested
        | CancelCause::ContainerExited
        | CancelCause::Shutdown
        | CancelCause::Abandoned => ExitReason::Cancelled { cause, killed },
    }
}
