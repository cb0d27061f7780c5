//! Containers that are kept ready for runs of one specification. Each of them is an ordinary container that is held at
//! created; this machine decides how many there are.
//!
//! ```text
//!           Create                Created            Take
//!  wanted ─────────▶ being made ──────────▶ ready ─────────▶ given
//!                        │ CreateFailed       │ Want fewer, Dead
//!                        └───────▶ end ◀──────┘
//! ```
//! The pool keeps as many containers as are wanted, those that are being made included. A container that was given to a
//! run is replaced once the run has begun: making another one earlier would slow the run down. The pool makes nothing:
//!
//! - after a container could not be made, until the next request: it would fail again;
//! - after two deaths with no beginning in between, until a request finds no container ready.
//!
//! Neighbours: the [`registry`](crate::registry) owns one pool for each specification, and registers and ends the
//! containers.

use std::collections::VecDeque;

use crate::registry::RequestToken;
use crate::{ContainerId, Effects, Refusal, Refused};

/// How many containers are made at a time. More would slow each other down.
const MADE_AT_ONCE: usize = 2;

/// How many deaths, with no beginning in between, stop the pool.
const DEATHS_THAT_STOP: u8 = 2;

/// The machine of the containers that are kept ready for one specification.
///
/// ```
/// # use executor_lifecycle::ready::{Pool, PoolEffect, PoolEvent};
/// # use executor_lifecycle::registry::RequestToken;
/// # use executor_lifecycle::{ContainerId, Refused};
/// let id = ContainerId::new("c").unwrap();
/// let mut pool = Pool::default();
/// assert_eq!(pool.step(PoolEvent::Want(1))?.as_slice(), [PoolEffect::Create]);
/// assert_eq!(pool.step(PoolEvent::Created(id.clone()))?.as_slice(), []);
/// assert_eq!(pool.step(PoolEvent::Take(RequestToken(1)))?.as_slice(), [PoolEffect::Give(id, RequestToken(1))]);
/// // Another one is made when that one runs.
/// assert_eq!(pool.step(PoolEvent::Begun)?.as_slice(), [PoolEffect::Create]);
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pool {
    wanted: usize,
    being_made: usize,
    /// The containers that are ready, the oldest first.
    ready: VecDeque<ContainerId>,
    /// How many were given to a run and have not begun yet.
    beginning: usize,
    /// The last container could not be made, and no request has come since.
    failed: bool,
    /// How many have died since one began, up to [`DEATHS_THAT_STOP`].
    deaths: u8,
}

/// What can happen to the containers that are kept ready.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PoolEvent {
    /// This many are wanted from now on.
    Want(usize),
    /// A container that [`PoolEffect::Create`] asked for is ready.
    Created(ContainerId),
    /// A container that [`PoolEffect::Create`] asked for could not be made. The id is absent if the creation could not
    /// even be begun.
    CreateFailed(Option<ContainerId>),
    /// The run of this request needs a container.
    Take(RequestToken),
    /// A container that was ready is dead.
    Dead(ContainerId),
    /// A container that was given has run for so long that another one may be made.
    Begun,
    /// A container that was given died before it began.
    NeverStarted,
}

/// What is to be done for the containers that are kept ready.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PoolEffect {
    /// Make a container, under a new id. `Created` or `CreateFailed` comes back.
    Create,
    /// Give this container to the run of this request.
    Give(ContainerId, RequestToken),
    /// End this container: it is not wanted, or has failed.
    End(ContainerId),
}

impl Pool {
    /// Takes one event. A `Take` gives nothing when nothing is ready. An event that cannot have happened is
    /// [`Refusal::Stale`].
    pub fn step(&mut self, event: PoolEvent) -> Result<Effects<PoolEffect>, Refused> {
        let mut effects = match event {
            PoolEvent::Want(wanted) => self.want(wanted),
            PoolEvent::Created(id) => self.created(id)?,
            PoolEvent::CreateFailed(id) => self.create_failed(id)?,
            PoolEvent::Take(token) => self.take(token),
            PoolEvent::Dead(id) => self.dead(id)?,
            PoolEvent::Begun => {
                self.beginning = one_less(self.beginning)?;
                self.deaths = 0;
                Vec::new()
            }
            PoolEvent::NeverStarted => {
                self.beginning = one_less(self.beginning)?;
                self.count_death();
                Vec::new()
            }
        };
        self.replenish(&mut effects);
        Ok(effects.into())
    }

