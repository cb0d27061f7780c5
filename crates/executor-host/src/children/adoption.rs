//! Adopted processes: taking charge of one, and reporting its exit once.

use std::io;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessRef};
use rustix::io::Errno;

use super::{ChildTable, ClientId, Role, Watched};
use crate::kernel::{Kernel, Reaped};
use crate::seam::{CallId, Event, Members, Parent, ProcessEnd, Token};

impl Role {
    /// `None` if it has to be looked at. What is not adopted is not asked about.
    pub(super) fn is_known_to_have_executed(&self) -> Option<bool> {
        match self {
            Self::Adopted { has_executed, .. } => has_executed.then_some(true),
            Self::Call(_) | Self::Killed | Self::Abandoned => Some(true),
        }
    }
}

/// A request to adopt a process.
pub(super) struct Adoption {
    pub(super) client: ClientId,
    pub(super) token: Token,
    pub(super) process: ProcessRef,
    pub(super) pid: HostPid,
    pub(super) parent: Parent,
}

impl<K: Kernel> ChildTable<K> {
    pub(super) fn adopt(&mut self, adoption: Adoption, members: &Members) {
        let Adoption { client, pid, parent, .. } = adoption;
        let process = &adoption.process;
        if let Some(own) = self.clients.get_mut(&client) {
            own.sessions.entry(process.container.clone()).or_default().insert(pid);
        }
        self.track_pid(client, process, pid, members);
        let opened = match (self.take_left(client, parent, pid), parent) {
            (Some(pidfd), _) => Ok(Some(pidfd)),
            (None, Parent::Ended) => Ok(None),
            (None, Parent::Us | Parent::LeftBy(_) | Parent::Call(_)) => self.open_unless_gone(pid, members),
        };
        let seen = self.kernel.stat(pid);
        match opened {
            // It was left behind by a call, and reaped as an orphan before that was known.
            Ok(Some(_)) if seen.is_none() && self.is_recorded(pid) => {
                self.adopt_gone(adoption);
            }
            Ok(Some(pidfd)) => {
                // If nothing is known, nothing is waited for.
                let has_executed = seen.is_none_or(|stat| stat.has_executed());
                self.adopt_alive(adoption, has_executed, pidfd);
            }
            Ok(None) => self.adopt_gone(adoption),
            Err(error) => self.adopt_failed(&adoption, error),
        }
    }

