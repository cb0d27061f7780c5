//! Names: containers, execs, processes and host pids are types of their own.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The id of a container: 1 to 128 ASCII letters, digits, `_`, `.` or `-`, the first a letter or digit.
///
/// This is the part of runc's own rule (`^[\w+-\.]+$`) that is safe as a file name, as a cgroup
/// name and as an argument: `..`, `a/b` and `-x` are no ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The longest id, in bytes: a cgroup or file name may have 255, and suffixes need room.
    pub const MAX_LEN: usize = 128;

    /// Checks `id` and makes it a container id.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        let id = id.into();
        let bytes = id.as_bytes();
        match bytes.first() {
            None => return Err(InvalidId::Empty),
            Some(first) if !first.is_ascii_alphanumeric() => return Err(InvalidId::FirstCharacter),
            Some(_) => {}
        }
        if bytes.len() > Self::MAX_LEN {
            return Err(InvalidId::TooLong { length: bytes.len() });
        }
        match id.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
            Some(character) => Err(InvalidId::Character { character }),
            None => Ok(Self(id)),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no container id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("a container id cannot be empty")]
    Empty,
    /// The text begins with something else than a letter or digit.
    #[error("a container id begins with a letter or a digit")]
    FirstCharacter,
    /// The text holds a character that ids do not have.
    #[error("a container id has letters, digits, '_', '.' and '-' only, not {character:?}")]
    Character {
        /// The first such character.
        character: char,
    },
    /// The text is too long.
    #[error("a container id has at most {max} characters, not {length}", max = ContainerId::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(id: &str) -> Result<Self, InvalidId> {
        Self::new(id)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidId;

    fn try_from(id: String) -> Result<Self, InvalidId> {
        Self::new(id)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of an exec within its container, in the order they were asked for, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExecId(pub u64);

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exec-{}", self.0)
    }
}

/// A process of a container: its init, or one exec'd into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessId {
    /// The container's first process; the container ends with it.
    Init,
    /// A process added later.
    Exec(ExecId),
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init => f.write_str("init"),
            Self::Exec(exec) => exec.fmt(f),
        }
    }
}

/// A process, named across containers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessRef {
    /// The container it runs in.
    pub container: ContainerId,
    /// Which of the container's processes.
    pub process: ProcessId,
}

impl ProcessRef {
    /// The init process of `container`.
    pub const fn init(container: ContainerId) -> Self {
        Self { container, process: ProcessId::Init }
    }

    /// An exec'd process of `container`.
    pub const fn exec(container: ContainerId, exec: ExecId) -> Self {
        Self { container, process: ProcessId::Exec(exec) }
    }

    /// All processes that `container` can have, to look them up in an ordered map.
    pub fn all_of(container: &ContainerId) -> RangeInclusive<Self> {
        Self::init(container.clone())..=Self::exec(container.clone(), ExecId(u64::MAX))
    }
}

impl fmt::Display for ProcessRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.process)
    }
}

/// A process id in the pid namespace of the executor, as `kill(2)` there would take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPid(NonZeroU32);

impl HostPid {
    /// A pid; `None` for 0 and for numbers that are no pid.
    pub fn new(pid: u32) -> Option<Self> {
        (i32::try_from(pid).is_ok()).then(|| NonZeroU32::new(pid).map(Self)).flatten()
    }

    /// The pid as the system's calls take it.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for HostPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_their_directory_or_be_an_option_are_refused() {
        for bad in ["", ".", "..", "a/b", "-x", "/", "a b", "a\0b", "ä", "a\n", ".hidden", "_x"] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(ContainerId::new("x".repeat(1_000_000)), Err(InvalidId::TooLong { length: 1_000_000 }));
        for good in ["a", "0", "build-17", "A_b.c-9", &"x".repeat(ContainerId::MAX_LEN)] {
            assert_eq!(ContainerId::new(good).map(String::from).as_deref(), Ok(good));
        }
    }

    #[test]
    fn host_pids_are_positive_and_fit_the_kernel() {
        assert_eq!(HostPid::new(0), None);
        assert_eq!(HostPid::new(u32::MAX), None);
        assert_eq!(HostPid::new(1).map(HostPid::get), Some(1));
    }
}
