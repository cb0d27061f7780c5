//! Children that are neither runtimes nor of a container: those of the embedder, and orphans of those, which this process gets as
//! a subreaper. They are the embedder's to reap. If it has asked for it, they are reaped here some time after their exit.

use std::time::{Duration, Instant};

use super::{ChildTable, ClientId};
use crate::kernel::Kernel;

impl<K: Kernel> ChildTable<K> {
    pub(super) fn reap_others_after(&mut self, client: ClientId, age: Duration) {
        if let Some(own) = self.clients.get_mut(&client) {
            own.reaps_others_after = Some(age);
        }
    }

    /// The shortest time that a client has asked for.
    fn age_of_others(&self) -> Option<Duration> {
        self.clients.values().filter_map(|client| client.reaps_others_after).min()
    }

    /// Takes note of those that have exited. Called after every look for orphans.
    pub(super) fn note_others(&mut self, now: Instant) {
        if self.age_of_others().is_none() {
            return;
        }
        let before = std::mem::take(&mut self.others);
        let left = self.left_by_calls();
        for pid in self.unknown_children().into_iter().filter(|pid| !left.contains(pid)) {
            let Some(stat) = self.kernel.stat(pid).filter(|stat| stat.state == 'Z') else { continue };
            let same = before.get(&pid).filter(|(start, _)| *start == stat.start);
            self.others.insert(pid, same.copied().unwrap_or((stat.start, now)));
        }
    }

    /// When the next one is to be reaped.
    pub(super) fn next_other(&self) -> Option<Instant> {
        let age = self.age_of_others()?;
        self.others.values().filter_map(|(_, seen)| seen.checked_add(age)).min()
    }

    /// Reaps those whose time has come. One that the embedder has reaped meanwhile may have given its pid to a new child.
    pub(super) fn reap_others(&mut self, now: Instant) {
        let Some(age) = self.age_of_others() else { return };
        let is_due = |seen: Instant| now.saturating_duration_since(seen) >= age;
        for (pid, (start, _)) in self.others.extract_if(|_, (_, seen)| is_due(*seen)).collect::<Vec<_>>() {
            let Ok(pidfd) = self.kernel.open(pid) else { continue };
            if self.kernel.stat(pid).is_some_and(|stat| stat.state == 'Z' && stat.start == start) {
                // It may be a container's, on a host where an exiting process has no cgroup.
                if let Ok(Some(reaped)) = self.kernel.reap(&pidfd) {
                    self.record_orphan(pid, reaped);
                }
            }
        }
    }
}
