//! The resources that containers have used, as their programs or the test script them.
//!
//! A container without a script has used nothing that is known, and its exit has no usage. The number of its processes is
//! known in any case.

use executor_core::lifecycle::{ContainerId, OomKill, ProcessId, ProcessRef, Usage};

use super::Processes;
use crate::lock;

impl Processes {
    /// Sets the values that are present in `usage`. Does nothing for a container without processes.
    pub(crate) fn set_usage(&self, container: &ContainerId, usage: &Usage) {
        let mut table = lock(&self.table);
        if table.alive.range(ProcessRef::all_of(container)).next().is_some() {
            table.change_usage(container, usage);
        }
    }

    /// Counts and reports a kill of the OOM killer: of a process, or of a child of it if `victim` is absent. Returns what
    /// the container has used.
    pub(super) fn oom_kill(&self, process: &ProcessRef, victim: Option<ProcessId>) -> Usage {
        let container = &process.container;
        let mut table = lock(&self.table);
        let kills = table.usages.get(container).map_or(0, |usage| usage.oom_kills) + 1;
        let pid = match &victim {
            Some(_) => table.alive.get(process).map(|alive| alive.pid),
            None => table.next_pid(),
        };
        self.exits().send_oom_kill(container.clone(), OomKill::new(kills).of(victim).pid(pid));
        table.change_usage(container, &Usage { oom_kills: kills, ..Usage::default() })
    }

    /// What a container has used so far.
    pub(crate) fn usage(&self, container: &ContainerId) -> Usage {
        let table = lock(&self.table);
        let mut usage = table.usages.get(container).copied().unwrap_or_default();
        let processes = table.alive.range(ProcessRef::all_of(container)).count();
        usage.pids = usage.pids.or(u64::try_from(processes).ok());
        usage
    }
}

/// `before`, with the values that are present in `change`. Peaks and `oom_kills` do not decrease.
pub(super) fn changed(before: &Usage, change: &Usage) -> Usage {
    Usage {
        cpu: change.cpu.or(before.cpu),
        cpu_user: change.cpu_user.or(before.cpu_user),
        cpu_system: change.cpu_system.or(before.cpu_system),
        cpu_throttled: change.cpu_throttled.or(before.cpu_throttled),
        memory: change.memory.or(before.memory),
        memory_peak: before.memory_peak.max(change.memory).max(change.memory_peak),
        swap: change.swap.or(before.swap),
        oom_kills: before.oom_kills.max(change.oom_kills),
        pids: change.pids.or(before.pids),
        pids_peak: before.pids_peak.max(change.pids).max(change.pids_peak),
        io: change.io.or(before.io),
        pressure: change.pressure.or(before.pressure),
        network: change.network.or(before.network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_values_stay_and_peaks_do_not_decrease() {
        let first = Usage { memory: Some(7), pids: Some(2), oom_kills: 1, ..Usage::default() };
        let both =
            changed(&changed(&Usage::default(), &first), &Usage { memory: Some(3), ..Usage::default() });
        assert_eq!((both.memory, both.memory_peak), (Some(3), Some(7)));
        assert_eq!((both.pids, both.pids_peak, both.oom_kills), (Some(2), Some(2), 1));
        assert_eq!((both.cpu, both.swap), (None, None));
        let higher = changed(&both, &Usage { memory_peak: Some(9), oom_kills: 3, ..Usage::default() });
        assert_eq!((higher.memory, higher.memory_peak, higher.oom_kills), (Some(3), Some(9), 3));
    }
}
