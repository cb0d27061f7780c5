//! What is measured. Both sides take turns, so that a machine that slows down slows both.

use std::time::{Duration, Instant};

use executor_sim::{SimRuntime, Simulation};
use futures::future::join_all;
use longshore::{Cancel, ContainerHandle, ContainerSpec, ExecSpec, Exit};
use serde_json::json;

use crate::figures::{Report, Times};
use crate::ground::{Bundle, Ground};
use crate::{Done, OURS};

/// Between measurements with idle gaps: longer than the kernel stays warm.
const GAP: Duration = Duration::from_millis(120);

pub(crate) async fn all(ground: &Ground, quick: bool) -> Done<Report> {
    let mut report = Report::default();
    let rounds = if quick { 20 } else { 100 };
    // First: later the heap has room to spare.
    sleepers(ground, &mut report, if quick { 50 } else { 200 }).await?;
    runs(ground, &mut report, rounds).await?;
    throughput(ground, &mut report, quick).await?;
    execs(ground, &mut report, rounds).await?;
    cancels(ground, &mut report, rounds).await?;
    if !quick {
        thousand(ground, &mut report).await?;
    }
    output(ground, &mut report).await?;
    curve(ground, &mut report, quick).await?;
    simulated(&mut report, if quick { 5_000 } else { 50_000 });
    Ok(report)
}

async fn pause(gap: Duration) {
    if !gap.is_zero() {
        tokio::time::sleep(gap).await;
    }
}

fn well(exit: &Exit) -> Done {
    if exit.is_success() { Ok(()) } else { Err(format!("{OURS}: {exit}").into()) }
}

/// From the request to the exit.
async fn run(ground: &Ground, spec: &ContainerSpec) -> Done<(Duration, ContainerHandle)> {
    let begun = Instant::now();
    let container = ground.executor.run(spec.clone()).await?;
    let exit = container.wait().await;
    let time = begun.elapsed();
    well(&exit)?;
    Ok((time, container))
}

async fn runs_of(
    ground: &Ground,
    spec: &ContainerSpec,
    bundle: &Bundle,
    gap: Duration,
    rounds: usize,
) -> Done<(Times, Times)> {
    let (mut ours, mut raw) = (Times::default(), Times::default());
    for round in 0..rounds {
        let (time, container) = run(ground, spec).await?;
        ours.push(time);
        container.released().await?;
        pause(gap).await;
        raw.push(bundle.run(round)?);
        pause(gap).await;
    }
    Ok((ours, raw))
}

async fn runs(ground: &Ground, report: &mut Report, rounds: usize) -> Done {
    Report::begin("runs of true");
    let full = ground.spec(&["true"]);
    let bundle = ground.bundle("full", &full)?;
    let (ours, raw) = runs_of(ground, &full, &bundle, GAP, rounds).await?;
    report.compare("run of `true`, request to exit, with idle gaps", &ours, &raw, "≤ 0.70");
    let (ours, raw) = runs_of(ground, &full, &bundle, Duration::ZERO, rounds).await?;
    report.compare("the same back to back", &ours, &raw, "≤ 0.95");
    let minimal = ground.minimal(&["true"]);
    let bundle = ground.bundle("minimal", &minimal)?;
    let (ours, raw) = runs_of(ground, &minimal, &bundle, GAP, rounds).await?;
    report.compare("the same without a seccomp filter, with idle gaps", &ours, &raw, "–");
    Ok(())
}

