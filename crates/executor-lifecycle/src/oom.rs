//! The kernel's OOM killer: one kill of it, and what is known of whether it has ended a process.
//!
//! The kernel's log has the pid of every process that it kills. So where the log is whole, it decides: a pid that it has was
//! killed, and one that it has not was not. The counters of the cgroups say how many were killed, and not which. They decide
//! only where the log cannot be read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ExitStatus, HostPid, ProcessId, Signal};

/// SIGKILL, as a process 1 or a shell reports it.
const SIGKILL_CODE: u8 = 137;

/// The OOM killer has killed a process of a container.
///
/// ```
/// # use executor_lifecycle::{HostPid, OomKill, ProcessId};
/// let kill = OomKill::new(1).of(ProcessId::Init).pid(HostPid::new(812).unwrap());
/// assert_eq!((kill.process, kill.kills), (Some(ProcessId::Init), 1));
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OomKill {
    /// Which process, if it was init, the program of init, or an exec. If `pid` is present and this is absent, it was a
    /// child of one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// Its pid on the host. Absent if the kernel's log cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<HostPid>,
    /// How many processes of the container it has killed so far, this one included.
    pub kills: u64,
}

impl OomKill {
    /// The kill that makes it so many, of an unknown process.
    pub const fn new(kills: u64) -> Self {
        Self { process: None, pid: None, kills }
    }

    /// Sets which process it was.
    #[must_use]
    pub fn of(self, process: impl Into<Option<ProcessId>>) -> Self {
        Self { process: process.into(), ..self }
    }

    /// Sets the pid.
    #[must_use]
    pub fn pid(self, pid: impl Into<Option<HostPid>>) -> Self {
        Self { pid: pid.into(), ..self }
    }
}

/// Whether the OOM killer has killed a process that has ended, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OomEvidence {
    /// The kernel's log has its pid.
    Killed,
    /// The kernel's log is complete and does not have its pid.
    NotKilled,
    /// The kernel's log does not decide. So many processes of the container were killed while this one was alive.
    Counted(u64),
}

/// What was found about a process that has ended, from before its start to its end.
///
/// ```
/// # use executor_lifecycle::{ExitStatus, HostPid, OomEvidence, OomFindings, ReportedEnd, Signal};
/// // A child was killed, of which the log has no cgroup. The counters have it too.
/// let child = [HostPid::new(900).unwrap()];
/// let found = OomFindings {
///     status: ExitStatus::Signal(Signal::KILL),
///     pid: HostPid::new(812),
///     reports: ReportedEnd::Own,
///     killed: &[],
///     killed_anywhere: &child,
///     log_is_whole: true,
///     counted: Some(1),
/// };
/// assert_eq!(found.evidence(), Some(OomEvidence::NotKilled));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomFindings<'a> {
    /// How it has ended.
    pub status: ExitStatus,
    /// Its pid on the host.
    pub pid: Option<HostPid>,
    /// Whose end its exit code reports.
    pub reports: ReportedEnd,
    /// The pids that the log has with a cgroup of its container.
    pub killed: &'a [HostPid],
    /// The pids that the log has without a cgroup.
    pub killed_anywhere: &'a [HostPid],
    /// Whether the log was read without a gap.
    pub log_is_whole: bool,
    /// How many kills the counters of its container have. Absent if they cannot be read.
    pub counted: Option<u64>,
}

/// Whose end the exit code of a process reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedEnd {
    /// Its own.
    Own,
    /// That of a program that it has started, whose pid may be unknown.
    OfProgram(Option<HostPid>),
}

impl OomFindings<'_> {
    /// Whether the OOM killer has ended the process. `None` if nothing that was found can say.
    pub fn evidence(&self) -> Option<OomEvidence> {
        let sought = match (self.status, self.reports) {
            (ExitStatus::Signal(Signal::KILL), _) | (ExitStatus::Code(SIGKILL_CODE), ReportedEnd::Own) => {
                self.pid
            }
            (ExitStatus::Code(SIGKILL_CODE), ReportedEnd::OfProgram(program)) => program,
            (ExitStatus::Code(_) | ExitStatus::Signal(_) | ExitStatus::Unknown, _) => {
                return Some(OomEvidence::NotKilled);
            }
        };
        if sought.is_some_and(|pid| self.killed.contains(&pid) || self.killed_anywhere.contains(&pid)) {
            return Some(OomEvidence::Killed);
        }
        match (self.status, self.reports) {
            (ExitStatus::Code(_), ReportedEnd::Own) => Some(OomEvidence::NotKilled),
            _ if sought.is_some() && self.log_decides() => Some(OomEvidence::NotKilled),
            _ => self.counted().map(OomEvidence::Counted),
        }
    }

    /// Whether a pid that the log does not have was not killed. If the counters have kills and the log has none that could
    /// be theirs, it is not the log of these kills, or we do not understand its records.
    const fn log_decides(&self) -> bool {
        let has_records = !self.killed.is_empty() || !self.killed_anywhere.is_empty();
        self.log_is_whole && (has_records || matches!(self.counted, None | Some(0)))
    }

    /// The kills in the container, as the counters have them or the log. Without the counters, a log that has none of them
    /// says nothing.
    fn counted(&self) -> Option<u64> {
        let logged = self.killed.len() as u64;
        match self.counted {
            Some(counted) => Some(counted.max(logged)),
            None => (logged > 0).then_some(logged),
        }
    }
}

