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
        let runc = ground.side("runc").await?.ok_or("there is no runc that starts containers")?;
        if let Some(count) = arguments.sleepers {
            println!("{}", cases::scale::sleepers(&runc, count).await?);
            return runc.leave().await;
        }
        let crun = ground.side("crun").await?;
        let report = cases::all(&runc, crun.as_ref(), &arguments).await;
        runc.leave().await?;
        if let Some(crun) = crun {
            crun.leave().await?;
        }
        tell(&report?, &arguments)
    })
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