async fn throughput(ground: &Ground, report: &mut Report, quick: bool) -> Done {
    let spec = ground.spec(&["true"]);
    let each = if quick { 8 } else { 25 };
    for at_once in [1, 2, 4, 8, 16] {
        Report::begin(&format!("throughput at {at_once} at once"));
        let begun = Instant::now();
        let workers = (0..at_once).map(|_| async {
            for _ in 0..each {
                run(ground, &spec).await?.1.released().await?;
            }
            Done::Ok(())
        });
        join_all(workers).await.into_iter().collect::<Done>()?;
        let count = f64::from(at_once * each);
        let ours = count / begun.elapsed().as_secs_f64();
        let bundles = (0..at_once)
            .map(|number| ground.bundle(&format!("at-once-{number}"), &spec))
            .collect::<Done<Vec<_>>>()?;
        let begun = Instant::now();
        let failed = std::thread::scope(|scope| {
            let work = |bundle: Bundle| {
                move || {
                    (0..each as usize)
                        .try_for_each(|number| bundle.run(number).map(drop))
                        .map_err(|error| error.to_string())
                }
            };
            let workers: Vec<_> = bundles.into_iter().map(|bundle| scope.spawn(work(bundle))).collect();
            workers.into_iter().find_map(|worker| worker.join().ok().and_then(Result::err))
        });
        if let Some(why) = failed {
            return Err(why.into());
        }
        let raw = count / begun.elapsed().as_secs_f64();
        let target = if at_once == 4 { "≥ 1.10" } else { "–" };
        report.compare_rates(&format!("runs at {at_once} at once"), ours, raw, "/s", target);
    }
    Ok(())
}

async fn exec(container: &ContainerHandle) -> Done<Duration> {
    let begun = Instant::now();
    well(&container.exec(ExecSpec::new(["true"])).await?.wait().await)?;
    Ok(begun.elapsed())
}

async fn execs(ground: &Ground, report: &mut Report, rounds: usize) -> Done {
    Report::begin("execs");
    let sleeper = ground.spec(&["sleep", "1000"]);
    let bundle = ground.bundle("execs", &sleeper)?;
    bundle.start()?;
    let container = ground.executor.run(sleeper.clone()).await?;
    container.started().await?;
    let (mut ours, mut raw) = (Times::default(), Times::default());
    for _ in 0..rounds {
        ours.push(exec(&container).await?);
        pause(GAP).await;
        raw.push(bundle.exec(&["true"])?);
        pause(GAP).await;
    }
    report.compare("exec of `true` with idle gaps", &ours, &raw, "≤ 0.60");
    bundle.end()?;

    // Asked for together, against one after the other.
    let (mut together, mut apart) = (Times::default(), Times::default());
    for _ in 0..rounds {
        let begun = Instant::now();
        let container = ground.executor.run(sleeper.clone()).await?;
        well(&container.exec(ExecSpec::new(["true"])).await?.wait().await)?;
        together.push(begun.elapsed());
        end(&container).await?;
        pause(GAP).await;
        let begun = Instant::now();
        let container = ground.executor.run(sleeper.clone()).await?;
        container.started().await?;
        let started = begun.elapsed();
        pause(GAP).await;
        apart.push(started + exec(&container).await?);
        end(&container).await?;
        pause(GAP).await;
    }
    report.compare("exec asked for together with run, to run + exec of ours", &together, &apart, "≤ 1.1");
    end(&container).await
}

async fn end(container: &ContainerHandle) -> Done {
    container.cancel(Cancel::now()).await;
    container.released().await?;
    Ok(())
}

async fn cancels(ground: &Ground, report: &mut Report, rounds: usize) -> Done {
    Report::begin("cancels");
    let mut times = Times::default();
    for _ in 0..rounds {
        let container = ground.executor.run(ground.spec(&["sleep", "1000"])).await?;
        container.started().await?;
        pause(GAP / 4).await;
        let begun = Instant::now();
        container.cancel(Cancel::now()).await;
        times.push(begun.elapsed());
        container.released().await?;
    }
    let (p50, p99) = (times.median().as_secs_f64() * 1e3, times.percentile(99).as_secs_f64() * 1e3);
    report.tell(
        "cancel to exited, p50 / p99",
        format!("{p50:.2} / {p99:.2} ms"),
        json!({"p50_ms": p50, "p99_ms": p99}),
        "≤ 2 / ≤ 10 ms",
    );
    Ok(())
}

/// What this process has of memory for itself, in bytes: its share of what it has in common with others included.
fn own_memory() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

async fn up(ground: &Ground, count: usize) -> Done<Vec<ContainerHandle>> {
    let spec = ground.spec(&["sleep", "100000"]);
    let mut all = Vec::new();
    for _ in 0..count.div_ceil(8) {
        let runs = (0..8.min(count - all.len())).map(|_| ground.executor.run(spec.clone()));
        let some = join_all(runs).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        for container in &some {
            container.started().await?;
        }
        all.extend(some);
    }
    Ok(all)
}

