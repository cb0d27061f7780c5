//! The registry and its pools, above containers that are no more than their phases, with what the executor's actor does
//! with each effect. Programs end when they like; what is learned of a container comes as late as it likes.

mod choices;
mod effects;

use std::collections::{BTreeMap, BTreeSet};

use executor_lifecycle::registry::{
    PoolId, PublishedState, Registry, RegistryEffect, RegistryEvent, RequestToken, RunRequest, StartOutcome,
};
use executor_lifecycle::*;

use crate::world::{ID_FREE, REMEMBERED};

pub(crate) type Step =
    fn(&mut Registry, Timestamp, RegistryEvent) -> Result<Effects<RegistryEffect>, Refused>;

/// How often the user and the world may do what they may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// What is wanted, in the order it may be asked for.
    pub(crate) wanted: &'static [Ask],
    /// How many may be asked to be ready.
    pub(crate) ready: &'static [usize],
    pub(crate) keep_readies: u8,
    pub(crate) keep_exited: bool,
    /// Callers that do not wait for their answer, or do not take it.
    pub(crate) drops: u8,
    /// Containers that cannot be made, die at created, or cannot be started.
    pub(crate) failures: u8,
    /// Containers for a pool whose making cannot be begun.
    pub(crate) unmade: u8,
    /// Actors that die.
    pub(crate) lost: u8,
    pub(crate) drains: u8,
    pub(crate) shutdowns: u8,
    /// `Made` comes later than in the turn of its `Make`.
    pub(crate) late_makes: bool,
}

/// A request that a caller may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) id: &'static str,
    /// It may come from the pool.
    pub(crate) pooled: bool,
    pub(crate) hold: bool,
}

/// What a caller has been answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Reply {
    #[default]
    Unasked,
    Waits,
    Answered,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Caller {
    reply: Reply,
    is_gone: bool,
}

/// How far a container has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Life {
    Making,
    Created,
    Began,
    Ended(Exit),
}

/// The actor of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Actor {
    Lives,
    /// It is gone, and the registry does not know yet.
    Died,
    /// What it has is being given back without it.
    Lost,
}

/// What its pool waits to learn of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Watch {
    Created,
    Exited,
}

/// A container, and what the executor's actor waits to learn of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Thing {
    life: Life,
    actor: Actor,
    is_started: bool,
    is_cancelled: bool,
    /// Nothing of it is kept once it has exited.
    may_go: bool,
    is_visible: bool,
    /// Everything is given back; something may still wait to learn what became of it.
    is_forgotten: bool,
    /// The request that it was made for or given to.
    token: Option<RequestToken>,
    pool: Option<PoolId>,
    watch: Option<Watch>,
    /// It was given, and how it fares is not known yet.
    fares: bool,
    in_first_moments: bool,
}

/// One state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    registry: Registry,
    things: BTreeMap<ContainerId, Thing>,
    callers: Vec<Caller>,
    /// The pool of the one specification there is, while it is kept.
    pool: Option<PoolId>,
    last_pool: u64,
    wanted_ready: usize,
    prepare_waits: bool,
    making_fails: bool,
    /// What `Make` asked for and is not begun.
    late: Vec<PoolId>,
    has_failed: bool,
    /// Of two deaths the second may end the making.
    deaths: usize,
    takes_new: bool,
    is_ending: bool,
    drain_waits: bool,
    shutdown_waits: bool,
    /// Shutdowns whose deadline may pass.
    deadlines: u8,
    has_passed: bool,
    has_stopped: bool,
    budget: Budget,
    pub(crate) broken: Option<&'static str>,
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Ask(usize),
    CallerGoes(usize),
    KeepReady(usize),
    MakingFails,
    LateMake,
    Created(ContainerId),
    Began(ContainerId),
    /// Because it was cancelled, or by itself.
    Ends(ContainerId),
    /// It dies before its program was executed.
    Fails(ContainerId),
    Removed(ContainerId),
    Released(ContainerId),
    ActorDies(ContainerId),
    Lost(ContainerId),
    LostReleased(ContainerId),
    Watched(ContainerId),
    StartOutcome(ContainerId),
    FirstMomentsOver(ContainerId),
    Drain,
    Shutdown,
    DeadlinePasses,
}

