//! The containers of an executor: which ids are taken, what is kept ready, and the end of them all.
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
//! A container that is kept ready is an ordinary one that is held at created; it is invisible until a run is given it. One
//! that turns out to be dead when it is to be started is replaced, and the run does not notice. Neighbours: the executor's
//! actor performs the effects, the [`container`](crate::container) machines end with `Finished`, a
//! [`Pool`] for each specification says how many are to be ready.

use std::collections::{BTreeMap, VecDeque};

use crate::event::{Event, EventKind};
use crate::ready::{Pool, PoolEffect, PoolEvent};
use crate::{
    Cancel, CancelCause, ContainerId, Effects, ExecId, Exit, ExitReason, Leftover, Refusal, Refused,
    Timestamp,
};

/// How many exits are remembered after their containers were released; then the oldest is forgotten.
pub const REMEMBERED: usize = 1024;

/// A request for a container, to tell it from all others of its executor; a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// The containers that are kept ready for one specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u64);

/// The machine of the registry.
///
/// ```
/// # use executor_lifecycle::registry::{Registry, RegistryEffect, RegistryEvent, RequestToken, Wanted};
/// # use executor_lifecycle::{ContainerId, Refusal, Refused, Timestamp};
/// let (now, id) = (Timestamp::default(), ContainerId::new("c").unwrap());
/// let wanted = |number| RegistryEvent::Run(Wanted {
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

/// Whether new containers are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Mode {
    #[default]
    Open,
    /// Nothing new is taken.
    Draining,
    /// And everything is being ended.
    Ending,
    /// The executor ends, whatever is left.
    Stopped,
}

/// An id that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    /// The request it is for; none while it is kept ready.
    token: Option<RequestToken>,
    role: Role,
    /// Its actor is gone, and it is being released without it.
    is_lost: bool,
}

