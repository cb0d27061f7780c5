//! Longshore against the bare runtime: each figure is taken in turns with the runtime's own, in the same run, and told as
//! a ratio. `cargo xtask bench` calls it.
//!
//! | module | |
//! |---|---|
//! | `ground` | a root file system, a bundle, an executor: what both sides run on |
//! | `cases` | what is measured |
//! | `figures` | medians, ratios, the table, JSON, the plot |

mod cases;
mod figures;
mod ground;

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use figures::Report;
use ground::Ground;

/// Measure Longshore against the bare runtime.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer rounds, and nothing with a thousand containers
    #[arg(long)]
    quick: bool,
    /// Without the cgroup kick, to see what it is worth
    #[arg(long)]
    no_kick: bool,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot of latency against containers running to this file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Done {
    let Arguments { quick, no_kick, json, plot } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(async {
        let ground = Ground::new(!no_kick)?;
        let report = cases::all(&ground, quick).await;
        ground.leave().await?;
        report
    })?;
    println!("{}", report.table());
    if let Some(file) = json {
        std::fs::write(file, report.json().to_string())?;
    }
    if let Some(file) = plot {
        std::fs::write(file, report.plot())?;
    }
    Ok(())
}

/// One side of a measurement, by name.
const OURS: &str = "longshore";

impl Report {
    /// Shows progress to whoever waits.
    fn begin(what: &str) {
        eprintln!("… {what}");
    }
}
