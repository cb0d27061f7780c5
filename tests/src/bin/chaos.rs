//! The chaos test; see `longshore_tests::chaos`. `cargo xtask chaos` calls it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use longshore_tests::chaos::embedder::{Orders, bystander, embed};
use longshore_tests::chaos::judge::{Trial, judge};

#[derive(Parser)]
#[command(
    about = "Makes embedders suffer, and counts what is left of them",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    trial: Trial,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the judge calls this program as.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Embed(Orders),
    #[command(hide = true)]
    ObserverSlot { root: PathBuf },
}

fn main() -> ExitCode {
    let Cli { trial, role } = Cli::parse();
    let done = match role {
        None => judge(&trial).map(|figures| {
            figures.0.iter().for_each(|(what, times)| println!("{times:>12}  {what}"));
            Vec::new()
        }),
        Some(Role::Embed(orders)) => longshore_tests::runtime().block_on(embed(orders)),
        Some(Role::ObserverSlot { root }) => {
            longshore_tests::runtime().block_on(bystander(&root)).map(|()| Vec::new())
        }
    };
    match done {
        Ok(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Ok(wrong) => {
            wrong.iter().for_each(|what| eprintln!("wrong: {what}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
