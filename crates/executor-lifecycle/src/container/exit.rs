//! From the end of init to the release: execs, the rest without a pid namespace, the exit, and how long it is kept.

use super::{Answer, Container, ContainerEffect, ExecState, KeepExited, Kept, Rest, State};
use crate::event::EventKind;
use crate::{
    Cancel, CancelCause, Exit, Leftover, ProcessId, Refusal, StartFailure, StartFailureKind, Timestamp,
};

impl Container {
    pub(super) fn init_exited(&mut self, now: Timestamp, exit: Exit) -> Answer {
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

    pub(super) fn rest_ended(&mut self, now: Timestamp) -> Answer {
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

    /// Publishes the exit, once init and every exec have ended, and all that shares their pid namespace with the host.
    pub(super) fn exited_when_empty(&mut self, now: Timestamp) -> Vec<ContainerEffect> {
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
    pub(super) fn release_when_over(&mut self) -> Vec<ContainerEffect> {
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

    pub(super) fn release_ended(&mut self, now: Timestamp, left: Vec<Leftover>) -> Answer {
        let State::Releasing { exit } = &self.state else {
            return Err(Refusal::Stale);
        };
        self.state = State::Released { exit: exit.clone() };
        Ok(vec![ContainerEffect::Finished(self.event(now, EventKind::Released { left }))])
    }

    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<ContainerEffect> {
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
}
