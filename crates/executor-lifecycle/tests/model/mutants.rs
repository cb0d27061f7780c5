//! The real machines with one rule broken, each with what the checker must say of it.

use std::collections::{BTreeMap, BTreeSet};

use executor_lifecycle::container::{
    Container, ContainerEffect, ContainerEvent, ContainerTraits, Inheritance, KeepExited,
};
use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEffect, ExitRouterEvent};
use executor_lifecycle::process::{
    Inherited, Kill, Process, ProcessEffect, ProcessEvent, ProcessNote, ProcessTraits,
};
use executor_lifecycle::registry::{Registry, RegistryEffect, RegistryEvent};
use executor_lifecycle::{
    ContainerId, Effects, Event, EventKind, Exit, ExitReason, ExitStatus, ProcessId, Refused, Signal,
    Timestamp,
};

use crate::world::{
    Budget, EXITED_ONCE, HELD, ID_FREE, KEPT, KILLS, NO_SIGNAL, NO_STUCK, NOTHING_RUNS, ORDER, RELEASED_ONCE,
    REMEMBERED, Rules, SIZED, STARTED_ONCE, TRUTHFUL,
};
use crate::{CALM, HELD_AT_CREATED, PLAIN, REAL};

type Answer<E> = Result<Effects<E>, Refused>;

/// What is wrong, the rules with it, where it shows, and the rule that it breaks.
pub(crate) type Mutant = (&'static str, Rules, Budget, &'static str);

const USER: Budget = Budget { execs: 1, cancels: 1, stalls: 1, refused_kills: 1, ..CALM };
const HOLDER: Budget = Budget { cancels: 1, stalls: 1, ..HELD_AT_CREATED };
const HUNGRY: Budget = Budget { oom_kills: 1, foreign_kills: 1, execs: 1, ..CALM };
const CRASHING: Budget = Budget { crashes: 1, execs: 1, cancels: 1, ..CALM };
const LOSER: Budget = Budget { dead_containers: 1, execs: 1, ..CALM };

