//! Which process the OOM killer has killed: for the reason of an exit, and for an event of its container.
//!
//! ```text
//!  TrackKills ── a mark in the log ──▶ Adopt: its pid ──▶ its exit: does the log have the pid after the mark?
//!  the log or a notice fires ──▶ OomKilled, for each kill in a container
//! ```
//! Pids are used again, so only the kills after the mark count, and only those in the container's cgroup, or without one. What
//! was found is given to `OomFindings` of the lifecycle crate, which decides. The counters of the cgroup say that something
//! was killed, and not what. They are for a log that cannot be read, and for a record that cannot be placed.
//!
//! # Example
//! The program of an init is killed. Its pid is 813, that of init 812.
//!
//! 1. The log fires: 813 was killed, in the cgroup of the container. 813 is known as the first child of 812, so `OomKilled`
//!    names init.
//! 2. 812 exits with code 137. 813 was killed after the mark, so the evidence is `Killed`.

mod watch;

use std::time::{Duration, Instant};

use executor_core::lifecycle::{
    ContainerId, ExitStatus, HostPid, OomEvidence, OomKill, ProcessId, ProcessRef,
};

pub(super) use self::watch::OomWatch;
use self::watch::{ContainerKey, Program, Tracked};
use super::{ChildTable, ClientId, RETRY};
use crate::kernel::Kernel;
use crate::oom::LoggedKill;
use crate::seam::{Event, Members};

/// When the counters are read after a notice: a notice of v1 comes before the kill.
const CHECKS: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

/// How long an init may take to start its program. On a busy machine that is more than a moment.
pub(super) const PROGRAM_PATIENCE: Duration = Duration::from_secs(1);

impl<K: Kernel> ChildTable<K> {
    pub(super) fn track_kills(
        &mut self,
        client: ClientId,
        process: ProcessRef,
        has_program: bool,
        members: &Members,
    ) {
        let container = (client, process.container.clone());
        self.oom.containers.entry(container.clone()).or_default();
        self.oom.place(&container, members);
        self.open_log();
        self.look_for_kills();
        let counted = self.count(&container);
        let since = self.oom.mark(counted);
        let program = if has_program { Program::Awaited(None) } else { Program::Itself };
        self.oom.processes.insert((client, process), Tracked { pid: None, program, since });
    }

    /// A log that cannot be opened is tried again with the next process.
    fn open_log(&mut self) {
        if self.oom.log_is_open {
            return;
        }
        match self.kernel.open_log() {
            Ok(()) => self.oom.log_is_open = true,
            Err(error) => tracing::debug!(%error, "the kernel's log is not used"),
        }
        self.oom.lost += 1;
    }

    pub(super) fn untrack_kills(&mut self, client: ClientId, process: &ProcessRef) {
        self.oom.processes.remove(&(client, process.clone()));
        self.report_waiting(&(client, process.container.clone()));
    }

    /// The pid of a process is known.
    pub(super) fn track_pid(
        &mut self,
        client: ClientId,
        process: &ProcessRef,
        pid: HostPid,
        members: &Members,
    ) {
        let key = (client, process.clone());
        let Some(tracked) = self.oom.processes.get_mut(&key) else { return };
        tracked.pid = Some(pid);
        let has_program = tracked.program != Program::Itself;
        let container = (client, process.container.clone());
        self.oom.place(&container, members);
        if has_program {
            self.oom.programs.push(key);
            self.find_programs(Instant::now());
        }
        self.report_waiting(&container);
    }

    pub(super) fn watch_kills(
        &mut self,
        client: ClientId,
        container: ContainerId,
        has_program: bool,
        members: &Members,
    ) {
        let (key, now) = ((client, container), Instant::now());
        self.track_adopted(&key, has_program, members);
        self.oom.place(&key, members);
        if !self.oom.log_is_open {
            self.notice_kills(&key);
        }
        // An init that was held has only now started its program.
        let init = (client, ProcessRef::init(key.1.clone()));
        if let Some(tracked) = self.oom.processes.get_mut(&init)
            && tracked.program == Program::Unknown
        {
            tracked.program = Program::Awaited(None);
            self.oom.programs.push(init);
            self.find_programs(now);
        }
        // Something may have been killed before its cgroup was known.
        self.look_for_kills();
        if !self.oom.log_is_open {
            self.count_for_a_while(now, &key);
        } else if self.oom.has_unknown_kills() {
            self.report_counted(&key);
        }
    }

