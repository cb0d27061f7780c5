//! The real registry with one rule broken, each with what the checker must say of it.

use executor_lifecycle::registry::{
    PoolId, Registry, RegistryEffect, RegistryEvent, RequestToken, RunRequest, StartOutcome,
};
use executor_lifecycle::{Effects, Exit, Refusal, Refused, Timestamp};

use super::world::{
    ANSWERED_ONCE, Budget, DRAINED, DROPPED, FALLBACK, GIVEN_ONCE, ID_TAKEN, LATE, NOT_MORE, NOTHING_NEW,
    Step, TOO_SOON, UNCHANGED, VISIBLE, released,
};
use super::{CALM, NAMED};
use crate::mutants::changed;
use crate::world::{NO_STUCK, REMEMBERED};

type Answer = Result<Effects<RegistryEffect>, Refused>;

/// What is wrong, the step with it, where it shows, and the rule that it breaks.
pub(super) type Mutant = (&'static str, Step, Budget, &'static str);

const DEATH: Budget = Budget { failures: 1, ..CALM };
const ENDS: Budget = Budget { drains: 1, shutdowns: 1, ..CALM };

pub(super) const ALL: [Mutant; 21] = [
    (
        "an id is registered again while it is taken",
        registers_taken_ids,
        Budget { wanted: &[NAMED, NAMED], ..CALM },
        ID_TAKEN,
    ),
    ("an id is free once its actor is lost", frees_too_early, Budget { lost: 1, ..CALM }, VISIBLE),
    ("a retry loses its request", forgets_retries, DEATH, NO_STUCK),
    ("a run is tried again with what was dead", gives_the_dead_again, DEATH, GIVEN_ONCE),
    ("a run that is not waited for is tried again", retries_unclaimed, Budget { drops: 1, ..DEATH }, DROPPED),
    ("a run that is not waited for goes on", ignores_unclaimed, Budget { drops: 1, ..CALM }, DROPPED),
    ("a run is answered with what was dead", answers_with_the_dead, DEATH, FALLBACK),
    ("a run is answered with what was released first", answers_with_the_released, DEATH, FALLBACK),
    (
        "what was dead is kept, and nobody sees it",
        keeps_the_dead,
        Budget { keep_exited: true, ..DEATH },
        NO_STUCK,
    ),
    ("an answer is given twice", answers_twice, CALM, ANSWERED_ONCE),
    ("what was given is not answered", answers_nothing, CALM, NO_STUCK),
    ("one more is kept ready", keeps_one_more, CALM, NOT_MORE),
    ("what was given is not replaced", replaces_nothing, CALM, NO_STUCK),
    ("a pool is filled while it drains", fills_while_draining, ENDS, NOTHING_NEW),
    ("a drain leaves what is ready", leaves_what_is_ready, ENDS, NOT_MORE),
    ("a shutdown forgets what is kept ready", forgets_what_is_ready, Budget { drains: 0, ..ENDS }, NOT_MORE),
    ("a drain is over at once", drains_at_once, ENDS, DRAINED),
    ("a shutdown is over at once", stops_at_once, ENDS, TOO_SOON),
    ("a shutdown names nothing that is left", names_nothing, ENDS, LATE),
    (
        "a run that is refused takes from the pool",
        takes_when_refused,
        Budget { wanted: &[NAMED, NAMED], ..CALM },
        UNCHANGED,
    ),
    ("what was never seen is remembered", remembers_the_unseen, DEATH, REMEMBERED),
];

fn registers_taken_ids(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let RegistryEvent::Run(RunRequest { token, id, hold, .. }) = event.clone() else {
        return registry.step(now, event);
    };
    match registry.step(now, event) {
        Err(Refused { reason: Refusal::IdTaken, .. }) => {
            Ok(vec![RegistryEffect::Register { id, token, hold }].into())
        }
        answer => answer,
    }
}

fn frees_too_early(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let lost = if let RegistryEvent::Lost(id) = &event { Some(id.clone()) } else { None };
    let answer = registry.step(now, event);
    if let Some(id) = lost {
        let _ignored = registry.step(now, RegistryEvent::Released(released(id), Exit::lost(None, now)));
    }
    answer
}

fn forgets_retries(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    without(registry.step(now, event), |effect| matches!(effect, RegistryEffect::Retry(_)))
}

fn gives_the_dead_again(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let given = if let RegistryEvent::GivenStarted(id, _) = &event { Some(id.clone()) } else { None };
    changed(registry.step(now, event), |effects| {
        for effect in effects {
            if let (RegistryEffect::Retry(token), Some(id)) = (&*effect, &given) {
                *effect = RegistryEffect::Give(id.clone(), *token);
            }
        }
    })
}