/// What a container is to the pool it may have come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// It was made for its request, or has nothing to do with its pool any more.
    Ordinary,
    /// It is being made for a pool.
    Making(PoolId),
    /// It stands ready in its pool.
    Ready(PoolId),
    /// It was given to a run and does not run yet. With `is_unclaimed`, nothing waits for the run any more.
    Given { pool: PoolId, is_unclaimed: bool },
    /// It was given to a run and is in its first moments.
    Beginning(PoolId),
}

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

    /// Whether a container of this id is there for callers to see.
    pub fn is_visible(&self, id: &ContainerId) -> bool {
        self.containers.get(id).is_some_and(Entry::is_visible)
    }

    /// The ids that callers see, in their order.
    pub fn visible(&self) -> impl Iterator<Item = &ContainerId> {
        self.containers.iter().filter(|(_, entry)| entry.is_visible()).map(|(id, _)| id)
    }

    /// The exit of the last container of this id that was released, while it is remembered.
    pub fn exit_of(&self, id: &ContainerId) -> Option<&Exit> {
        self.remembered.iter().rev().find(|(known, _)| known == id).map(|(_, exit)| exit)
    }

    /// A pool, for those who wait for it.
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.get(&id)
    }

    /// Takes one event. A run is refused where its id is taken, or nothing new is taken; what cannot have happened is
    /// [`Refusal::Stale`].
    pub fn step(&mut self, now: Timestamp, event: RegistryEvent) -> Result<Effects<RegistryEffect>, Refused> {
        let from = self.state();
        self.take(now, event).map(Effects::from).map_err(|reason| reason.from_state(from))
    }

    fn take(&mut self, now: Timestamp, event: RegistryEvent) -> Result<Vec<RegistryEffect>, Refusal> {
        match event {
            RegistryEvent::Run(wanted) => self.run(wanted),
            RegistryEvent::Unclaimed(token) => Ok(self.unclaimed(token)),
            RegistryEvent::KeepReady(pool, count) => self.keep_ready(pool, count),
            RegistryEvent::Made(pool, id) => self.made(pool, id),
            RegistryEvent::NotMade(pool) => self.on_pool(pool, PoolEvent::CreateFailed(None)),
            RegistryEvent::Stood(id) => self.stood(id),
            RegistryEvent::Fell(id) => self.fell(id),
            RegistryEvent::Fared(id, fared) => self.fared(id, fared),
            RegistryEvent::FirstMomentsOver(id) => self.first_moments_over(&id),
            RegistryEvent::Released(event, exit) => self.released(event, exit),
            RegistryEvent::Lost(id) => self.lost(id),
            RegistryEvent::LostReleased(id, story, left) => self.lost_released(now, id, story, left),
            RegistryEvent::Drain => Ok(self.drain()),
            RegistryEvent::Shutdown(cancel) => Ok(self.shutdown(cancel)),
            RegistryEvent::DeadlinePassed => Ok(self.stop()),
        }
    }

    fn run(&mut self, wanted: Wanted) -> Result<Vec<RegistryEffect>, Refusal> {
        if self.mode != Mode::Open {
            return Err(Refusal::Draining);
        }
        let Wanted { token, id, pool, hold } = wanted;
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

    fn unclaimed(&mut self, token: RequestToken) -> Vec<RegistryEffect> {
        let found = self.containers.iter_mut().find(|(_, entry)| entry.token == Some(token));
        let Some((id, entry)) = found else { return Vec::new() };
        if let Role::Given { is_unclaimed, .. } = &mut entry.role {
            *is_unclaimed = true;
        }
        // Nobody has its handle, so nobody would remove what is kept of it.
        vec![RegistryEffect::End(id.clone(), Cancel::now())]
    }

    fn keep_ready(&mut self, pool: PoolId, count: usize) -> Result<Vec<RegistryEffect>, Refusal> {
        if self.mode != Mode::Open {
            return Err(Refusal::Draining);
        }
        self.pools.entry(pool).or_default();
        self.on_pool(pool, PoolEvent::Want(count))
    }

    /// Lets a pool take its step, and forgets it when it is over.
    fn on_pool(&mut self, id: PoolId, event: PoolEvent) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(pool) = self.pools.get_mut(&id) else { return Ok(Vec::new()) };
        let effects = pool.step(event).map_err(|refused| refused.reason)?;
        let mut all: Vec<_> = effects.into_iter().map(|effect| self.of_pool(id, effect)).collect();
        all.push(RegistryEffect::PoolChanged(id));
        if self.pools.get(&id).is_some_and(Pool::is_over) {
            self.pools.remove(&id);
        }
        Ok(all)
    }

    fn of_pool(&mut self, pool: PoolId, effect: PoolEffect) -> RegistryEffect {
        match effect {
            PoolEffect::Create => RegistryEffect::Make(pool),
            PoolEffect::Give(id, token) => {
                let role = Role::Given { pool, is_unclaimed: false };
                self.containers.insert(id.clone(), Entry { token: Some(token), role, is_lost: false });
                RegistryEffect::Give(id, token)
            }
            PoolEffect::End(id) => {
                if let Some(entry) = self.containers.get_mut(&id) {
                    entry.role = Role::Ordinary;
                }
                RegistryEffect::End(id, Cancel::now())
            }
        }
    }

    fn made(&mut self, pool: PoolId, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        if self.containers.contains_key(&id) {
            return Err(Refusal::IdTaken);
        }
        self.containers.insert(id.clone(), Entry { token: None, role: Role::Making(pool), is_lost: false });
        match self.mode {
            Mode::Open => Ok(Vec::new()),
            Mode::Draining | Mode::Ending | Mode::Stopped => Ok(vec![RegistryEffect::End(id, Cancel::now())]),
        }
    }

    fn stood(&mut self, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let Role::Making(pool) = entry.role else { return Err(Refusal::Stale) };
        entry.role = Role::Ready(pool);
        self.on_pool(pool, PoolEvent::Created(id))
    }

    fn fell(&mut self, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let (pool, event) = match entry.role {
            Role::Making(pool) => (pool, PoolEvent::CreateFailed(Some(id))),
            Role::Ready(pool) => (pool, PoolEvent::Dead(id)),
            Role::Ordinary | Role::Given { .. } | Role::Beginning(_) => return Err(Refusal::Stale),
        };
        entry.role = Role::Ordinary;
        self.on_pool(pool, event)
    }

    fn fared(&mut self, id: ContainerId, fared: Fared) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(&id) else { return Err(Refusal::Stale) };
        let (Role::Given { pool, is_unclaimed }, Some(token)) = (entry.role, entry.token) else {
            return Err(Refusal::Stale);
        };
        if fared == Fared::Began {
            entry.role = Role::Beginning(pool);
            return Ok(vec![RegistryEffect::Answer(id, token)]);
        }
        entry.role = Role::Ordinary;
        let again = fared == Fared::NeverBegan && !is_unclaimed && self.mode == Mode::Open;
        let mut effects = if again {
            // It is not the run's any more, and nothing is published of it.
            entry.token = None;
            vec![RegistryEffect::End(id, Cancel::now())]
        } else {
            vec![RegistryEffect::Answer(id, token)]
        };
        let never = fared == Fared::NeverBegan;
        effects.extend(self.on_pool(pool, if never { PoolEvent::NeverBegan } else { PoolEvent::Begun })?);
        effects.extend(again.then_some(RegistryEffect::Retry(token)));
        Ok(effects)
    }

    fn first_moments_over(&mut self, id: &ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        let Some(entry) = self.containers.get_mut(id) else { return Err(Refusal::Stale) };
        let Role::Beginning(pool) = entry.role else { return Err(Refusal::Stale) };
        entry.role = Role::Ordinary;
        self.on_pool(pool, PoolEvent::Begun)
    }

    fn released(&mut self, event: Event, exit: Exit) -> Result<Vec<RegistryEffect>, Refusal> {
        let id = event.container.clone();
        let mut effects = self.catch_up(&id, &exit);
        let Some(entry) = self.containers.remove(&id) else { return Err(Refusal::Stale) };
        if entry.token.is_some() {
            self.remember(id.clone(), exit);
        }
        effects.extend([RegistryEffect::Publish(event), RegistryEffect::Forget(id)]);
        effects.extend(self.when_empty());
        Ok(effects)
    }

    /// A container may be released before what became of it is learned: its pool and its run learn it now.
    fn catch_up(&mut self, id: &ContainerId, exit: &Exit) -> Vec<RegistryEffect> {
        let mut effects = self.fell(id.clone()).unwrap_or_default();
        effects.extend(self.fared(id.clone(), Fared::of(exit)).unwrap_or_default());
        effects.extend(self.first_moments_over(id).unwrap_or_default());
        effects.retain(|effect| !effect.ends(id));
        effects
    }

    fn remember(&mut self, id: ContainerId, exit: Exit) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((id, exit));
    }

    fn lost(&mut self, id: ContainerId) -> Result<Vec<RegistryEffect>, Refusal> {
        match self.containers.get_mut(&id) {
            Some(entry @ Entry { is_lost: false, .. }) => {
                entry.is_lost = true;
                // No run can be given it.
                let mut effects = self.fell(id.clone()).unwrap_or_default();
                effects.retain(|effect| !effect.ends(&id));
                effects.push(RegistryEffect::ReleaseLost(id));
                Ok(effects)
            }
            Some(Entry { is_lost: true, .. }) | None => Err(Refusal::Stale),
        }
    }

    /// The events that its actor did not come to publish: its execs and its exit are lost, and it is released.
    fn lost_released(
        &mut self,
        now: Timestamp,
        id: ContainerId,
        story: Story,
        left: Vec<Leftover>,
    ) -> Result<Vec<RegistryEffect>, Refusal> {
        match self.containers.get(&id) {
            Some(Entry { is_lost: true, .. }) => {}
            Some(Entry { is_lost: false, .. }) | None => return Err(Refusal::Stale),
        }
        let Story { seq, started_at, execs, exit } = story;
        let lost = Exit::lost(started_at, now);
        let exec_exits = execs.into_iter().map(|(exec, has_started)| {
            let started_at = started_at.filter(|_| has_started);
            EventKind::ExecExited { exec, exit: Exit::lost(started_at, now) }
        });
        let exited = exit.is_none().then(|| EventKind::Exited { exit: lost.clone() });
        let mut seq = seq;
        let mut event = |kind| {
            seq += 1;
            Event { seq, container: id.clone(), at: now, kind }
        };
        let mut effects: Vec<_> =
            exec_exits.chain(exited).map(|kind| RegistryEffect::Publish(event(kind))).collect();
        let last = event(EventKind::Released { left });
        effects.extend(self.released(last, exit.unwrap_or(lost))?);
        Ok(effects)
    }

    fn drain(&mut self) -> Vec<RegistryEffect> {
        if self.mode == Mode::Open {
            self.mode = Mode::Draining;
        }
        let pools: Vec<_> = self.pools.keys().copied().collect();
        let ended =
            pools.into_iter().flat_map(|pool| self.on_pool(pool, PoolEvent::Want(0)).unwrap_or_default());
        let mut effects: Vec<_> = ended.collect();
        effects.extend(self.when_empty());
        effects
    }

    /// In the order they were asked for; what is kept ready comes last.
    fn shutdown(&mut self, cancel: Cancel) -> Vec<RegistryEffect> {
        if self.mode == Mode::Stopped {
            return vec![self.stop_with_what_is_left()];
        }
        let mut effects = self.drain();
        // What is ready is ended below, like everything.
        effects.retain(|effect| !matches!(effect, RegistryEffect::Drained | RegistryEffect::End(..)));
        self.mode = Mode::Ending;
        let cancel = cancel.cause(CancelCause::Shutdown);
        let mut all: Vec<_> = self.containers.iter().filter(|(_, entry)| !entry.is_lost).collect();
        all.sort_by_key(|(_, entry)| (entry.token.is_none(), entry.token));
        effects.extend(all.into_iter().map(|(id, _)| RegistryEffect::End(id.clone(), cancel)));
        effects.extend(self.when_empty());
        effects
    }

    /// What is due when the last container is gone.
    fn when_empty(&mut self) -> Option<RegistryEffect> {
        if !self.containers.is_empty() {
            return None;
        }
        match self.mode {
            Mode::Open | Mode::Stopped => None,
            Mode::Draining => Some(RegistryEffect::Drained),
            Mode::Ending => self.stop().pop(),
        }
    }

    fn stop(&mut self) -> Vec<RegistryEffect> {
        match self.mode {
            Mode::Ending => {
                self.mode = Mode::Stopped;
                vec![self.stop_with_what_is_left()]
            }
            // A deadline of a shutdown that is over.
            Mode::Open | Mode::Draining | Mode::Stopped => Vec::new(),
        }
    }

    fn stop_with_what_is_left(&self) -> RegistryEffect {
        RegistryEffect::Stop(self.visible().cloned().collect())
    }
}

impl Entry {
    const fn is_visible(&self) -> bool {
        self.token.is_some() && !matches!(self.role, Role::Given { .. })
    }
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
    fn ends(&self, id: &ContainerId) -> bool {
        matches!(self, Self::End(ended, _) if ended == id)
    }
}
