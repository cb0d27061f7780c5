//! The containers of an executor: which ids are taken, which containers are kept ready, how the executor ends.
//!
//! ```text
//!              Run                                     Released
//!  id free ───────────▶ Live ──────────────────────────────────▶ id free, then `Released` is published
//!     │ Made             │ Lost                                     ▲
//!     └────▶ Live,       ▼                LostReleased              │
//!            kept ready  Lost: it is being released ────────────────┘
//!
//!  Open ── Drain ──▶ Draining: nothing new, until nothing is left
//!     └─ Shutdown ─▶ Ending: all are ended ── nothing is left, DeadlinePassed ──▶ Stopped
//! ```
//! A container that is kept ready is an ordinary container that is held at created. Callers do not see it until a run is
//! given it. If it turns out to be dead when it is to be started, the run gets another one and does not notice.
//!
//! Neighbours: the executor's actor performs the effects. A [`container`](crate::container) machine ends with `Finished`,
//! which comes here as `Released`. A [`Pool`] for each specification says how many containers are to be ready.
//!
//! | file | holds |
//! |---|---|
//! | `vocabulary` | events, effects, and the values in them |
//! | `pools` | the containers that are kept ready, until they run |
//! | `release` | the end of a container, and of the executor |

mod pools;
mod release;
mod vocabulary;

use std::collections::{BTreeMap, VecDeque};

pub use self::vocabulary::{
    PoolId, PublishedState, RegistryEffect, RegistryEvent, RequestToken, RunRequest, StartOutcome,
};

use crate::ready::{Pool, PoolEvent};
use crate::{Cancel, ContainerId, Effects, Exit, Refusal, Refused, Timestamp};

/// How many exits are remembered after their containers were released. One more, and the oldest is forgotten.
pub const REMEMBERED: usize = 1024;

/// The machine of the registry.
///
/// ```
/// # use executor_lifecycle::registry::{Registry, RegistryEffect, RegistryEvent, RequestToken, RunRequest};
/// # use executor_lifecycle::{ContainerId, Refusal, Refused, Timestamp};
/// let (now, id) = (Timestamp::default(), ContainerId::new("c").unwrap());
/// let wanted = |number| RegistryEvent::Run(RunRequest {
///     token: RequestToken(number), id: id.clone(), pool: None, hold: false,
/// });
/// let mut registry = Registry::default();
/// assert!(matches!(registry.step(now, wanted(1))?.as_slice(), [RegistryEffect::Register { .. }]));
/// assert_eq!(registry.step(now, wanted(2)).unwrap_err().reason, Refusal::IdTaken);
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registry {
    mode: Mode,
    containers: BTreeMap<ContainerId, Entry>,
    pools: BTreeMap<PoolId, Pool>,
    /// Exits of released containers, the oldest first.
    remembered: VecDeque<(ContainerId, Exit)>,
}

/// Whether new containers are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Mode {
    #[default]
    Open,
    /// New containers are refused.
    Draining,
    /// New containers are refused, and all others are being ended.
    Ending,
    /// The executor ends, even if containers are left.
    Stopped,
}

/// An id that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    /// The request that the container is for. Absent while it is kept ready.
    token: Option<RequestToken>,
    role: Role,
    /// The container's actor is gone, and the container is being released without it.
    is_lost: bool,
}

/// Where a container stands with the pool that it may have come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// It was made for its request, or no pool counts it any more.
    Ordinary,
    /// It is being made for a pool.
    Making(PoolId),
    /// It is ready in its pool.
    Ready(PoolId),
    /// It was given to a run and does not run yet. `is_unclaimed`: no caller waits for the run any more.
    Given { pool: PoolId, is_unclaimed: bool },
    /// It was given to a run and has just begun to run.
    Beginning(PoolId),
}

