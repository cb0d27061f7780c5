//! A cancel, from its first signal to SIGKILL, and the deadlines in between.

use super::end::cancelled;
use super::{
    CancelStage, Cancelling, KILL_AGAIN, KILL_RETRY, Kill, Process, ProcessEffect, START_PATIENCE, State,
};
use crate::{Cancel, CancelCause, Refusal, SignalScope, Timestamp};

impl Process {
    /// The first cancel decides cause and signal. A later one can only make the process end sooner.
    pub(super) fn cancel(&mut self, now: Timestamp, cancel: Cancel) -> Vec<ProcessEffect> {
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
            // There is no program yet that could use the grace period.
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

    /// Keeps a cancel until the program runs, or the start has failed.
    pub(super) fn keep_cancel(&mut self, now: Timestamp, cancel: Cancel) {
        let stage = CancelStage::Pending { abandon_at: now.after(START_PATIENCE) };
        let kept = self.cancelling.get_or_insert(Cancelling { cancel, stage });
        if cancel.is_immediate() {
            kept.cancel = cancel.cause(kept.cancel.cause);
        }
    }

    /// Sends the cancel's first signal.
    pub(super) fn begin_cancel(&mut self, now: Timestamp, cancel: Cancel) -> ProcessEffect {
        if cancel.is_immediate() {
            return self.kill(now, cancel);
        }
        self.set_stage(cancel, CancelStage::Signalled { kill_at: now.after(cancel.grace) });
        ProcessEffect::Signal(cancel.signal, SignalScope::Process)
    }

    /// Sends SIGKILL. If an earlier SIGKILL has not ended the process, the container may be frozen: its machine knows, so
    /// the process is reported instead.
    pub(super) fn kill(&mut self, now: Timestamp, cancel: Cancel) -> ProcessEffect {
        let was_killed =
            matches!(self.cancelling, Some(Cancelling { stage: CancelStage::Killed { .. }, .. }));
        self.set_stage(cancel, CancelStage::Killed { retry_at: now.after(KILL_AGAIN) });
        self.sent_sigkill = true;
        if was_killed {
            return ProcessEffect::ReportStillAlive;
        }
        ProcessEffect::Kill(Kill { everything: self.traits.shares_pids, thaw: false })
    }

    pub(super) fn set_stage(&mut self, cancel: Cancel, stage: CancelStage) {
        self.cancelling.get_or_insert(Cancelling { cancel, stage }).stage = stage;
    }

    pub(super) fn kill_failed(&mut self, now: Timestamp) -> Result<Vec<ProcessEffect>, Refusal> {
        let retry_at = match (&mut self.state, &mut self.cancelling) {
            (State::Undoing { retry_at, .. }, _) => retry_at,
            (
                State::Created { .. } | State::Starting { pid: Some(_), .. } | State::Running { .. },
                Some(Cancelling { stage: CancelStage::Killed { retry_at }, .. }),
            ) => retry_at,
            // In no other state is a SIGKILL of ours on its way.
            _ => return Err(Refusal::Stale),
        };
        *retry_at = now.after(KILL_RETRY);
        Ok(Vec::new())
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<ProcessEffect> {
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
                    let mut effects = vec![self.kill(now, cancel)];
                    // A runtime that hangs does not notice that its process is gone.
                    if is_starting {
                        effects.push(ProcessEffect::AbandonStart);
                    }
                    effects
                }
            },
        }
    }
}