    fn want(&mut self, wanted: usize) -> Vec<PoolEffect> {
        self.wanted = wanted;
        self.failed = false;
        self.deaths = 0;
        let surplus = self.ready.len().saturating_sub(wanted);
        self.ready.drain(..surplus).map(PoolEffect::End).collect()
    }

    fn created(&mut self, id: ContainerId) -> Result<Vec<PoolEffect>, Refused> {
        self.being_made = one_less(self.being_made)?;
        if self.ready.len() < self.wanted {
            self.ready.push_back(id);
            return Ok(Vec::new());
        }
        Ok(vec![PoolEffect::End(id)])
    }

    fn create_failed(&mut self, id: Option<ContainerId>) -> Result<Vec<PoolEffect>, Refused> {
        self.being_made = one_less(self.being_made)?;
        self.failed = true;
        Ok(id.map(PoolEffect::End).into_iter().collect())
    }

    fn take(&mut self, token: RequestToken) -> Vec<PoolEffect> {
        self.failed = false;
        match self.ready.pop_front() {
            Some(id) => {
                self.beginning += 1;
                vec![PoolEffect::Give(id, token)]
            }
            None => {
                self.deaths = 0;
                Vec::new()
            }
        }
    }

    fn dead(&mut self, id: ContainerId) -> Result<Vec<PoolEffect>, Refused> {
        let at = self.ready.iter().position(|ready| *ready == id).ok_or_else(stale)?;
        self.ready.remove(at);
        self.count_death();
        Ok(vec![PoolEffect::End(id)])
    }

    /// Without this count, a pool whose containers always die would make new ones for ever.
    fn count_death(&mut self) {
        self.deaths = DEATHS_THAT_STOP.min(self.deaths + 1);
    }

    /// Asks for the containers that are missing, as far as they may be made now.
    fn replenish(&mut self, effects: &mut Vec<PoolEffect>) {
        while self.beginning == 0
            && !self.has_failed()
            && self.being_made < MADE_AT_ONCE
            && self.count() < self.wanted
        {
            self.being_made += 1;
            effects.push(PoolEffect::Create);
        }
    }

    /// How many containers there are, those that are being made included.
    pub fn count(&self) -> usize {
        self.being_made + self.ready.len()
    }

    /// Whether a `Take` gives a container.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether no container is made until a request comes: one could not be made, or two have died.
    pub const fn has_failed(&self) -> bool {
        self.failed || self.deaths >= DEATHS_THAT_STOP
    }

    /// Whether as many are ready as are wanted.
    pub fn is_full(&self) -> bool {
        self.ready.len() >= self.wanted
    }

    /// Whether no container is being made and none will be for now: all are ready, or the pool has failed.
    pub fn is_settled(&self) -> bool {
        self.being_made == 0 && (self.is_full() || self.has_failed())
    }

    /// Whether the pool is empty and no container is wanted: it can be forgotten.
    pub fn is_over(&self) -> bool {
        self.wanted == 0 && self.being_made == 0 && self.ready.is_empty()
    }
}

fn one_less(count: usize) -> Result<usize, Refused> {
    count.checked_sub(1).ok_or_else(stale)
}

