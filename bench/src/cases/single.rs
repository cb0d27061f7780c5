//! What stands for itself: cancels, bytes, the simulator.

use std::process::Command;
use std::time::{Duration, Instant};

use executor_sim::{SimRuntime, Simulation, What};
use longshore::{Cancel, ContainerSpec};
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::{GAP, pause, well};
use crate::Done;
use crate::figures::{Report, Times};
use crate::ground::Side;

pub(super) async fn cancels(side: &Side, report: &mut Report, rounds: usize) -> Done {
    let mut times = Times::default();
    for _ in 0..rounds {
        let container = side.executor.run(side.spec(&["sleep", "1000"])).await?;
        container.started().await?;
        pause(GAP / 4).await;
        let begun = Instant::now();
        container.cancel(Cancel::now()).await;
        times.push(begun.elapsed());
        container.released().await?;
    }
    report.tell_times("runc: cancel to exited", &times, "≤ 2 / ≤ 10 ms");
    Ok(())
}

/// Bytes through stdout, against the same through a pipe between two processes.
pub(super) async fn output(side: &Side, report: &mut Report, rounds: usize) -> Done {
    output_of(side, report, rounds, 64 << 20, "64 MiB").await?;
    output_of(side, report, rounds, 1 << 30, "a gibibyte").await
}

async fn output_of(side: &Side, report: &mut Report, rounds: usize, count: u64, what: &str) -> Done {
    let (mut ours, mut raw) = (Times::default(), Times::default());
    for _ in 0..rounds {
        let spec = side.spec(&["head", "-c", &count.to_string(), "/dev/zero"]).piped();
        let container = side.executor.run(spec).await?;
        let mut stdout = container.io().take_stdout().ok_or("no pipe")?;
        container.started().await?;
        let (begun, mut read, mut buffer) = (Instant::now(), 0, vec![0; 64 << 10]);
        while let bytes @ 1.. = stdout.read(&mut buffer).await? {
            read += bytes as u64;
        }
        ours.push(begun.elapsed());
        well(&container.wait().await)?;
        container.released().await?;
        let begun = Instant::now();
        let plain = format!("head -c {count} /dev/zero | cat >/dev/null");
        let plain = Command::new("sh").arg("-c").arg(plain).status()?;
        raw.push(begun.elapsed());
        if read != count || !plain.success() {
            return Err("bytes are missing".into());
        }
    }
    let rate = |times: &Times| count as f64 / times.median().as_secs_f64() / 1e9;
    let what = format!("{what} through stdout, to a plain pipe between two processes");
    report.compare_rates(&what, rate(&ours), rate(&raw), "GB/s", "≥ 0.9");
    Ok(())
}

/// On a thread of its own: a simulation brings its own runtime.
fn on_the_simulator<T: Send + 'static>(simulate: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    std::thread::spawn(simulate).join().ok()
}

async fn lifecycle(executor: &longshore::Executor) {
    if let Ok(container) = executor.run(ContainerSpec::host(["true"])).await {
        let _stopped = container.released().await;
    }
}

pub(super) fn simulated(report: &mut Report, count: u32) {
    let time = on_the_simulator(move || {
        let begun = Instant::now();
        Simulation::new(SimRuntime::new()).quiet().run(async |sim| {
            for _ in 0..count {
                lifecycle(&sim.executor).await;
            }
        });
        begun.elapsed()
    });
    let messages = on_the_simulator(|| {
        Simulation::new(SimRuntime::new()).run(async |sim| {
            lifecycle(&sim.executor).await;
            sim.records().iter().filter(|record| matches!(record.what, What::Handled { .. })).count()
        })
    });
    let rate = f64::from(count) / time.unwrap_or(Duration::MAX).as_secs_f64();
    let messages = messages.unwrap_or_default();
    let a_second = rate * messages as f64;
    report.figure(
        "simulated lifecycles on one core",
        format!("{rate:.0} /s"),
        json!({"per_second": rate}),
        "≥ 100,000 /s",
    );
    report.figure(
        &format!("messages that actors take meanwhile, {messages} for each"),
        format!("{a_second:.0} /s"),
        json!({"per_second": a_second, "for_each": messages}),
        "–",
    );
}