pub(crate) const ALL: [Mutant; 28] = [
    (
        "a cancel that comes before the pid is known is forgotten",
        Rules { process: forgets_early_cancels, ..REAL },
        USER,
        NO_STUCK,
    ),
    ("a runtime that hangs is not given up", Rules { process: never_abandons, ..REAL }, USER, NO_STUCK),
    (
        "an end that comes before anybody asks is dropped",
        Rules { router: drops_early_ends, ..REAL },
        USER,
        NO_STUCK,
    ),
    ("the grace ends without SIGKILL", Rules { process: kills_at_no_deadline, ..REAL }, USER, NO_STUCK),
    ("a kill counts as an end", Rules { process: takes_a_kill_for_an_end, ..REAL }, USER, EXITED_ONCE),
    (
        "a start that is given up counts as ended",
        Rules { process: does_not_wait, ..REAL },
        USER,
        NOTHING_RUNS,
    ),
    ("a cancel after the end kills", Rules { process: kills_the_dead, ..REAL }, USER, NO_SIGNAL),
    ("every end is a SIGKILL", Rules { process: says_137, ..REAL }, USER, TRUTHFUL),
    ("a container's start is not published", Rules { container: hides_starts, ..REAL }, USER, ORDER),
    (
        "a container is released when init ends",
        Rules { container: releases_too_soon, ..REAL },
        USER,
        RELEASED_ONCE,
    ),
    ("what was created is started at once", Rules { container: starts_what_is_held, ..REAL }, HOLDER, HELD),
    (
        "a cancel of what was created waits for the start",
        Rules { process: spares_the_created, ..REAL },
        HOLDER,
        NO_STUCK,
    ),
    (
        "a start that failed leaves alive what was created",
        Rules { process: leaves_the_created, ..REAL },
        HOLDER,
        NOTHING_RUNS,
    ),
    (
        "a start whose init is dead is waited for, for ever",
        Rules { process: never_abandons, ..REAL },
        Budget { stalls: 1, ..HELD_AT_CREATED },
        NO_STUCK,
    ),
    (
        "a size waits for the program",
        Rules { process: keeps_sizes_back, ..REAL },
        Budget { traits: ContainerTraits { has_terminal: true, ..PLAIN }, resizes: 1, ..HELD_AT_CREATED },
        SIZED,
    ),
    (
        "what did not end with init is forgotten",
        Rules { container: forgets_the_rest, ..REAL },
        Budget { traits: ContainerTraits { shares_pids: true, ..PLAIN }, ..CALM },
        NOTHING_RUNS,
    ),
    (
        "what is kept is released at once",
        Rules { container: keeps_nothing, ..REAL },
        Budget { traits: ContainerTraits { keep_exited: KeepExited::UntilRemoved, ..PLAIN }, ..CALM },
        KEPT,
    ),
    ("the id of a lost container stays taken", Rules { registry: keeps_lost_ids, ..REAL }, LOSER, ID_FREE),
    (
        "the exit of a lost container is not published",
        Rules { registry: hides_lost_exits, ..REAL },
        LOSER,
        ORDER,
    ),
    ("the counter of kills decides", Rules { process: believes_the_counter, ..REAL }, HUNGRY, TRUTHFUL),
    (
        "a kill that has not arrived by the exit is not published",
        Rules { container: ignores_usage, ..REAL },
        HUNGRY,
        KILLS,
    ),
    (
        "a kill that arrives late is published again",
        Rules { container: repeats_kills, ..REAL },
        HUNGRY,
        ORDER,
    ),
    (
        "a successor does not look whether a program was executed",
        Rules { adopt: looks_at_nothing, ..REAL },
        CRASHING,
        TRUTHFUL,
    ),
    ("a successor misses the last event", Rules { adopt: misses_the_last_event, ..REAL }, CRASHING, ORDER),
    (
        "a successor does not wait for what runs",
        Rules { adopt_process: does_not_watch, ..REAL },
        CRASHING,
        NO_STUCK,
    ),
    (
        "a successor forgets a cancel",
        Rules { adopt_process: forgets_cancels, ..REAL },
        Budget { refused_kills: 1, ..CRASHING },
        NO_STUCK,
    ),
    (
        "a successor starts again what was interrupted",
        Rules { adopt_process: starts_again, ..REAL },
        CRASHING,
        STARTED_ONCE,
    ),
    ("exits are not remembered", Rules { registry: remembers_nothing, ..REAL }, USER, REMEMBERED),
];

type AdoptedContainer = (Container, Vec<ContainerEffect>, Vec<(ProcessId, Inherited)>);

fn looks_at_nothing(
    now: Timestamp,
    id: ContainerId,
    traits: ContainerTraits,
    left: &Inheritance,
) -> AdoptedContainer {
    Container::adopted(now, id, traits, &Inheritance { executed: BTreeMap::new(), ..left.clone() })
}

fn misses_the_last_event(
    now: Timestamp,
    id: ContainerId,
    traits: ContainerTraits,
    left: &Inheritance,
) -> AdoptedContainer {
    let mut left = left.clone();
    left.events.pop();
    Container::adopted(now, id, traits, &left)
}

type AdoptedProcess = (Process, Effects<ProcessEffect>);

fn does_not_watch(
    now: Timestamp,
    traits: ProcessTraits,
    note: ProcessNote,
    how: Inherited,
) -> AdoptedProcess {
    let (process, effects) = Process::adopted(now, traits, note, how);
    let rest: Vec<_> = effects.into_iter().filter(|effect| *effect != ProcessEffect::Watch).collect();
    (process, rest.into())
}

fn forgets_cancels(now: Timestamp, traits: ProcessTraits, _: ProcessNote, how: Inherited) -> AdoptedProcess {
    Process::adopted(now, traits, ProcessNote::default(), how)
}

fn starts_again(now: Timestamp, traits: ProcessTraits, note: ProcessNote, how: Inherited) -> AdoptedProcess {
    match how {
        Inherited::Interrupted => (Process::new(traits), vec![ProcessEffect::Launch].into()),
        Inherited::Created { .. } | Inherited::Running { .. } => Process::adopted(now, traits, note, how),
    }
}

pub(crate) fn changed<E>(answer: Answer<E>, change: impl FnOnce(&mut Vec<E>)) -> Answer<E> {
    answer.map(|effects| {
        let mut effects: Vec<_> = effects.into_iter().collect();
        change(&mut effects);
        effects.into()
    })
}

