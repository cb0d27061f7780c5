//! What is made of the command line: completions for shells, and manual pages.

use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Arguments;
use super::plain::answer;
use super::refused::Refused;
use super::status::Failure;

pub(crate) fn completion(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "longshore", &mut script);
    answer(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes `longshore.1`, and a page for each subcommand, as in `longshore-run.1`.
pub(crate) fn manual(directory: &Path) -> Result<ExitCode, Failure> {
    let mut all = Arguments::command();
    all.build();
    page(&all, "longshore", directory)?;
    for command in
        all.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        page(command, &format!("longshore-{}", command.get_name()), directory)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: &Command, name: &str, directory: &Path) -> Result<(), Refused> {
    let file = directory.join(format!("{name}.1"));
    let command = command.clone().display_name(name);
    let written = fs::create_dir_all(directory)
        .and_then(|()| File::create(&file))
        .and_then(|mut out| Man::new(command).title(name.to_uppercase()).render(&mut out));
    written.map_err(|error| Refused::Man { file, why: error.to_string() })
}
