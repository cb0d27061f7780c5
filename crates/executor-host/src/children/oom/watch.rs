//! The kills that the log has, and the processes and containers that they may be of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::time::Instant;

use executor_core::lifecycle::{
    ContainerId, ExitStatus, HostPid, OomEvidence, OomFindings, OomKill, ProcessRef, ReportedEnd, SeenKills,
};

use super::super::{ClientId, HISTORY};
use crate::oom::LoggedKill;
use crate::seam::Members;

pub(super) type ContainerKey = (ClientId, ContainerId);
type ProcessKey = (ClientId, ProcessRef);

/// The containers with a memory limit, and what was killed.
#[derive(Default)]
pub(in super::super) struct OomWatch {
    pub(super) containers: BTreeMap<ContainerKey, Limited>,
    pub(super) processes: BTreeMap<ProcessKey, Tracked>,
    /// The inits whose program is being looked for.
    pub(super) programs: Vec<ProcessKey>,
    /// The last kills in the log, the latest last.
    kills: VecDeque<Kill>,
    /// The number of the next kill.
    next: u64,
    pub(super) log_is_open: bool,
    /// How often records of the log were lost, or the log was opened.
    pub(super) lost: u64,
    /// When the counters of a container are to be read.
    pub(super) checks: BTreeSet<(Instant, ContainerKey)>,
}

/// A container with a memory limit.
#[derive(Default)]
pub(super) struct Limited {
    /// Its path in each hierarchy, once it is known.
    path: Option<String>,
    /// Its directories.
    pub(super) dirs: Vec<OsString>,
    /// What its counters have had.
    pub(super) seen: SeenKills,
    /// The number under which its cgroup reports kills.
    pub(super) notice: Option<u64>,
    /// How many kills were reported.
    pub(super) reported: u64,
    /// Kills in it that are not reported yet.
    pub(super) waiting: Vec<HostPid>,
    /// Whether its counters are to be read once the pids of its processes are known.
    pub(super) is_to_be_counted: bool,
}

/// A process that is looked for among the kills.
pub(super) struct Tracked {
    /// Absent until it is adopted.
    pub(super) pid: Option<HostPid>,
    pub(super) program: Program,
    pub(super) since: Mark,
}

/// The program whose end an init reports as its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// The process runs the program itself.
    Itself,
    /// It is being looked for, until then once the pid of init is known.
    Awaited(Option<Instant>),
    Known(HostPid),
    /// It was not found.
    Unknown,
}

/// A moment before a process existed.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    kill: u64,
    lost: u64,
    /// Absent if the counters could not be read.
    counted: Option<u64>,
}

struct Kill {
    number: u64,
    pid: HostPid,
    place: KillPlace,
}

/// Where a process was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KillPlace {
    Container(ContainerKey),
    /// In none of the containers.
    Elsewhere,
    /// The log does not say.
    Unknown,
}

impl Mark {
    /// How many kills the counters have had since.
    fn kills_until(self, counted: Option<u64>) -> Option<u64> {
        match (self.counted, counted?) {
            (Some(before), now) => Some(now.saturating_sub(before)),
            (None, 0) => Some(0),
            (None, _) => None,
        }
    }
}

impl Program {
    const fn reports(self) -> ReportedEnd {
        match self {
            Self::Itself => ReportedEnd::Own,
            Self::Known(program) => ReportedEnd::OfProgram(Some(program)),
            Self::Awaited(_) | Self::Unknown => ReportedEnd::OfProgram(None),
        }
    }
}

impl KillPlace {
    pub(super) fn container(self) -> Option<ContainerKey> {
        match self {
            Self::Container(container) => Some(container),
            Self::Elsewhere | Self::Unknown => None,
        }
    }

    pub(super) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

impl Tracked {
    /// Whether a pid that is not known yet may be its own.
    const fn is_awaited(&self) -> bool {
        self.pid.is_none() || matches!(self.program, Program::Awaited(_))
    }

