//! Ids of containers, execs and processes, and host pids. Each is a type of its own.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The id of a container: 1 to 128 ASCII letters, digits, `_`, `.` or `-`, the first a letter or digit.
///
/// This is the part of runc's rule (`^[\w+-\.]+$`) that is safe as a file name, as a cgroup name and as an argument:
/// `..`, `a/b` and `-x` are not ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// The greatest length of an id, in bytes. A cgroup or file name may have 255, and suffixes need room.
    pub const MAX_LEN: usize = 128;

    /// Checks `id` and makes it a container id.
    ///
    /// # Errors
    /// The rule that `id` breaks.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        checked(id.into()).map(|id| Self(id.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of the first process of a container.
const INIT: &str = "init";

/// Checks the rule of both kinds of ids.
fn checked(id: String) -> Result<String, InvalidId> {
    let bytes = id.as_bytes();
    match bytes.first() {
        None => return Err(InvalidId::Empty),
        Some(first) if !first.is_ascii_alphanumeric() => return Err(InvalidId::FirstCharacter),
        Some(_) => {}
    }
    if bytes.len() > ContainerId::MAX_LEN {
        return Err(InvalidId::TooLong { length: bytes.len() });
    }
    match id.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
        Some(character) => Err(InvalidId::Character { character }),
        None => Ok(id),
    }
}

/// Why a text is not a container id or exec id.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("an id cannot be empty")]
    Empty,
    /// The text does not begin with a letter or a digit.
    #[error("an id begins with a letter or a digit")]
    FirstCharacter,
    /// The text has a character that ids may not have.
    #[error("an id has letters, digits, '_', '.' and '-' only, not {character:?}")]
    Character {
        /// The first such character.
        character: char,
    },
    /// The text is too long.
    #[error("an id has at most {max} characters, not {length}", max = ContainerId::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The text is the name of the first process of every container.
    #[error("an exec cannot be called {INIT:?}: the container's first process is")]
    Reserved,
}

macro_rules! text {
    ($id:ident) => {
        impl FromStr for $id {
            type Err = InvalidId;

            fn from_str(id: &str) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }

        impl TryFrom<String> for $id {
            type Error = InvalidId;

            fn try_from(id: String) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.as_str().to_owned()
            }
        }
    };
}
text!(ContainerId);
text!(ExecId);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an exec in its container: that of the caller, or `exec-1`, `exec-2`… in the order of the requests.
///
/// It has the characters of a [`ContainerId`], and is not `init`. When the exec has ended, another exec may have the
/// id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct ExecId(Arc<str>);

impl ExecId {
    /// Checks `id` and makes it an exec id.
    ///
    /// # Errors
    /// As for [`ContainerId::new`]; `init` is an error, too.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        match checked(id.into())? {
            id if id == INIT => Err(InvalidId::Reserved),
            id => Ok(Self(id.into())),
        }
    }

    /// A bound that is greater than every id.
    fn last() -> Self {
        Self("\u{7f}".into())
    }

    /// The id of the exec with this number, counted from 1.
    pub fn numbered(number: u64) -> Self {
        Self(format!("exec-{number}").into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process of a container: its init, or one exec'd into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
            Self::Init => f.write_str(INIT),
            Self::Exec(exec) => exec.fmt(f),
        }
    }
}

/// A process, by its container and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

    /// The range of all processes that `container` can have, for lookups in an ordered map.
    pub fn all_of(container: &ContainerId) -> RangeInclusive<Self> {
        Self::init(container.clone())..=Self::exec(container.clone(), ExecId::last())
    }
}

impl fmt::Display for ProcessRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.process)
    }
}

/// A process id in the pid namespace of the executor, as for kill(2) there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct HostPid(NonZeroU32);

impl HostPid {
    /// A pid. `None` for 0 and for numbers that are not pids.
    pub fn new(pid: u32) -> Option<Self> {
        (i32::try_from(pid).is_ok()).then(|| NonZeroU32::new(pid).map(Self)).flatten()
    }

    /// The number, for system calls.
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
            assert!(ExecId::new(good).is_ok_and(|id| id < ExecId::last()));
        }
        assert_eq!(ExecId::new("init"), Err(InvalidId::Reserved));
        assert!(ExecId::new("../x").is_err());
    }

    #[test]
    fn host_pids_are_positive_and_fit_the_kernel() {
        assert_eq!(HostPid::new(0), None);
        assert_eq!(HostPid::new(u32::MAX), None);
        assert_eq!(HostPid::new(1).map(HostPid::get), Some(1));
    }
}
