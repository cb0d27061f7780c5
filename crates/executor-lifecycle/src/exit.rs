//! How a process ended, why, and why a start failed.
//!
//! A status is what the kernel reported; a reason is why the process ended. The two are kept apart: there is no -1,
//! no 255 for everything and no guessed 137.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;

use crate::{CancelCause, OomEvidence, Signal, Timestamp, Usage, json};

/// The end of a process.
///
/// In JSON, moments are RFC 3339 in UTC, and spans are seconds. A variant is an object whose only key is its name, or
/// a string if it has no fields.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Exit {
    /// The status that the kernel reported.
    pub status: ExitStatus,
    /// Why it ended.
    pub reason: ExitReason,
    /// Whether the program ran, ended by itself, and its code counts as success: the reason is [`ExitReason::Normal`] and
    /// [`valid_code`](Self::valid_code) is true.
    pub success: bool,
    /// Whether the program ended with code 0, or with another code that its specification counts as success, for any
    /// reason. A program that is cancelled may end with code 0: its code is valid, but it is no success.
    pub valid_code: bool,
    /// When the executor knew that it runs. `None` if it never did.
    pub started_at: Option<Timestamp>,
    /// When the executor knew its end.
    pub exited_at: Timestamp,
    /// What the container had used by then, if the runtime could read it.
    pub usage: Option<Box<Usage>>,
}

impl Exit {
    /// An exit with this status and reason, of a program that started at `started_at`, or never. `valid_exit_codes`
    /// are the codes that count as success, in addition to 0.
    pub fn new(
        status: ExitStatus,
        reason: ExitReason,
        valid_exit_codes: &BTreeSet<u8>,
        started_at: Option<Timestamp>,
        exited_at: Timestamp,
    ) -> Self {
        let valid_code = match status {
            _ if started_at.is_none() => false,
            ExitStatus::Code(code) => code == 0 || valid_exit_codes.contains(&code),
            ExitStatus::Signal(_) | ExitStatus::Unknown => false,
        };
        let success = valid_code && reason == ExitReason::Normal;
        Self { status, reason, success, valid_code, started_at, exited_at, usage: None }
    }

    /// Sets what the container had used by then.
    #[must_use]
    pub fn with_usage(self, usage: Option<Box<Usage>>) -> Self {
        Self { usage, ..self }
    }

    /// The exit of a process whose end was not seen.
    pub const fn lost(started_at: Option<Timestamp>, exited_at: Timestamp) -> Self {
        Self {
            status: ExitStatus::Unknown,
            reason: ExitReason::Lost,
            success: false,
            valid_code: false,
            started_at,
            exited_at,
            usage: None,
        }
    }

    /// Whether the program ran, ended by itself, and its code counts as success. A program that was cancelled, timed
    /// out, or was killed by the OOM killer is no success, whatever its code; [`valid_code`](Self::valid_code) is
    /// about the code alone.
    pub const fn is_success(&self) -> bool {
        self.success
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

/// The exit status that the kernel reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It called exit with this code.
    Code(u8),
    /// A signal ended it.
    Signal(Signal),
    /// Unknown: the process never ran, or another part of this process has waited for it.
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
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// It ended by itself, or by a signal that was not from a cancel.
    Normal,
    /// It ended after a cancel.
    Cancelled {
        /// The cause of the cancel.
        cause: CancelCause,
        /// Whether SIGKILL was needed, because the grace was over or there was none.
        killed: bool,
    },
    /// It ended after the time limit of its specification.
    TimedOut {
        /// Whether SIGKILL was needed.
        killed: bool,
    },
    /// The OOM killer of the kernel killed this very process.
    OutOfMemory,
    /// It never ran.
    StartFailed(StartFailure),
    /// It ran, and its end was not seen.
    Lost,
}

/// An exit as the exit source reports it: the status, and what was used until then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RawExit {
    /// The status that the kernel reported.
    pub status: ExitStatus,
    /// What the container had used, if known.
    pub usage: Option<Box<Usage>>,
    /// Whether the OOM killer has killed it. If absent, the kills in `usage` stand for it.
    pub oom: Option<OomEvidence>,
    /// When it ended, if whoever has reaped it has noted that. If absent, it is the moment at which the executor learns of it.
    pub at: Option<Timestamp>,
}

