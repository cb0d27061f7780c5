//! The kills that the log has, and the processes and containers that they may be of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::time::Instant;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, OomEvidence, OomKill, ProcessRef, Signal};

use super::super::{ClientId, HISTORY};
use crate::oom::LoggedKill;
use crate::seam::Members;

pub(super) type ContainerKey = (ClientId, ContainerId);
type ProcessKey = (ClientId, ProcessRef);

/// SIGKILL, as a process 1 or a shell reports it.
const SIGKILL_CODE: u8 = 137;

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
    /// When the counters are to be read.
    pub(super) checks: BTreeSet<Instant>,
}

/// A container with a memory limit.
#[derive(Default)]
pub(super) struct Limited {
    /// Its path in each hierarchy, once it is known.
    path: Option<String>,
    /// Its directories.
    pub(super) dirs: Vec<OsString>,
    /// How many kills were reported.
    pub(super) reported: u64,
    /// Kills in it that are not reported yet.
    pub(super) waiting: Vec<HostPid>,
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
    counted: u64,
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
    pub(super) const fn mark(&self, counted: u64) -> Mark {
        Mark { kill: self.next, lost: self.lost, counted }
    }

    pub(super) fn place(&mut self, container: &ContainerKey, members: &Members) {
        if let (Some(limited), Members::Cgroup { path, dirs }) = (self.containers.get_mut(container), members)
        {
            (limited.path, limited.dirs) = (Some(path.clone()), dirs.clone());
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

    /// The kills of a container that can be reported. None while one may be of a process whose pid is not known.
    pub(super) fn take_waiting(&mut self, container: &ContainerKey) -> Vec<OomKill> {
        let Some(limited) = self.containers.get(container) else { return Vec::new() };
        if limited.waiting.is_empty() || self.of_container(container).any(|(_, tracked)| tracked.is_awaited())
        {
            return Vec::new();
        }
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
        counted: u64,
    ) -> OomEvidence {
        let own = match (status, tracked.program) {
            (ExitStatus::Signal(Signal::KILL), _) | (ExitStatus::Code(SIGKILL_CODE), Program::Itself) => {
                tracked.pid
            }
            (ExitStatus::Code(SIGKILL_CODE), Program::Known(program)) => Some(program),
            (ExitStatus::Code(SIGKILL_CODE), Program::Awaited(_) | Program::Unknown) => None,
            (ExitStatus::Code(_) | ExitStatus::Signal(_) | ExitStatus::Unknown, _) => {
                return OomEvidence::NotKilled;
            }
        };
        let since = tracked.since;
        let in_container = |kill: &&Kill| match &kill.place {
            KillPlace::Container(other) => other == container,
            KillPlace::Elsewhere => false,
            KillPlace::Unknown => Some(kill.pid) == own,
        };
        let kills = self.kills.iter().filter(|kill| kill.number >= since.kill).filter(in_container);
        let pids: Vec<_> = kills.map(|kill| kill.pid).collect();
        if own.is_some_and(|own| pids.contains(&own)) {
            return OomEvidence::Killed;
        }
        let (counted, logged) = (counted.saturating_sub(since.counted), pids.len() as u64);
        let is_kept = self.kills.front().is_none_or(|first| first.number <= since.kill);
        let is_whole = self.log_is_open && since.lost == self.lost && is_kept;
        match (status, tracked.program) {
            // Its code is its own.
            (ExitStatus::Code(_), Program::Itself) => OomEvidence::NotKilled,
            _ if is_whole && own.is_some() && counted <= logged => OomEvidence::NotKilled,
            _ if is_whole && own.is_some() => OomEvidence::Counted(counted - logged),
            _ => OomEvidence::Counted(counted.max(logged)),
        }
    }

    /// Forgets containers. Without one, nothing is remembered.
    pub(super) fn forget(&mut self, is_forgotten: impl Fn(ClientId, &ContainerId) -> bool) {
        self.containers.retain(|(client, container), _| !is_forgotten(*client, container));
        self.processes.retain(|(client, process), _| !is_forgotten(*client, &process.container));
        self.programs.retain(|(client, process)| !is_forgotten(*client, &process.container));
        if self.containers.is_empty() {
            self.kills.clear();
            self.checks.clear();
            self.log_is_open = false;
        }
    }
}