    /// Opens the pidfd of a process to be adopted. `None` if the process was reaped already: as an orphan, by
    /// its monitor, or by a thread of the embedder that waits for any child. Its pid may belong to another
    /// process by then.
    fn open_unless_gone(&mut self, pid: HostPid, members: &Members) -> io::Result<Option<K::Pidfd>> {
        match self.kernel.open(pid) {
            Ok(_) if self.is_stranger(pid, members) => Ok(None),
            Ok(pidfd) => Ok(Some(pidfd)),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The pidfd of a process that a call below a subreaper has left behind. Whatever else it has left is forgotten.
    fn take_left(&mut self, client: ClientId, parent: Parent, pid: HostPid) -> Option<K::Pidfd> {
        let Parent::LeftBy(call) = parent else { return None };
        let index = self.left.iter().position(|left| (left.client, left.call) == (client, call))?;
        let left = self.left.remove(index)?;
        left.processes.into_iter().find(|(of, _)| *of == pid).map(|(_, pidfd)| pidfd)
    }

    fn adopt_alive(&mut self, adoption: Adoption, has_executed: bool, pidfd: K::Pidfd) {
        let Adoption { client, token, pid, parent, .. } = adoption;
        self.forget_pid(pid);
        let role = Role::Adopted { process: adoption.process.clone(), parent, has_executed };
        let number = match self.watch_by(pid, pidfd, client, role) {
            Ok(number) => number,
            Err(error) => return self.adopt_failed(&adoption, error),
        };
        if let Some(own) = self.clients.get_mut(&client) {
            own.adopted.insert(adoption.process, number);
        }
        self.emit(client, Event::Adopted { token, has_executed });
        if let Parent::Call(call) = parent
            && let Some(status) = self.status_of_call(client, call)
        {
            self.monitor_ended(client, call, status);
        }
    }

    fn adopt_failed(&mut self, adoption: &Adoption, error: io::Error) {
        self.untrack_kills(adoption.client, &adoption.process);
        self.kill_unwatched(adoption.pid);
        self.emit(adoption.client, Event::AdoptFailed { token: adoption.token, error: error.into() });
    }

    /// Reports the exit of a process that was reaped before it was adopted, or has its monitor's exit report
    /// it.
    fn adopt_gone(&mut self, adoption: Adoption) {
        let Adoption { client, token, process, pid, parent } = adoption;
        let reaped = match parent {
            Parent::Us | Parent::LeftBy(_) | Parent::Ended => {
                let known = self.take_orphan(pid).or_else(|| self.kernel.recorded(pid));
                Some(known.unwrap_or_else(|| {
                    self.kernel.was_robbed();
                    Reaped::with(ExitStatus::Unknown)
                }))
            }
            Parent::Call(call) => self.status_of_call(client, call).map(Reaped::with),
        };
        let has_executed = reaped.and_then(|reaped| reaped.has_executed).unwrap_or(true);
        self.emit(client, Event::Adopted { token, has_executed });
        match (reaped, parent) {
            (Some(reaped), _) => self.exited(client, process, reaped),
            (None, Parent::Call(call)) => {
                if let Some(own) = self.clients.get_mut(&client) {
                    own.awaiting_monitor.push((process, call));
                }
            }
            (None, Parent::Us | Parent::LeftBy(_) | Parent::Ended) => {}
        }
    }

    /// The exit status of a call that has ended.
    fn status_of_call(&self, client: ClientId, call: CallId) -> Option<ExitStatus> {
        let ended = self.clients.get(&client)?.ended_calls.iter().find(|(ended, _)| *ended == call);
        ended.map(|(_, status)| *status)
    }

    /// A monitor has exited, and so has the process that it monitored. The kernel may know the status of the
    /// process itself; otherwise the monitor's status stands for it.
    pub(super) fn monitor_ended(&mut self, client: ClientId, call: CallId, status: ExitStatus) {
        let is_monitored = |watched: &mut Watched<K::Pidfd>| {
            watched.client == client
                && matches!(watched.role, Role::Adopted { parent: Parent::Call(monitor), .. } if monitor == call)
        };
        let monitored = self.watched.extract_if(|_, watched| is_monitored(watched));
        for (_, Watched { pidfd, role, .. }) in monitored.collect::<Vec<_>>() {
            let Role::Adopted { process, .. } = role else { continue };
            let own_status = self.kernel.status_of_reaped(&pidfd);
            let status = own_status.unwrap_or(status);
            self.exited(client, process, Reaped::with(status));
        }
        let Some(own) = self.clients.get_mut(&client) else { return };
        let gone = own.awaiting_monitor.extract_if(.., |(_, monitor)| *monitor == call);
        for (process, _) in gone.collect::<Vec<_>>() {
            self.exited(client, process, Reaped::with(status));
        }
    }

    pub(super) fn exited(&mut self, client: ClientId, process: ProcessRef, reaped: Reaped) {
        if let Some(own) = self.clients.get_mut(&client) {
            own.adopted.remove(&process);
        }
        let Reaped { status, has_executed, at } = reaped;
        let oom = self.oom_evidence(client, &process, status);
        self.emit(client, Event::Exited { process, end: ProcessEnd { status, oom, has_executed, at } });
    }

    /// Forgets the processes of a container. A remembered one is reaped first if it has exited.
    pub(super) fn forget(&mut self, client: ClientId, container: &ContainerId) {
        self.forget_kills(|other, forgotten| other == client && forgotten == container);
        self.reap_remembered();
        self.remembered.retain(|one| one.client != client || one.container != *container);
        let Some(own) = self.clients.get_mut(&client) else { return };
        if let Some(pids) = own.sessions.remove(container) {
            self.kernel.forget(&mut pids.into_iter());
        }
        let adopted = own.adopted.extract_if(|process, _| process.container == *container);
        for (_, number) in adopted {
            self.watched.remove(&number);
        }
    }
}
