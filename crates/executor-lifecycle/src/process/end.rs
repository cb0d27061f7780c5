//! The end of a process, and the reason that its exit gives.

use super::{CancelStage, Cancelling, Process, ProcessEffect, START_PATIENCE, State};
use crate::{CancelCause, Exit, ExitReason, ExitStatus, RawExit, Refusal, Signal, Timestamp};

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
        let RawExit { status, usage } = raw;
        ProcessEffect::ReportExited(Exit::new(status, reason, &self.valid_codes, None, now).with_usage(usage))
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
        let RawExit { status, usage } = raw;
        ProcessEffect::ReportExited(
            Exit::new(status, reason, &self.valid_codes, started_at, now).with_usage(usage),
        )
    }

    /// Why a process has ended. A cancel that was never carried out does not count.
    pub(super) fn reason(&self, raw: &RawExit) -> ExitReason {
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

pub(super) const fn cancelled(cause: CancelCause, killed: bool) -> ExitReason {
    match cause {
        CancelCause::TimedOut => ExitReason::TimedOut { killed },
        CancelCause::Requested
        | CancelCause::ContainerExited
        | CancelCause::Shutdown
        | CancelCause::Abandoned => ExitReason::Cancelled { cause, killed },
    }
}
