//! How a process ended, why, and why a start failed.
//!
//! A status is what the kernel said; a reason is why. The two are never mixed: there is no -1, no
//! 255 for everything and no 137 by guess.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{CancelCause, Signal, Timestamp};

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exit {
    /// What the kernel said.
    pub status: ExitStatus,
    /// Why it ended.
    pub reason: ExitReason,
    /// When it was known to run; `None` when it never did.
    pub started_at: Option<Timestamp>,
    /// When its end was known.
    pub exited_at: Timestamp,
    /// What the container used until then, when the runtime could tell.
    pub usage: Option<Usage>,
}

impl Exit {
    /// The end of something nobody saw the end of.
    pub const fn lost(started_at: Option<Timestamp>, exited_at: Timestamp) -> Self {
        Self { status: ExitStatus::Unknown, reason: ExitReason::Lost, started_at, exited_at, usage: None }
    }

    /// Whether the program ran and ended with code 0.
    pub fn is_success(&self) -> bool {
        self.status == ExitStatus::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            ExitReason::Normal => self.status.fmt(f),
            ExitReason::StartFailed(failure) => failure.fmt(f),
            ExitReason::Cancelled { .. } => write!(f, "cancelled, {}", self.status),
            ExitReason::TimedOut { .. } => write!(f, "timed out, {}", self.status),
            ExitReason::OutOfMemory => write!(f, "out of memory, {}", self.status),
            ExitReason::Lost => write!(f, "lost, {}", self.status),
        }
    }
}

/// What the kernel said of a process's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It called exit with this code.
    Code(u8),
    /// A signal ended it.
    Signal(Signal),
    /// Nobody can say: it never ran, or its status went to someone else.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by {signal}"),
            Self::Unknown => f.write_str("no exit status"),
        }
    }
}

/// Why a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// By itself, or by a signal nobody sent through the executor's cancel.
    Normal,
    /// After a cancel.
    Cancelled {
        /// Who asked for it.
        cause: CancelCause,
        /// Whether SIGKILL was needed (the grace ran out, or none was given).
        killed: bool,
    },
    /// After the time its specification allowed.
    TimedOut {
        /// Whether SIGKILL was needed.
        killed: bool,
    },
    /// The kernel's OOM killer chose this very process.
    OutOfMemory,
    /// It never ran.
    StartFailed(StartFailure),
    /// It ran, and nobody can say how it ended.
    Lost,
}

/// What a container used, read from its cgroups at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time, user and system, of all its processes.
    pub cpu: Option<Duration>,
    /// The most memory ever charged, in bytes.
    pub memory_peak: Option<u64>,
    /// How many processes inside the OOM killer ended. Not zero does not mean that init was one.
    pub oom_kills: u64,
}

/// What the exit source says of an end: the status, and what was used until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    /// What the kernel said.
    pub status: ExitStatus,
    /// What the container used, when known.
    pub usage: Option<Usage>,
}

impl Ending {
    /// An end with nothing known but its status.
    pub const fn with(status: ExitStatus) -> Self {
        Self { status, usage: None }
    }
}

/// A process that could not be started, and whose fault that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct StartFailure {
    /// What kind of failure, to act on.
    pub kind: StartFailureKind,
    /// The cause in words, the runtime's own where it said some.
    pub message: String,
}

impl StartFailure {
    /// A failure of this kind.
    pub fn new(kind: StartFailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Kinds of start failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFailureKind {
    /// The program does not exist in the container.
    NotFound,
    /// The program exists and cannot be executed: a directory, no permission, not a binary.
    NotExecutable,
    /// The specification cannot be carried out.
    BadConfig,
    /// The id belongs to another container.
    IdTaken,
    /// The executor may not do this.
    PermissionDenied,
    /// Memory, disk, pids or files ran out.
    NoResources,
    /// The runtime did not answer in time.
    RuntimeTimedOut,
    /// The runtime failed in a way it does not explain.
    RuntimeBroken,
    /// The container ended before the process could start in it.
    ContainerGone,
}