/// The kills that the counters of a container's cgroups have had.
///
/// A cgroup that is removed takes its counter with it. What was seen of it is remembered, so the sum never falls.
///
/// ```
/// # use executor_lifecycle::SeenKills;
/// let mut seen = SeenKills::default();
/// assert_eq!(seen.see([(1, 1), (2, 3)].into()), 4);
/// // The cgroup 2 is gone.
/// assert_eq!(seen.see([(1, 2)].into()), 5);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenKills {
    /// The counters of the cgroups that there were at last.
    present: BTreeMap<u64, u64>,
    /// The sum of those that are gone.
    gone: u64,
}

impl SeenKills {
    /// Takes the counter of each cgroup, all read at one time. A cgroup is identified by its inode. Returns the sum of all
    /// that there ever were.
    pub fn see(&mut self, mut counters: BTreeMap<u64, u64>) -> u64 {
        for (cgroup, before) in &self.present {
            match counters.get_mut(cgroup) {
                Some(now) => *now = (*now).max(*before),
                None => self.gone += before,
            }
        }
        self.present = counters;
        self.gone + self.present.values().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGKILL: ExitStatus = ExitStatus::Signal(Signal::KILL);
    const CODE: ExitStatus = ExitStatus::Code(SIGKILL_CODE);

    fn pid(pid: u32) -> HostPid {
        HostPid::new(pid).expect("not 0")
    }

    fn found(status: ExitStatus, reports: ReportedEnd) -> OomFindings<'static> {
        let (killed, killed_anywhere) = (&[][..], &[][..]);
        let (pid, log_is_whole, counted) = (HostPid::new(812), true, Some(0));
        OomFindings { status, pid, reports, killed, killed_anywhere, log_is_whole, counted }
    }

    #[test]
    fn a_whole_log_decides_by_the_pid() {
        let (own, child) = ([pid(812)], [pid(900)]);
        let process = found(SIGKILL, ReportedEnd::Own);
        for (killed, killed_anywhere, expected) in [
            (&own[..], &[][..], OomEvidence::Killed),
            (&[], &own, OomEvidence::Killed),
            (&child, &[], OomEvidence::NotKilled),
            (&[], &child, OomEvidence::NotKilled),
            (&child, &own, OomEvidence::Killed),
        ] {
            for counted in [None, Some(0), Some(1), Some(7)] {
                let process = OomFindings { killed, killed_anywhere, counted, ..process };
                assert_eq!(process.evidence(), Some(expected), "{process:?}");
            }
        }
        assert_eq!(process.evidence(), Some(OomEvidence::NotKilled));
        let other = OomFindings { counted: Some(2), ..process };
        assert_eq!(other.evidence(), Some(OomEvidence::Counted(2)), "the log has none of them");
    }

    #[test]
    fn the_counters_decide_where_the_log_has_gaps() {
        let process = OomFindings { log_is_whole: false, ..found(SIGKILL, ReportedEnd::Own) };
        let child = [pid(900)];
        for (killed, counted, expected) in [
            (&[][..], Some(0), Some(OomEvidence::Counted(0))),
            (&[], Some(2), Some(OomEvidence::Counted(2))),
            (&child, Some(0), Some(OomEvidence::Counted(1))),
            (&child, None, Some(OomEvidence::Counted(1))),
            (&[], None, None),
        ] {
            let process = OomFindings { killed, counted, ..process };
            assert_eq!(process.evidence(), expected, "{process:?}");
        }
        let named = OomFindings { killed_anywhere: &[pid(812)], ..process };
        assert_eq!(named.evidence(), Some(OomEvidence::Killed));
    }

    #[test]
    fn a_code_is_that_of_the_program() {
        let (known, unknown) = (ReportedEnd::OfProgram(HostPid::new(813)), ReportedEnd::OfProgram(None));
        let killed = &[pid(813)];
        for (status, reports, expected) in [
            (CODE, known, OomEvidence::Killed),
            (CODE, unknown, OomEvidence::Counted(1)),
            (CODE, ReportedEnd::Own, OomEvidence::NotKilled),
            (SIGKILL, known, OomEvidence::NotKilled),
            (ExitStatus::Code(7), known, OomEvidence::NotKilled),
            (ExitStatus::Signal(Signal::TERM), ReportedEnd::Own, OomEvidence::NotKilled),
            (ExitStatus::Unknown, known, OomEvidence::NotKilled),
        ] {
            let process = OomFindings { killed, counted: Some(1), ..found(status, reports) };
            assert_eq!(process.evidence(), Some(expected), "{process:?}");
        }
    }
}