impl Registry {
    /// The name of its state.
    pub const fn state(&self) -> &'static str {
        match self.mode {
            Mode::Open => "open",
            Mode::Draining => "draining",
            Mode::Ending => "ending",
            Mode::Stopped => "stopped",
        }
    }

    /// Whether callers see a container of this id.
    pub fn is_visible(&self, id: &ContainerId) -> bool {
        self.containers.get(id).is_some_and(Entry::is_visible)
    }

    /// The ids that callers see, in the order of the ids.
    pub fn visible(&self) -> impl Iterator<Item = &ContainerId> {
        self.containers.iter().filter(|(_, entry)| entry.is_visible()).map(|(id, _)| id)
    }

    /// The exit of the container of this id that was released last. `None` if there was none, or it is forgotten.
    pub fn exit_of(&self, id: &ContainerId) -> Option<&Exit> {
        self.remembered.iter().rev().find(|(known, _)| known == id).map(|(_, exit)| exit)
    }

    /// A pool, if there is one of this id.
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.get(&id)
    }

    /// Takes one event. A run is refused with [`Refusal::IdTaken`] or, while the executor drains or ends, with
    /// [`Refusal::Draining`]. An event that cannot have happened is [`Refusal::Stale`].
    pub fn step(&mut self, now: Timestamp, event: RegistryEvent) -> Result<Effects<RegistryEffect>, Refused> {
        let from = self.state();
        self.take(now, event).map(Effects::from).map_err(|reason| reason.from_state(from))
    }

    fn take(&mut self, now: Timestamp, event: RegistryEvent) -> Result<Vec<RegistryEffect>, Refusal> {
        match event {
            RegistryEvent::Run(wanted) => self.run(wanted),
            RegistryEvent::Adopted(id, token) => self.adopted(id, token),
            RegistryEvent::Remembered(id, exit) => {
                self.remember(id, exit);
                Ok(Vec::new())
            }
            RegistryEvent::Unclaimed(token) => Ok(self.unclaimed(token)),
            RegistryEvent::KeepReady(pool, count) => self.keep_ready(pool, count),
            RegistryEvent::Made(pool, id) => self.made(pool, id),
            RegistryEvent::MakeFailed(pool) => self.on_pool(pool, PoolEvent::CreateFailed(None)),
            RegistryEvent::ReadyCreated(id) => self.ready_created(id),
            RegistryEvent::ReadyDied(id) => self.ready_died(id),
            RegistryEvent::GivenStarted(id, outcome) => self.given_started(id, outcome),
            RegistryEvent::FirstMomentsOver(id) => self.first_moments_over(&id),
            RegistryEvent::Released(event, exit) => self.released(event, exit),
            RegistryEvent::Lost(id) => self.lost(id),
            RegistryEvent::LostReleased(id, story, left) => self.lost_released(now, id, story, left),
            RegistryEvent::Drain => Ok(self.drain()),
            RegistryEvent::Shutdown(cancel, deadline) => Ok(self.shutdown(cancel.within(deadline))),
            RegistryEvent::DeadlinePassed => Ok(self.stop()),
        }
    }

    fn run(&mut self, wanted: RunRequest) -> Result<Vec<RegistryEffect>, Refusal> {
        if self.mode != Mode::Open {
            return Err(Refusal::Draining);
        }
        let RunRequest { token, id, pool, hold } = wanted;
        // A container that is to be held is never taken from a pool.
        let pool = pool.filter(|_| !hold);
        let gets_ready = pool.and_then(|pool| self.pools.get(&pool)).is_some_and(Pool::has_ready);
        if !gets_ready && self.containers.contains_key(&id) {
            return Err(Refusal::IdTaken);
        }
        let mut effects = match pool {
            Some(pool) => self.on_pool(pool, PoolEvent::Take(token))?,
            None => Vec::new(),
        };
        if !gets_ready {
            self.containers
                .insert(id.clone(), Entry { token: Some(token), role: Role::Ordinary, is_lost: false });
            effects.push(RegistryEffect::Register { id, token, hold });
        }
        Ok(effects)
    }

    fn adopted(&mut self, id: ContainerId, token: RequestToken) -> Result<Vec<RegistryEffect>, Refusal> {
        if self.containers.contains_key(&id) {
            return Err(Refusal::IdTaken);
        }
        self.containers.insert(id, Entry { token: Some(token), role: Role::Ordinary, is_lost: false });
        Ok(Vec::new())
    }

    fn unclaimed(&mut self, token: RequestToken) -> Vec<RegistryEffect> {
        let found = self.containers.iter_mut().find(|(_, entry)| entry.token == Some(token));
        let Some((id, entry)) = found else { return Vec::new() };
        if let Role::Given { is_unclaimed, .. } = &mut entry.role {
            *is_unclaimed = true;
        }
        // No caller has its handle, so no caller could remove what is kept of it.
        vec![RegistryEffect::End(id.clone(), Cancel::now())]
    }
}

impl Entry {
    const fn is_visible(&self) -> bool {
        self.token.is_some() && !matches!(self.role, Role::Given { .. })
    }
}