fn stale() -> Refused {
    Refusal::Stale.from_state("kept_ready")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TOKEN: RequestToken = RequestToken(1);
    const TAKE: PoolEvent = PoolEvent::Take(TOKEN);

    fn id(number: usize) -> ContainerId {
        ContainerId::new(format!("c{number}")).unwrap()
    }

    fn pool(events: impl IntoIterator<Item = PoolEvent>) -> Pool {
        let mut pool = Pool::default();
        for event in events {
            let _ = pool.step(event).unwrap();
        }
        pool
    }

    fn effects(pool: &mut Pool, event: PoolEvent) -> Vec<PoolEffect> {
        pool.step(event).unwrap().into_iter().collect()
    }

    #[test]
    fn a_failure_ends_the_making_until_the_next_request() {
        let mut failed =
            pool([PoolEvent::Want(3), PoolEvent::CreateFailed(Some(id(1))), PoolEvent::Created(id(2))]);
        assert!(failed.is_settled() && !failed.is_full());
        let effects = effects(&mut failed, TAKE);
        assert_eq!(effects, [PoolEffect::Give(id(2), TOKEN)]);
        // What was given begins first.
        let effects = failed.step(PoolEvent::Begun).unwrap();
        assert_eq!(effects.as_slice(), [PoolEffect::Create, PoolEffect::Create]);
    }

    #[test]
    fn fewer_wanted_releases_the_oldest_and_what_is_made_too_late() {
        let mut some = pool([PoolEvent::Want(3), PoolEvent::Created(id(1)), PoolEvent::Created(id(2))]);
        assert_eq!(effects(&mut some, PoolEvent::Want(1)), [PoolEffect::End(id(1))]);
        assert_eq!(effects(&mut some, PoolEvent::Created(id(3))), [PoolEffect::End(id(3))]);
        assert_eq!(effects(&mut some, PoolEvent::Want(0)), [PoolEffect::End(id(2))]);
        assert!(some.is_over());
    }

    #[test]
    fn a_dead_one_is_replaced() {
        let mut one = pool([PoolEvent::Want(1), PoolEvent::Created(id(1))]);
        let replaced = [PoolEffect::End(id(1)), PoolEffect::Create];
        assert_eq!(effects(&mut one, PoolEvent::Dead(id(1))), replaced);
        assert_eq!(one.step(PoolEvent::Dead(id(1))), Err(stale()));
        let _ = one.step(PoolEvent::Created(id(2))).unwrap();
        assert_eq!(effects(&mut one, PoolEvent::Dead(id(2))), [PoolEffect::End(id(2))]);
        assert!(one.has_failed() && one.is_settled(), "what dies again and again is not made for ever");
        assert_eq!(Pool::default().step(PoolEvent::Begun), Err(stale()));
        assert_eq!(Pool::default().step(PoolEvent::Created(id(1))), Err(stale()));
    }

    /// What the world knows of each container, beside the machine.
    #[derive(Clone, Default, PartialEq, Eq, Hash)]
    struct World {
        pool: Pool,
        being_made: usize,
        beginning: usize,
        next: usize,
        /// Ready ones, as the world sees it.
        ready: Vec<ContainerId>,
    }

    impl World {
        /// Every order of events, as far as they can happen: none is lost, none is given or released twice.
        fn take(&self, event: &PoolEvent) -> Option<Self> {
            let mut world = self.clone();
            match event {
                PoolEvent::Created(id) => {
                    world.being_made = world.being_made.checked_sub(1)?;
                    world.ready.push(id.clone());
                }
                PoolEvent::CreateFailed(id) => {
                    world.being_made = world.being_made.checked_sub(1)?;
                    world.ready.extend(id.clone());
                }
                PoolEvent::Dead(id) if !world.ready.contains(id) => return None,
                PoolEvent::Begun | PoolEvent::NeverStarted => {
                    world.beginning = world.beginning.checked_sub(1)?
                }
                PoolEvent::Want(_) | PoolEvent::Take(_) | PoolEvent::Dead(_) => {}
            }
            world.next += usize::from(matches!(event, PoolEvent::Created(_) | PoolEvent::CreateFailed(_)));
            for effect in world.pool.step(event.clone()).unwrap() {
                match effect {
                    PoolEffect::Create => world.being_made += 1,
                    PoolEffect::Give(id, _) | PoolEffect::End(id) => {
                        let at =
                            world.ready.iter().position(|ready| *ready == id).expect("it is there, once");
                        world.ready.remove(at);
                        world.beginning += usize::from(*event == TAKE);
                    }
                }
            }
            let pool = &world.pool;
            assert_eq!(world.ready, Vec::from(pool.ready.clone()), "after {event:?}");
            assert!(world.being_made <= MADE_AT_ONCE && pool.ready.len() <= pool.wanted, "after {event:?}");
            assert_eq!(pool.is_over(), pool.wanted == 0 && world.being_made == 0 && world.ready.is_empty());
            Some(world)
        }
    }

    #[test]
    fn none_is_lost_in_any_order() {
        let (mut seen, mut open) = (HashSet::new(), vec![(World::default(), 13)]);
        while let Some((world, depth)) = open.pop() {
            if depth == 0 || !seen.insert((world.clone(), depth)) {
                continue;
            }
            let new = id(world.next);
            let dead = world.ready.iter().cloned().map(PoolEvent::Dead);
            let events = [0, 1, 3].map(PoolEvent::Want).into_iter().chain(dead).chain([
                PoolEvent::Created(new.clone()),
                PoolEvent::CreateFailed(Some(new)),
                PoolEvent::CreateFailed(None),
                TAKE,
                PoolEvent::Begun,
                PoolEvent::NeverStarted,
            ]);
            open.extend(events.filter_map(|event| Some((world.take(&event)?, depth - 1))));
        }
        assert!(seen.len() > 1000, "{}", seen.len());
    }
}
