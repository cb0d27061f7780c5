//! Signals to processes, process groups and containers.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;

use executor_core::Delivery;
use executor_core::lifecycle::{ContainerId, HostPid, ProcessRef, Signal, SignalScope};
use rustix::io::Errno;

use super::{ChildTable, ClientId, Role, Watched};
use crate::kernel::Kernel;
use crate::seam::{CallId, Event, Members, Token};

impl<K: Kernel> ChildTable<K> {
    pub(super) fn signal(
        &mut self,
        client: ClientId,
        token: Token,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) {
        let delivery = self.send_to_adopted(client, process, signal, scope);
        self.signalled(client, token, delivery);
    }

    pub(super) fn signal_all(&mut self, client: ClientId, token: Token, members: &Members, signal: Signal) {
        let delivery = self.send_to_members(members, signal);
        self.signalled(client, token, Ok(delivery));
    }

    pub(super) fn kill(
        &mut self,
        client: ClientId,
        token: Token,
        process: &ProcessRef,
        everything: Option<&Members>,
        thaw: &[OsString],
    ) {
        let delivery = self.send_to_adopted(client, process, Signal::KILL, SignalScope::Group);
        if let Some(members) = everything {
            self.remember(client, &process.container, members);
            self.send_to_members(members, Signal::KILL);
        }
        if !thaw.is_empty() {
            self.kernel.thaw(thaw);
        }
        self.signalled(client, token, delivery);
    }

    pub(super) fn thaw(&mut self, client: ClientId, token: Token, dirs: &[OsString]) {
        self.kernel.thaw(dirs);
        self.emit(client, Event::Done { token });
    }

    pub(super) fn kill_call(&mut self, client: ClientId, call: CallId) {
        let number = self.clients.get(&client).and_then(|own| own.calls.get(&call)).copied();
        let Some(number) = number else { return };
        // Found before the runtime is killed. After that, nothing says who has started them.
        let started = self.started_by(number);
        if let Err(error) = self.signal_group(number, Signal::KILL) {
            tracing::warn!(%error, "a runtime was not killed");
        }
        for (pid, pidfd) in started {
            if self.kernel.send(&pidfd, Signal::KILL).is_ok() {
                let _not_reaped = self.watch_by(pid, pidfd, client, Role::Killed);
            }
        }
    }

    /// The processes of a container that the runtime of a call has started, and that are still its children or those of its
    /// helpers. They have left the runtime's process group, with which the helpers are killed.
    fn started_by(&mut self, number: u64) -> Vec<(HostPid, K::Pidfd)> {
        let Some(Watched { pid: call, runtime, .. }) = self.watched.get(&number) else { return Vec::new() };
        let (call, runtime) = (*call, runtime.unwrap_or(*call));
        // A subreaper reaps its runtime, whose pid may then be another's.
        if runtime != call && !self.is_child_of(runtime, call) {
            return Vec::new();
        }
        let known: HashSet<_> = self.watched.values().map(|watched| watched.pid).collect();
        let (mut started, mut parents) = (Vec::new(), vec![runtime]);
        while let Some(parent) = parents.pop() {
            for child in self.kernel.children_of(parent) {
                let Ok(pidfd) = self.kernel.open(child) else { continue };
                // Its pid may have been reused since it was listed.
                let stat = self.kernel.stat(child).filter(|stat| stat.parent == parent.get());
                match stat.filter(|_| !known.contains(&child)) {
                    Some(stat) if stat.group == runtime.get() => parents.push(child),
                    Some(_) => started.push((child, pidfd)),
                    None => {}
                }
            }
        }
        started
    }

    fn signalled(&mut self, client: ClientId, token: Token, delivery: io::Result<Delivery>) {
        let delivery = delivery.map(Into::into).map_err(Into::into);
        self.emit(client, Event::Signalled { token, delivery });
    }

    fn send_to_adopted(
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

    /// Signals the process group of a watched process: the group that it leads, or the one that crun's helper
    /// has made for it. A watched process is a zombie at worst, so it is still in its group.
    ///
    /// The process alone is signalled if it is in our own group, or if it has exited and its monitor reaps it.
    pub(super) fn signal_group(&mut self, number: u64, signal: Signal) -> io::Result<Delivery> {
        let Some(watched) = self.watched.get(&number) else { return Ok(Delivery::Gone) };
        let own_group = self.kernel.stat(self.kernel.own_pid()).map(|stat| stat.group);
        let its_group = self.kernel.stat(watched.pid).map(|stat| match watched.runtime {
            // A subreaper reaps its runtime, whose group may then be another's, just before it exits.
            Some(runtime) if runtime != watched.pid && self.is_child_of(runtime, watched.pid) => {
                runtime.get()
            }
            Some(_) | None => stat.group,
        });
        let alone = its_group == own_group || watched.is_reaped_by_monitor();
        let Some(group) = its_group.filter(|_| !alone).and_then(HostPid::new) else {
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

    fn is_child_of(&self, child: HostPid, parent: HostPid) -> bool {
        self.kernel.stat(child).is_some_and(|stat| stat.parent == parent.get())
    }

    /// Signals every process in a container. Its pid may have been reused since it was listed, so each
    /// process is checked again once its pidfd is open.
    fn send_to_members(&mut self, members: &Members, signal: Signal) -> Delivery {
        let mut delivery = Delivery::Gone;
        for pid in self.kernel.members(members) {
            let Ok(pidfd) = self.kernel.open(pid) else { continue };
            if !self.is_member(pid, members) {
                continue;
            }
            match self.kernel.send(&pidfd, signal) {
                Ok(_) => delivery = Delivery::Sent,
                Err(error) => {
                    tracing::warn!(%pid, %signal, %error, "a process in a container was not signalled")
                }
            }
        }
        delivery
    }

    /// Kills what is in a container. Whether nothing was in it.
    pub(super) fn end_members(
        &mut self,
        client: ClientId,
        container: &ContainerId,
        members: &Members,
        thaw: &[OsString],
    ) -> bool {
        self.remember(client, container, members);
        self.reap_remembered();
        let delivery = self.send_to_members(members, Signal::KILL);
        if delivery == Delivery::Sent {
            self.kernel.thaw(thaw);
        }
        delivery == Delivery::Gone
    }
}
