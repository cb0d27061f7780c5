//! What is measured. The sides take turns, so that a machine that slows down slows all.
//!
//! With idle gaps they do so for each call. Back to back they do so in blocks, the first of which does not count: a call
//! right after one of the other side finds the kernel as that has left it.

pub(crate) mod command;
pub(crate) mod exec;
pub(crate) mod plugins;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod single;

use std::fs;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use longshore::{ContainerHandle, ContainerSpec, Exit};

use crate::figures::{About, Report};
use crate::ground::Side;
use crate::{Arguments, Done};

/// Between measurements with idle gaps: longer than the kernel stays warm.
pub(crate) const GAP: Duration = Duration::from_millis(120);

/// Calls of one side in a row.
const BLOCK: usize = 6;

/// A group of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Memory of sleeping containers, and 2,000 of them
    Memory,
    /// Runs of `true`
    Run,
    /// From the request to the start
    Started,
    /// Runs at once
    Throughput,
    /// Starts of containers that are ready
    Ready,
    /// Execs
    Exec,
    /// Cancels
    Cancel,
    /// What others wait for while plugins of networks are slow
    Plugins,
    /// A thousand sleepers
    Thousand,
    /// Bytes through stdout
    Output,
    /// Bytes through the command
    Command,
    /// Latency by containers running
    Curve,
    /// The simulator
    Simulated,
}

/// On crun, what the runtime makes a difference to.
const ON_CRUN: [Case; 4] = [Case::Run, Case::Throughput, Case::Ready, Case::Exec];

pub(crate) async fn all(side: &Side, arguments: &Arguments) -> Done<Report> {
    let Arguments { quick, only, crun, .. } = arguments;
    let (quick, rounds) = (*quick, if *quick { 20 } else { 100 });
    let mut report = Report::new(About::this(side));
    let is_asked =
        |case: Case| (only.is_empty() || only.contains(&case)) && (!crun || ON_CRUN.contains(&case));
    for case in Case::value_variants().iter().filter(|case| is_asked(**case)) {
        eprintln!("… {case:?}");
        let report = &mut report;
        match case {
            Case::Memory => scale::memory(side, report, quick)?,
            Case::Run => run::runs(side, report, rounds).await?,
            Case::Started => run::started(side, report, rounds).await?,
            Case::Throughput => run::throughput(side, report, quick).await?,
            Case::Ready => run::ready(side, report, rounds).await?,
            Case::Exec => exec::execs(side, report, rounds).await?,
            Case::Cancel => single::cancels(side, report, rounds).await?,
            Case::Plugins => plugins::slow(side, report).await?,
            Case::Thousand if quick => {}
            Case::Thousand => scale::thousand(side, report).await?,
            Case::Output => single::output(side, report, if quick { 3 } else { 9 }).await?,
            Case::Command => command::through_cat(side, report, if quick { 3 } else { 9 })?,
            Case::Curve => scale::curve(side, report, quick).await?,
            Case::Simulated => single::simulated(report, if quick { 5_000 } else { 50_000 }),
        }
    }
    if !crun && only.iter().chain(only.is_empty().then_some(&Case::Run)).any(|case| ON_CRUN.contains(case)) {
        match crate::on_crun(arguments) {
            Ok(rows) => report.add(&rows),
            Err(error) => eprintln!("crun is not measured: {error}"),
        }
    }
    Ok(report)
}

async fn pause(gap: Duration) {
    if !gap.is_zero() {
        tokio::time::sleep(gap).await;
    }
}

fn well(exit: &Exit) -> Done {
    if exit.is_success() { Ok(()) } else { Err(format!("longshore: {exit}").into()) }
}

/// From the request to the exit.
async fn run(side: &Side, spec: &ContainerSpec) -> Done<(Duration, ContainerHandle)> {
    let begun = Instant::now();
    let container = side.executor.run(spec.clone()).await?;
    let exit = container.wait().await;
    let time = begun.elapsed();
    well(&exit)?;
    Ok((time, container))
}

async fn end(container: &ContainerHandle) -> Done {
    container.cancel(longshore::Cancel::now()).await;
    container.released().await?;
    Ok(())
}

/// What this process and the children it has reaped have had of the processors so far.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    // utime, stime, cutime and cstime, the state being the third field.
    let ticks = fields.split(' ').skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
