//! The events and effects of the registry, and the values in them.

use crate::event::Event;
use crate::{Cancel, CancelCause, ContainerId, ExecId, Exit, ExitReason, Leftover, Timestamp};

/// A request for a container, to tell it from all others of its executor; a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// The containers that are kept ready for one specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u64);

/// A run that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The request.
    pub token: RequestToken,
    /// The id it has if it is made for this request.
    pub id: ContainerId,
    /// The pool of its specification, if it may come from one.
    pub pool: Option<PoolId>,
    /// Whether it is held at created. One from a pool never is.
    pub hold: bool,
}

/// What was published of a container whose actor is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Story {
    /// The number of the last event.
    pub seq: u64,
    /// When init started.
    pub started_at: Option<Timestamp>,
    /// Execs that have not exited, and whether they have started.
    pub execs: Vec<(ExecId, bool)>,
    /// Its exit, if that was published.
    pub exit: Option<Exit>,
}

/// How a container that came from a pool fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fared {
    /// Its program was executed.
    Began,
    /// It ended, and a cancel was the reason.
    Cancelled,
    /// It ended without its program, and for no reason of the run's.
    NeverBegan,
}

/// What can happen to the containers of an executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegistryEvent {
    /// A container is wanted.
    Run(Wanted),
    /// The future that waited for the answer to this request is gone: what it asked for is ended.
    Unclaimed(RequestToken),
    /// So many containers are to be ready in this pool from now on.
    KeepReady(PoolId, usize),
    /// The `Make` effect was performed, with this id.
    Made(PoolId, ContainerId),
    /// The `Make` effect could not even be begun.
    NotMade(PoolId),
    /// A container of a pool is at created.
    Stood(ContainerId),
    /// A container of a pool ended before it was given.
    Fell(ContainerId),
    /// What became of a container that was given.
    Fared(ContainerId, Fared),
    /// The first moments of one that was given are over: another may be made in its place.
    FirstMomentsOver(ContainerId),
    /// A container has given everything back. The event is its last, and the exit what is remembered of it.
    Released(Event, Exit),
    /// A container's actor is gone.
    Lost(ContainerId),
    /// The `ReleaseLost` effect was performed: this was published of the container, and this could not be removed.
    LostReleased(ContainerId, Story, Vec<Leftover>),
    /// Take nothing new.
    Drain,
    /// Take nothing new, and end everything like this.
    Shutdown(Cancel),
    /// The time that the shutdown may take is over.
    DeadlinePassed,
}

/// What is to be done for the containers of an executor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegistryEffect {
    /// Start the actor of a container for this request. Unless it is held, start the container as well.
    Register {
        /// Its id.
        id: ContainerId,
        /// The request.
        token: RequestToken,
        /// Whether it is held at created.
        hold: bool,
    },
    /// Start the actor of a container for a pool, held at created and invisible; comes back as `Made`.
    Make(PoolId),
    /// Start a container of a pool for this request; comes back as `Fared`.
    Give(ContainerId, RequestToken),
    /// Make a container that was given to this request visible, and answer with it.
    Answer(ContainerId, RequestToken),
    /// The container that was given to this request was dead: ask anew.
    Retry(RequestToken),
    /// End a container and keep nothing of it.
    End(ContainerId, Cancel),
    /// Give everything back that a container without an actor has; comes back as `LostReleased`.
    ReleaseLost(ContainerId),
    /// Publish an event of a container.
    Publish(Event),
    /// Forget everything of a container: its id was free before this effect.
    Forget(ContainerId),
    /// A pool has changed: those who wait for it may have an answer.
    PoolChanged(PoolId),
    /// Nothing is left.
    Drained,
    /// The executor ends; these were not released.
    Stop(Vec<ContainerId>),
}

impl Fared {
    /// How one fared that ended with this exit.
    pub const fn of(exit: &Exit) -> Self {
        if exit.started_at.is_some() {
            return Self::Began;
        }
        match &exit.reason {
            // Its actor failed.
            ExitReason::Cancelled { cause: CancelCause::Abandoned, .. } => Self::NeverBegan,
            ExitReason::Cancelled { .. } | ExitReason::TimedOut { .. } => Self::Cancelled,
            ExitReason::Normal | ExitReason::OutOfMemory | ExitReason::StartFailed(_) | ExitReason::Lost => {
                Self::NeverBegan
            }
        }
    }
}

impl RegistryEffect {
    /// Whether it ends this container.
    pub(super) fn ends(&self, id: &ContainerId) -> bool {
        matches!(self, Self::End(ended, _) if ended == id)
    }
}
