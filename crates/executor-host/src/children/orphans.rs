//! Children that nobody adopted: which of them are ours to reap, and which to kill.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, Signal};

use super::{ChildTable, Client, ClientId, Continuation, HANDOVER, Remembered, Role, push_bounded};
use crate::kernel::Kernel;
use crate::procfs::{self, Stat};
use crate::seam::{Containers, Members, Token};

/// Runtimes whose processes are known by their names, whichever program is called.
pub const RUNTIMES: [&str; 4] = ["longshore-runc", "runc", "crun", "youki"];

impl<K: Kernel> ChildTable<K> {
    /// Children of this process that are neither adopted nor runtimes at work, of any executor in it.
    fn unknown_children(&self) -> Vec<HostPid> {
        let known: HashSet<_> =
            self.watched.values().map(|watched| watched.pid).chain(self.unwatched.iter().copied()).collect();
        self.kernel.children().into_iter().filter(|pid| !known.contains(pid)).collect()
    }

    /// Reaps unknown children that have ended in one of our containers, or on their way into one. Children of the
    /// embedder's own are neither, and are left to it.
    pub(super) fn reap_orphans(&mut self) {
        self.reap_remembered();
        if self.clients.values().all(|client| client.containers.is_none()) {
            return;
        }
        for pid in self.unknown_children() {
            let Some(stat) = self.kernel.stat(pid).filter(|stat| stat.state == 'Z') else { continue };
            if self.clients.values().any(|client| self.is_ours(client, pid, &stat)) {
                self.reap_orphan(pid);
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

    /// Whether it is what a runtime has left behind under its own name: crun forks a helper for each container that it
    /// starts, and when it fails what it has forked comes to us. It is in a session of its own by then, or still in the
    /// group of a runtime of ours, whose leader has ended. A child of the embedder's that has the same name is in the
    /// embedder's session.
    fn is_runtime_helper(&self, client: &Client, stat: &Stat) -> bool {
        // The runtime may be called by way of a program of another name.
        let name = &stat.comm;
        if !client.names.contains(name) && !RUNTIMES.contains(&name.as_str()) {
            return false;
        }
        let of_ours = |leader: HostPid| client.groups.contains(&leader) && self.kernel.stat(leader).is_none();
        stat.session != self.own_session() || HostPid::new(stat.group).is_some_and(of_ours)
    }

    /// Whether it is in a container. What the embedder has put into a cgroup or a pid namespace itself is in its session;
    /// what a runtime starts never is.
    fn is_in(&self, containers: &Containers, pid: HostPid, stat: &Stat) -> bool {
        if stat.session == self.own_session() {
            return false;
        }
        match containers {
            Containers::Of(executor) if self.kernel.keeps_zombies_in_cgroups() => {
                let paths = self.kernel.cgroups_of(pid);
                paths.iter().any(|path| crate::cgroup::place::is_of_executor(path, executor))
            }
            // Of an ending process v1 hierarchies say that it is in none.
            Containers::Of(_) | Containers::InNestedNamespaces => self.kernel.is_in_nested_pid_namespace(pid),
        }
    }

    fn own_session(&self) -> u32 {
        self.kernel.stat(self.kernel.own_pid()).map_or(0, |stat| stat.session)
    }

    fn reap_orphan(&mut self, pid: HostPid) {
        if let Ok(Some(status)) = self.kernel.open(pid).and_then(|pidfd| self.kernel.reap(&pidfd)) {
            self.record_orphan(pid, status);
        }
    }

    pub(super) fn record_orphan(&mut self, pid: HostPid, status: ExitStatus) {
        tracing::debug!(%pid, %status, "an orphan");
        push_bounded(&mut self.reaped_orphans, (pid, status));
    }

    /// How an orphan ended that is being adopted after all.
    pub(super) fn take_orphan_status(&mut self, pid: HostPid) -> Option<ExitStatus> {
        let index = self.reaped_orphans.iter().position(|(orphan, _)| *orphan == pid)?;
        self.reaped_orphans.remove(index).map(|(_, status)| status)
    }

    /// This pid is being adopted: whatever had it before is somebody else.
    pub(super) fn forget_pid(&mut self, pid: HostPid) {
        self.reaped_orphans.retain(|(orphan, _)| *orphan != pid);
        self.remembered.retain(|remembered| remembered.pid != pid);
        self.watched.retain(|_, watched| watched.pid != pid || !matches!(watched.role, Role::Killed));
    }

    /// Whether a pid that a runtime has written down is another process's by now: it lives, is no child of ours, and is
    /// not in the container. Of an ending process not every kernel knows where it was.
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

    /// Kills those of the unknown children that are strays; answers with what is to be awaited.
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

    pub(super) fn end_unadopted(
        &mut self,
        now: Instant,
        client: ClientId,
        token: Token,
        members: &Members,
        all: bool,
        started: Option<HostPid>,
    ) {
        let known = |pid: &HostPid| self.watched.values().any(|watched| watched.pid == *pid);
        let started = started.filter(|pid| !known(pid) && self.is_member(*pid, members));
        let mut killed: BTreeSet<_> =
            started.and_then(|pid| self.kill_and_watch(client, pid)).into_iter().collect();
        // Where there are no cgroups, nothing tells a stray from another container's process.
        if matches!(members, Members::Cgroup { .. }) {
            // Whatever else is there may have been started by another call, and be adopted in a moment.
            killed.extend(self.kill_unadopted(client, |table, pid, stat| {
                (all || is_runtime_init(stat)) && table.is_member(pid, members)
            }));
        }
        // One that is to be ended by its pid may be an init, which takes its time.
        let patience = if started.is_some() { crate::cgroup::PATIENCE } else { HANDOVER };
        self.begin_wait(client, killed, now, now + patience, Continuation::UnadoptedEnded { token });
    }

    /// Holds on to who is in a container, where a pid namespace does not end and reap them with init.
    pub(super) fn remember(&mut self, client: ClientId, container: &ContainerId, members: &Members) {
        let known: HashSet<_> = self.watched.values().map(|watched| watched.pid).collect();
        for pid in self.kernel.members(members) {
            if known.contains(&pid) || self.remembered.iter().any(|remembered| remembered.pid == pid) {
                continue;
            }
            if let Ok(pidfd) = self.kernel.open(pid)
                && self.is_member(pid, members)
            {
                self.remembered.push(Remembered { client, container: container.clone(), pid, pidfd });
            }
        }
    }

    /// Reaps those that have become our children and have ended.
    pub(super) fn reap_remembered(&mut self) {
        let Self { remembered, kernel, .. } = self;
        remembered.retain(|one| match kernel.reap(&one.pidfd) {
            Ok(status) => status.is_none(),
            // It is not ours, or not yet.
            Err(_) => kernel.stat(one.pid).is_some(),
        });
    }
}

/// Whether it is in the session of a process that we know: where a pid namespace does not keep them together, and
/// only v1 hierarchies are left to ask, which forget whom an ending process belongs to.
fn is_in_a_known_session(client: &Client, stat: &Stat) -> bool {
    let leader = HostPid::new(stat.session);
    leader.is_some_and(|leader| client.sessions.values().any(|sessions| sessions.contains(&leader)))
}

/// Whether it is a runtime on its way to become a container's process: it is called `runc:[2:INIT]` or
/// the like until it executes the program.
fn is_runtime_init(stat: &Stat) -> bool {
    stat.comm.contains(":[")
}
