//! Containers that are kept ready for runs of one specification: a policy above containers that are held at created.
//!
//! ```text
//!           Create                Created            Take
//!  wanted ─────────▶ being made ──────────▶ ready ─────────▶ given
//!                        │ CreateFailed       │ Want fewer, Dead
//!                        └───────▶ end ◀──────┘
//! ```
//! There are as many as are wanted, ready or being made. One that was given is replaced once it has begun, so that the
//! making is not in its way. A failure ends the making until the next request: it would fail again; a second
//! death with no beginning in between ends it until a request finds none that is ready. Neighbours: the
//! [`registry`](crate::registry) owns one for each specification, and registers and ends the containers.

use std::collections::VecDeque;

use crate::registry::RequestToken;
use crate::{ContainerId, Effects, Refusal, Refused};

/// Made at a time; more would be in each other's way.
const AT_ONCE: usize = 2;

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
/// // Another is made when that one runs.
/// assert_eq!(pool.step(PoolEvent::Begun)?.as_slice(), [PoolEffect::Create]);
/// # Ok::<(), Refused>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pool {
    wanted: usize,
    being_made: usize,
    /// Those that are ready, the longest first.
    ready: VecDeque<ContainerId>,
    /// Those that were given and have not begun yet.
    beginning: usize,
    failed: bool,
    /// How many have died since one began; the second ends the making.
    deaths: u8,
}

/// What can happen to the containers that are kept ready.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PoolEvent {
    /// So many are wanted from now on.
    Want(usize),
    /// One that was asked for is ready.
    Created(ContainerId),
    /// One that was asked for could not be made; there is none where not even that could be begun.
    CreateFailed(Option<ContainerId>),
    /// The run of this request needs one.
    Take(RequestToken),
    /// One that was ready is found dead.
    Dead(ContainerId),
    /// One that was given runs, and so long that another may be made.
    Begun,
    /// One that was given died before it began.
    NeverBegan,
}

/// What is to be done for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PoolEffect {
    /// Make one, under a new id. `Created` or `CreateFailed` comes back.
    Create,
    /// This one is for the run of this request.
    Give(ContainerId, RequestToken),
    /// End this one: it is not wanted, or has failed.
    End(ContainerId),
}

impl Pool {
    /// Takes one event. A `Take` gives nothing when nothing is ready. What cannot have happened is `Refused::Stale`.
    pub fn step(&mut self, event: PoolEvent) -> Result<Effects<PoolEffect>, Refused> {
        let mut effects = Vec::new();
        match event {
            PoolEvent::Want(wanted) => {
                self.wanted = wanted;
                (self.failed, self.deaths) = (false, 0);
                while self.ready.len() > wanted {
                    effects.extend(self.ready.pop_front().map(PoolEffect::End));
                }
            }
            PoolEvent::Created(id) => {
                self.being_made = self.being_made.checked_sub(1).ok_or_else(stale)?;
                if self.ready.len() < self.wanted {
                    self.ready.push_back(id);
                } else {
                    effects.push(PoolEffect::End(id));
                }
            }
            PoolEvent::CreateFailed(id) => {
                self.being_made = self.being_made.checked_sub(1).ok_or_else(stale)?;
                self.failed = true;
                effects.extend(id.map(PoolEffect::End));
            }
            PoolEvent::Take(token) => {
                self.failed = false;
                match self.ready.pop_front() {
                    Some(id) => {
                        self.beginning += 1;
                        effects.push(PoolEffect::Give(id, token));
                    }
                    None => self.deaths = 0,
                }
            }
            PoolEvent::Dead(id) => {
                let at = self.ready.iter().position(|ready| *ready == id).ok_or_else(stale)?;
                self.ready.remove(at);
                effects.push(PoolEffect::End(id));
                self.died();
            }
            PoolEvent::Begun => {
                self.beginning = self.beginning.checked_sub(1).ok_or_else(stale)?;
                self.deaths = 0;
            }
            PoolEvent::NeverBegan => {
                self.beginning = self.beginning.checked_sub(1).ok_or_else(stale)?;
                self.died();
            }
        }
        self.make_up(&mut effects);
        Ok(effects.into())
    }

    /// A specification whose containers die of themselves would be made for ever.
    fn died(&mut self) {
        self.deaths = 2.min(self.deaths + 1);
    }

    /// Has made what is missing.
    fn make_up(&mut self, effects: &mut Vec<PoolEffect>) {
        while self.beginning == 0
            && !self.has_failed()
            && self.being_made < AT_ONCE
            && self.ready.len() + self.being_made < self.wanted
        {
            self.being_made += 1;
            effects.push(PoolEffect::Create);
        }
    }

    /// How many there are, those that are being made included.
    pub fn count(&self) -> usize {
        self.being_made + self.ready.len()
    }

    /// Whether a `Take` gives one.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether none is made until somebody asks: one could not be made, or two have died.
    pub const fn has_failed(&self) -> bool {
        self.failed || self.deaths > 1
    }

    /// Whether as many are ready as are wanted.
    pub fn is_full(&self) -> bool {
        self.ready.len() >= self.wanted
    }

    /// Whether nothing more is being done for now: all are ready, or one could not be made.
    pub fn is_settled(&self) -> bool {
        self.being_made == 0 && (self.is_full() || self.has_failed())
    }

    /// Whether there is nothing, and nothing will be.
    pub fn is_over(&self) -> bool {
        self.wanted == 0 && self.being_made == 0 && self.ready.is_empty()
    }
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
    fn a_failure_ends_the_making_until_somebody_asks() {
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
                PoolEvent::Begun | PoolEvent::NeverBegan => {
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
            assert!(world.being_made <= AT_ONCE && pool.ready.len() <= pool.wanted, "after {event:?}");
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
                PoolEvent::NeverBegan,
            ]);
            open.extend(events.filter_map(|event| Some((world.take(&event)?, depth - 1))));
        }
        assert!(seen.len() > 1000, "{}", seen.len());
    }
}
