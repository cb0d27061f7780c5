//! The `longshore` command: `run`, `doctor`, `spec` and `sweep`. It is built on the library `longshore` alone.
//!
//! Each subcommand has a module in `command/`; [`command::args`] is the command line and what it
//! means. What goes wrong is said in one sentence on stderr, the cause first and then what to do.

mod command;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use command::args::{Action, Arguments};
use command::trace::Tracing;
use command::{hints, status};

/// Carries out what the arguments of this process ask for; answers with the command's exit status.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return answer_without_arguments(&error),
    };
    let Arguments { global, action } = arguments;
    let done = Tracing::begin(&global).and_then(|_tracing| match action {
        Action::Run(run) => command::run::run(&global, run),
        Action::Doctor => Ok(command::doctor::doctor(&global)),
        Action::Spec(spec) => command::spec::spec(spec),
        Action::Sweep => command::sweep::sweep(&global),
    });
    done.unwrap_or_else(|failure| {
        eprintln!("longshore: {failure}");
        failure.code.into()
    })
}

/// Help where it was asked for or nothing was; otherwise what is wrong with the command line.
fn answer_without_arguments(error: &clap::Error) -> ExitCode {
    let help_instead = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if error.use_stderr() && !help_instead {
        eprintln!("longshore: {}", hints::sentence(error));
    } else {
        let _stream_closed = error.print();
    }
    if error.use_stderr() { status::OUR_FAILURE.into() } else { ExitCode::SUCCESS }
}
