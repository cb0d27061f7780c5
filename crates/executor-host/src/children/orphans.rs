//! Unadopted children: which of them are ours to reap, and which to kill.
//!
//! A child of this process that is neither adopted nor a call is *unknown*. It belongs to us if one of these
//! holds, and to the embedder otherwise:
//!
//! | evidence | why it is needed |
//! |---|---|
//! | its name is `runc:[2:INIT]` or similar | a runtime's half-made process, which may not be in the cgroup yet |
//! | its name is a runtime's, and its session or group is not the embedder's | crun's helper processes |
//! | its cgroup, or its pid namespace, is a container's | a process of a container |
//! | its session is that of a known process of a container | no pid namespace, and v1 hierarchies only |
//!
//! A child in the embedder's session is the embedder's to reap, wherever the embedder has put it, unless a runtime
//! has made it. What is in a container is killed all the same.
//!
//! # Example
//! A container has no pid namespace, and its init 40 has started 41. Init exits, and 41 becomes our child. On
//! a host with a v2 hierarchy, `/proc/41/cgroup` names our executor even when 41 is a zombie. On a host with
//! v1 hierarchies only, a zombie is in the root cgroup. Then either 41 was still in the session of 40, which
//! `Client::sessions` has, or it was seen alive in the container by an earlier `Remember` request, which kept
//! its pidfd.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io;
use std::time::Instant;

use executor_core::lifecycle::{ContainerId, HostPid, Signal};

use super::waits::Continuation;
use super::{ADOPTION, ChildTable, Client, ClientId, HANDOVER, LeftBy, Remembered, Role, push_bounded};
use crate::kernel::{Kernel, Reaped};
use crate::procfs::{self, Stat};
use crate::seam::{Containers, Members, Token};

/// Runtimes whose processes are recognised by name, whichever program is called.
pub const RUNTIMES: [&str; 4] = ["longshore-runc", "runc", "crun", "youki"];

impl<K: Kernel> ChildTable<K> {
    /// Children of this process that are neither adopted nor calls, of any executor in it.
    pub(super) fn unknown_children(&self) -> Vec<HostPid> {
        let watched = self.watched.values().map(|watched| watched.pid);
        let known: HashSet<_> = watched.chain(self.unwatched.iter().copied()).collect();
        let mut children = self.kernel.children();
        children.retain(|pid| !known.contains(pid));
        children
    }

    /// Makes this process a subreaper, to which orphans go, as long as any client needs it.
    pub(super) fn subreap(&mut self, client: ClientId, on: bool) -> io::Result<()> {
        let others = self.clients.iter().any(|(other, own)| *other != client && own.subreaps);
        let Some(own) = self.clients.get_mut(&client) else { return Ok(()) };
        if !others && own.subreaps != on {
            if on {
                self.was_subreaper = self.kernel.is_subreaper()?;
                self.kernel.set_subreaper(true)?;
            } else if !self.was_subreaper {
                // Orphans of the embedder's own go to the system's init again.
                self.kernel.set_subreaper(false)?;
            }
        }
        own.subreaps = on;
        Ok(())
    }