/// The container is cancelled, and that is all.
fn retries_unclaimed(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let before = registry.clone();
    let unclaimed = matches!(event, RegistryEvent::Unclaimed(_));
    let answer = registry.step(now, event);
    if unclaimed {
        *registry = before;
    }
    answer
}

fn ignores_unclaimed(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let unclaimed = matches!(event, RegistryEvent::Unclaimed(_));
    without(registry.step(now, event), |effect| unclaimed && matches!(effect, RegistryEffect::End(..)))
}

fn answers_with_the_dead(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    if let RegistryEvent::GivenStarted(id, StartOutcome::NeverStarted) = event {
        return registry.step(now, RegistryEvent::GivenStarted(id, StartOutcome::Cancelled));
    }
    registry.step(now, event)
}

fn answers_with_the_released(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let RegistryEvent::Released(last, _) = &event else { return registry.step(now, event) };
    let outcome =
        registry.step(now, RegistryEvent::GivenStarted(last.container.clone(), StartOutcome::Cancelled));
    changed(registry.step(now, event), |effects| {
        effects.splice(0..0, outcome.into_iter().flatten());
    })
}

fn keeps_the_dead(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let outcome = matches!(event, RegistryEvent::GivenStarted(..));
    without(registry.step(now, event), |effect| outcome && matches!(effect, RegistryEffect::End(..)))
}

fn answers_twice(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    changed(registry.step(now, event), |effects| {
        let answers = effects.iter().filter(|effect| matches!(effect, RegistryEffect::Answer(..)));
        let again: Vec<_> = answers.cloned().collect();
        effects.extend(again);
    })
}

fn answers_nothing(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let began = matches!(event, RegistryEvent::GivenStarted(_, StartOutcome::Started));
    if began { Ok(Effects::none()) } else { registry.step(now, event) }
}

fn keeps_one_more(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    if let RegistryEvent::KeepReady(pool, count) = event {
        return registry.step(now, RegistryEvent::KeepReady(pool, count + 1));
    }
    registry.step(now, event)
}

fn replaces_nothing(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let over = matches!(event, RegistryEvent::FirstMomentsOver(_));
    without(registry.step(now, event), |effect| over && matches!(effect, RegistryEffect::Make(_)))
}

fn fills_while_draining(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    changed(registry.step(now, event), |effects| {
        let changes = effects.contains(&RegistryEffect::PoolChanged(PoolId(1)));
        if changes && registry.state() == "draining" {
            effects.push(RegistryEffect::Make(PoolId(1)));
        }
    })
}

fn leaves_what_is_ready(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let drain = event == RegistryEvent::Drain;
    without(registry.step(now, event), |effect| drain && matches!(effect, RegistryEffect::End(..)))
}

fn forgets_what_is_ready(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let shutdown = matches!(event, RegistryEvent::Shutdown(..));
    let visible: Vec<_> = registry.visible().cloned().collect();
    without(
        registry.step(now, event),
        |effect| matches!(effect, RegistryEffect::End(id, _) if shutdown && !visible.contains(id)),
    )
}

fn drains_at_once(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let drain = event == RegistryEvent::Drain;
    changed(registry.step(now, event), |effects| {
        if drain && !effects.contains(&RegistryEffect::Drained) {
            effects.push(RegistryEffect::Drained);
        }
    })
}

fn stops_at_once(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let shutdown = matches!(event, RegistryEvent::Shutdown(..));
    changed(registry.step(now, event), |effects| {
        if shutdown {
            effects.extend(registry.step(now, RegistryEvent::DeadlinePassed).into_iter().flatten());
        }
    })
}

fn names_nothing(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    changed(registry.step(now, event), |effects| {
        for effect in effects {
            if let RegistryEffect::Stop(late) = effect {
                late.clear();
            }
        }
    })
}

fn takes_when_refused(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let run = matches!(event, RegistryEvent::Run(_));
    let answer = registry.step(now, event);
    if run && answer.is_err() {
        let _ignored = registry.step(now, RegistryEvent::KeepReady(PoolId(1), 2));
    }
    answer
}

/// As if a caller had run it.
fn remembers_the_unseen(registry: &mut Registry, now: Timestamp, event: RegistryEvent) -> Answer {
    let visible: Vec<_> = registry.visible().cloned().collect();
    let answer = registry.step(now, event.clone());
    if let RegistryEvent::Released(last, exit) = event
        && !visible.contains(&last.container)
    {
        let id = last.container.clone();
        let run = RunRequest { token: RequestToken(9), id, pool: None, hold: false };
        let _ignored = registry.step(now, RegistryEvent::Run(run));
        let _ignored = registry.step(now, RegistryEvent::Released(last, exit));
    }
    answer
}

fn without(answer: Answer, is_dropped: impl Fn(&RegistryEffect) -> bool) -> Answer {
    changed(answer, |effects| effects.retain(|effect| !is_dropped(effect)))
}
