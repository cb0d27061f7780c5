//! Runs: how long one takes, how many there are a second.

use std::time::{Duration, Instant};

use futures::future::join_all;
use longshore::ContainerSpec;

use super::{BLOCK, GAP, cpu_time, end, pause, run};
use crate::Done;
use crate::figures::{Report, Times};
use crate::ground::Side;
use crate::raw::Bundle;

/// Times of both sides, and what they took of the processors for each run.
#[derive(Default)]
struct Both {
    ours: Times,
    raw: Times,
    our_cpu: Duration,
    raw_cpu: Duration,
}

pub(super) async fn in_turns(
    side: &Side,
    spec: &ContainerSpec,
    bundle: &Bundle,
    gap: Duration,
    rounds: usize,
) -> Done<(Times, Times)> {
    let (mut ours, mut raw) = (Times::default(), Times::default());
    for round in 0..rounds {
        let (time, container) = run(side, spec).await?;
        ours.push(time);
        container.released().await?;
        pause(gap).await;
        raw.push(bundle.run(round)?);
        pause(gap).await;
    }
    Ok((ours, raw))
}

async fn back_to_back(side: &Side, spec: &ContainerSpec, bundle: &Bundle, rounds: usize) -> Done<Both> {
    let mut both = Both::default();
    let blocks = rounds.div_ceil(BLOCK - 1).max(2);
    for _ in 0..blocks {
        let before = cpu_time();
        for number in 0..BLOCK {
            let (time, container) = run(side, spec).await?;
            container.released().await?;
            if number > 0 {
                both.ours.push(time);
            }
        }
        let between = cpu_time();
        for number in 0..BLOCK {
            let time = bundle.run(number)?;
            if number > 0 {
                both.raw.push(time);
            }
        }
        both.our_cpu += between - before;
        both.raw_cpu += cpu_time() - between;
    }
    let runs = u32::try_from(blocks * BLOCK)?;
    both.our_cpu /= runs;
    both.raw_cpu /= runs;
    Ok(both)
}

pub(super) async fn runs(side: &Side, report: &mut Report, rounds: usize) -> Done {
    let name = side.name;
    engines(side, report, rounds).await?;
    let target = |ratio| if name == "runc" { ratio } else { "–" };
    let full = side.spec(&["true"]);
    let bundle = side.bundle("full", &full)?;
    let (ours, raw) = in_turns(side, &full, &bundle, GAP, rounds).await?;
    report.compare(
        &format!("{name}: run of `true`, request to exit, with idle gaps"),
        &ours,
        &raw,
        target("≤ 0.70"),
    );
    let Both { ours, raw, our_cpu, raw_cpu } = back_to_back(side, &full, &bundle, rounds).await?;
    report.compare(&format!("{name}: the same back to back"), &ours, &raw, target("≤ 0.95"));
    report.compare_single(
        &format!("{name}: processor time of a run, runtime and container included"),
        our_cpu,
        raw_cpu,
    );
    let minimal = side.minimal(&["true"]);
    let bundle = side.bundle("minimal", &minimal)?;
    let (ours, raw) = in_turns(side, &minimal, &bundle, GAP, rounds).await?;
    report.compare(&format!("{name}: minimal run (no filter), with idle gaps"), &ours, &raw, "–");
    let Both { ours, raw, .. } = back_to_back(side, &minimal, &bundle, rounds).await?;
    report.compare(&format!("{name}: minimal run, back to back"), &ours, &raw, "–");
    Ok(())
}

/// Against a bare runtime with the filter that container engines give it, which is what people have.
async fn engines(side: &Side, report: &mut Report, rounds: usize) -> Done {
    let full = side.spec(&["true"]);
    let bundle = side.bundle_of_engines("engines", &full)?;
    let (ours, raw) = in_turns(side, &full, &bundle, GAP, rounds).await?;
    report.compare(
        &format!("{}, with the filter as engines write it: run of `true`, with idle gaps", side.name),
        &ours,
        &raw,
        "–",
    );
    let Both { ours, raw, .. } = back_to_back(side, &full, &bundle, rounds).await?;
    report.compare(&format!("{}, with that filter: the same back to back", side.name), &ours, &raw, "–");
    Ok(())
}

