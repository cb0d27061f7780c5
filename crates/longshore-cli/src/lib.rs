//! The `longshore` command: `run`, `doctor`, `spec`, `sweep` and `completion`. It is built on the library `longshore` alone.
//!
//! Each subcommand has a module in `command/`; `command::args` is the command line. A failure is one sentence on
//! stderr: the cause first, then what to do.

mod command;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::error::ErrorKind;
use command::args::{Action, Arguments};
use command::plain::{answer, say, say_as_it_is};
use command::trace::Tracing;
use command::{hints, status, words};

/// Runs the command of this process's arguments. Returns its exit status.
pub fn main() -> ExitCode {
    command::unopened::keep_closed();
    let arguments = match command::words::parse(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return answer_without_arguments(&error),
    };
    let Arguments { global, action } = arguments;
    let done = Tracing::begin(&global).and_then(|_tracing| match action {
        Action::Run(run) => command::run::run(&global, run),
        Action::Doctor(doctor) => command::doctor::doctor(&global, doctor.json),
        Action::Spec(spec) => command::spec::spec(spec),
        Action::Sweep(sweep) => command::sweep::sweep(&global, &sweep),
        Action::Completion { shell } => command::pages::completion(shell),
        Action::Man { directory } => command::pages::manual(&directory),
    });
    done.unwrap_or_else(|failure| failed(&failure))
}

fn failed(failure: &status::Failure) -> ExitCode {
    say(failure);
    failure.code.into()
}

/// Prints help if it was requested or nothing was; otherwise what is wrong with the command line.
fn answer_without_arguments(error: &clap::Error) -> ExitCode {
    let help_instead = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let given = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let given: Vec<_> = given.collect();
    if words::means_hostname(error, &given) {
        say(words::HOSTNAME);
        return status::OUR_FAILURE.into();
    }
    if error.use_stderr() && !help_instead {
        say(hints::sentence(error, &given));
    } else {
        return answer_with_help(error);
    }
    status::OUR_FAILURE.into()
}

/// The help or the version. As an answer to nothing at all it is on stderr, and a failure.
fn answer_with_help(error: &clap::Error) -> ExitCode {
    let text = |stream: &dyn IsTerminal| {
        let is_plain = std::env::var_os("TERM").is_none_or(|term| term == "dumb")
            || std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        match stream.is_terminal() && !is_plain {
            true => error.render().ansi().to_string(),
            false => error.render().to_string(),
        }
    };
    if error.use_stderr() {
        say_as_it_is(&text(&io::stderr()));
        return status::OUR_FAILURE.into();
    }
    match answer(text(&io::stdout()).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => failed(&refused.into()),
    }
}
