//! What a caller of the embedding API can be told instead of an answer.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use executor_lifecycle::{ContainerId, Exit, InvalidId, ProcessRef, Refusal, Refused, StartFailure};
use thiserror::Error;

/// An operation of the embedding API that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The specification cannot be carried out; nothing was created.
    #[error(transparent)]
    InvalidSpec(#[from] InvalidSpec),
    /// The text is no id.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// The id belongs to a container of this executor; that one was not touched.
    #[error("the container id {id} is taken")]
    IdTaken {
        /// The id.
        id: ContainerId,
    },
    /// This executor has no such container, or has released it.
    #[error("there is no container {id}")]
    NotFound {
        /// The id.
        id: ContainerId,
    },
    /// The container has no such exec, or it has ended so long ago that it is forgotten.
    #[error("there is no process {process}")]
    NoProcess {
        /// Which process.
        process: ProcessRef,
    },
    /// The state it is in does not allow the request.
    #[error("{process}: {refused}")]
    Refused {
        /// Which process was meant.
        process: ProcessRef,
        /// Why not.
        refused: Refused,
    },
    /// The process never ran; the exit's reason says why.
    #[error("{process} did not start: {exit}")]
    NotStarted {
        /// Which process.
        process: ProcessRef,
        /// Its exit, with the reason.
        exit: Box<Exit>,
    },
    /// A container that was to be kept ready could not be made.
    #[error("no container can be kept ready: {0}")]
    NotReady(StartFailure),
    /// The runtime could not do it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Pipes for the process's streams could not be made, or not be used.
    #[error("cannot make a pipe for the process")]
    Pipe(#[source] std::io::Error),
    /// There is nothing to read of the process, or not any more.
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
    /// Why the registry took no container of this id.
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

/// An operation of a runtime that failed. What lies beneath is in [`source`](StdError::source), not in the text.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// There is no OCI runtime.
    #[error("no OCI runtime: none of {} is on PATH", tried.join(", "))]
    NoRuntime {
        /// What was looked for.
        tried: Vec<String>,
    },
    /// The root directory cannot be used.
    #[error("open the root {}", root.display())]
    Root {
        /// The directory.
        root: PathBuf,
        /// Why not.
        #[source]
        source: BoxError,
    },
    /// There is no such container, or it does not run (any more).
    #[error("{op} {subject}: it does not run")]
    NotRunning {
        /// What was to be done.
        op: Cow<'static, str>,
        /// The container or process.
        subject: String,
    },
    /// This runtime cannot do that.
    #[error("{op} {subject}: this runtime cannot do that")]
    Unsupported {
        /// What was to be done.
        op: Cow<'static, str>,
        /// The container or process.
        subject: String,
    },
    /// The runtime refused, in its own words.
    #[error("{op} {subject}: {words}")]
    Refused {
        /// What was to be done, as in `runc pause`.
        op: Cow<'static, str>,
        /// The container or process.
        subject: String,
        /// What the runtime said.
        words: String,
    },
    /// The runtime gave no answer and was killed.
    #[error("{op} {subject}: no answer within {after:?}")]
    TimedOut {
        /// What was to be done, as in `runc pause`.
        op: Cow<'static, str>,
        /// The container or process.
        subject: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// It failed for another reason.
    #[error("{op} {subject}")]
    Failed {
        /// What was to be done.
        op: Cow<'static, str>,
        /// The container, process, file or program.
        subject: String,
        /// Why it could not be.
        #[source]
        source: BoxError,
    },
}

/// An error of whichever kind.
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

    /// `op` cannot be done by this runtime.
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
