//! The last check: what `longshore run true` does, with the options of the command line. A signal that ends `run` ends this one
//! as well, and there is no grace for `true`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use longshore::runtime::check_free_descriptors;
use longshore::{Cancel, Exit, ExitReason, ShutdownReport, StartFailureKind};

use super::{Interrupted, Verdict};
use crate::command::args::{Action, Arguments, DefaultInit, Global};
use crate::command::job;
use crate::command::refused::Refused;
use crate::command::run::{RELEASE, RUNTIME_DESCRIPTORS, executor};
use crate::command::signals::{Received, Signals};
use crate::command::status::{self, Asked, Failure};

/// A container that takes longer is not waited for.
const LINE: [&str; 5] = ["longshore", "run", "--timeout", "30s", "true"];

/// The remedy of a failure that `run` sends to us.
const MORE: &str = "LONGSHORE_LOG=debug longshore run true says more";

pub(super) fn run(global: &Global) -> Result<Verdict, Interrupted> {
    let made = missing(&global.root());
    let begun = Instant::now();
    let ran = attempt(global);
    let took = humantime::format_duration(Duration::from_millis(
        u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    ));
    for directory in made {
        // It is another's by now, or was not made.
        let _kept = fs::remove_dir(directory);
    }
    Ok(match ran {
        Ok((Ok(exit), report)) => verdict(exit, &report, &took.to_string()),
        Ok((Err(interrupted), _)) => return Err(interrupted),
        Err(failure) => missing_for(failure),
    })
}

/// The directories that are made for a root, the innermost first.
fn missing(root: &Path) -> Vec<PathBuf> {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    root.ancestors().take_while(|above| !above.exists()).map(Path::to_owned).collect()
}

fn attempt(global: &Global) -> Result<(Result<Exit, Interrupted>, ShutdownReport), Failure> {
    let no_files = |error: io::Error| Refused::Files { cause: error.to_string() };
    check_free_descriptors(RUNTIME_DESCRIPTORS).map_err(no_files)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_files)?;
    let parsed = Arguments::try_parse_from(LINE).map(|arguments| arguments.action);
    let Ok(Action::Run(arguments)) = parsed else { unreachable!("the line is a run") };
    let spec = arguments.spec(DefaultInit::Yes)?;
    runtime.block_on(async {
        let mut signals = Signals::listen(true).map_err(no_files)?;
        let executor = executor(global)?;
        let run = async {
            match executor.run(spec).await {
                Ok(container) => Ok(Ok(container.wait().await)),
                Err(error) => Err(error.into()),
            }
        };
        let ran = tokio::select! {
            ran = run => ran,
            interrupted = interrupted(&mut signals) => Ok(Err(interrupted)),
        };
        let report = executor.shutdown(Cancel::now(), RELEASE).await;
        ran.map(|ended| (ended, report))
    })
}

/// Waits for a signal that would end this command.
async fn interrupted(signals: &mut Signals) -> Interrupted {
    loop {
        match signals.next().await {
            Received::End(signal) | Received::PassOn(signal) => return Interrupted(signal),
            Received::Stop => job::stop_alone(signals).await,
            Received::Continued => {}
        }
    }
}

/// What has failed first comes first: what is left may be left because of that.
fn verdict(exit: Exit, report: &ShutdownReport, took: &str) -> Verdict {
    match (how_it_ran(exit, took), report.left.first()) {
        (Verdict::Fine(_), Some(left)) => Verdict::Missing(
            format!("{left}: could not be removed"),
            "look who uses it, and `longshore sweep`",
        ),
        (ran, _) => ran,
    }
}

fn how_it_ran(exit: Exit, took: &str) -> Verdict {
    if exit.is_success() {
        return Verdict::Fine(format!("`true` ran in a container, and nothing is left, in {took}"));
    }
    if let ExitReason::StartFailed(failure) = exit.reason {
        // A root file system without `true` is one in which all before it works.
        return match failure.kind == StartFailureKind::NotFound {
            true => Verdict::Fine(format!("a container is made and removed in {took}")),
            false => missing_for(failure.into()),
        };
    }
    let what = match status::of(exit.clone(), &Asked::default()) {
        (_, Some(sentence)) => sentence,
        (_, None) => format!("`true` ended with {exit}"),
    };
    Verdict::Missing(what, MORE)
}

fn missing_for(failure: Failure) -> Verdict {
    let remedy = if failure.remedy.contains("`longshore doctor`") { MORE } else { failure.remedy };
    Verdict::Missing(failure.cause, remedy)
}
