//! Calls of runtimes: executing one, and what follows its exit.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use executor_core::lifecycle::{ExitStatus, HostPid, Signal};
use rustix::io::Errno;

use super::waits::Continuation;
use super::{ChildTable, ClientId, HANDOVER, LeftBy, Role, Watched, push_bounded};
use crate::kernel::{Kernel, Spawned};
use crate::seam::{CallId, Command, Event, ImageFate};

impl<K: Kernel> ChildTable<K> {
    pub(super) fn spawn(&mut self, client: ClientId, call: CallId, command: &Command, fds: &[OwnedFd]) {
        let event = match self.execute(client, call, command, fds) {
            Ok((pid, image)) => Event::Spawned { call, pid, image },
            Err(error) => Event::SpawnFailed { call, error: error.into() },
        };
        self.emit(client, event);
    }

    fn execute(
        &mut self,
        client: ClientId,
        call: CallId,
        command: &Command,
        fds: &[OwnedFd],
    ) -> io::Result<(HostPid, ImageFate)> {
        let own = self.clients.get_mut(&client).ok_or(Errno::SHUTDOWN)?;
        if own.is_closed {
            return Err(Errno::SHUTDOWN.into());
        }
        let mut add_name = |name| {
            own.names.insert(name);
        };
        let spawned = self.kernel.spawn(command, fds, &mut add_name)?;
        let (pid, runtime, image) = (spawned.pid, spawned.runtime, spawned.image);
        let number = self.watch(spawned, client, Role::Call(call))?;
        if let Some(own) = self.clients.get_mut(&client) {
            own.calls.insert(call, number);
            push_bounded(&mut own.groups, runtime);
        }
        Ok((pid, image))
    }

    /// Watches our own child. If there is no file descriptor for a pidfd, it is killed at once: it is not
    /// reaped yet, so its pid is certainly its own.
    fn watch(&mut self, spawned: Spawned<K::Pidfd>, client: ClientId, role: Role) -> io::Result<u64> {
        let Spawned { pid, pidfd, runtime, .. } = spawned;
        let opened = pidfd.map_or_else(|| self.kernel.open(pid), Ok);
        let watched = opened.and_then(|pidfd| self.watch_by(pid, pidfd, client, role));
        match &watched {
            Ok(number) => {
                if let Some(watched) = self.watched.get_mut(number) {
                    watched.runtime = Some(runtime);
                }
            }
            Err(error) if Errno::from_io_error(error) == Some(Errno::SRCH) => {}
            // A subreaper exits after its runtime.
            Err(_) if runtime != pid => {
                let _gone = self.kernel.send_group(runtime, Signal::KILL);
                drop(self.kernel.report(pid));
                self.unwatched.push(pid);
            }
            Err(_) => self.kill_unwatched(pid),
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
        self.watched.insert(number, Watched { pid, pidfd, client, role, runtime: None, give_up: None });
        Ok(number)
    }

    /// Kills a child that has no pidfd, and reaps it later.
    pub(super) fn kill_unwatched(&mut self, pid: HostPid) {
        self.kernel.kill_unwatched(pid);
        self.unwatched.push(pid);
    }

    /// A runtime has exited. If it failed, the processes that it left in its process group are our children
    /// now, and are killed before the end of the call is reported.
    pub(super) fn call_ended(
        &mut self,
        now: Instant,
        client: ClientId,
        call: CallId,
        (pid, runtime): (HostPid, HostPid),
        status: Option<ExitStatus>,
    ) {
        let report = self.kernel.report(pid);
        let status = report.status.or(status).unwrap_or(ExitStatus::Unknown);
        let group = match status {
            ExitStatus::Code(0) => None,
            ExitStatus::Code(_) | ExitStatus::Signal(_) | ExitStatus::Unknown => Some(runtime.get()),
        };
        if group.is_none() && !report.left.is_empty() {
            push_bounded(&mut self.left, LeftBy { client, call, since: now, processes: report.left });
            if self.clients.get(&client).is_some_and(|own| own.is_closed) {
                self.give_up_left_by(|left| left.call == call && left.client == client);
            }
        }
        let left = self.kill_group(client, group);
        self.begin_wait(client, left, now, now + HANDOVER, Continuation::CallEnded { call, status, group });
    }
    /// Kills the unknown children in the process group of a call. A child of one of them is ours only when that has exited, so
    /// there may be more then.
    pub(super) fn kill_group(&mut self, client: ClientId, group: Option<u32>) -> BTreeSet<u64> {
        let Some(group) = group else { return BTreeSet::new() };
        self.kill_unadopted(client, |_, _, stat| stat.group == group)
    }
}
