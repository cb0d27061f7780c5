//! Adopted processes: taking charge of one, and reporting its exit once.

use std::io;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessRef};
use rustix::io::Errno;

use super::{ChildTable, ClientId, Role, Watched};
use crate::kernel::Kernel;
use crate::seam::{CallId, Event, Members, Parent, Token};

impl<K: Kernel> ChildTable<K> {
    pub(super) fn adopt(
        &mut self,
        client: ClientId,
        token: Token,
        process: ProcessRef,
        pid: HostPid,
        parent: Parent,
        members: &Members,
    ) {
        if let Some(own) = self.clients.get_mut(&client) {
            own.sessions.entry(process.container.clone()).or_default().insert(pid);
        }
        // One that is gone was reaped already: as an orphan, by its monitor, or by someone who waits for any child and
        // has taken the status with them. The pid may be another's by now.
        let there = match self.kernel.open(pid) {
            Ok(_) if self.is_stranger(pid, members) => None,
            Ok(pidfd) => Some(pidfd),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => None,
            Err(error) => return self.adopt_failed(client, token, pid, error),
        };
        let Some(pidfd) = there else {
            self.emit(client, Event::Adopted { token });
            return self.adopted_gone(client, process, pid, parent);
        };
        self.forget_pid(pid);
        match self.watch_by(pid, pidfd, client, Role::Adopted { process: process.clone(), parent }) {
            Ok(number) => {
                if let Some(own) = self.clients.get_mut(&client) {
                    own.adopted.insert(process, number);
                }
                self.emit(client, Event::Adopted { token });
                let monitor = match parent {
                    Parent::Us => None,
                    Parent::Call(call) => self.status_of_call(client, call).map(|status| (call, status)),
                };
                monitor.into_iter().for_each(|(call, status)| self.monitor_ended(client, call, status));
            }
            Err(error) => self.adopt_failed(client, token, pid, error),
        }
    }

    fn adopt_failed(&mut self, client: ClientId, token: Token, pid: HostPid, error: io::Error) {
        self.kernel.kill_unwatched(pid);
        self.unwatched.push(pid);
        self.emit(client, Event::AdoptFailed { token, error: error.into() });
    }

    fn adopted_gone(&mut self, client: ClientId, process: ProcessRef, pid: HostPid, parent: Parent) {
        let status = match parent {
            Parent::Us => Some(self.take_orphan_status(pid).unwrap_or(ExitStatus::Unknown)),
            Parent::Call(call) => {
                let status = self.status_of_call(client, call);
                if let (None, Some(own)) = (status, self.clients.get_mut(&client)) {
                    own.awaiting_monitor.push((process.clone(), call));
                }
                status
            }
        };
        status.into_iter().for_each(|status| self.exited(client, process.clone(), status));
    }

    fn status_of_call(&self, client: ClientId, call: CallId) -> Option<ExitStatus> {
        let ended = self.clients.get(&client)?.ended_calls.iter().find(|(ended, _)| *ended == call);
        ended.map(|(_, status)| *status)
    }

    /// The end of a monitor is that of what it monitored, whose own status the kernel may know.
    pub(super) fn monitor_ended(&mut self, client: ClientId, call: CallId, status: ExitStatus) {
        let monitored = |watched: &Watched<K::Pidfd>| {
            watched.client == client
                && matches!(watched.role, Role::Adopted { parent: Parent::Call(monitor), .. } if monitor == call)
        };
        let numbers: Vec<_> = self
            .watched
            .iter()
            .filter(|(_, watched)| monitored(watched))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            let Some(Watched { pidfd, role: Role::Adopted { process, .. }, .. }) =
                self.watched.remove(&number)
            else {
                continue;
            };
            let status = self.kernel.status_of_reaped(&pidfd).unwrap_or(status);
            self.exited(client, process, status);
        }
        let Some(own) = self.clients.get_mut(&client) else { return };
        let (gone, rest) =
            std::mem::take(&mut own.awaiting_monitor).into_iter().partition(|(_, monitor)| *monitor == call);
        own.awaiting_monitor = rest;
        let gone: Vec<(ProcessRef, CallId)> = gone;
        gone.into_iter().for_each(|(process, _)| self.exited(client, process, status));
    }

    pub(super) fn exited(&mut self, client: ClientId, process: ProcessRef, status: ExitStatus) {
        if let Some(own) = self.clients.get_mut(&client) {
            own.adopted.remove(&process);
        }
        self.emit(client, Event::Exited { process, status });
    }

    pub(super) fn forget(&mut self, client: ClientId, container: &ContainerId) {
        self.reap_remembered();
        self.remembered.retain(|one| one.client != client || one.container != *container);
        let Some(own) = self.clients.get_mut(&client) else { return };
        own.sessions.remove(container);
        let of_it = own.adopted.extract_if(|process, _| process.container == *container);
        for (_, number) in of_it.collect::<Vec<_>>() {
            self.watched.remove(&number);
        }
    }
}
