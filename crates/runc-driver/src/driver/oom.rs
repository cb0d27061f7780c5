//! Kills for lack of memory: the host looks for them in the containers that have a limit of their own.

use executor_core::lifecycle::{ProcessId, ProcessRef};

use super::DriverState;
use super::container::DriverContainer;

impl DriverState {
    /// A process is going to be started.
    pub(super) fn track_kills(&self, container: &DriverContainer, process: &ProcessId) {
        if container.has_memory_limit() {
            let has_program = *process == ProcessId::Init && container.spec.init;
            self.host().track_kills(named(container, process), has_program, container.members());
        }
    }

    /// The process was not started.
    pub(super) fn untrack_kills(&self, container: &DriverContainer, process: &ProcessId) {
        if container.has_memory_limit() {
            self.host().untrack_kills(named(container, process));
        }
    }

    /// Its cgroups are known, its program was started, or it has a limit now.
    pub(super) fn watch_kills(&self, container: &DriverContainer) {
        if container.has_memory_limit() {
            let id = container.reservation.id.clone();
            self.host().watch_kills(id, container.spec.init, container.members());
        }
    }
}

fn named(container: &DriverContainer, process: &ProcessId) -> ProcessRef {
    ProcessRef { container: container.reservation.id.clone(), process: process.clone() }
}
