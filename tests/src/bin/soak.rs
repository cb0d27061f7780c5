//! The soak; see `longshore_tests::soak`. `cargo xtask soak` calls it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use longshore::{Cancel, Executor, ShutdownReport};
use longshore_tests::soak::{HEADING, Plan, soak};
use longshore_tests::{HUNG, runtime_under_test};

#[derive(Parser)]
#[command(about = "Thousands of execs in one container, and thousands of runs in one process")]
struct Cli {
    #[arg(long, default_value_t = 10_000)]
    execs: u64,
    #[arg(long, default_value_t = 10_000)]
    runs: u64,
    /// After how many a sample is taken.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

fn main() -> ExitCode {
    let Cli { execs, runs, every } = Cli::parse();
    match longshore_tests::runtime().block_on(embed(Plan { execs, runs, every })) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn embed(plan: Plan) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::TempDir::with_prefix("longshore-soak-")?;
    let root = dir.path().join("root");
    let executor = Executor::builder(runtime_under_test(longshore::runc()).build()?).root(&root).build()?;
    let began = Instant::now();
    println!("{HEADING}");
    soak(&executor, &root, plan, |sample| println!("{sample}")).await?;
    let report = executor.shutdown(Cancel::now(), HUNG).await;
    println!("{:.0?}; {report:?}", began.elapsed());
    if report == ShutdownReport::default() { Ok(()) } else { Err("something is left".into()) }
}
