//! Pausing and resuming a container, and thawing it when a process in it is killed.

use super::{Answer, Container, ContainerEffect, ExecState, Freeze, State};
use crate::event::EventKind;
use crate::{Refusal, Timestamp};

impl Container {
    pub(super) fn pause(&mut self) -> Answer {
        let cancelled = self.is_cancelled;
        match self.freeze()? {
            Freeze::Thawed if cancelled => Err(Refusal::Cancelled),
            freeze @ Freeze::Thawed => {
                *freeze = Freeze::Awaited;
                Ok(self.freeze_if_no_exec_starts())
            }
            Freeze::Awaited | Freeze::Freezing | Freeze::Frozen | Freeze::Thawing => Err(Refusal::Paused),
        }
    }

    pub(super) fn resume(&mut self) -> Answer {
        match self.freeze()? {
            freeze @ Freeze::Frozen => {
                *freeze = Freeze::Thawing;
                Ok(vec![ContainerEffect::Resume])
            }
            Freeze::Thawed | Freeze::Awaited | Freeze::Freezing | Freeze::Thawing => Err(Refusal::NotPaused),
        }
    }

    pub(super) fn freeze(&mut self) -> Result<&mut Freeze, Refusal> {
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

    /// Begins the freeze that waits for execs to start, if no exec is being started any more.
    pub(super) fn freeze_if_no_exec_starts(&mut self) -> Vec<ContainerEffect> {
        if self.execs.values().any(|state| *state == ExecState::Launched) {
            return Vec::new();
        }
        if let State::Running { freeze: freeze @ Freeze::Awaited } = &mut self.state {
            *freeze = Freeze::Freezing;
            return vec![ContainerEffect::Pause];
        }
        Vec::new()
    }

    pub(super) fn pause_ended(&mut self, now: Timestamp, frozen: bool) -> Answer {
        let must_thaw = std::mem::take(&mut self.is_thaw_wanted) || self.is_cancelled;
        match self.freeze() {
            Ok(freeze @ Freeze::Freezing) => {
                *freeze = match (frozen, must_thaw) {
                    (false, _) => Freeze::Thawed,
                    (true, false) => Freeze::Frozen,
                    (true, true) => Freeze::Thawing,
                };
                let mut effects = Vec::new();
                if frozen {
                    effects.push(self.publish(now, EventKind::Paused));
                }
                if frozen && must_thaw {
                    effects.push(ContainerEffect::Thaw);
                }
                Ok(effects)
            }
            Ok(Freeze::Thawed | Freeze::Awaited | Freeze::Frozen | Freeze::Thawing) | Err(_) => {
                Err(Refusal::Stale)
            }
        }
    }

    pub(super) fn resume_ended(&mut self, now: Timestamp, thawed: bool) -> Answer {
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

    /// Thaws the container so that a process that was killed can end: now, or once the runtime has frozen it.
    pub(super) fn thaw_for_kill(&mut self) -> Option<ContainerEffect> {
        match &mut self.state {
            State::Running { freeze: freeze @ Freeze::Awaited } => {
                *freeze = Freeze::Thawed;
                None
            }
            State::Running { freeze: Freeze::Freezing } => {
                self.is_thaw_wanted = true;
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
}
