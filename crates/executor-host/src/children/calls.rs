//! Calls of runtimes: executing one, and what follows its end.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use executor_core::lifecycle::{ExitStatus, HostPid};
use rustix::io::Errno;

use super::waits::Continuation;
use super::{ChildTable, ClientId, HANDOVER, Role, Watched, push_bounded};
use crate::kernel::Kernel;
use crate::seam::{CallId, Command, Event};

impl<K: Kernel> ChildTable<K> {
    pub(super) fn spawn(&mut self, client: ClientId, call: CallId, command: &Command, fds: &[OwnedFd]) {
        let Some(own) = self.clients.get_mut(&client) else { return };
        if own.is_closed {
            return self
                .emit(client, Event::SpawnFailed { call, error: io::Error::from(Errno::SHUTDOWN).into() });
        }
        let names = &mut own.names;
        let spawned = self.kernel.spawn(command, fds, &mut |name| {
            names.insert(name);
        });
        let watched = spawned.and_then(|(pid, image)| {
            let number = self.watch(pid, client, Role::Call(call))?;
            Ok((number, pid, image))
        });
        match watched {
            Ok((number, pid, image)) => {
                if let Some(own) = self.clients.get_mut(&client) {
                    own.calls.insert(call, number);
                    push_bounded(&mut own.groups, pid);
                }
                self.emit(client, Event::Spawned { call, pid, image });
            }
            Err(error) => self.emit(client, Event::SpawnFailed { call, error: error.into() }),
        }
    }

    /// Watches a process that can only be ours. Out of files, it is ended while its pid is certainly its own.
    fn watch(&mut self, pid: HostPid, client: ClientId, role: Role) -> io::Result<u64> {
        let watched = self.kernel.open(pid).and_then(|pidfd| self.watch_by(pid, pidfd, client, role));
        if watched.as_ref().is_err_and(|error| Errno::from_io_error(error) != Some(Errno::SRCH)) {
            self.kernel.kill_unwatched(pid);
            self.unwatched.push(pid);
        }
        watched
    }

    pub(super) fn watch_by(
        &mut self,
        pid: HostPid,
        pidfd: K::Pidfd,
        client: ClientId,
        role: Role,
    ) -> io::Result<u64> {
        let number = self.next;
        self.kernel.watch(number, &pidfd)?;
        self.next += 1;
        self.watched.insert(number, Watched { pid, pidfd, client, role, give_up: None });
        Ok(number)
    }

    pub(super) fn call_ended(
        &mut self,
        now: Instant,
        client: ClientId,
        call: CallId,
        pid: HostPid,
        status: ExitStatus,
    ) {
        let left = match status {
            ExitStatus::Code(0) => BTreeSet::new(),
            // What it had left in its process group came to us with its end.
            ExitStatus::Code(_) | ExitStatus::Signal(_) | ExitStatus::Unknown => {
                self.kill_unadopted(client, |_, _, stat| stat.group == pid.get())
            }
        };
        self.begin_wait(client, left, now, now + HANDOVER, Continuation::CallEnded { call, status });
    }
}
