//! What a caller of the embedding API can be told instead of an answer.

use executor_lifecycle::{ContainerId, Exit, ProcessRef, Refused, StartFailure};
use thiserror::Error;

use crate::RuntimeError;

/// An operation of the embedding API that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The specification cannot be carried out; nothing was created.
    #[error(transparent)]
    InvalidSpec(#[from] InvalidSpec),
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
    /// Pipes for the process's streams could not be made.
    #[error("cannot make a pipe for the process")]
    Pipe(#[source] std::io::Error),
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

/// A field of a specification that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {why}")]
pub struct InvalidSpec {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}
