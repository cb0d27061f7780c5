//! Every interleaving of a container's life, walked: the real `step` functions in a world that may do
//! whatever it can. See `world.rs` for what it can.
//!
//! ```text
//! cargo test -p executor-lifecycle --test model -- --nocapture
//! ```
//! prints for each walk how many states there are, how deep, and how long it took.

#![expect(clippy::expect_used, reason = "a test may fail")]

mod mutants;
mod registry;
mod world;

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use executor_lifecycle::container::{Container, ContainerTraits, KeepExited};
use executor_lifecycle::exit_router::ExitRouter;
use executor_lifecycle::process::Process;
use executor_lifecycle::registry::Registry;
use stateright::{Checker, HasDiscoveries, Model, Property};
use world::*;

const REAL: Rules = Rules {
    registry: Registry::step,
    container: Container::step,
    process: Process::step,
    router: ExitRouter::step,
    adopt: Container::adopted,
    adopt_process: Process::adopted,
};

const SOMETIMES: &str = "a container is released";

struct Walk {
    rules: Rules,
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
        next.act(&self.rules, &action);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! never_broken {
            ($($rule:ident)*) => {
                vec![
                    $(Property::always($rule, |_, state: &World| state.broken != Some($rule)),)*
                    Property::always(NO_STUCK, |walk: &Walk, state: &World| !walk.is_stuck(state)),
                    Property::sometimes(SOMETIMES, |_, state: &World| state.is_released()),
                ]
            };
        }
        never_broken!(EXITED_ONCE ORDER TRUTHFUL NOTHING_RUNS NO_SIGNAL STARTED_ONCE RELEASED_ONCE HELD SIZED KILLS KEPT ID_FREE REMEMBERED)
    }
}

impl Walk {
    /// Nothing has to happen any more, and something was asked for that has not come about.
    fn is_stuck(&self, state: &World) -> bool {
        if state.broken.is_some() || state.may_rest() {
            return false;
        }
        let mut due = Vec::new();
        state.due(&mut due);
        !due.into_iter().any(|action| self.next_state(state, action).is_some())
    }
}

/// Walks through all of it.
fn walk(name: &str, budget: Budget) {
    explore(name, Walk { rules: REAL, budget });
}

/// Visits every state of a model.
fn explore<M>(name: &str, model: M)
where
    M: Model<State: Clone + Hash + PartialEq + Debug + Send + Sync, Action: Clone + Debug + PartialEq>
        + Send
        + Sync
        + 'static,
{
    let began = Instant::now();
    // Depth first: what is still to be visited stays small.
    let checker = model.checker().threads(2).spawn_dfs().join();
    let violations: Vec<_> =
        checker.discoveries().into_iter().filter(|(rule, _)| *rule != SOMETIMES).collect();
    println!(
        "{name}: {} states explored ({} unique), depth {}, {} violations, exhaustive, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        violations.len(),
        began.elapsed().as_secs_f64(),
    );
    if let Some((rule, path)) = violations.into_iter().next() {
        panic!("{name}: {rule}, but: {:#?}", path.into_actions());
    }
    checker.assert_properties();
}

const PLAIN: ContainerTraits =
    ContainerTraits { has_terminal: false, shares_pids: false, keep_exited: KeepExited::No };

/// Nothing happens but what has to: a container is run, and ends when it likes.
const CALM: Budget = Budget {
    traits: PLAIN,
    hold: false,
    starts: 0,
    removes: 0,
    execs: 0,
    cancels: 0,
    exec_cancels: 0,
    signals: 0,
    resizes: 0,
    pauses: 0,
    drops: 0,
    stalls: 0,
    refused_kills: 0,
    dead_actors: 0,
    dead_containers: 0,
    crashes: 0,
    keeper_dies: false,
    copies: 0,
    oom_kills: 0,
    foreign_kills: 0,
};

/// It is held at created until the user starts it.
const HELD_AT_CREATED: Budget = Budget { hold: true, starts: 1, ..CALM };

#[test]
fn a_container_and_its_init() {
    let faults = Budget { stalls: 1, refused_kills: 1, copies: 2, ..CALM };
    walk("init", Budget { cancels: 2, signals: 1, pauses: 1, drops: 1, ..faults });
}

