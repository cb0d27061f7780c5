//! What a caller asks of a container that exists: to end it, to signal it, to look at it.

use super::{Answer, Container, ContainerEffect, Freeze, KeepExited, Kept, State};
use crate::process::Kill;
use crate::{Cancel, ProcessId, Refusal, Signal, SignalScope};

impl Container {
    /// Execs come first: once init is dead its pid namespace kills them, and they cannot be signalled any more.
    pub(super) fn cancel(&mut self, cancel: Cancel) -> Vec<ContainerEffect> {
        match &self.state {
            State::Preparing | State::Creating | State::Created | State::Starting | State::Running { .. } => {
            }
            State::New
            | State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => return Vec::new(),
        }
        self.is_cancelled = true;
        let mut effects = Vec::new();
        for exec in self.execs.keys() {
            effects.push(ContainerEffect::CancelProcess(ProcessId::Exec(exec.clone()), cancel));
        }
        effects.push(ContainerEffect::CancelProcess(ProcessId::Init, cancel));
        effects.extend(self.thaw_for_kill());
        effects
    }

    pub(super) fn end(&mut self, cancel: Cancel) -> Vec<ContainerEffect> {
        self.traits.keep_exited = KeepExited::No;
        match &mut self.state {
            State::Exited { kept, .. } => {
                *kept = Kept::No;
                self.release_if_due()
            }
            State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. }
            | State::Releasing { .. }
            | State::Released { .. } => self.cancel(cancel),
        }
    }

    pub(super) fn remove(&mut self) -> Answer {
        match &mut self.state {
            State::New
            | State::Preparing
            | State::Creating
            | State::Created
            | State::Starting
            | State::Running { .. }
            | State::Exiting { .. } => Err(Refusal::NotExited),
            State::Exited { kept, .. } => {
                *kept = Kept::No;
                Ok(self.release_if_due())
            }
            State::Releasing { .. } | State::Released { .. } => Ok(Vec::new()),
        }
    }

    /// A frozen process does not die of SIGKILL before it is thawed.
    pub(super) fn signal(&mut self, signal: Signal, scope: SignalScope) -> Answer {
        let mut effects = self.if_init_exists(ContainerEffect::SignalInit(signal, scope))?;
        if signal == Signal::KILL {
            effects.extend(self.thaw_for_kill());
        }
        Ok(effects)
    }

    /// A process that does not die of SIGKILL is frozen: either with the container, or by a freezer that the container's
    /// own processes use.
    pub(super) fn still_alive(&mut self, process: ProcessId) -> Answer {
        if let State::Running { freeze: Freeze::Freezing | Freeze::Frozen } = &self.state {
            return Ok(self.thaw_for_kill().into_iter().collect());
        }
        if !self.is_unfinished(&process) {
            return Err(Refusal::Stale);
        }
        match &self.state {
            State::Created | State::Starting | State::Running { .. } | State::Exiting { .. } => {
                let everything = self.traits.shares_pids && process == ProcessId::Init;
                Ok(vec![ContainerEffect::KillAgain(process, Kill { everything, thaw: true })])
            }
            State::New
            | State::Preparing
            | State::Creating
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refusal::Stale),
        }
    }

    /// Whether the exit of this process is still to come.
    pub(super) fn is_unfinished(&self, process: &ProcessId) -> bool {
        match process {
            ProcessId::Init => !matches!(self.state, State::Exiting { .. }),
            ProcessId::Exec(exec) => self.execs.contains_key(exec),
        }
    }

    /// Passes a request on to init, if there is one. Init's own machine decides.
    pub(super) fn if_init_exists(&self, effect: ContainerEffect) -> Answer {
        match self.state {
            State::New => Err(Refusal::NotRunning),
            State::Preparing | State::Creating | State::Created | State::Starting | State::Running { .. } => {
                Ok(vec![effect])
            }
            State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refusal::Exited),
        }
    }

    /// Passes a request on, if there are processes in the container.
    pub(super) fn if_created_or_running(&self, effect: ContainerEffect) -> Answer {
        match self.state {
            State::New | State::Preparing | State::Creating | State::Starting => Err(Refusal::NotRunning),
            State::Created | State::Running { .. } => Ok(vec![effect]),
            State::Exiting { .. }
            | State::Exited { .. }
            | State::Releasing { .. }
            | State::Released { .. } => Err(Refusal::Exited),
        }
    }
}