fn does_nothing<E>(answer: &Answer<E>) -> bool {
    answer.as_ref().is_ok_and(|effects| effects.as_slice().is_empty())
}

fn forgets_early_cancels(
    process: &mut Process,
    now: Timestamp,
    event: ProcessEvent,
) -> Answer<ProcessEffect> {
    let before = process.clone();
    let cancel = matches!(event, ProcessEvent::Cancel(_));
    let answer = process.step(now, event);
    if cancel && does_nothing(&answer) {
        *process = before;
    }
    answer
}

fn never_abandons(process: &mut Process, now: Timestamp, event: ProcessEvent) -> Answer<ProcessEffect> {
    changed(process.step(now, event), |effects| {
        effects.retain(|effect| *effect != ProcessEffect::AbandonStart)
    })
}

fn kills_at_no_deadline(process: &mut Process, now: Timestamp, event: ProcessEvent) -> Answer<ProcessEffect> {
    let tick = event == ProcessEvent::Tick;
    changed(process.step(now, event), |effects| {
        let kills = |effect: &ProcessEffect| {
            matches!(effect, ProcessEffect::Kill(_) | ProcessEffect::ReportStillAlive)
        };
        effects.retain(|effect| !tick || !kills(effect))
    })
}

fn takes_a_kill_for_an_end(
    process: &mut Process,
    now: Timestamp,
    event: ProcessEvent,
) -> Answer<ProcessEffect> {
    changed(process.step(now, event), |effects| {
        if effects.iter().any(|effect| matches!(effect, ProcessEffect::Kill(_))) {
            effects.push(ProcessEffect::ReportExited(killed(Some(now), now)));
        }
    })
}

fn does_not_wait(process: &mut Process, now: Timestamp, event: ProcessEvent) -> Answer<ProcessEffect> {
    changed(process.step(now, event), |effects| {
        if effects.contains(&ProcessEffect::AbandonStart) {
            effects.push(ProcessEffect::ReportExited(Exit::lost(None, now)));
        }
    })
}

fn kills_the_dead(process: &mut Process, now: Timestamp, event: ProcessEvent) -> Answer<ProcessEffect> {
    let late = process.has_exited() && matches!(event, ProcessEvent::Cancel(_));
    changed(process.step(now, event), |effects| {
        if late {
            effects.push(ProcessEffect::Kill(Kill::default()));
        }
    })
}

fn says_137(process: &mut Process, now: Timestamp, event: ProcessEvent) -> Answer<ProcessEffect> {
    changed(process.step(now, event), |effects| {
        for effect in effects {
            if let ProcessEffect::ReportExited(exit) = effect {
                *exit = killed(exit.started_at, now);
            }
        }
    })
}

fn killed(started_at: Option<Timestamp>, now: Timestamp) -> Exit {
    Exit::new(ExitStatus::Signal(Signal::KILL), ExitReason::Lost, &BTreeSet::new(), started_at, now)
}

fn drops_early_ends(router: &mut ExitRouter, event: ExitRouterEvent) -> Answer<ExitRouterEffect> {
    let before = router.clone();
    let end = matches!(event, ExitRouterEvent::Ended(..));
    let answer = router.step(event);
    if end && does_nothing(&answer) {
        *router = before;
    }
    answer
}

fn hides_starts(container: &mut Container, now: Timestamp, event: ContainerEvent) -> Answer<ContainerEffect> {
    changed(container.step(now, event), |effects| {
        effects.retain(|effect| {
            let ContainerEffect::Publish(event) = effect else { return true };
            !matches!(event.kind, EventKind::Started { .. })
        });
    })
}

fn releases_too_soon(
    container: &mut Container,
    now: Timestamp,
    event: ContainerEvent,
) -> Answer<ContainerEffect> {
    let init = matches!(event, ContainerEvent::ProcessExited { process: ProcessId::Init, .. });
    changed(container.step(now, event), |effects| {
        if init && !effects.contains(&ContainerEffect::Release) {
            effects.push(ContainerEffect::Release);
        }
    })
}