    /// From now on reaps the orphans of these containers.
    pub(super) fn reap_orphans_in(&mut self, client: ClientId, containers: Containers) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.containers = Some(containers);
        }
        self.reap_orphans();
    }

    /// Reaps unknown children that have exited and belong to us.
    pub(super) fn reap_orphans(&mut self) {
        self.reap_remembered();
        if self.clients.values().all(|client| client.containers.is_none()) {
            return;
        }
        // Those that are to be adopted are reaped then.
        let left = self.left_by_calls();
        for pid in self.unknown_children().into_iter().filter(|pid| !left.contains(pid)) {
            let Some(stat) = self.kernel.stat(pid).filter(|stat| stat.state == 'Z') else { continue };
            if self.clients.values().any(|client| self.is_ours(client, pid, &stat)) {
                self.reap_orphan(pid, &stat);
            }
        }
    }

    /// What calls have left behind and nobody has adopted yet.
    pub(super) fn left_by_calls(&self) -> HashSet<HostPid> {
        self.left.iter().flat_map(|left| left.processes.iter().map(|(pid, _)| *pid)).collect()
    }

    /// Gives up what nobody has adopted in time. It is an orphan as any other then.
    pub(super) fn give_up_left(&mut self, now: Instant) {
        self.give_up_left_by(|left| now >= left.since + ADOPTION);
    }

    /// Gives up what these calls have left behind. What has exited is reaped by the pidfd that is dropped here: its status is
    /// kept even if somebody else has reaped it.
    pub(super) fn give_up_left_by(&mut self, is_chosen: impl Fn(&LeftBy<K::Pidfd>) -> bool) {
        let (given_up, kept): (VecDeque<_>, _) =
            std::mem::take(&mut self.left).into_iter().partition(is_chosen);
        self.left = kept;
        for (pid, pidfd) in given_up.into_iter().flat_map(|left| left.processes) {
            let has_executed = self.kernel.stat(pid).map(|stat| stat.has_executed());
            let reaped = match self.kernel.reap(&pidfd) {
                Ok(reaped) => reaped.map(|reaped| Reaped { has_executed, ..reaped }),
                // By now, another process may have the pid that was looked at.
                Err(_) => {
                    let status = self.kernel.status_of_reaped(&pidfd);
                    status.map(Reaped::with)
                }
            };
            if let Some(reaped) = reaped {
                self.record_orphan(pid, reaped);
            }
        }
    }

    fn is_ours(&self, client: &Client, pid: HostPid, stat: &Stat) -> bool {
        let Some(containers) = &client.containers else { return false };
        is_runtime_init(stat)
            || self.is_runtime_helper(client, stat)
            || self.is_in(containers, pid, stat)
            || is_in_a_known_session(client, stat)
    }

    /// Whether it is a process that a runtime has left behind under the runtime's own name. crun forks a
    /// helper for each container that it starts, and the helper becomes our child if crun fails. By then the
    /// helper has its own session, or it is still in the group of a runtime of ours that has exited. A child
    /// of the embedder that has the same name is in the embedder's session.
    fn is_runtime_helper(&self, client: &Client, stat: &Stat) -> bool {
        // The program may be called by another name, as by way of a symbolic link.
        let name = &stat.comm;
        if !client.names.contains(name) && !RUNTIMES.contains(&name.as_str()) {
            return false;
        }
        let was_led_by_ours =
            |leader: HostPid| client.groups.contains(&leader) && self.kernel.stat(leader).is_none();
        !self.is_in_own_session(stat) || HostPid::new(stat.group).is_some_and(was_led_by_ours)
    }

    /// Whether it is in a container.
    fn is_in(&self, containers: &Containers, pid: HostPid, stat: &Stat) -> bool {
        if self.is_in_own_session(stat) {
            return false;
        }
        match containers {
            Containers::Of(executor) if self.kernel.keeps_zombies_in_cgroups() => {
                let paths = self.kernel.cgroups_of(pid);
                paths.iter().any(|path| crate::cgroup::place::is_of_executor(path, executor))
            }
            // v1 hierarchies no longer have a process that is exiting.
            Containers::Of(_) | Containers::InNestedNamespaces => self.kernel.is_in_nested_pid_namespace(pid),
        }
    }

    /// A runtime gives every process a session of its own. A process in the embedder's session is therefore the
    /// embedder's, even if the embedder has put it into a cgroup or a pid namespace.
    fn is_in_own_session(&self, stat: &Stat) -> bool {
        stat.session == self.own_session()
    }

    /// Whether it is the embedder's to reap, even in a container. A process that a runtime is making is in our
    /// session for a moment: it has a name that says so, or is in the runtime's group.
    fn is_embedders(&self, client: ClientId, stat: &Stat) -> bool {
        let groups = self.clients.get(&client).map(|client| &client.groups);
        let is_of_a_runtime =
            HostPid::new(stat.group).zip(groups).is_some_and(|(group, groups)| groups.contains(&group));
        self.is_in_own_session(stat) && !is_runtime_init(stat) && !is_of_a_runtime
    }

    fn own_session(&self) -> u32 {
        self.kernel.stat(self.kernel.own_pid()).map_or(0, |stat| stat.session)
    }

    fn reap_orphan(&mut self, pid: HostPid, stat: &Stat) {
        if let Ok(Some(reaped)) = self.kernel.open(pid).and_then(|pidfd| self.kernel.reap(&pidfd)) {
            let has_executed = reaped.has_executed.or(Some(stat.has_executed()));
            self.record_orphan(pid, Reaped { has_executed, ..reaped });
        }
    }

    pub(super) fn record_orphan(&mut self, pid: HostPid, reaped: Reaped) {
        tracing::debug!(%pid, status = %reaped.status, "an orphan was reaped");
        push_bounded(&mut self.reaped_orphans, (pid, reaped));
    }

    /// Whether an orphan with this pid was reaped.
    pub(super) fn is_recorded(&self, pid: HostPid) -> bool {
        self.reaped_orphans.iter().any(|(orphan, _)| *orphan == pid)
    }

    /// The end of an orphan that is being adopted after all.
    pub(super) fn take_orphan(&mut self, pid: HostPid) -> Option<Reaped> {
        let index = self.reaped_orphans.iter().position(|(orphan, _)| *orphan == pid)?;
        self.reaped_orphans.remove(index).map(|(_, reaped)| reaped)
    }

    /// Forgets earlier processes that had this pid. Called when a process with the pid is adopted.
    pub(super) fn forget_pid(&mut self, pid: HostPid) {
        self.reaped_orphans.retain(|(orphan, _)| *orphan != pid);
        self.remembered.retain(|remembered| remembered.pid != pid);
        self.watched.retain(|_, watched| watched.pid != pid || !matches!(watched.role, Role::Killed));
    }

    /// Whether the pid that a runtime has written belongs to another process by now: one that is alive, is
    /// not our child, and is not in the container. For a process that is exiting, some kernels no longer know
    /// its cgroup.
    pub(super) fn is_stranger(&self, pid: HostPid, members: &Members) -> bool {
        let Some(stat) = self.kernel.stat(pid) else { return false };
        !stat.is_ending() && stat.parent != self.kernel.own_pid().get() && !self.is_member(pid, members)
    }

    pub(super) fn is_member(&self, pid: HostPid, members: &Members) -> bool {
        match members {
            Members::Cgroup { path, .. } => {
                self.kernel.cgroups_of(pid).iter().any(|own| procfs::is_at_or_below(own, path))
            }
            Members::PidNamespace { .. } => self.kernel.is_in_nested_pid_namespace(pid),
        }
    }

    /// Kills the unknown children that `is_chosen` selects. Returns the numbers under which their exits are
    /// watched.
    pub(super) fn kill_unadopted(
        &mut self,
        client: ClientId,
        is_chosen: impl Fn(&Self, HostPid, &Stat) -> bool,
    ) -> BTreeSet<u64> {
        let mut killed = BTreeSet::new();
        for pid in self.unknown_children() {
            if self.kernel.stat(pid).is_some_and(|stat| is_chosen(self, pid, &stat)) {
                killed.extend(self.kill_and_watch(client, pid));
            }
        }
        killed
    }

    fn kill_and_watch(&mut self, client: ClientId, pid: HostPid) -> Option<u64> {
        let pidfd = self.kernel.open(pid).ok()?;
        self.kernel.send(&pidfd, Signal::KILL).ok()?;
        self.watch_by(pid, pidfd, client, Role::Killed).ok()
    }

    /// Kills what a runtime has left half made in a container, and the process with the pid `started` if it
    /// is the container's.
    pub(super) fn end_unadopted(
        &mut self,
        now: Instant,
        client: ClientId,
        token: Token,
        members: &Members,
        all: bool,
        started: Option<HostPid>,
    ) {
        let is_watched = |pid: HostPid| self.watched.values().any(|watched| watched.pid == pid);
        let started = started.filter(|pid| !is_watched(*pid) && self.is_member(*pid, members));
        let mut killed = BTreeSet::new();
        if let Some(pid) = started {
            killed.extend(self.kill_and_watch(client, pid));
        }
        // Without cgroups, nothing distinguishes a container's processes from another container's.
        if matches!(members, Members::Cgroup { .. }) {
            // Unless all are to be killed, a process that runs the container's program is left: another call
            // may have started it, and it may be adopted in a moment.
            killed.extend(self.kill_unadopted(client, |table, pid, stat| {
                let is_left = is_runtime_init(stat) || all && !table.is_embedders(client, stat);
                is_left && table.is_member(pid, members)
            }));
        }
        // `started` may be an init, which exits only after its whole pid namespace.
        let patience = if started.is_some() { crate::cgroup::PATIENCE } else { HANDOVER };
        self.begin_wait(client, killed, now, now + patience, Continuation::UnadoptedEnded { token });
    }

    /// Keeps a pidfd of every process in a container. Without a pid namespace, they do not end with init, and
    /// become our children.
    pub(super) fn remember(&mut self, client: ClientId, container: &ContainerId, members: &Members) {
        let known: HashSet<_> = self.watched.values().map(|watched| watched.pid).collect();
        for pid in self.kernel.members(members) {
            if known.contains(&pid) || self.remembered.iter().any(|remembered| remembered.pid == pid) {
                continue;
            }
            if let Ok(pidfd) = self.kernel.open(pid)
                && self.is_member(pid, members)
                && self.kernel.stat(pid).is_some_and(|stat| !self.is_embedders(client, &stat))
            {
                self.remembered.push(Remembered { client, container: container.clone(), pid, pidfd });
            }
        }
    }

    /// Reaps the remembered processes that have become our children and have exited.
    pub(super) fn reap_remembered(&mut self) {
        let Self { remembered, kernel, .. } = self;
        remembered.retain(|one| match kernel.reap(&one.pidfd) {
            Ok(status) => status.is_none(),
            // It is not our child, or not yet.
            Err(_) => kernel.stat(one.pid).is_some(),
        });
    }
}

/// Whether it is in the session of a known process of a container.
fn is_in_a_known_session(client: &Client, stat: &Stat) -> bool {
    let Some(leader) = HostPid::new(stat.session) else { return false };
    client.sessions.values().any(|pids| pids.contains(&leader))
}

/// Whether it is a runtime's process that becomes a container's: its name is `runc:[2:INIT]` or similar until
/// it executes the container's program.
fn is_runtime_init(stat: &Stat) -> bool {
    stat.comm.contains(":[")
}
