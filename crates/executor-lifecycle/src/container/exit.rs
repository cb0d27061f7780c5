//! From the end of init to the release: the execs end, the processes that do not end with init are killed, the exit is
//! published, and the container is kept for its time.

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
        let mut effects = self.publish_missed_kills(now, &ProcessId::Init, &exit);
        for (exec, state) in &self.execs {
            let process = ProcessId::Exec(exec.clone());
            effects.push(match state {
                ExecState::Parked => ContainerEffect::Withdraw(process, gone.clone()),
                ExecState::Launched | ExecState::Running => ContainerEffect::CancelProcess(process, kill),
            });
        }
        self.state = State::Exiting { exit, rest: Rest::Unasked };
        effects.extend(self.publish_exit_if_empty(now));
        Ok(effects)
    }

    pub(super) fn rest_ended(&mut self, now: Timestamp) -> Answer {
        match &mut self.state {
            State::Exiting { rest: rest @ Rest::Ending, .. } => {
                *rest = Rest::Ended;
                Ok(self.publish_exit_if_empty(now))
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

    /// Publishes the exit if init and every exec have ended. Without a pid namespace the other processes have to end
    /// before.
    pub(super) fn publish_exit_if_empty(&mut self, now: Timestamp) -> Vec<ContainerEffect> {
        let State::Exiting { exit, rest } = &mut self.state else {
            return Vec::new();
        };
        if !self.execs.is_empty() {
            return Vec::new();
        }
        match rest {
            Rest::Ending => return Vec::new(),
            // Before its bundle is made there are no processes in it.
            Rest::Unasked if self.traits.shares_pids && !self.is_preparing => {
                *rest = Rest::Ending;
                return vec![ContainerEffect::KillRemaining];
            }
            Rest::Unasked | Rest::Ended => {}
        }
        let mut exit = exit.clone();
        if let Some(usage) = &mut exit.usage {
            // A counter may be gone together with its cgroup.
            usage.oom_kills = usage.oom_kills.max(self.oom_kills);
        }
        let kept = match self.traits.keep_exited {
            KeepExited::No => Kept::No,
            KeepExited::For(time) => Kept::Until(now.after(time)),
            KeepExited::UntilRemoved => Kept::UntilRemoved,
        };
        self.state = State::Exited { exit: exit.clone(), kept };
        let mut effects = vec![self.publish(now, EventKind::Exited { exit })];
        effects.extend(self.release_if_due());
        effects
    }

    /// Begins the release if the container is not kept any more and its bundle is not being made.
    pub(super) fn release_if_due(&mut self) -> Vec<ContainerEffect> {
        match &self.state {
            State::Exited { exit, kept: Kept::No } if !self.is_preparing => {
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
                *kept = Kept::No;
                self.release_if_due()
            }
            State::Exited { kept: Kept::No | Kept::UntilRemoved, .. }
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