pub(crate) const ANSWERED_ONCE: &str = "a request is answered once, with what is its own";
pub(crate) const GIVEN_ONCE: &str = "no container is given to two requests";
pub(crate) const ID_TAKEN: &str = "no id is registered while it is taken";
pub(crate) const NOTHING_NEW: &str = "nothing new is registered, made or given once it drains";
pub(crate) const DROPPED: &str =
    "what was asked for by a caller that is gone is ended, and is not asked for again";
pub(crate) const FALLBACK: &str = "no request is answered with what died before it was started";
pub(crate) const NOT_MORE: &str = "no more are kept ready than are wanted";
pub(crate) const DRAINED: &str = "Drained comes when nothing is left, and then it comes";
pub(crate) const LATE: &str = "what a shutdown names is what callers see and what is left";
pub(crate) const TOO_SOON: &str = "the executor does not stop before nothing is left, or its time is over";
pub(crate) const VISIBLE: &str = "callers see what they were answered with";
pub(crate) const UNCHANGED: &str = "what is refused changes nothing";

const NOW: Timestamp = Timestamp::from_epoch(std::time::Duration::ZERO);

fn exit(reason: ExitReason, has_begun: bool) -> Exit {
    Exit::new(ExitStatus::Unknown, reason, &BTreeSet::new(), has_begun.then_some(NOW), NOW)
}

pub(super) fn released(container: ContainerId) -> Event {
    Event::new(1, container, NOW, EventKind::Released { left: Vec::new() })
}

fn token_of(caller: usize) -> RequestToken {
    RequestToken(caller as u64)
}

fn caller_of(token: RequestToken) -> usize {
    usize::try_from(token.0).expect("few requests")
}

impl Thing {
    fn new(is_visible: bool) -> Self {
        Self {
            life: Life::Making,
            actor: Actor::Lives,
            is_started: false,
            is_cancelled: false,
            may_go: false,
            is_visible,
            is_forgotten: false,
            token: None,
            pool: None,
            watch: None,
            fares: false,
            in_first_moments: false,
        }
    }

    fn exit(&self) -> Option<&Exit> {
        match &self.life {
            Life::Ended(exit) => Some(exit),
            Life::Making | Life::Created | Life::Began => None,
        }
    }

    fn is_over(&self) -> bool {
        self.exit().is_some()
    }

    /// It stands ready, as far as its pool knows.
    fn is_ready(&self) -> bool {
        self.watch == Some(Watch::Exited)
            && self.token.is_none()
            && !self.is_cancelled
            && self.actor == Actor::Lives
    }

    /// It waits to be given, and nothing happens to it.
    fn rests(&self) -> bool {
        self.life == Life::Created && self.is_ready()
    }

    /// Its program may run for as long as it likes.
    fn runs_on(&self) -> bool {
        self.life == Life::Began && self.is_visible && !self.is_cancelled
    }
}