impl RawExit {
    /// An exit of which only the status is known.
    pub const fn with(status: ExitStatus) -> Self {
        Self { status, usage: None, oom: None, at: None }
    }
}

/// Why a process could not be started.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, ThisError, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct StartFailure {
    /// The kind of failure, for programs.
    pub kind: StartFailureKind,
    /// The cause in words, those of the OCI runtime if it had any. If a field of the specification is at fault, its
    /// name comes first.
    pub message: String,
}

impl StartFailure {
    /// A failure of this kind.
    pub fn new(kind: StartFailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The failure of an error, with its causes: `error: cause: cause of that`.
    pub fn caused_by(kind: StartFailureKind, error: &(dyn Error + 'static)) -> Self {
        Self { kind, message: with_causes(error) }
    }
}

/// A runtime's words without what is named in them: what is quoted, and paths. What is left are words of the runtime's own, of which
/// the meaning is known. A path or a program may have any name, also that of something else.
///
/// The kernel's names of files stay: those of a cgroup, as in `memory.max`, in quotes or as the last part of a path below
/// `/sys/fs/cgroup`, and `oom_score_adj`, `uid_map`, `gid_map` and those of AppArmor below `/proc`. A path below `/proc/sys` is `sysctl`.
pub fn without_names(words: &str) -> String {
    let mut text = String::new();
    for (number, part) in words.split(['"', '`']).enumerate() {
        // Every second part is in quotes.
        let own: Vec<_> = match number % 2 {
            0 => part.split_whitespace().filter_map(own_word).collect(),
            _ => own_word(part).filter(|word| is_of_kernel(word)).into_iter().collect(),
        };
        text.extend(own.iter().flat_map(|word| [word, " "]));
    }
    text.trim_end().to_owned()
}

fn own_word(word: &str) -> Option<&str> {
    let Some((path, name)) = word.rsplit_once('/') else { return Some(word) };
    if path.starts_with("/proc/") && path.ends_with("/attr/apparmor") {
        return Some("apparmor");
    }
    if path.starts_with("/proc/sys/") {
        return Some("sysctl");
    }
    (["/sys/fs/cgroup/", "/proc/"].iter().any(|above| path.starts_with(above)) && is_of_kernel(name))
        .then_some(name)
}

fn is_of_kernel(name: &str) -> bool {
    let name = name.trim_end_matches(':');
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    ["oom_score_adj", "uid_map", "gid_map"].contains(&name)
        || name.contains('.') && name.split('.').all(is_part)
}

/// The text of an error and of its causes, in one line. Only here do causes become text, because data that leaves the
/// executor ([`StartFailure`], [`Leftover`]) can hold nothing else.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl StartFailureKind {
    /// The kind of failure that an error of the system is for a start. The whole workspace uses this.
    ///
    /// `None` if the error alone does not decide it.
    pub fn of_io(error: &io::Error) -> Option<Self> {
        /// The limits of open files of the system and of the process. The numbers are the same on every Linux
        /// (`asm-generic/errno-base.h`), and `ErrorKind` has no kinds for them.
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) {
            return Some(Self::NoResources);
        }
        let is_any = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
        if is_any(&[ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem]) {
            return Some(Self::PermissionDenied);
        }
        // EAGAIN also means a lack of resources, as at the limit of pids.
        let lacking =
            [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::OutOfMemory, ErrorKind::WouldBlock];
        is_any(&lacking).then_some(Self::NoResources)
    }
}

/// Something that could not be removed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, ThisError, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{what} {}: {error}", path.display())]
pub struct Leftover {
    /// What it is.
    pub what: LeftoverKind,
    /// Its path. In JSON, the bytes of a path that are not UTF-8 are replaced by U+FFFD.
    #[serde(serialize_with = "json::lossy_path")]
    pub path: PathBuf,
    /// Why it could not be removed, with the causes.
    pub error: String,
}

