//! Errors of a runtime's calls and of the driver's work.

use std::io;
use std::path::Path;
use std::time::Duration;

use executor_core::RuntimeError;
use executor_core::lifecycle::{ExitStatus, StartFailure, StartFailureKind};
use thiserror::Error;

use crate::NoRuntime;

/// A failed call of a runtime, or failed work of the driver. The cause is in the source, and not in the text.
#[derive(Debug, Error)]
pub enum Error {
    /// No runtime was found.
    #[error(transparent)]
    NoRuntime(#[from] NoRuntime),
    /// The runtime has failed, and its log has the cause.
    #[error("{op} {subject}: {words}")]
    Refused {
        /// The call, as in `runc pause`.
        op: String,
        /// The container, or the program.
        subject: String,
        /// The runtime's own words.
        words: String,
    },
    /// The runtime has failed, and its log is empty.
    #[error("{op} {subject}: it failed with {status} and did not say why")]
    Failed {
        /// The call.
        op: String,
        /// The container, or the program.
        subject: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The runtime did not exit in time, and was killed.
    #[error("{op} {subject}: no answer within {after:?}")]
    TimedOut {
        /// The call.
        op: String,
        /// The container, or the program.
        subject: String,
        /// The time limit.
        after: Duration,
    },
    /// The runtime's answer cannot be parsed.
    #[error("read the answer of {op} {subject}")]
    Answer {
        /// The call.
        op: String,
        /// The container, or the program.
        subject: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A system call failed, for a call of the runtime or for a file of the driver.
    #[error("{op} {subject}")]
    Io {
        /// The operation.
        op: String,
        /// The container, program or file.
        subject: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An operation of the host failed.
    #[error(transparent)]
    Host(#[from] executor_host::Error),
    /// The keeper of an executor that is kept has failed.
    #[error("the keeper of the executor")]
    Keeper(#[from] executor_host::keeper::KeeperError),
    /// Blocking work has panicked, or its tokio runtime is shutting down.
    #[error("blocking work was not done")]
    Work(#[from] tokio::task::JoinError),
    /// The driver is closed, or no executor uses it yet.
    #[error("no executor uses this driver")]
    NotOpen,
    /// There is no such container.
    #[error("there is no container {0}")]
    NoContainer(String),
}

/// The result of an operation that fails with an [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let subject = path.display().to_string();
        move |source| Self::Io { op: op.to_owned(), subject, source }
    }

    /// The underlying error of the system.
    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Host(error) => error.io(),
            Self::NoRuntime(_)
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Answer { .. }
            | Self::Keeper(_)
            | Self::Work(_)
            | Self::NotOpen
            | Self::NoContainer(_) => None,
        }
    }

    /// This error as the reason why a process did not start.
    pub(crate) fn start_failure(&self) -> StartFailure {
        let kind = match self {
            Self::Host(executor_host::Error::NotDelegated { .. }) => StartFailureKind::PermissionDenied,
            Self::Host(executor_host::Error::BeingSwept { .. }) => StartFailureKind::IdTaken,
            Self::TimedOut { .. } => StartFailureKind::RuntimeTimedOut,
            Self::Refused { words, .. } => return crate::failure::classify(words.clone()),
            Self::NoContainer(_) => StartFailureKind::ContainerGone,
            Self::NoRuntime(_)
            | Self::Failed { .. }
            | Self::Answer { .. }
            | Self::Io { .. }
            | Self::Host(_)
            | Self::Keeper(_)
            | Self::Work(_)
            | Self::NotOpen => {
                self.io().and_then(StartFailureKind::of_io).unwrap_or(StartFailureKind::RuntimeBroken)
            }
        };
        StartFailure::caused_by(kind, self)
    }

    /// This error as an error of the port. `op` and `subject` are used if it has none of its own.
    pub(crate) fn of(self, op: &'static str, subject: impl std::fmt::Display) -> RuntimeError {
        match self {
            Self::NoRuntime(NoRuntime { tried }) => RuntimeError::NoRuntime { tried },
            Self::Refused { op, subject, words } => RuntimeError::Refused { op: op.into(), subject, words },
            Self::TimedOut { op, subject, after } => RuntimeError::TimedOut { op: op.into(), subject, after },
            Self::Io { op, subject, source } => RuntimeError::failed(op, subject, source),
            Self::Answer { op, subject, source } => RuntimeError::failed(op, subject, source),
            Self::NoContainer(id) => RuntimeError::not_running(op, id),
            error @ (Self::Failed { .. }
            | Self::Host(_)
            | Self::Keeper(_)
            | Self::Work(_)
            | Self::NotOpen) => RuntimeError::failed(op, subject, error),
        }
    }
}
