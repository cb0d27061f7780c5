//! Longshore against the bare runtime: each figure is taken in turns with the runtime's own, in the same run, and told as
//! a ratio. `cargo xtask bench` calls it.
//!
//! | module | |
//! |---|---|
//! | `ground` | a root file system, bundles, an executor on each runtime: what both sides run on |
//! | `raw` | the runtime, called by hand |
//! | `cases` | what is measured |
//! | `figures` | medians, ratios, the table, JSON, the plot |

mod cases;
mod figures;
mod ground;
mod raw;

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Parser, ValueEnum};
use figures::Report;
use ground::Ground;

/// Measure Longshore against the bare runtimes, runc and, where it is there, crun.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Fewer rounds, and nothing with a thousand containers
    #[arg(long)]
    quick: bool,
    /// Only this, and what else is named
    #[arg(long, value_name = "CASE")]
    only: Vec<cases::Case>,
    /// Without one of Longshore's own means, to see what it is worth
    #[arg(long, value_name = "MEANS")]
    without: Vec<Without>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot of latency against containers running to this file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Be the process with so many sleeping containers, and tell what they take
    #[arg(long, hide = true)]
    sleepers: Option<usize>,
    /// Be the process in which crun is measured, and tell its rows
    #[arg(long, hide = true)]
    crun: bool,
}

/// What Longshore can be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Without {
    /// The cgroup kick
    Kick,
    /// The runtime's image in memory
    Image,
}

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Done {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let ground = Ground::new(arguments.without.clone())?;
        let name = if arguments.crun { "crun" } else { "runc" };
        let side = ground.side(name).await?;
        let side = side.ok_or_else(|| format!("there is no {name} that starts containers here"))?;
        if let Some(count) = arguments.sleepers {
            println!("{}", cases::scale::sleepers(&side, count).await?);
            return side.leave().await;
        }
        let report = cases::all(&side, &arguments).await;
        side.leave().await?;
        if arguments.crun {
            println!("{}", report?.json());
            return Ok(());
        }
        tell(&report?, &arguments)
    })
}

/// crun 1.8 refuses hybrid cgroups: the unified hierarchy is hidden from it, in a mount namespace of its own.
fn on_crun(arguments: &Arguments) -> Done<serde_json::Value> {
    let script = "mount --make-rprivate / && \
        if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi && exec \"$@\"";
    let mut bench = Command::new("unshare");
    bench.args(["--mount", "sh", "-c", script, "crun"]).arg(std::env::current_exe()?).arg("--crun");
    bench.args(arguments.quick.then_some("--quick"));
    for without in &arguments.without {
        bench.arg("--without").arg(without.to_possible_value().ok_or("no name")?.get_name());
    }
    for case in &arguments.only {
        bench.arg("--only").arg(case.to_possible_value().ok_or("no name")?.get_name());
    }
    let answer = bench.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    Ok(serde_json::from_slice(&answer.stdout)?)
}

fn tell(report: &Report, arguments: &Arguments) -> Done {
    println!("{}", report.table());
    if let Some(file) = &arguments.json {
        std::fs::write(file, report.json().to_string())?;
    }
    if let Some(file) = &arguments.plot {
        std::fs::write(file, report.plot())?;
    }
    Ok(())
}