fn starts_what_is_held(
    container: &mut Container,
    now: Timestamp,
    event: ContainerEvent,
) -> Answer<ContainerEffect> {
    let created = matches!(event, ContainerEvent::InitCreated { .. });
    changed(container.step(now, event), |effects| {
        let launch = ContainerEffect::Launch(ProcessId::Init);
        if created && !effects.contains(&launch) {
            effects.push(launch);
        }
    })
}

fn spares_the_created(process: &mut Process, now: Timestamp, event: ProcessEvent) -> Answer<ProcessEffect> {
    let before = process.clone();
    let spared = process.state() == "created" && matches!(event, ProcessEvent::Cancel(_));
    let answer = process.step(now, event);
    if !spared {
        return answer;
    }
    *process = before;
    Ok(Effects::none())
}

fn leaves_the_created(process: &mut Process, now: Timestamp, event: ProcessEvent) -> Answer<ProcessEffect> {
    let failed = matches!(event, ProcessEvent::StartFailed(_));
    let answer = process.step(now, event);
    if !failed || process.state() != "undoing" {
        return answer;
    }
    changed(answer, |effects| *effects = vec![ProcessEffect::ReportExited(Exit::lost(None, now))])
}

fn keeps_sizes_back(process: &mut Process, now: Timestamp, event: ProcessEvent) -> Answer<ProcessEffect> {
    let created = process.state() == "created";
    changed(process.step(now, event), |effects| {
        effects.retain(|effect| !created || !matches!(effect, ProcessEffect::Resize(_)));
    })
}

fn forgets_the_rest(
    container: &mut Container,
    now: Timestamp,
    event: ContainerEvent,
) -> Answer<ContainerEffect> {
    let answer = container.step(now, event);
    let rest = matches!(&answer, Ok(effects) if effects.as_slice().contains(&ContainerEffect::KillRemaining));
    if rest { container.step(now, ContainerEvent::RemainingEnded) } else { answer }
}

fn keeps_nothing(
    container: &mut Container,
    now: Timestamp,
    event: ContainerEvent,
) -> Answer<ContainerEffect> {
    changed(container.step(now, event), |effects| {
        let exited = |effect: &ContainerEffect| matches!(effect, ContainerEffect::Publish(event) if matches!(event.kind, EventKind::Exited { .. }));
        if effects.iter().any(exited) && !effects.contains(&ContainerEffect::Release) {
            effects.push(ContainerEffect::Release);
        }
    })
}

/// As it was before the kernel's log was read.
fn believes_the_counter(
    process: &mut Process,
    now: Timestamp,
    mut event: ProcessEvent,
) -> Answer<ProcessEffect> {
    if let ProcessEvent::Ended(raw) = &mut event {
        raw.oom = None;
    }
    process.step(now, event)
}

fn ignores_usage(
    container: &mut Container,
    now: Timestamp,
    mut event: ContainerEvent,
) -> Answer<ContainerEffect> {
    if let ContainerEvent::ProcessExited { exit, .. } = &mut event {
        exit.usage = None;
    }
    container.step(now, event)
}

fn repeats_kills(
    container: &mut Container,
    now: Timestamp,
    event: ContainerEvent,
) -> Answer<ContainerEffect> {
    let answer = container.step(now, event.clone());
    let (ContainerEvent::OomKilled(kill), Err(_), "running") = (event, &answer, container.state()) else {
        return answer;
    };
    let event = Event::new(1, ContainerId::new("c").expect("an id"), now, EventKind::OutOfMemory(kill));
    Ok(vec![ContainerEffect::Publish(event)].into())
}

fn keeps_lost_ids(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer<RegistryEffect> {
    let before = registry.clone();
    let lost = matches!(event, RegistryEvent::LostReleased(..));
    let answer = registry.step(now, event);
    if lost {
        *registry = before;
    }
    answer
}

fn hides_lost_exits(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer<RegistryEffect> {
    changed(registry.step(now, event), |effects| {
        effects.retain(|effect| {
            let RegistryEffect::Publish(event) = effect else { return true };
            !matches!(event.kind, EventKind::Exited { .. })
        });
    })
}

fn remembers_nothing(
    registry: &mut Registry,
    now: Timestamp,
    event: RegistryEvent,
) -> Answer<RegistryEffect> {
    let released = matches!(event, RegistryEvent::Released(..));
    let answer = registry.step(now, event);
    if released {
        *registry = Registry::default();
    }
    answer
}
