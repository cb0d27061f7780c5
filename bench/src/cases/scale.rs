//! Many containers: what they take, how long they take, and what they cost the next one.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use longshore::ContainerHandle;
use serde_json::{Value, json};

use super::run::in_turns;
use super::{GAP, end};
use crate::Done;
use crate::figures::Report;
use crate::ground::Side;

/// What a process has of memory for itself, in bytes, its share of what it has in common with others included.
fn memory_of(process: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn entries(dir: &str) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Eight at a time.
async fn up(side: &Side, count: usize) -> Done<Vec<ContainerHandle>> {
    let spec = side.spec(&["sleep", "100000"]);
    let mut all = Vec::new();
    while all.len() < count {
        let runs = (0..8.min(count - all.len())).map(|_| side.executor.run(spec.clone()));
        let some = join_all(runs).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        for container in &some {
            container.started().await?;
        }
        all.extend(some);
    }
    Ok(all)
}

async fn down(all: &[ContainerHandle]) -> Done {
    join_all(all.iter().map(end)).await.into_iter().collect()
}

/// In a process of its own, whose heap nothing else has grown: what so many sleepers take.
pub(crate) async fn sleepers(side: &Side, count: usize) -> Done<Value> {
    // What the first ones bring along for good.
    down(&up(side, 8).await?).await?;
    let (before, threads, files) = (memory_of("self"), entries("/proc/self/task"), entries("/proc/self/fd"));
    let begun = Instant::now();
    let all = up(side, count).await?;
    let up = begun.elapsed().as_secs_f64();
    // Threads that were needed for the start are gone after a while.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let each = memory_of("self").saturating_sub(before) as f64 / count as f64 / 1024.0;
    let told = json!({
        "containers": count,
        "kib": each,
        "threads_more": entries("/proc/self/task") as i64 - threads as i64,
        "files_more": entries("/proc/self/fd") as i64 - files as i64,
        "up_s": up,
    });
    let begun = Instant::now();
    down(&all).await?;
    let down = begun.elapsed().as_secs_f64();
    let left = side.executor.list().await?.len();
    let mut told = told;
    told["down_s"] = json!(down);
    told["left"] = json!(left);
    Ok(told)
}

/// Ours from a process that does nothing else; the runtime's from those that stay as monitors of `run`.
pub(super) fn memory(side: &Side, report: &mut Report, quick: bool) -> Done {
    let counts: &[usize] = if quick { &[50] } else { &[200, 2000] };
    let monitors = monitors(side, if quick { 20 } else { 200 })?;
    for &count in counts {
        let child = Command::new(std::env::current_exe()?)
            .args(["--sleepers", &count.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let told: Value = serde_json::from_slice(&child.stdout)?;
        let number = |name: &str| told[name].as_f64().unwrap_or(f64::NAN);
        report.figure_beside(
            &format!("memory per sleeping container, of {count}, all processes of ours counted; of the runtime's monitors"),
            format!("{:.1} KiB", number("kib")),
            format!("{:.0} KiB", monitors / 1024.0),
            told.clone(),
            "≤ 16 KiB",
        );
        report.figure(
            &format!("{count} sleepers in one process: up / down, threads and files more than before"),
            format!(
                "{:.1} / {:.1} s, {} and {}, {} left",
                number("up_s"),
                number("down_s"),
                told["threads_more"],
                told["files_more"],
                told["left"]
            ),
            told.clone(),
            "–",
        );
    }
    Ok(())
}

/// Bytes of one monitor among so many.
fn monitors(side: &Side, count: usize) -> Done<f64> {
    let bundles =
        (0..count).map(|number| side.bundle(&format!("monitor-{number}"), &side.spec(&["sleep", "100000"])));
    let bundles = bundles.collect::<Done<Vec<_>>>()?;
    let mut children = Vec::new();
    for bundle in &bundles {
        children.push(bundle.monitor(0)?);
        std::thread::sleep(Duration::from_millis(60));
    }
    std::thread::sleep(Duration::from_secs(2));
    let all: u64 = children.iter().map(|child| memory_of(&child.id().to_string())).sum();
    for (bundle, child) in bundles.iter().zip(&mut children) {
        bundle.end_one(0)?;
        child.wait()?;
    }
    Ok(all as f64 / count as f64)
}

pub(super) async fn thousand(side: &Side, report: &mut Report) -> Done {
    let begun = Instant::now();
    let all = up(side, 1000).await?;
    let up = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    down(&all).await?;
    let down = begun.elapsed().as_secs_f64();
    let left = side.executor.list().await?.len();
    report.figure(
        "1,000 sleepers up / all cancelled and released",
        format!("{up:.1} / {down:.1} s, {left} left"),
        json!({"up_s": up, "down_s": down, "left": left}),
        "≤ 20 / ≤ 4 s, 0 left",
    );
    Ok(())
}

pub(super) async fn curve(side: &Side, report: &mut Report, quick: bool) -> Done {
    let spec = side.spec(&["true"]);
    let bundle = side.bundle("curve", &spec)?;
    let mut running = Vec::new();
    let counts: &[usize] = if quick { &[0, 20, 50] } else { &[0, 25, 50, 100, 200, 400] };
    for &count in counts {
        running.extend(up(side, count - running.len()).await?);
        let (ours, raw) = in_turns(side, &spec, &bundle, GAP, if quick { 8 } else { 20 }).await?;
        report.curve.push((count, ours.median(), raw.median()));
    }
    down(&running).await
}
