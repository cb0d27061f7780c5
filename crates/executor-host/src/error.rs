//! Errors of operations on this machine.

use std::io;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{ContainerId, HostPid};
use thiserror::Error;

/// A failed operation on this machine. The cause is in the source, and not in the text.
#[derive(Debug, Error)]
pub enum Error {
    /// An operation on a file or directory failed.
    #[error("{op} {}", path.display())]
    File {
        /// The operation, as in `open`.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An operation on a process failed.
    #[error("{op} process {pid}")]
    Process {
        /// The operation, as in `open`.
        op: &'static str,
        /// The process.
        pid: HostPid,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another system call failed.
    #[error("{op}")]
    System {
        /// The operation, as in `open`.
        op: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// This user may make no cgroups below this cgroup parent.
    #[error("the cgroup parent {parent} is not delegated to this user")]
    NotDelegated {
        /// Its path within the hierarchies.
        parent: String,
    },
    /// The id is that of a dead executor's container, which a sweep is still removing.
    #[error("the container id {id} is of a dead executor, which another process is sweeping")]
    BeingSwept {
        /// The id.
        id: ContainerId,
    },
    /// It cannot be the name of an executor that is kept.
    #[error(
        "{name:?} is no name of an executor: lowercase letters, digits, `-`, `_` and `.`, at most 64, no dot first"
    )]
    NoName {
        /// What was given.
        name: String,
    },
    /// Another executor that lives has the name.
    #[error("an executor that lives has the name {name}: process {by}")]
    NameInUse {
        /// The name.
        name: String,
        /// Its pid.
        by: String,
    },
    /// The executor is not kept.
    #[error("the executor is not kept")]
    NotKept,
    /// The process host has ended. It can start and signal nothing any more.
    #[error("the process host has ended")]
    HostGone,
}

/// The result of an operation that fails with an [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { op, path, source }
    }

    pub(crate) fn process(op: &'static str, pid: HostPid) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Process { op, pid, source }
    }

    pub(crate) fn system(op: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { op, source }
    }

    /// The underlying error of the system, for
    /// [`StartFailureKind::of_io`](executor_core::lifecycle::StartFailureKind::of_io).
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::File { source, .. } | Self::Process { source, .. } | Self::System { source, .. } => {
                Some(source)
            }
            Self::NotDelegated { .. }
            | Self::BeingSwept { .. }
            | Self::NoName { .. }
            | Self::NameInUse { .. }
            | Self::NotKept
            | Self::HostGone => None,
        }
    }
}
