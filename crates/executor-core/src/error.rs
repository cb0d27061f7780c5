//! Errors of the embedding API and of runtimes.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use executor_lifecycle::{ContainerId, Exit, InvalidId, ProcessRef, Refusal, Refused, StartFailure};
use thiserror::Error;

/// An operation of the embedding API that failed.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum Error {
    /// The specification is invalid. Nothing was created.
    #[error(transparent)]
    InvalidSpec(#[from] InvalidSpec),
    /// The text is not an id.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// A container of this executor has the id. That container is not affected.
    #[error("the container id {id} is taken")]
    IdTaken {
        /// The id.
        id: ContainerId,
    },
    /// This executor has no container with this id.
    #[error("there is no container {id}")]
    NotFound {
        /// The id.
        id: ContainerId,
    },
    /// The container has no such exec, or has forgotten it because 64 others ended later.
    #[error("there is no process {process}")]
    NoProcess {
        /// Which process.
        process: ProcessRef,
    },
    /// The state of the container or process does not allow the request.
    #[error("{process}: {refused}")]
    Refused {
        /// The process; init for a request to a container, unless it is for an exec whose id was given.
        process: ProcessRef,
        /// Why.
        refused: Refused,
    },
    /// The process did not run. The reason of its exit says why.
    #[error("{process} did not start: {exit}")]
    NotStarted {
        /// Which process.
        process: ProcessRef,
        /// Its exit, with the reason.
        exit: Box<Exit>,
    },
    /// A container to be kept ready could not be created.
    #[error("no container can be kept ready: {0}")]
    NotReady(StartFailure),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The pipes for the streams of a process could not be made, or not be read.
    #[error("cannot use a pipe of the process")]
    Pipe(#[source] std::io::Error),
    /// No output of the process can be read, or it was taken.
    #[error(
        "no output of {process} can be read: its specification gives stdout and stderr no pipe (`.piped()` does), or \
         they were taken, or this is another handle than the first"
    )]
    NoOutput {
        /// Which process.
        process: ProcessRef,
    },
    /// The executor's thread could not be started.
    #[error("cannot start the executor's thread")]
    Thread(#[source] std::io::Error),
    /// The executor is shutting down and takes nothing new.
    #[error("the executor is shutting down")]
    ShuttingDown,
    /// The executor has stopped.
    #[error("the executor has stopped")]
    Stopped,
}

impl Error {
    /// The error for a container that the registry refused.
    pub(crate) fn of_registry(refused: &Refused, id: ContainerId) -> Self {
        match refused.reason {
            Refusal::Draining => Self::ShuttingDown,
            Refusal::IdTaken => Self::IdTaken { id },
            Refusal::Exited
            | Refusal::Stopped
            | Refusal::StoppedWithError { .. }
            | Refusal::Cancelled
            | Refusal::Paused
            | Refusal::NotRunning
            | Refusal::Started
            | Refusal::NotExited
            | Refusal::NoTerminal
            | Refusal::NotPaused
            | Refusal::ExecIdTaken
            | Refusal::Stale
            | _ => Self::Refused { process: ProcessRef::init(id), refused: refused.clone() },
        }
    }
}

/// An operation of a runtime failed. The cause is in [`source`](StdError::source), not in the text.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// No OCI runtime was found.
    #[error("cannot find an OCI runtime: {}", not_found(tried))]
    NoRuntime {
        /// The names and paths that were tried, in this order.
        tried: Vec<String>,
    },
    /// The root directory cannot be used.
    #[error("open the root {}", root.display())]
    Root {
        /// The directory.
        root: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The container or process does not run.
    #[error("{op} {subject}: it does not run")]
    NotRunning {
        /// The operation, an imperative.
        op: Cow<'static, str>,
        /// The container or process.
        subject: String,
    },
    /// This runtime does not support the operation.
    #[error("{op} {subject}: this runtime cannot do that")]
    Unsupported {
        /// The operation, an imperative.
        op: Cow<'static, str>,
        /// The container or process.
        subject: String,
    },
    /// The OCI runtime refused.
    #[error("{op} {subject}: {words}")]
    Refused {
        /// The operation, as in `runc pause`.
        op: Cow<'static, str>,
        /// The container or process.
        subject: String,
        /// The words of the OCI runtime, from its log or stderr.
        words: String,
    },
    /// The OCI runtime gave no answer and was killed.
    #[error("{op} {subject}: no answer within {after:?}")]
    TimedOut {
        /// The operation, as in `runc pause`.
        op: Cow<'static, str>,
        /// The container or process.
        subject: String,
        /// How long it had.
        after: Duration,
    },
    /// The operation failed for another reason.
    #[error("{op} {subject}")]
    Failed {
        /// The operation, an imperative.
        op: Cow<'static, str>,
        /// The container, process, file or program.
        subject: String,
        /// The cause.
        #[source]
        source: BoxError,
    },
}

fn not_found(tried: &[String]) -> String {
    match tried {
        [path] if path.contains('/') => format!("{path} is not an executable file"),
        [name] => format!("{name} is not on PATH"),
        names => format!("PATH has none of these: {}", names.join(", ")),
    }
}

/// An error of any kind.
pub type BoxError = Box<dyn StdError + Send + Sync>;

impl RuntimeError {
    /// `op` on `subject` failed because of `source`.
    pub fn failed(
        op: impl Into<Cow<'static, str>>,
        subject: impl std::fmt::Display,
        source: impl Into<BoxError>,
    ) -> Self {
        Self::Failed { op: op.into(), subject: subject.to_string(), source: source.into() }
    }

    /// `op` is not supported by this runtime.
    pub fn unsupported(op: impl Into<Cow<'static, str>>, subject: impl std::fmt::Display) -> Self {
        Self::Unsupported { op: op.into(), subject: subject.to_string() }
    }

    /// `subject` does not run.
    pub fn not_running(op: impl Into<Cow<'static, str>>, subject: impl std::fmt::Display) -> Self {
        Self::NotRunning { op: op.into(), subject: subject.to_string() }
    }
}

/// A field of a specification that is invalid. Two are equal if they name the same field for the same reason, whatever
/// the cause beneath.
#[derive(Clone, Debug, Error)]
#[error("{field}: {why}")]
pub struct InvalidSpec {
    /// The field's name, as in `mount source`.
    pub field: &'static str,
    /// What is wrong with it. The cause beneath is in [`source`](StdError::source), not in this text.
    pub why: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl InvalidSpec {
    /// `field` is invalid because of `why`.
    pub fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into(), source: None }
    }

    /// Adds the error that made the field invalid, for example that of a file that cannot be read.
    #[must_use]
    pub fn caused_by(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into().into()), ..self }
    }
}

impl PartialEq for InvalidSpec {
    fn eq(&self, other: &Self) -> bool {
        (self.field, &self.why) == (other.field, &other.why)
    }
}

impl Eq for InvalidSpec {}
