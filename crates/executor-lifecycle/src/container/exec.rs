//! The processes exec'd into a container: parked until it runs, then launched.

use super::{Answer, Container, ContainerEffect, ExecState, Freeze, State};
use crate::event::EventKind;
use crate::{ExecId, Exit, HostPid, ProcessId, Refusal, Timestamp};

impl Container {
    pub(super) fn exec(&mut self, now: Timestamp, id: Option<ExecId>) -> Answer {
        let state = match &self.state {
            State::New => return Err(Refusal::NotRunning),
            State::Exiting { exit, .. }
            | State::Exited { exit, .. }
            | State::Releasing { exit }
            | State::Released { exit } => return Err(Refusal::stopped(exit)),
            State::Preparing | State::Creating | State::Created | State::Starting | State::Running { .. }
                if self.is_cancelled =>
            {
                return Err(Refusal::Cancelled);
            }
            State::Preparing | State::Creating | State::Created | State::Starting => ExecState::Parked,
            State::Running { freeze: Freeze::Thawed } => ExecState::Launched,
            State::Running {
                freeze: Freeze::Awaited | Freeze::Freezing | Freeze::Frozen | Freeze::Thawing,
            } => return Err(Refusal::Paused),
        };
        let exec = match id {
            Some(id) if self.execs.contains_key(&id) => return Err(Refusal::ExecIdTaken),
            Some(id) => id,
            None => self.next_exec(),
        };
        self.execs.insert(exec.clone(), state);
        let mut effects = vec![
            ContainerEffect::AddExec(exec.clone()),
            self.publish(now, EventKind::ExecAdded { exec: exec.clone() }),
        ];
        if state == ExecState::Launched {
            effects.push(ContainerEffect::Launch(ProcessId::Exec(exec)));
        }
        Ok(effects)
    }

    /// Generates an id. A caller may have taken it for an exec of its own: then the next one.
    pub(super) fn next_exec(&mut self) -> ExecId {
        loop {
            self.generated_exec_ids += 1;
            let id = ExecId::numbered(self.generated_exec_ids);
            if !self.execs.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn exec_started(&mut self, now: Timestamp, exec: ExecId, pid: HostPid) -> Answer {
        match self.execs.get_mut(&exec) {
            Some(state @ ExecState::Launched) => *state = ExecState::Running,
            Some(ExecState::Parked | ExecState::Running) | None => return Err(Refusal::Stale),
        }
        let mut effects = vec![self.publish(now, EventKind::ExecStarted { exec, pid })];
        effects.extend(self.freeze_if_no_exec_starts());
        Ok(effects)
    }

    pub(super) fn exec_exited(&mut self, now: Timestamp, exec: ExecId, exit: Exit) -> Answer {
        if self.execs.remove(&exec).is_none() {
            return Err(Refusal::Stale);
        }
        let mut effects = self.publish_missed_kills(now, &ProcessId::Exec(exec.clone()), &exit);
        effects.push(self.publish(now, EventKind::ExecExited { exec, exit }));
        effects.extend(self.freeze_if_no_exec_starts());
        effects.extend(self.publish_exit_if_empty(now));
        Ok(effects)
    }
}