/// From the request to the start, against `run --detach`.
pub(super) async fn started(side: &Side, report: &mut Report, rounds: usize) -> Done {
    let sleeper = side.spec(&["sleep", "1000"]);
    let bundle = side.bundle("started", &sleeper)?;
    let (mut ours, mut raw) = (Times::default(), Times::default());
    for _ in 0..rounds {
        let begun = Instant::now();
        let container = side.executor.run(sleeper.clone()).await?;
        container.started().await?;
        ours.push(begun.elapsed());
        end(&container).await?;
        pause(GAP).await;
        raw.push(bundle.start()?);
        bundle.end()?;
        pause(GAP).await;
    }
    report.compare("runc: request to started, with idle gaps", &ours, &raw, "–");
    Ok(())
}

/// Ready containers, against `start` of what was created by hand.
pub(super) async fn ready(side: &Side, report: &mut Report, rounds: usize) -> Done {
    let spec = side.spec(&["true"]);
    let bundle = side.bundle("ready", &spec)?;
    side.executor.prepare(spec.clone(), 2).await?;
    let (mut idle, mut busy, mut raw) = (Times::default(), Times::default(), Times::default());
    for (ours, gap) in [(&mut idle, GAP), (&mut busy, Duration::ZERO)] {
        for _ in 0..rounds {
            let (time, container) = run(side, &spec).await?;
            ours.push(time);
            container.released().await?;
            // Until there are two again.
            side.executor.prepare(spec.clone(), 2).await?;
            pause(gap).await;
            if !gap.is_zero() {
                raw.push(bundle.create_and_start()?);
                pause(gap).await;
            }
        }
    }
    side.executor.prepare(spec, 0).await?;
    let target = if side.name == "runc" { "≤ 2.5 ms" } else { "–" };
    let what = format!("{}: start to exit of `true` that is ready, with idle gaps", side.name);
    report.compare(&what, &idle, &raw, target);
    report.tell_times(&format!("{}: the same, as soon as the next is ready", side.name), &busy, target);
    Ok(())
}

pub(super) async fn throughput(side: &Side, report: &mut Report, quick: bool) -> Done {
    let spec = side.spec(&["true"]);
    let each = if quick { 6 } else { 20 };
    for at_once in [1, 2, 4, 8, 16] {
        let bundles =
            || (0..at_once).map(|number| side.bundle(&format!("at-once-{number}"), &spec)).collect();
        let (ours, raw) = rates(side, &spec, bundles, at_once, each).await?;
        let target = if at_once == 4 && side.name == "runc" { "≥ 1.10" } else { "–" };
        report.compare_rates(&format!("{}: runs at {at_once} at once", side.name), ours, raw, "/s", target);
    }
    let bundles =
        || (0..4).map(|number| side.bundle_of_engines(&format!("engines-{number}"), &spec)).collect();
    let (ours, raw) = rates(side, &spec, bundles, 4, each).await?;
    let what = format!("{}, with the filter as engines write it: runs at 4 at once", side.name);
    report.compare_rates(&what, ours, raw, "/s", "–");
    Ok(())
}

/// Runs a second on both sides; twice each, in turns.
async fn rates(
    side: &Side,
    spec: &ContainerSpec,
    bundles: impl Fn() -> Done<Vec<Bundle>>,
    at_once: usize,
    each: usize,
) -> Done<(f64, f64)> {
    let (mut ours, mut raw) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..2 {
        let begun = Instant::now();
        let workers = (0..at_once).map(|_| async {
            for _ in 0..each {
                run(side, spec).await?.1.released().await?;
            }
            Done::Ok(())
        });
        join_all(workers).await.into_iter().collect::<Done>()?;
        ours += begun.elapsed();
        let bundles = bundles()?;
        let begun = Instant::now();
        raw_at_once(bundles, each)?;
        raw += begun.elapsed();
    }
    let count = (2 * at_once * each) as f64;
    Ok((count / ours.as_secs_f64(), count / raw.as_secs_f64()))
}

fn raw_at_once(bundles: Vec<Bundle>, each: usize) -> Done {
    let failed = std::thread::scope(|scope| {
        let work = |bundle: Bundle| {
            move || {
                (0..each)
                    .try_for_each(|number| bundle.run(number).map(drop))
                    .map_err(|error| error.to_string())
            }
        };
        let workers: Vec<_> = bundles.into_iter().map(|bundle| scope.spawn(work(bundle))).collect();
        workers.into_iter().find_map(|worker| worker.join().ok().and_then(Result::err))
    });
    failed.map_or(Ok(()), |why| Err(why.into()))
}
