//! Errors of calls to a keeper.

use std::io;

use executor_core::lifecycle::HostPid;
use executor_programs::wire::Reason;
use thiserror::Error;

/// A call to a keeper that has failed. The cause is in the source, and not in the text.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// This library has no keeper.
    #[error("there is no keeper for this architecture, or it was not built")]
    Unsupported,
    /// Somebody listens in the directory already.
    #[error("there is a keeper already")]
    Exists,
    /// The keeper has another client, whose process is alive.
    #[error("process {pid} is the keeper's client")]
    Taken {
        /// The other client.
        pid: HostPid,
    },
    /// The keeper has ended, or the connection has failed earlier.
    #[error("the keeper has ended")]
    Gone,
    /// The keeper is of another version of the protocol.
    #[error("the keeper has version {keeper} of the protocol; it has to be upgraded")]
    Protocol {
        /// Its version.
        keeper: u32,
    },
    /// The keeper has children.
    #[error("the keeper has children")]
    HasChildren,
    /// It holds no descriptor with this name.
    #[error("the keeper holds no descriptor with this name")]
    NoSuchName,
    /// It holds a descriptor with this name.
    #[error("the keeper holds a descriptor with this name")]
    NameTaken,
    /// The new keeper's program cannot read the state of the present one.
    #[error("the new program cannot read the keeper's state")]
    State,
    /// The keeper does not understand the request, or takes no request of its length.
    #[error("the keeper has refused the request: {reason:?}")]
    Refused {
        /// The reason.
        reason: Reason,
    },
    /// The answer cannot be read.
    #[error("the keeper's answer cannot be read")]
    Answer,
    /// A system call of the keeper's failed.
    #[error("{op}, in the keeper")]
    Keeper {
        /// The operation.
        op: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A system call of this process failed.
    #[error("{op}")]
    System {
        /// The operation.
        op: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl KeeperError {
    pub(super) fn system<E: Into<io::Error>>(op: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { op, source: source.into() }
    }

    /// The refusal of an operation, with the number that belongs to the reason.
    pub(super) fn refused(op: &'static str, reason: Reason, number: u32) -> Self {
        match reason {
            Reason::Taken => HostPid::new(number).map_or(Self::Answer, |pid| Self::Taken { pid }),
            Reason::Protocol => Self::Protocol { keeper: number },
            Reason::HasChildren => Self::HasChildren,
            Reason::NoSuchName => Self::NoSuchName,
            Reason::NameTaken => Self::NameTaken,
            Reason::State => Self::State,
            Reason::System => Self::Keeper { op, source: io::Error::from_raw_os_error(number as i32) },
            Reason::Malformed | Reason::Length | Reason::Kind | Reason::NotGreeted | Reason::Descriptors => {
                Self::Refused { reason }
            }
        }
    }
}

impl From<KeeperError> for io::Error {
    /// The error of the system, if it is one: callers decide by its number.
    fn from(error: KeeperError) -> Self {
        match error {
            KeeperError::Keeper { source, .. } | KeeperError::System { source, .. } => source,
            other @ (KeeperError::Unsupported
            | KeeperError::Exists
            | KeeperError::Taken { .. }
            | KeeperError::Gone
            | KeeperError::Protocol { .. }
            | KeeperError::HasChildren
            | KeeperError::NoSuchName
            | KeeperError::NameTaken
            | KeeperError::State
            | KeeperError::Refused { .. }
            | KeeperError::Answer) => Self::other(other),
        }
    }
}