    /// Has the cgroup of a container report kills.
    fn notice_kills(&mut self, container: &ContainerKey) {
        let Some(limited) = self.oom.containers.get_mut(container) else { return };
        if limited.notice.is_some() || limited.dirs.is_empty() {
            return;
        }
        match self.kernel.notice_kills(self.next, &limited.dirs) {
            Ok(()) => {
                limited.notice = Some(self.next);
                self.next += 1;
            }
            Err(error) => tracing::debug!(%error, "kills are noticed when a process exits"),
        }
    }

    /// Tracks the processes that were adopted before their container had a limit.
    fn track_adopted(&mut self, (client, container): &ContainerKey, has_program: bool, members: &Members) {
        let Some(own) = self.clients.get(client) else { return };
        let adopted = own.adopted.iter().filter(|(process, _)| process.container == *container);
        let pids = adopted.filter_map(|(process, number)| {
            let is_new = !self.oom.processes.contains_key(&(*client, process.clone()));
            let watched = self.watched.get(number).filter(|_| is_new)?;
            Some((process.clone(), watched.pid))
        });
        for (process, pid) in pids.collect::<Vec<_>>() {
            let has_program = has_program && process.process == ProcessId::Init;
            self.track_kills(*client, process.clone(), has_program, members);
            self.track_pid(*client, &process, pid, members);
        }
    }

