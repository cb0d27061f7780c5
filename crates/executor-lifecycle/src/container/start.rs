//! From the bundle to a container that runs.

use super::{Answer, Container, ContainerEffect, ExecState, Freeze, State};
use crate::event::EventKind;
use crate::process::Terms;
use crate::{HostPid, ProcessId, Refusal, StartFailure, Timestamp};

impl Container {
    pub(super) fn create(&mut self, now: Timestamp) -> Answer {
        if self.state != State::New {
            return Err(Refusal::Stale);
        }
        self.state = State::Preparing;
        self.is_preparing = true;
        Ok(vec![self.publish(now, EventKind::Registered), ContainerEffect::Prepare])
    }

    pub(super) fn start(&mut self, terms: Terms) -> Answer {
        match &self.state {
            State::New => return Err(Refusal::NotRunning),
            State::Exiting { exit, .. }
            | State::Exited { exit, .. }
            | State::Releasing { exit }
            | State::Released { exit } => return Err(Refusal::stopped(exit)),
            State::Starting | State::Running { .. } => return Err(Refusal::Started),
            State::Preparing | State::Creating | State::Created if self.is_cancelled => {
                return Err(Refusal::Cancelled);
            }
            State::Preparing | State::Creating | State::Created if self.is_start_wanted => {
                return Err(Refusal::Started);
            }
            State::Preparing | State::Creating | State::Created => {}
        }
        self.is_start_wanted = true;
        let mut effects = vec![ContainerEffect::ArmInit(terms)];
        if self.state == State::Created {
            effects.push(self.launch_init());
        }
        Ok(effects)
    }

    pub(super) fn launch_init(&mut self) -> ContainerEffect {
        self.state = State::Starting;
        ContainerEffect::Launch(ProcessId::Init)
    }

    pub(super) fn prepared(&mut self) -> Answer {
        self.preparation_ended(None)
    }

    pub(super) fn prepare_failed(&mut self, failure: StartFailure) -> Answer {
        self.preparation_ended(Some(failure))
    }

    pub(super) fn preparation_ended(&mut self, failure: Option<StartFailure>) -> Answer {
        if !std::mem::replace(&mut self.is_preparing, false) {
            return Err(Refusal::Stale);
        }
        match (&self.state, failure) {
            (State::Preparing, Some(failure)) => {
                self.state = State::Starting;
                Ok(vec![ContainerEffect::Withdraw(ProcessId::Init, failure)])
            }
            (State::Preparing, None) if self.is_start_wanted && !self.traits.has_terminal => {
                Ok(vec![self.launch_init()])
            }
            (State::Preparing, None) => {
                self.state = State::Creating;
                Ok(vec![ContainerEffect::CreateInit])
            }
            (State::Exited { .. }, _) => Ok(self.release_if_due()),
            (
                State::New
                | State::Creating
                | State::Created
                | State::Starting
                | State::Running { .. }
                | State::Exiting { .. }
                | State::Releasing { .. }
                | State::Released { .. },
                _,
            ) => Ok(Vec::new()),
        }
    }

    pub(super) fn init_created(&mut self, now: Timestamp, pid: HostPid) -> Answer {
        if self.state != State::Creating {
            return Err(Refusal::Stale);
        }
        self.state = State::Created;
        let mut effects = vec![self.publish(now, EventKind::Created { pid })];
        if self.is_start_wanted {
            effects.push(self.launch_init());
        }
        Ok(effects)
    }

    pub(super) fn init_started(&mut self, now: Timestamp, pid: HostPid) -> Answer {
        if self.state != State::Starting {
            return Err(Refusal::Stale);
        }
        self.state = State::Running { freeze: Freeze::Thawed };
        let mut effects = vec![self.publish(now, EventKind::Started { pid })];
        for (exec, state) in &mut self.execs {
            *state = ExecState::Launched;
            effects.push(ContainerEffect::Launch(ProcessId::Exec(exec.clone())));
        }
        Ok(effects)
    }
}