impl Leftover {
    /// Something that could not be removed for the reason in `error`.
    pub fn new(what: LeftoverKind, path: impl Into<PathBuf>, error: &(dyn Error + 'static)) -> Self {
        Self { what, path: path.into(), error: with_causes(error) }
    }
}

/// Kinds of what may be left.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LeftoverKind {
    /// A directory of a cgroup hierarchy.
    Cgroup,
    /// A mount, by its mount point.
    Mount,
    /// A network that a provider has set up.
    Network,
    /// The name of a network namespace.
    NetworkNamespace,
    /// The OCI runtime's own directory for a container.
    RuntimeState,
    /// A file or directory of Longshore.
    File,
}

impl fmt::Display for LeftoverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "cgroup",
            Self::Mount => "mount",
            Self::Network => "network",
            Self::NetworkNamespace => "network namespace",
            Self::RuntimeState => "runtime state",
            Self::File => "file",
        })
    }
}

/// Kinds of start failures.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StartFailureKind {
    /// The program does not exist in the container.
    NotFound,
    /// The program exists and cannot be executed: a directory, no permission, not a binary.
    NotExecutable,
    /// The specification cannot be carried out on this machine.
    BadConfig,
    /// Another container has the id.
    IdTaken,
    /// The executor is not permitted to do this.
    PermissionDenied,
    /// Memory, disk space, pids or open files ran out.
    NoResources,
    /// The OCI runtime did not answer in time.
    RuntimeTimedOut,
    /// The OCI runtime failed for an unknown reason.
    RuntimeBroken,
    /// The container ended before the process could start in it.
    ContainerGone,
    /// The executor ended while it was starting the process. Said by the one that has taken its containers up.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_left_out_of_a_runtimes_words() {
        for (words, own) in [
            (
                r#"exec: "apparmor x": executable file not found in $PATH"#,
                "exec: : executable file not found in $PATH",
            ),
            ("stat /memory.max: no such file", "stat no such file"),
            (
                r#"failed to write "0-99": write /sys/fs/cgroup/cpuset/pids/x/cpuset.cpus: invalid"#,
                "failed to write : write cpuset.cpus: invalid",
            ),
            ("write file `memory.max`: Invalid argument", "write file memory.max : Invalid argument"),
            ("write to `/proc/self/oom_score_adj`: x", "write to oom_score_adj : x"),
            ("open /proc/self/attr/apparmor/exec: x", "open apparmor x"),
            ("open /proc/sys/net/nope: no such file", "open sysctl no such file"),
            ("writing file `/proc/7/gid_map`: Invalid", "writing file gid_map : Invalid"),
            ("pivot_root .: invalid argument", "pivot_root .: invalid argument"),
        ] {
            assert_eq!(without_names(words), own);
        }
    }

    #[test]
    fn only_what_ends_by_itself_is_a_success() {
        let moment = Timestamp::default();
        let exit = |code, reason: &ExitReason, ran: bool| {
            let valid = BTreeSet::from([3]);
            let exit =
                Exit::new(ExitStatus::Code(code), reason.clone(), &valid, ran.then_some(moment), moment);
            (exit.is_success(), exit.valid_code)
        };
        assert_eq!(exit(0, &ExitReason::Normal, true), (true, true));
        assert_eq!(exit(3, &ExitReason::Normal, true), (true, true));
        assert_eq!(exit(4, &ExitReason::Normal, true), (false, false));
        assert_eq!(exit(0, &ExitReason::Normal, false), (false, false));
        let cancelled = ExitReason::Cancelled { cause: CancelCause::Requested, killed: false };
        for reason in [cancelled, ExitReason::TimedOut { killed: false }, ExitReason::OutOfMemory] {
            assert_eq!(exit(0, &reason, true), (false, true), "{reason:?}");
        }
    }
}
