//! The kernel's OOM killer: one kill of it, and what is known of whether it has ended a process.

use serde::{Deserialize, Serialize};

use crate::{HostPid, ProcessId};

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
