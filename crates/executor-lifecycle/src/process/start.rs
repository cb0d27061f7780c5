//! From the request for a process to a program that runs, or to a start that failed.

use super::end::cancelled;
use super::{CancelStage, Cancelling, KILL_AGAIN, Kill, Process, ProcessEffect, State};
use crate::{ExitReason, HostPid, Refusal, Signal, StartFailure, StartFailureKind, Timestamp};

impl Process {
    pub(super) fn create(&mut self) -> Result<Vec<ProcessEffect>, Refusal> {
        match self.state {
            State::Waiting => {
                self.state = State::Creating { early: None };
                Ok(self.after_resize(ProcessEffect::Create))
            }
            State::Creating { .. }
            | State::Created { .. }
            | State::Starting { .. }
            | State::Undoing { .. }
            | State::Running { .. }
            | State::Exited => Err(Refusal::Stale),
        }
    }

    pub(super) fn launch(&mut self) -> Result<Vec<ProcessEffect>, Refusal> {
        match self.state {
            State::Waiting => {
                self.state = State::Starting { pid: None, early: None, abandon_at: None };
                Ok(self.after_resize(ProcessEffect::Launch))
            }
            // It is being killed, so it is not started: its exit will come.
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
    pub(super) fn after_resize(&mut self, request: ProcessEffect) -> Vec<ProcessEffect> {
        self.pending_size.take().map(ProcessEffect::Resize).into_iter().chain([request]).collect()
    }

    pub(super) fn withdraw(
        &mut self,
        now: Timestamp,
        failure: StartFailure,
    ) -> Result<Vec<ProcessEffect>, Refusal> {
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

    pub(super) fn created(&mut self, now: Timestamp, pid: HostPid) -> Result<Vec<ProcessEffect>, Refusal> {
        let State::Creating { early } = &self.state else { return Err(Refusal::Stale) };
        let early = early.clone();
        self.state = State::Created { pid };
        let mut effects = vec![ProcessEffect::Watch, ProcessEffect::ReportCreated { pid }];
        if let Some(raw) = early {
            effects.push(self.exited(now, None, raw));
            return Ok(effects);
        }
        // SIGKILL is sent now. Every other signal waits for the program it is meant for.
        for (signal, scope) in std::mem::take(&mut self.parked_signals) {
            if signal == Signal::KILL {
                effects.push(self.send(signal, scope));
            } else {
                self.parked_signals.push((signal, scope));
            }
        }
        if let Some(Cancelling { cancel, .. }) = self.cancelling {
            effects.push(self.kill(now, cancel));
        }
        Ok(effects)
    }

    pub(super) fn started(&mut self, now: Timestamp, pid: HostPid) -> Result<Vec<ProcessEffect>, Refusal> {
        let State::Starting { pid: known, early, .. } = &self.state else { return Err(Refusal::Stale) };
        let (is_watched, early) = (known.is_some(), early.clone());
        self.state = State::Running { pid, started_at: now };
        let mut effects = Vec::new();
        if !is_watched {
            effects.push(ProcessEffect::Watch);
        }
        effects.push(ProcessEffect::ReportStarted { pid });
        if let Some(raw) = early {
            effects.push(self.exited(now, Some(now), raw));
            return Ok(effects);
        }
        for (signal, scope) in std::mem::take(&mut self.parked_signals) {
            effects.push(self.send(signal, scope));
        }
        match self.cancelling {
            // If it was killed before it ran, its exit will come.
            None | Some(Cancelling { stage: CancelStage::Killed { .. }, .. }) => {}
            Some(Cancelling {
                cancel,
                stage: CancelStage::Pending { .. } | CancelStage::Abandoning | CancelStage::Signalled { .. },
            }) => effects.push(self.begin_cancel(now, cancel)),
        }
        Ok(effects)
    }

    pub(super) fn start_failed(
        &mut self,
        now: Timestamp,
        failure: StartFailure,
    ) -> Result<Vec<ProcessEffect>, Refusal> {
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
                let reason = if was_gone { None } else { Some(reason) };
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
}
