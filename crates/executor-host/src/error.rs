//! What can fail on this machine.

use std::io;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::HostPid;
use thiserror::Error;

/// An operation on this machine that failed. The cause is in the source, not in the text.
#[derive(Debug, Error)]
pub enum Error {
    /// A file or directory.
    #[error("{op} {}", path.display())]
    File {
        /// What was to be done.
        op: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it could not be.
        #[source]
        source: io::Error,
    },
    /// A process.
    #[error("{op} process {pid}")]
    Process {
        /// What was to be done.
        op: &'static str,
        /// With which process.
        pid: HostPid,
        /// Why it could not be.
        #[source]
        source: io::Error,
    },
    /// Something of the system's that has no name.
    #[error("{op}")]
    System {
        /// What was to be done.
        op: &'static str,
        /// Why it could not be.
        #[source]
        source: io::Error,
    },
    /// A cgroup parent that this user may make no cgroups in.
    #[error("the cgroup parent {parent} is not delegated to this user")]
    NotDelegated {
        /// Its path within the hierarchies.
        parent: String,
    },
    /// The process host has ended: nothing can be started or signalled by it any more.
    #[error("the process host has ended")]
    HostGone,
}

/// What fails with an [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { op, path, source }
    }

    pub(crate) fn process(op: &'static str, pid: HostPid) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Process { op, pid, source }
    }

    pub(crate) fn system(op: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { op, source }
    }

    /// The system's error beneath, for [`StartFailureKind::of_io`](executor_core::lifecycle::StartFailureKind::of_io).
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::File { source, .. } | Self::Process { source, .. } | Self::System { source, .. } => {
                Some(source)
            }
            Self::NotDelegated { .. } | Self::HostGone => None,
        }
    }
}