    fn has(&self, pid: HostPid) -> bool {
        self.pid == Some(pid) || self.program == Program::Known(pid)
    }
}

impl OomWatch {
    /// This moment. `counted` is what the counters of the container have.
    pub(super) const fn mark(&self, counted: Option<u64>) -> Mark {
        Mark { kill: self.next, lost: self.lost, counted }
    }

    pub(super) fn place(&mut self, container: &ContainerKey, members: &Members) {
        if let (Some(limited), Members::Cgroup { path, dirs }) = (self.containers.get_mut(container), members)
        {
            limited.path = Some(path.clone());
            if !dirs.is_empty() {
                limited.dirs = dirs.clone();
            }
        }
    }

    /// Takes a kill of the log. Returns where it was.
    pub(super) fn record(&mut self, logged: &LoggedKill) -> KillPlace {
        let place = self.place_of(logged);
        self.kills.push_back(Kill { number: self.next, pid: logged.pid, place: place.clone() });
        self.next += 1;
        if self.kills.len() > HISTORY {
            self.kills.pop_front();
        }
        place
    }

    pub(super) fn is_tracked(&self, pid: HostPid) -> bool {
        self.processes.values().any(|tracked| tracked.has(pid))
    }

    /// Whether there are kills that may be of any container.
    pub(super) fn has_unknown_kills(&self) -> bool {
        self.kills.iter().any(|kill| kill.place.is_unknown())
    }

    /// By the cgroup if the log has it, otherwise by the pid.
    fn place_of(&self, logged: &LoggedKill) -> KillPlace {
        let container = match (&logged.cgroup, &logged.group) {
            (Some(cgroup), _) => {
                return self.container_at(cgroup).map_or(KillPlace::Elsewhere, KillPlace::Container);
            }
            (None, group) => {
                let mut tracked = self.processes.iter().filter(|(_, tracked)| tracked.has(logged.pid));
                let by_pid =
                    tracked.next().map(|((client, process), _)| (*client, process.container.clone()));
                by_pid.or_else(|| self.container_at(group.as_ref()?))
            }
        };
        container.map_or(KillPlace::Unknown, KillPlace::Container)
    }

    /// The container whose cgroup is at or above this one. The path of the log is that in the hierarchy, and ours may begin
    /// at a directory of it. Containers can make cgroups of any name below their own, so the first match counts.
    fn container_at(&self, cgroup: &str) -> Option<ContainerKey> {
        let position = |limited: &Limited| {
            let path = limited.path.as_deref().filter(|path| !path.is_empty())?;
            let ends = |at: usize| matches!(cgroup.as_bytes().get(at + path.len()), None | Some(b'/' | b','));
            cgroup.match_indices(path).map(|(at, _)| at).find(|at| ends(*at))
        };
        let found = self.containers.iter().filter_map(|(key, limited)| Some((position(limited)?, key)));
        found.min().map(|(_, key)| key.clone())
    }

    fn of_container(&self, container: &ContainerKey) -> impl Iterator<Item = (&ProcessRef, &Tracked)> {
        let (first, last) = ProcessRef::all_of(&container.1).into_inner();
        let range = self.processes.range((container.0, first)..=(container.0, last));
        range.map(|((_, process), tracked)| (process, tracked))
    }

    /// Whether a pid that is not known yet may be that of a process of this container.
    pub(super) fn is_awaited(&self, container: &ContainerKey) -> bool {
        self.of_container(container).any(|(_, tracked)| tracked.is_awaited())
    }

    /// Places the kills without a cgroup that were of a process whose pid was not known then.
    fn place_by_pid(&mut self, container: &ContainerKey) {
        let is_ours = |kill: &Kill| {
            let mut tracked = self.of_container(container);
            tracked.any(|(_, tracked)| tracked.since.kill <= kill.number && tracked.has(kill.pid))
        };
        let unknown = self.kills.iter().enumerate().filter(|(_, kill)| kill.place.is_unknown());
        let ours: Vec<_> = unknown.filter(|(_, kill)| is_ours(kill)).map(|(index, _)| index).collect();
        for index in ours {
            let Some(kill) = self.kills.get_mut(index) else { continue };
            kill.place = KillPlace::Container(container.clone());
            if let Some(limited) = self.containers.get_mut(container) {
                limited.waiting.push(kill.pid);
            }
        }
    }