impl World {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            registry: Registry::default(),
            things: BTreeMap::new(),
            callers: vec![Caller::default(); budget.wanted.len()],
            pool: None,
            last_pool: 0,
            wanted_ready: 0,
            prepare_waits: false,
            making_fails: false,
            late: Vec::new(),
            has_failed: false,
            deaths: 0,
            takes_new: true,
            is_ending: false,
            drain_waits: false,
            shutdown_waits: false,
            deadlines: 0,
            has_passed: false,
            has_stopped: false,
            budget,
            broken: None,
        }
    }

    /// A container that a caller saw has been released.
    pub(crate) fn is_released(&self) -> bool {
        self.callers.iter().any(|caller| caller.reply == Reply::Answered) && !self.is_anything_left()
    }

    fn is_anything_left(&self) -> bool {
        self.things.values().any(|thing| !thing.is_forgotten)
    }

    fn breaks(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    fn thing(&mut self, id: &ContainerId) -> &mut Thing {
        self.things.get_mut(id).expect("it is there")
    }

    pub(crate) fn act(&mut self, step: Step, action: &Action) {
        match action {
            Action::Ask(number) => self.ask(step, *number),
            Action::CallerGoes(number) => self.caller_goes(step, *number),
            Action::KeepReady(count) => self.keep_ready(step, *count),
            Action::MakingFails => {
                self.budget.unmade -= 1;
                self.making_fails = true;
            }
            Action::LateMake => {
                let pool = self.late.remove(0);
                self.make(step, pool);
            }
            Action::Created(id) => self.thing(id).life = Life::Created,
            Action::Began(id) => self.thing(id).life = Life::Began,
            Action::Ends(id) => {
                let thing = self.thing(id);
                let has_begun = thing.life == Life::Began;
                let cancelled = ExitReason::Cancelled { cause: CancelCause::Requested, killed: true };
                let reason = if thing.is_cancelled { cancelled } else { ExitReason::Normal };
                thing.life = Life::Ended(exit(reason, has_begun));
            }
            Action::Fails(id) => {
                self.budget.failures -= 1;
                self.deaths += 1;
                let failure = StartFailure::new(StartFailureKind::RuntimeBroken, "");
                self.thing(id).life = Life::Ended(exit(ExitReason::StartFailed(failure), false));
            }
            Action::Removed(id) => self.thing(id).may_go = true,
            Action::Released(id) => self.released(step, id),
            Action::ActorDies(id) => {
                self.budget.lost -= 1;
                self.deaths += 1;
                self.thing(id).actor = Actor::Died;
            }
            Action::Lost(id) => {
                self.pool_misses(id);
                self.registry(step, RegistryEvent::Lost(id.clone()));
            }
            Action::LostReleased(id) => self.lost_released(step, id),
            Action::Watched(id) => self.watched(step, id),
            Action::StartOutcome(id) => self.start_outcome(step, id),
            Action::FirstMomentsOver(id) => self.first_moments_over(step, id),
            Action::Drain => self.drain(step),
            Action::Shutdown => self.shutdown(step),
            Action::DeadlinePasses => {
                self.deadlines -= 1;
                self.has_passed = true;
                self.registry(step, RegistryEvent::DeadlinePassed);
            }
        }
        self.things.retain(|_, thing| {
            !thing.is_forgotten || thing.watch.is_some() || thing.fares || thing.in_first_moments
        });
        self.check();
    }

    /// What holds after every turn.
    fn check(&mut self) {
        let ready = self.things.values().filter(|thing| thing.is_ready() && !thing.is_forgotten).count();
        let wanted = if self.takes_new { self.wanted_ready } else { 0 };
        if ready > wanted {
            self.breaks(NOT_MORE);
        }
        let seen = |(id, thing): (&ContainerId, &Thing)| {
            !thing.is_forgotten && thing.is_visible != self.registry.is_visible(id)
        };
        if self.things.iter().any(seen) {
            self.breaks(VISIBLE);
        }
        let drains = self.drain_waits && !self.has_stopped;
        if drains && !self.is_anything_left() && self.late.is_empty() {
            self.breaks(DRAINED);
        }
        let left_alone = |thing: &Thing| {
            let is_gone = thing.token.is_some_and(|token| self.callers[caller_of(token)].is_gone);
            let goes_on = !thing.is_cancelled && !thing.is_over();
            // Nobody could remove what is kept of it.
            is_gone && (goes_on || !thing.may_go) && !thing.is_forgotten && thing.actor == Actor::Lives
        };
        if self.things.values().any(left_alone) {
            self.breaks(DROPPED);
        }
    }

    fn ask(&mut self, step: Step, number: usize) {
        self.callers[number].reply = Reply::Waits;
        let Ask { id, pooled, hold } = self.budget.wanted[number];
        let id = ContainerId::new(id).expect("an id");
        let pool = self.pool.filter(|_| pooled);
        let wanted = RunRequest { token: token_of(number), id, pool, hold };
        let had_failed = self.has_failed;
        self.has_failed &= pool.is_none() || hold;
        if self.is_refused(step, RegistryEvent::Run(wanted)) {
            self.has_failed = had_failed;
            self.callers[number].reply = Reply::Answered;
        }
    }

    fn caller_goes(&mut self, step: Step, number: usize) {
        self.budget.drops -= 1;
        self.callers[number].is_gone = true;
        self.registry(step, RegistryEvent::Unclaimed(token_of(number)));
    }

    fn keep_ready(&mut self, step: Step, count: usize) {
        self.budget.keep_readies -= 1;
        if self.pool.is_none() {
            self.last_pool += 1;
            self.pool = Some(PoolId(self.last_pool));
        }
        self.prepare_waits = true;
        if self.takes_new {
            self.wanted_ready = count;
            self.has_failed = false;
        }
        if self.is_refused(step, RegistryEvent::KeepReady(PoolId(self.last_pool), count)) {
            self.prepare_waits = false;
        }
    }

    fn make(&mut self, step: Step, pool: PoolId) {
        if std::mem::take(&mut self.making_fails) {
            self.has_failed = true;
            return self.registry(step, RegistryEvent::MakeFailed(pool));
        }
        // A new id; one that nothing knows any more is as good.
        let free = |id: &ContainerId| !self.things.contains_key(id);
        let mut ids = (0..).map(|number| ContainerId::new(format!("ready{number}")).expect("an id"));
        let id = ids.find(free).expect("there are enough");
        let made = Thing { pool: Some(pool), watch: Some(Watch::Created), ..Thing::new(false) };
        self.insert(&id, made);
        self.registry(step, RegistryEvent::Made(pool, id));
    }

    fn insert(&mut self, id: &ContainerId, thing: Thing) {
        let may_go = !self.budget.keep_exited;
        let before = self.things.insert(id.clone(), Thing { may_go, ..thing });
        if before.is_some_and(|before| !before.is_forgotten) {
            self.breaks(ID_TAKEN);
        }
    }

    fn released(&mut self, step: Step, id: &ContainerId) {
        let exit = self.thing(id).exit().expect("it has exited").clone();
        self.releases(step, id, RegistryEvent::Released(released(id.clone()), exit));
    }

    fn lost_released(&mut self, step: Step, id: &ContainerId) {
        let thing = self.thing(id);
        let exit = thing.exit().cloned();
        let begun = thing.life == Life::Began || exit.as_ref().is_some_and(|exit| exit.started_at.is_some());
        let story = PublishedState { seq: 0, started_at: begun.then_some(NOW), execs: Vec::new(), exit };
        self.releases(step, id, RegistryEvent::LostReleased(id.clone(), story, Vec::new()));
    }

    /// Its exit is remembered where a caller could know of it, and only there.
    fn releases(&mut self, step: Step, id: &ContainerId, event: RegistryEvent) {
        self.pool_misses(id);
        let before = self.registry.exit_of(id).cloned();
        self.registry(step, event);
        let Some(thing) = self.things.get(id).filter(|thing| thing.is_forgotten) else {
            return self.breaks(ID_FREE);
        };
        let expected = if thing.is_visible { thing.exit() } else { before.as_ref() };
        if self.registry.exit_of(id) != expected {
            self.breaks(REMEMBERED);
        }
    }

    /// The making for a pool ends with a failure.
    fn pool_misses(&mut self, id: &ContainerId) {
        self.has_failed |= self.thing(id).watch == Some(Watch::Created);
    }

    fn watched(&mut self, step: Step, id: &ContainerId) {
        let is_over = self.thing(id).is_over();
        if is_over {
            self.pool_misses(id);
        }
        let thing = self.thing(id);
        let event = if is_over {
            thing.watch = None;
            RegistryEvent::ReadyDied(id.clone())
        } else {
            thing.watch = Some(Watch::Exited);
            RegistryEvent::ReadyCreated(id.clone())
        };
        self.registry(step, event);
    }

    fn start_outcome(&mut self, step: Step, id: &ContainerId) {
        let thing = self.thing(id);
        let outcome = thing.exit().map_or(StartOutcome::Started, StartOutcome::of);
        thing.fares = false;
        thing.in_first_moments = outcome == StartOutcome::Started;
        self.registry(step, RegistryEvent::GivenStarted(id.clone(), outcome));
    }

    fn first_moments_over(&mut self, step: Step, id: &ContainerId) {
        let thing = self.thing(id);
        thing.in_first_moments = false;
        self.registry(step, RegistryEvent::FirstMomentsOver(id.clone()));
    }

    fn drain(&mut self, step: Step) {
        self.budget.drains -= 1;
        (self.takes_new, self.drain_waits, self.prepare_waits) = (false, true, false);
        self.registry(step, RegistryEvent::Drain);
    }

    fn shutdown(&mut self, step: Step) {
        self.budget.shutdowns -= 1;
        self.deadlines += 1;
        (self.takes_new, self.shutdown_waits, self.prepare_waits) = (false, true, false);
        self.is_ending = true;
        self.registry(step, RegistryEvent::Shutdown(Cancel::now(), std::time::Duration::from_secs(1)));
    }
}