#[test]
fn a_container_that_is_held_at_created() {
    let faults = Budget { stalls: 1, refused_kills: 1, copies: 1, ..HELD_AT_CREATED };
    walk("held", Budget { starts: 2, cancels: 1, signals: 1, drops: 1, ..faults });
    walk("held, two cancels", Budget { cancels: 2, stalls: 1, pauses: 1, ..HELD_AT_CREATED });
    walk("held, an exec", Budget { execs: 1, cancels: 1, stalls: 1, drops: 1, ..HELD_AT_CREATED });
    walk(
        "held, an actor dies",
        Budget { execs: 1, cancels: 1, dead_actors: 1, stalls: 1, ..HELD_AT_CREATED },
    );
}

#[test]
fn a_terminal_and_a_shared_pid_namespace() {
    let terminal = ContainerTraits { has_terminal: true, ..PLAIN };
    walk(
        "a terminal",
        Budget { traits: terminal, resizes: 2, cancels: 1, signals: 1, stalls: 1, drops: 1, ..CALM },
    );
    let shared = ContainerTraits { shares_pids: true, ..PLAIN };
    walk("shared pids", Budget { traits: shared, execs: 1, cancels: 1, drops: 1, ..CALM });
    let refusals = Budget { traits: shared, cancels: 1, signals: 1, pauses: 1, refused_kills: 1, ..CALM };
    walk("shared pids, refused kills", refusals);
}

#[test]
fn a_container_that_is_kept() {
    let kept = |keep_exited| ContainerTraits { keep_exited, ..PLAIN };
    let user = Budget { removes: 2, cancels: 1, drops: 1, copies: 1, stalls: 1, ..CALM };
    walk("kept until removed", Budget { traits: kept(KeepExited::UntilRemoved), ..user });
    let time = KeepExited::For(std::time::Duration::from_secs(1));
    walk("kept for a time", Budget { traits: kept(time), ..user });
    let held = Budget { removes: 1, cancels: 1, drops: 1, execs: 1, ..HELD_AT_CREATED };
    walk("held and kept", Budget { traits: kept(KeepExited::UntilRemoved), ..held });
}

#[test]
fn a_container_whose_actor_is_lost() {
    let dies = Budget { dead_containers: 1, copies: 1, stalls: 1, ..CALM };
    walk("its actor is lost", Budget { cancels: 1, signals: 1, pauses: 1, drops: 1, ..dies });
    walk("its actor is lost, an exec", Budget { execs: 1, cancels: 1, drops: 1, ..dies });
    let held = Budget { dead_containers: 1, execs: 1, cancels: 1, drops: 1, ..HELD_AT_CREATED };
    walk("held, its actor is lost", held);
}

/// It is killed at any moment, twice, and others take up what it has left.
#[test]
fn an_executor_that_crashes() {
    let crash = Budget { crashes: 1, stalls: 1, ..CALM };
    walk("a crash", Budget { cancels: 1, signals: 1, pauses: 1, drops: 1, refused_kills: 1, ..crash });
    walk("two crashes", Budget { crashes: 2, cancels: 1, pauses: 1, ..crash });
    walk("a crash, an exec", Budget { execs: 1, cancels: 1, exec_cancels: 1, drops: 1, ..crash });
    walk("two crashes, an exec", Budget { crashes: 2, execs: 1, cancels: 1, stalls: 0, ..crash });
    walk(
        "held, a crash",
        Budget { crashes: 1, execs: 1, cancels: 1, stalls: 1, starts: 2, ..HELD_AT_CREATED },
    );
    let kept = ContainerTraits { keep_exited: KeepExited::UntilRemoved, ..PLAIN };
    walk("kept, a crash", Budget { traits: kept, removes: 2, cancels: 1, drops: 1, ..crash });
    let shared = ContainerTraits { shares_pids: true, ..PLAIN };
    walk("shared pids, a crash", Budget { traits: shared, execs: 1, cancels: 1, ..crash });
    let terminal = ContainerTraits { has_terminal: true, ..PLAIN };
    walk("a terminal, a crash", Budget { traits: terminal, resizes: 1, cancels: 1, ..crash });
    walk("OOM kills, a crash", Budget { oom_kills: 1, foreign_kills: 1, cancels: 1, ..crash });
    walk("a crash, actors die", Budget { dead_actors: 1, dead_containers: 1, cancels: 1, ..crash });
    let both = Budget { keeper_dies: true, crashes: 2, cancels: 1, ..CALM };
    walk("the keeper dies, too", both);
    walk("the keeper dies, too, an exec", Budget { execs: 1, crashes: 1, ..both });
}

