//! The events and effects of the registry, and the values in them.

use std::time::Duration;

use crate::event::Event;
use crate::{Cancel, CancelCause, ContainerId, ExecId, Exit, ExitReason, Leftover, Timestamp};

/// Identifies a request for a container among all requests of its executor. A later request has a greater token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// Identifies the containers that are kept ready for one specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u64);

/// A container that a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunRequest {
    /// The request.
    pub token: RequestToken,
    /// The id of the container if it is made for this request. A container from a pool has its own id.
    pub id: ContainerId,
    /// The pool of its specification, if the container may come from one.
    pub pool: Option<PoolId>,
    /// Whether the container is held at created. Such a container never comes from a pool.
    pub hold: bool,
}

/// What was published about a container whose actor is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublishedState {
    /// The sequence number of the last event.
    pub seq: u64,
    /// When init started, if it has.
    pub started_at: Option<Timestamp>,
    /// The execs that have not exited, each with whether it has started.
    pub execs: Vec<(ExecId, bool)>,
    /// The container's exit, if it was published.
    pub exit: Option<Exit>,
}

/// What became of a container of a pool that was given to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartOutcome {
    /// Its program was executed.
    Started,
    /// It was cancelled before its program was executed.
    Cancelled,
    /// It ended before its program was executed, and the run is not the reason.
    NeverStarted,
}

/// What can happen to the containers of an executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegistryEvent {
    /// A caller wants a container.
    Run(RunRequest),
    /// A container that another executor has left, under a request of its own.
    Adopted(ContainerId, RequestToken),
    /// How a container ended that another executor has released.
    Remembered(ContainerId, Exit),
    /// The caller of this request does not wait for its answer any more: the container is ended.
    Unclaimed(RequestToken),
    /// A caller wants this many containers ready in this pool from now on.
    KeepReady(PoolId, usize),
    /// The `Make` effect was performed, with this id.
    Made(PoolId, ContainerId),
    /// The `Make` effect could not even be begun.
    MakeFailed(PoolId),
    /// A container of a pool is created: it is ready.
    ReadyCreated(ContainerId),
    /// A container of a pool ended before it was given to a run.
    ReadyDied(ContainerId),
    /// What became of a container that was given to a run.
    GivenStarted(ContainerId, StartOutcome),
    /// A container that was given to a run has run for a moment: another one may be made in its place.
    FirstMomentsOver(ContainerId),
    /// A container has released its resources. The event is its last one, and its exit is remembered.
    Released(Event, Exit),
    /// A container's actor is gone.
    Lost(ContainerId),
    /// The `ReleaseLost` effect was performed: what was published about the container, and what could not be removed.
    LostReleased(ContainerId, PublishedState, Vec<Leftover>),
    /// A caller wants new containers refused.
    Drain,
    /// A caller wants new containers refused and all others ended with this cancel, within this time.
    Shutdown(Cancel, Duration),
    /// The time that the shutdown may take is over.
    DeadlinePassed,
}

/// What is to be done for the containers of an executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegistryEffect {
    /// Start the actor of a container for this request. Unless it is held, start the container as well.
    Register {
        /// The id of the container.
        id: ContainerId,
        /// The request.
        token: RequestToken,
        /// Whether the container is held at created.
        hold: bool,
    },
    /// Start the actor of a container for a pool, which is held at created and which callers do not see. Comes back as
    /// `Made` or `MakeFailed`.
    Make(PoolId),
    /// Start a container of a pool for this request. Comes back as `GivenStarted`.
    Give(ContainerId, RequestToken),
    /// Answer the request with the container that was given to it. From now on callers see the container.
    Answer(ContainerId, RequestToken),
    /// The container that was given to this request was dead: send `Run` again.
    Retry(RequestToken),
    /// End a container and keep nothing of it.
    End(ContainerId, Cancel),
    /// Release the resources of a container whose actor is gone. Comes back as `LostReleased`.
    ReleaseLost(ContainerId),
    /// Publish an event of a container.
    Publish(Event),
    /// Forget a container, whose id is already free.
    Forget(ContainerId),
    /// A pool has changed: callers that wait for it may get their answer.
    PoolChanged(PoolId),
    /// No container is left.
    Drained,
    /// The executor ends. These containers were not released.
    Stop(Vec<ContainerId>),
}

impl StartOutcome {
    /// What became of a container that ended with this exit.
    pub const fn of(exit: &Exit) -> Self {
        if exit.started_at.is_some() {
            return Self::Started;
        }
        match &exit.reason {
            // Its actor failed, which is not the run's doing.
            ExitReason::Cancelled { cause: CancelCause::Abandoned, .. } => Self::NeverStarted,
            ExitReason::Cancelled { .. } | ExitReason::TimedOut { .. } => Self::Cancelled,
            ExitReason::Normal | ExitReason::OutOfMemory | ExitReason::StartFailed(_) | ExitReason::Lost => {
                Self::NeverStarted
            }
        }
    }
}

impl RegistryEffect {
    /// Whether this effect ends this container.
    pub(super) fn ends(&self, id: &ContainerId) -> bool {
        matches!(self, Self::End(ended, _) if ended == id)
    }
}
