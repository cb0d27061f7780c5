//! The real machines with one rule broken, each with what the checker must say of it.

use executor_lifecycle::container::{Container, ContainerEffect, ContainerEvent};
use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEffect, ExitRouterEvent};
use executor_lifecycle::process::{Process, ProcessEffect, ProcessEvent};
use executor_lifecycle::{Effects, EventKind, Exit, ExitStatus, ProcessId, Refused, Signal, Timestamp};

use crate::REAL;
use crate::world::{EXITED_ONCE, NO_SIGNAL, NO_STUCK, NOTHING_RUNS, ORDER, RELEASED_ONCE, Rules, TRUTHFUL};

type Answer<E> = Result<Effects<E>, Refused>;

pub(crate) const ALL: [(&str, Rules, &str); 10] = [
    (
        "a cancel that comes before the pid is known is forgotten",
        Rules { process: forgets_early_cancels, ..REAL },
        NO_STUCK,
    ),
    ("a runtime that hangs is not given up", Rules { process: never_abandons, ..REAL }, NO_STUCK),
    (
        "an end that comes before anybody asks is dropped",
        Rules { reaper: drops_early_ends, ..REAL },
        NO_STUCK,
    ),
    ("the grace ends without SIGKILL", Rules { process: kills_at_no_deadline, ..REAL }, NO_STUCK),
    ("a kill counts as an end", Rules { process: takes_a_kill_for_an_end, ..REAL }, EXITED_ONCE),
    ("a start that is given up counts as ended", Rules { process: does_not_wait, ..REAL }, NOTHING_RUNS),
    ("a cancel after the end kills", Rules { process: kills_the_dead, ..REAL }, NO_SIGNAL),
    ("every end is a SIGKILL", Rules { process: says_137, ..REAL }, TRUTHFUL),
    ("a container's start is not told", Rules { container: hides_starts, ..REAL }, ORDER),
    ("a container is released when init ends", Rules { container: releases_too_soon, ..REAL }, RELEASED_ONCE),
];

fn changed<E>(answer: Answer<E>, change: impl FnOnce(&mut Vec<E>)) -> Answer<E> {
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
        effects.retain(|effect| !tick || *effect != ProcessEffect::Kill)
    })
}

fn takes_a_kill_for_an_end(
    process: &mut Process,
    now: Timestamp,
    event: ProcessEvent,
) -> Answer<ProcessEffect> {
    changed(process.step(now, event), |effects| {
        if effects.contains(&ProcessEffect::Kill) {
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
            effects.push(ProcessEffect::Kill);
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
    Exit { status: ExitStatus::Signal(Signal::KILL), ..Exit::lost(started_at, now) }
}

fn drops_early_ends(reaper: &mut ExitRouter, event: ExitRouterEvent) -> Answer<ExitRouterEffect> {
    let before = reaper.clone();
    let end = matches!(event, ExitRouterEvent::Ended(..));
    let answer = reaper.step(event);
    if end && does_nothing(&answer) {
        *reaper = before;
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
