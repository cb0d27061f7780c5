//! Every interleaving of an executor's runs: the real registry with its pools, above containers that may do whatever
//! they can do. See `registry/world.rs` for what that is.

mod mutants;
mod world;

use executor_lifecycle::registry::Registry;
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::world::{ID_FREE, NO_STUCK, REMEMBERED};
use crate::{SOMETIMES, explore};
use world::*;

struct Walk {
    step: Step,
    budget: Budget,
}

impl Model for Walk {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.budget)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            state.due(actions);
            state.possible(actions);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        next.act(self.step, &action);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! never_broken {
            ($($rule:ident)*) => {
                vec![
                    $(Property::always($rule, |_, state: &World| state.broken != Some($rule)),)*
                    Property::always(NO_STUCK, |_, state: &World| !is_stuck(state)),
                    Property::sometimes(SOMETIMES, |_, state: &World| state.is_released()),
                ]
            };
        }
        never_broken!(ANSWERED_ONCE GIVEN_ONCE ID_TAKEN ID_FREE NOTHING_NEW DROPPED FALLBACK NOT_MORE DRAINED LATE TOO_SOON VISIBLE REMEMBERED UNCHANGED)
    }
}

/// Nothing has to happen any more, and something was asked for that has not come about.
fn is_stuck(state: &World) -> bool {
    let mut due = Vec::new();
    state.due(&mut due);
    state.broken.is_none() && due.is_empty() && !state.may_rest()
}

fn walk(name: &str, budget: Budget) {
    explore(name, Walk { step: Registry::step, budget });
}

const POOLED: Ask = Ask { id: "a", pooled: true, hold: false };
/// The same id, and not from the pool.
const NAMED: Ask = Ask { pooled: false, ..POOLED };
const HELD: Ask = Ask { hold: true, ..POOLED };
const OTHER: Ask = Ask { id: "b", ..POOLED };

const CALM: Budget = Budget {
    wanted: &[POOLED],
    ready: &[1],
    keep_readies: 1,
    keep_exited: false,
    drops: 0,
    failures: 0,
    unmade: 0,
    lost: 0,
    drains: 0,
    shutdowns: 0,
    late_makes: false,
};

#[test]
fn runs_of_what_is_kept_ready() {
    let two = Budget { wanted: &[POOLED, OTHER], ready: &[0, 1, 2], keep_readies: 2, ..CALM };
    walk("two from a pool", two);
    walk("two from a pool, and their callers go", Budget { keep_readies: 1, drops: 2, ..two });
}

#[test]
fn what_dies_before_it_is_started() {
    let two = Budget { wanted: &[POOLED, OTHER], failures: 1, ..CALM };
    walk("two from a pool, a death", Budget { drops: 1, ..two });
    walk("two from a pool, two deaths", Budget { failures: 2, ..two });
    walk(
        "a death and what is kept",
        Budget { ready: &[2], failures: 2, drops: 1, keep_exited: true, ..CALM },
    );
}

#[test]
fn an_id_that_is_taken() {
    let one_id = Budget { wanted: &[POOLED, NAMED, HELD], unmade: 1, failures: 1, ..CALM };
    walk("one id for three", one_id);
    walk("one id for two, made late", Budget { wanted: &[POOLED, NAMED], late_makes: true, ..one_id });
}

#[test]
fn actors_that_die() {
    walk("an actor dies", Budget { wanted: &[POOLED, OTHER], lost: 1, ..CALM });
    walk("two actors die", Budget { ready: &[2], lost: 2, keep_exited: true, ..CALM });
}

#[test]
fn what_is_kept_after_its_exit() {
    walk("kept", Budget { wanted: &[POOLED, OTHER], failures: 1, drops: 1, keep_exited: true, ..CALM });
}

#[test]
fn the_end_of_an_executor() {
    let ends = Budget { drains: 1, shutdowns: 1, ..CALM };
    walk("drained and shut down", Budget { failures: 1, ..ends });
    walk("drained and shut down, two callers", Budget { wanted: &[POOLED, NAMED], drops: 1, ..ends });
    walk("shut down twice", Budget { drains: 0, shutdowns: 2, drops: 1, ..ends });
    walk("drained and shut down, an actor dies", Budget { lost: 1, drops: 1, ..ends });
    walk("drained and shut down, made late", Budget { late_makes: true, unmade: 1, ..ends });
}

/// Minutes: `cargo xtask model` runs it.
#[test]
#[ignore = "it takes minutes"]
fn everything_that_may_happen_to_an_executor() {
    let all = Budget { drains: 1, shutdowns: 1, failures: 1, ..CALM };
    walk("drained and shut down, an actor and a container die", Budget { lost: 1, drops: 1, ..all });
    walk("shut down twice, made late", Budget { ready: &[1, 2], shutdowns: 2, late_makes: true, ..all });
    let deaths = Budget { wanted: &[POOLED, OTHER], ready: &[1, 2], failures: 2, ..CALM };
    walk("two from a pool of two, two deaths", Budget { keep_exited: true, ..deaths });
}

/// The checker finds what is wrong: one rule of the real registry is broken at a time.
#[test]
fn a_wrong_registry_is_found() {
    for (wrong, step, budget, rule) in mutants::ALL {
        let checker = Walk { step, budget }.checker().threads(2);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let mut found = checker.discoveries();
        found.remove(SOMETIMES);
        let path = found.remove(rule).unwrap_or_else(|| panic!("{wrong}: found {:?}", found.keys()));
        println!("{wrong}: found after {} steps: {rule}", path.into_actions().len());
    }
}