    /// Looks for the programs of inits. An init starts it first, and other children come after it.
    fn find_programs(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.oom.programs) {
            let Some(tracked) = self.oom.processes.get_mut(&key) else { continue };
            let until = match tracked.program {
                Program::Awaited(until) => until.unwrap_or(now + PROGRAM_PATIENCE),
                Program::Itself | Program::Known(_) | Program::Unknown => continue,
            };
            tracked.program = match tracked.pid.and_then(|pid| self.kernel.first_child(pid)) {
                Some(program) => Program::Known(program),
                None if now < until => Program::Awaited(Some(until)),
                None => Program::Unknown,
            };
            let container = (key.0, key.1.container.clone());
            if matches!(tracked.program, Program::Awaited(_)) {
                self.oom.programs.push(key);
            }
            self.report_waiting(&container);
        }
    }

    /// The log has fired.
    pub(crate) fn log_noticed(&mut self) {
        self.look_for_kills();
    }

    /// The cgroup of a container has fired.
    pub(super) fn cgroup_noticed(&mut self, now: Instant, number: u64) {
        let mut containers = self.oom.containers.iter();
        let noticed = containers.find(|(_, limited)| limited.notice == Some(number));
        let Some(container) = noticed.map(|(key, _)| key.clone()) else { return };
        self.look_for_kills();
        if !self.oom.log_is_open {
            self.count_for_a_while(now, &container);
        }
    }

    fn count_for_a_while(&mut self, now: Instant, container: &ContainerKey) {
        self.oom.checks.extend(CHECKS.map(|later| (now + later, container.clone())));
        self.report_counted(container);
    }

    pub(super) fn next_oom_deadline(&self, now: Instant) -> Option<Instant> {
        let program = (!self.oom.programs.is_empty()).then(|| now + RETRY);
        [self.oom.checks.first().map(|(at, _)| *at), program].into_iter().flatten().min()
    }

    pub(super) fn oom_tick(&mut self, now: Instant) {
        if !self.oom.programs.is_empty() {
            self.find_programs(now);
        }
        for container in self.oom.take_due_checks(now) {
            self.report_counted(&container);
        }
    }

    /// Reads what is new in the log, and reports it.
    fn look_for_kills(&mut self) {
        let Some(news) = self.kernel.read_log() else { return };
        self.oom.log_is_open &= !news.has_ended;
        if news.has_ended {
            self.notice_all();
        }
        self.oom.lost += u64::from(news.is_incomplete);
        let mut is_unknown = news.is_incomplete;
        for mut logged in news.kills {
            self.find_process_of(&mut logged);
            let place = self.oom.record(&logged);
            is_unknown |= place.is_unknown();
            if let Some(container) = place.container() {
                if let Some(limited) = self.oom.containers.get_mut(&container) {
                    limited.waiting.push(logged.pid);
                }
                self.report_waiting(&container);
            }
        }
        if is_unknown {
            self.count_all();
        }
    }

    /// A record without a cgroup may name another thread of the process, if its first one had exited.
    fn find_process_of(&self, logged: &mut LoggedKill) {
        if logged.cgroup.is_none()
            && !self.oom.is_tracked(logged.pid)
            && let Some(process) = self.kernel.process_of(logged.pid)
        {
            logged.pid = process;
        }
    }

    /// Reports the kills of a container whose pids are known, unless one may be of a process whose pid is not known yet.
    fn report_waiting(&mut self, container: &ContainerKey) {
        for kill in self.oom.take_waiting(container) {
            self.emit(container.0, Event::OomKilled { container: container.1.clone(), kill });
        }
        let limited = self.oom.containers.get(container);
        if limited.is_some_and(|limited| limited.is_to_be_counted) {
            self.report_counted(container);
        }
    }

    /// The log has ended: from now on the cgroups report kills.
    fn notice_all(&mut self) {
        for container in self.oom.containers.keys().cloned().collect::<Vec<_>>() {
            self.notice_kills(&container);
        }
    }

    fn count_all(&mut self) {
        for container in self.oom.containers.keys().cloned().collect::<Vec<_>>() {
            self.report_counted(&container);
        }
    }

    /// Reports what the counters have, and the log has not. If the log may have the pid of a process that is not adopted
    /// yet, that is waited for.
    fn report_counted(&mut self, container: &ContainerKey) {
        let is_early = self.oom.log_is_open && self.oom.is_awaited(container);
        let counted = if is_early { None } else { self.count(container) };
        let Some(limited) = self.oom.containers.get_mut(container) else { return };
        limited.is_to_be_counted = is_early;
        let waiting = u64::try_from(limited.waiting.len()).unwrap_or_default();
        if let Some(counted) = counted.filter(|counted| *counted > limited.reported + waiting) {
            limited.reported = counted - waiting;
            let kill = OomKill::new(limited.reported);
            self.emit(container.0, Event::OomKilled { container: container.1.clone(), kill });
        }
    }

    /// The kills that the counters of a container have had. `None` if they cannot be read, 0 before it has cgroups.
    fn count(&mut self, container: &ContainerKey) -> Option<u64> {
        let Some(limited) = self.oom.containers.get_mut(container) else { return Some(0) };
        match self.kernel.count_kills(&limited.dirs) {
            Ok(counters) => Some(limited.seen.see(counters)),
            Err(error) => {
                tracing::debug!(%error, container = %container.1, "it is unknown what was killed for lack of memory");
                None
            }
        }
    }

    /// Whether a process that has exited was killed. `None` if it is not tracked. What was killed before is reported.
    pub(super) fn oom_evidence(
        &mut self,
        client: ClientId,
        process: &ProcessRef,
        status: ExitStatus,
    ) -> Option<OomEvidence> {
        let key = (client, process.clone());
        let container = (client, process.container.clone());
        let tracked = self.oom.processes.get_mut(&key)?;
        if let Program::Awaited(_) = tracked.program {
            tracked.program = Program::Unknown;
        }
        self.look_for_kills();
        if !self.oom.log_is_open {
            self.report_counted(&container);
        }
        self.report_waiting(&container);
        let counted = self.count(&container);
        let tracked = self.oom.processes.remove(&key)?;
        self.oom.evidence(&tracked, &container, status, counted)
    }

    pub(super) fn forget_kills(&mut self, is_forgotten: impl Fn(ClientId, &ContainerId) -> bool) {
        let was_empty = self.oom.containers.is_empty();
        for notice in self.oom.forget(is_forgotten) {
            self.kernel.ignore_notices(notice);
        }
        if !was_empty && self.oom.containers.is_empty() {
            self.kernel.ignore_kills();
        }
    }
}
