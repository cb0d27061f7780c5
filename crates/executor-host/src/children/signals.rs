//! Signals to processes, process groups and containers.

use std::ffi::OsString;
use std::io;

use executor_core::Delivery;
use executor_core::lifecycle::{ContainerId, HostPid, ProcessRef, Signal, SignalScope};
use rustix::io::Errno;

use super::{ChildTable, ClientId};
use crate::kernel::Kernel;
use crate::seam::{CallId, Event, Members, Token};

impl<K: Kernel> ChildTable<K> {
    pub(super) fn signalled(&mut self, client: ClientId, token: Token, delivery: io::Result<Delivery>) {
        let delivery = delivery.map(Into::into).map_err(Into::into);
        self.emit(client, Event::Signalled { token, delivery });
    }

    pub(super) fn signal(
        &mut self,
        client: ClientId,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> io::Result<Delivery> {
        let number = self.clients.get(&client).and_then(|own| own.adopted.get(process)).copied();
        let Some(number) = number else { return Ok(Delivery::Gone) };
        match scope {
            SignalScope::Process => match self.watched.get(&number) {
                Some(watched) => self.kernel.send(&watched.pidfd, signal),
                None => Ok(Delivery::Gone),
            },
            SignalScope::Group => self.signal_group(number, signal),
            SignalScope::Container => Err(Errno::INVAL.into()),
        }
    }

    /// It is a zombie at worst, so it is still in its group: the one it leads, or the one that crun's helper has made for
    /// it. In our own it is signalled alone, as is one that has ended and is for others to reap.
    pub(super) fn signal_group(&mut self, number: u64, signal: Signal) -> io::Result<Delivery> {
        let Some(watched) = self.watched.get(&number) else { return Ok(Delivery::Gone) };
        let own = self.kernel.stat(self.kernel.own_pid()).map(|stat| stat.group);
        let group = self.kernel.stat(watched.pid).map(|stat| stat.group);
        let group = group.filter(|group| Some(*group) != own && !watched.is_for_others_to_reap());
        let Some(group) = group.and_then(HostPid::new) else {
            return self.kernel.send(&watched.pidfd, signal);
        };
        match self.kernel.send_group(group, signal) {
            Ok(()) => Ok(Delivery::Sent),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {
                self.kernel.send(&watched.pidfd, signal)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn kill_call(&mut self, client: ClientId, call: CallId) {
        let number = self.clients.get(&client).and_then(|own| own.calls.get(&call)).copied();
        if let Some(Err(error)) = number.map(|number| self.signal_group(number, Signal::KILL)) {
            tracing::warn!(%error, "kill a runtime");
        }
    }

    pub(super) fn kill(
        &mut self,
        client: ClientId,
        process: &ProcessRef,
        everything: Option<&Members>,
        thaw: &[OsString],
    ) -> io::Result<Delivery> {
        let killed = self.signal(client, process, Signal::KILL, SignalScope::Group);
        if let Some(members) = everything {
            self.remember(client, &process.container, members);
            self.signal_all(members, Signal::KILL);
        }
        if !thaw.is_empty() {
            self.kernel.thaw(thaw);
        }
        killed
    }

    /// A pid may belong to someone else by now: what is signalled is looked at first.
    pub(super) fn signal_all(&mut self, members: &Members, signal: Signal) -> Delivery {
        let mut delivery = Delivery::Gone;
        for pid in self.kernel.members(members) {
            let Ok(pidfd) = self.kernel.open(pid) else { continue };
            if !self.is_member(pid, members) {
                continue;
            }
            match self.kernel.send(&pidfd, signal) {
                Ok(_) => delivery = Delivery::Sent,
                Err(error) => tracing::warn!(%pid, %signal, %error, "signal in container"),
            }
        }
        delivery
    }

    /// Kills what is in a container; whether nothing was.
    pub(super) fn end_members(
        &mut self,
        client: ClientId,
        container: &ContainerId,
        members: &Members,
        thaw: &[OsString],
    ) -> bool {
        self.remember(client, container, members);
        self.reap_remembered();
        let rest = self.signal_all(members, Signal::KILL);
        if rest == Delivery::Sent {
            self.kernel.thaw(thaw);
        }
        rest == Delivery::Gone
    }
}