async fn sleepers(ground: &Ground, report: &mut Report, count: usize) -> Done {
    Report::begin(&format!("memory of {count} sleepers"));
    // What the first ones bring along for good.
    join_all(up(ground, 8).await?.iter().map(end)).await.into_iter().collect::<Done>()?;
    let before = own_memory();
    let all = up(ground, count).await?;
    let each = own_memory().saturating_sub(before) as f64 / count as f64 / 1024.0;
    report.tell(
        "our memory per sleeping container; no other process of ours is there",
        format!("{each:.1} KiB"),
        json!({"kib": each, "containers": count}),
        "≤ 16 KiB",
    );
    join_all(all.iter().map(end)).await.into_iter().collect()
}

async fn thousand(ground: &Ground, report: &mut Report) -> Done {
    Report::begin("a thousand sleepers");
    let begun = Instant::now();
    let all = up(ground, 1000).await?;
    let up = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    join_all(all.iter().map(end)).await.into_iter().collect::<Done>()?;
    let down = begun.elapsed().as_secs_f64();
    let left = ground.executor.list().await?.len();
    report.tell(
        "1,000 sleepers up / all cancelled and released",
        format!("{up:.1} / {down:.1} s, {left} left"),
        json!({"up_s": up, "down_s": down, "left": left}),
        "≤ 20 / ≤ 4 s, 0 left",
    );
    Ok(())
}

/// A gibibyte through stdout, against the same through a pipe between two processes.
async fn output(ground: &Ground, report: &mut Report) -> Done {
    Report::begin("a gibibyte through stdout");
    let count = 1_u64 << 30;
    let begun = Instant::now();
    let container =
        ground.executor.run(ground.spec(&["head", "-c", &count.to_string(), "/dev/zero"]).piped()).await?;
    let mut stdout = container.io().take_stdout().ok_or("no pipe")?;
    let mut read = 0;
    while let Some(chunk) = stdout.next_chunk().await {
        read += chunk.len() as u64;
    }
    let ours = read as f64 / begun.elapsed().as_secs_f64() / 1e9;
    well(&container.wait().await)?;
    let begun = Instant::now();
    let plain = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("head -c {count} /dev/zero | cat >/dev/null"))
        .status()?;
    let raw = count as f64 / begun.elapsed().as_secs_f64() / 1e9;
    if read != count || !plain.success() {
        return Err("bytes are missing".into());
    }
    report.compare_rates("stdout, to a plain pipe between two processes", ours, raw, "GB/s", "≥ 0.8");
    Ok(())
}

async fn curve(ground: &Ground, report: &mut Report, quick: bool) -> Done {
    let spec = ground.spec(&["true"]);
    let bundle = ground.bundle("curve", &spec)?;
    let mut running = Vec::new();
    for count in if quick { vec![0, 20, 50] } else { vec![0, 25, 50, 100, 200, 400] } {
        Report::begin(&format!("latency with {count} running"));
        running.extend(up(ground, count - running.len()).await?);
        let (ours, raw) = runs_of(ground, &spec, &bundle, GAP / 2, if quick { 8 } else { 20 }).await?;
        report.curve.push((count, ours.median(), raw.median()));
    }
    join_all(running.iter().map(end)).await.into_iter().collect()
}

fn simulated(report: &mut Report, count: u32) {
    Report::begin("simulated lifecycles");
    let begun = Instant::now();
    // A simulation brings its own runtime.
    let simulate = move || {
        Simulation::new(SimRuntime::new()).run(async |sim| {
            for _ in 0..count {
                let container = sim.executor.run(ContainerSpec::host(["true"])).await.ok();
                if let Some(container) = container {
                    let _stopped = container.released().await;
                }
            }
        });
    };
    let _panicked = std::thread::spawn(simulate).join();
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    report.tell(
        "simulated lifecycles on one core",
        format!("{rate:.0} /s"),
        json!({"per_second": rate}),
        "≥ 100,000 /s",
    );
}