    /// The kills of a container that can be reported. None while one may be of a process whose pid is not known.
    pub(super) fn take_waiting(&mut self, container: &ContainerKey) -> Vec<OomKill> {
        let Some(limited) = self.containers.get(container) else { return Vec::new() };
        let is_to_be_counted = limited.is_to_be_counted;
        if limited.waiting.is_empty() && !is_to_be_counted || self.is_awaited(container) {
            return Vec::new();
        }
        if is_to_be_counted {
            self.place_by_pid(container);
        }
        let Some(limited) = self.containers.get(container) else { return Vec::new() };
        let named = |pid: HostPid| {
            let mut tracked = self.of_container(container).filter(|(_, tracked)| tracked.has(pid));
            (pid, tracked.next().map(|(process, _)| process.process.clone()))
        };
        let kills: Vec<_> = limited.waiting.iter().copied().map(named).collect();
        let Some(limited) = self.containers.get_mut(container) else { return Vec::new() };
        limited.waiting.clear();
        let mut number = || {
            limited.reported += 1;
            limited.reported
        };
        kills.into_iter().map(|(pid, process)| OomKill::new(number()).of(process).pid(pid)).collect()
    }

    /// Whether a process that has exited was killed. `counted` is what the counters of its container have now.
    pub(super) fn evidence(
        &self,
        tracked: &Tracked,
        container: &ContainerKey,
        status: ExitStatus,
        counted: Option<u64>,
    ) -> Option<OomEvidence> {
        let since = tracked.since;
        let (mut killed, mut killed_anywhere) = (Vec::new(), Vec::new());
        for kill in self.kills.iter().filter(|kill| kill.number >= since.kill) {
            match &kill.place {
                KillPlace::Container(other) if other == container => killed.push(kill.pid),
                KillPlace::Container(_) | KillPlace::Elsewhere => {}
                KillPlace::Unknown => killed_anywhere.push(kill.pid),
            }
        }
        let is_kept = self.kills.front().is_none_or(|first| first.number <= since.kill);
        let found = OomFindings {
            status,
            pid: tracked.pid,
            reports: tracked.program.reports(),
            killed: &killed,
            killed_anywhere: &killed_anywhere,
            log_is_whole: self.log_is_open && since.lost == self.lost && is_kept,
            counted: since.kills_until(counted),
        };
        found.evidence()
    }

    /// The containers whose counters are to be read now.
    pub(super) fn take_due_checks(&mut self, now: Instant) -> BTreeSet<ContainerKey> {
        let mut due = BTreeSet::new();
        while self.checks.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.checks.pop_first().map(|(_, container)| container));
        }
        due
    }

    /// Forgets containers, and returns the numbers of their notices. Without a container, nothing is remembered.
    pub(super) fn forget(&mut self, is_forgotten: impl Fn(ClientId, &ContainerId) -> bool) -> Vec<u64> {
        let forgotten =
            self.containers.iter().filter(|((client, container), _)| is_forgotten(*client, container));
        let notices = forgotten.filter_map(|(_, limited)| limited.notice).collect();
        self.containers.retain(|(client, container), _| !is_forgotten(*client, container));
        self.checks.retain(|(_, (client, container))| !is_forgotten(*client, container));
        self.processes.retain(|(client, process), _| !is_forgotten(*client, &process.container));
        self.programs.retain(|(client, process)| !is_forgotten(*client, &process.container));
        if self.containers.is_empty() {
            self.kills.clear();
            self.checks.clear();
            self.log_is_open = false;
        }
        notices
    }
}
