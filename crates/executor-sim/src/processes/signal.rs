//! Signals, kills and the freezer. They behave as the kernel's do.

use std::sync::Arc;

use executor_core::lifecycle::{
    ContainerId, ExitStatus, ProcessId, ProcessRef, RawExit, Signal, SignalScope,
};
use executor_core::{Delivery, Kill};
use tokio::sync::watch;

use super::Processes;
use crate::lock;
use crate::program::Trap;

impl Processes {
    /// Sends a signal to a process, to its process group, or to everything in the container.
    pub(crate) fn signal_all(
        self: &Arc<Self>,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> Delivery {
        match scope {
            SignalScope::Process => self.signal(process, signal),
            SignalScope::Group => {
                let forks = lock(&self.table).forks.remove(process);
                forks.into_iter().flatten().for_each(|fork| fork.abort());
                self.signal(process, signal)
            }
            SignalScope::Container => {
                let mut all = self.alive();
                all.retain(|other| other.container == process.container);
                // In reverse order, init comes last. If it came first, all others would end with it.
                for member in all.iter().rev() {
                    self.signal(member, signal);
                }
                if all.is_empty() { Delivery::Gone } else { Delivery::Sent }
            }
        }
    }

    /// Sends a signal to one process. As in the kernel, init ignores a signal that it has no handler for, except SIGKILL.
    pub(crate) fn signal(self: &Arc<Self>, process: &ProcessRef, signal: Signal) -> Delivery {
        let table = lock(&self.table);
        let Some(alive) = table.alive.get(process) else { return Delivery::Gone };
        let is_harmless =
            ["CHLD", "CONT", "URG", "WINCH"].iter().any(|name| signal.to_string().ends_with(name));
        let trap = if signal == Signal::KILL { None } else { alive.traps.get(&signal).cloned() };
        let stdio = alive.stdio.clone();
        drop(table);
        match trap {
            Some(Trap::Ignore) => {}
            Some(Trap::Run(steps)) => self.run(process, stdio, steps, None),
            None if signal == Signal::KILL && self.is_frozen(process) => {
                if let Some(alive) = lock(&self.table).alive.get_mut(process) {
                    alive.is_doomed = true;
                }
            }
            None if signal == Signal::KILL || (process.process != ProcessId::Init && !is_harmless) => {
                self.end(process, RawExit::with(ExitStatus::Signal(signal)));
            }
            None => {}
        }
        Delivery::Sent
    }

    pub(super) fn is_frozen(&self, process: &ProcessRef) -> bool {
        lock(&self.table).frozen.get(&process.container).is_some_and(|frozen| *frozen.borrow())
    }

    /// Kills a process and its process group. `None` if the script says that SIGKILL cannot be delivered this time. A
    /// frozen process dies once it is thawed.
    pub(crate) fn kill(&self, process: &ProcessRef, how: Kill) -> Option<Delivery> {
        let mut table = lock(&self.table);
        if let Some(alive) = table.alive.get_mut(process)
            && alive.kill_refused > 0
        {
            alive.kill_refused -= 1;
            return None;
        }
        table.forks.remove(process).into_iter().flatten().for_each(|fork| fork.abort());
        let is_frozen = match table.frozen.get(&process.container) {
            Some(frozen) if how.thaw => {
                frozen.send_replace(false);
                false
            }
            Some(frozen) => *frozen.borrow(),
            None => false,
        };
        if is_frozen {
            if let Some(alive) = table.alive.get_mut(process) {
                alive.is_doomed = true;
            }
            return Some(Delivery::Sent);
        }
        drop(table);
        if how.everything {
            self.kill_remaining(&process.container);
        }
        Some(self.end(process, RawExit::with(ExitStatus::Signal(Signal::KILL))))
    }

    /// Freezes or thaws a container. Processes that were killed while it was frozen end when it is thawed.
    pub(crate) fn freeze(&self, container: &ContainerId, frozen: bool) {
        let mut table = lock(&self.table);
        table
            .frozen
            .entry(container.clone())
            .or_insert_with(|| watch::Sender::new(false))
            .send_replace(frozen);
        let all = table.alive.range(ProcessRef::all_of(container));
        let doomed: Vec<_> =
            all.filter(|(_, alive)| alive.is_doomed && !frozen).map(|(id, _)| id.clone()).collect();
        drop(table);
        for process in doomed {
            self.end(&process, RawExit::with(ExitStatus::Signal(Signal::KILL)));
        }
    }
}