#[test]
fn an_exec() {
    let faults = Budget { stalls: 1, refused_kills: 1, copies: 1, ..CALM };
    walk("init and an exec", Budget { execs: 1, cancels: 1, exec_cancels: 1, drops: 1, ..faults });
    walk("init and an exec, paused", Budget { execs: 1, cancels: 1, pauses: 1, signals: 1, ..CALM });
    walk(
        "init and an exec, an actor dies",
        Budget { execs: 1, cancels: 1, signals: 1, dead_actors: 1, ..CALM },
    );
}

#[test]
fn kills_for_lack_of_memory() {
    let kills = Budget { oom_kills: 2, foreign_kills: 1, ..CALM };
    walk("OOM kills", Budget { cancels: 1, signals: 1, copies: 1, drops: 1, ..kills });
    walk("OOM kills, an exec", Budget { execs: 1, exec_cancels: 1, copies: 1, ..kills });
    let shared = ContainerTraits { shares_pids: true, ..PLAIN };
    walk("OOM kills, shared pids", Budget { traits: shared, execs: 1, cancels: 1, ..kills });
    let lost = Budget { dead_actors: 1, dead_containers: 1, oom_kills: 1, execs: 1, ..CALM };
    walk("OOM kills, actors die", lost);
}

#[test]
fn two_execs() {
    walk("init and two execs", Budget { execs: 2, drops: 1, stalls: 1, ..CALM });
}

/// Minutes, and gigabytes: `cargo xtask model` runs it.
#[test]
#[ignore = "it takes minutes"]
fn two_execs_that_are_cancelled() {
    walk("init and two execs, cancelled", Budget { execs: 2, cancels: 1, drops: 1, stalls: 1, ..CALM });
}

/// A run that is left to itself comes to rest: what has to happen never leads back to where it was.
#[test]
fn no_run_goes_round_for_ever() {
    let budget = Budget { execs: 1, cancels: 1, pauses: 1, stalls: 1, refused_kills: 1, ..CALM };
    let walk = Walk { rules: REAL, budget };
    let mut left = HashSet::new();
    let mut entered = HashSet::new();
    let mut path = vec![(walk.init_states().remove(0), true)];
    while let Some((state, unseen)) = path.pop() {
        let key = fingerprint(&state);
        if !unseen {
            entered.remove(&key);
            left.insert(key);
            continue;
        }
        assert!(!entered.contains(&key), "a circle: {state:#?}");
        if left.contains(&key) {
            continue;
        }
        entered.insert(key);
        let mut due = Vec::new();
        state.due(&mut due);
        let mut possible = Vec::new();
        // Thawing may fail and be asked for again for as long as somebody likes.
        state.possible(&mut possible);
        possible.retain(|action| *action != Action::Resume);
        let next = due.into_iter().chain(possible).filter_map(|action| walk.next_state(&state, action));
        let next: Vec<_> = next.map(|state| (state, true)).collect();
        path.push((state, false));
        path.extend(next);
    }
    println!("no circle in {} states", left.len());
}

fn fingerprint(state: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// The checker finds what is wrong: one rule of the real machines is broken at a time.
#[test]
fn a_wrong_step_is_found() {
    for (wrong, rules, budget, rule) in mutants::ALL {
        let checker = Walk { rules, budget }.checker().threads(2);
        let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let mut found = checker.discoveries();
        found.remove(SOMETIMES);
        let path = found.remove(rule).unwrap_or_else(|| panic!("{wrong}: found {:?}", found.keys()));
        println!("{wrong}: found after {} steps: {rule}", path.into_actions().len());
    }
}
