//! The `longshore` command: `run`, `doctor`, `spec`, `sweep` and `completion`. It is built on the library `longshore` alone.
//!
//! Each subcommand has a module in `command/`; `command::args` is the command line. A failure is one sentence on
//! stderr: the cause first, then what to do.

mod command;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use command::args::{Action, Arguments};
use command::plain::say;
use command::trace::Tracing;
use command::{hints, status};

/// Runs the command of this process's arguments. Returns its exit status.
pub fn main() -> ExitCode {
    command::unopened::keep_closed();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return answer_without_arguments(&error),
    };
    let Arguments { global, action } = arguments;
    let done = Tracing::begin(&global).and_then(|_tracing| match action {
        Action::Run(run) => command::run::run(&global, run),
        Action::Doctor(doctor) => Ok(command::doctor::doctor(&global, doctor.json)),
        Action::Spec(spec) => command::spec::spec(spec),
        Action::Sweep(sweep) => command::sweep::sweep(&global, &sweep),
        Action::Completion { shell } => Ok(command::pages::completion(shell)),
        Action::Man { directory } => command::pages::manual(&directory),
    });
    done.unwrap_or_else(|failure| {
        say(&failure);
        failure.code.into()
    })
}

/// Prints help if it was requested or nothing was; otherwise what is wrong with the command line.
fn answer_without_arguments(error: &clap::Error) -> ExitCode {
    let help_instead = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if error.use_stderr() && !help_instead {
        let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
        say(hints::sentence(error, &words.collect::<Vec<_>>()));
    } else {
        let _stream_closed = error.print();
    }
    if error.use_stderr() { status::OUR_FAILURE.into() } else { ExitCode::SUCCESS }
}
