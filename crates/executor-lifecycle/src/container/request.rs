//! What a caller asks of a container that exists: to end it, to signal it, to look at it.

use super::{Answer, Container, ContainerEffect, Freeze, KeepExited, Kept, State};
use crate::process::Kill;
use crate::{Cancel, ProcessId, Refusal, Signal, SignalScope};

impl Container {
    /// Execs first: once init is dead its pid namespace kills them, and there is nothing left to signal.
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
        self.cancelled = true;
        let execs = self.execs.keys().map(|exec| ProcessId::Exec(exec.clone()));
        let mut effects: Vec<_> = execs
            .chain([ProcessId::Init])
            .map(|process| ContainerEffect::CancelProcess(process, cancel))
            .collect();
        effects.extend(self.thaw_the_killed());
        effects
    }

    pub(super) fn end(&mut self, cancel: Cancel) -> Vec<ContainerEffect> {
        self.traits.keep_exited = KeepExited::No;
        match &mut self.state {
            State::Exited { kept, .. } => {
                *kept = Kept::NotAny;
                self.release_when_over()
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
                *kept = Kept::NotAny;
                Ok(self.release_when_over())
            }
            State::Releasing { .. } | State::Released { .. } => Ok(Vec::new()),
        }
    }

    /// What is frozen does not die of a SIGKILL before it is thawed.
    pub(super) fn signal(&mut self, signal: Signal, scope: SignalScope) -> Answer {
        let mut effects = self.for_init(ContainerEffect::SignalInit(signal, scope))?;
        if signal == Signal::KILL {
            effects.extend(self.thaw_the_killed());
        }
        Ok(effects)
    }

    /// A process that does not die of a SIGKILL is frozen: with the container, or by the container's own doing.
    pub(super) fn still_alive(&mut self, process: ProcessId) -> Answer {
        match &self.state {
            State::Running { freeze: Freeze::Freezing | Freeze::Frozen } => {
                Ok(self.thaw_the_killed().into_iter().collect())
            }
            _ if !self.is_there(&process) => Err(Refusal::Stale),
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

    /// Whether this process was accepted and its end not reported.
    pub(super) fn is_there(&self, process: &ProcessId) -> bool {
        match process {
            ProcessId::Init => !matches!(self.state, State::Exiting { .. }),
            ProcessId::Exec(exec) => self.execs.contains_key(exec),
        }
    }

    /// What init's own machine decides on, as long as there is an init.
    pub(super) fn for_init(&self, effect: ContainerEffect) -> Answer {
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

    /// What can be asked while there is something in it.
    pub(super) fn while_it_stands(&self, effect: ContainerEffect) -> Answer {
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
