//! The words of the command line where docker's mean something else than clap's: flags with a truth, and `-h`.

use std::ffi::{OsStr, OsString};

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Arguments;

/// What is said of `run -h NAME`.
pub(crate) const HOSTNAME: &str =
    "-h NAME: here -h alone is the help, and the host name is another option; give --hostname NAME";

/// Reads the command line. A flag may have a truth, as in `--rm=true`.
pub(crate) fn parse(mut words: Vec<OsString>) -> Result<Arguments, clap::Error> {
    loop {
        let error = match Arguments::try_parse_from(&words) {
            Ok(arguments) => return Ok(arguments),
            Err(error) => error,
        };
        if !without_truth(&error, &mut words) {
            return Err(error);
        }
    }
}

/// Writes the flag with a truth that clap refuses without it: not at all if it is false. Nothing that is given twice is changed.
fn without_truth(error: &clap::Error, words: &mut Vec<OsString>) -> bool {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(_) | None => None,
    };
    let (Some(flag), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        return false;
    };
    let written = format!("{flag}={value}");
    let Some(at) = words.iter().position(|word| word == OsStr::new(&written)) else { return false };
    let is_twice = words.iter().take(at).any(|word| word == OsStr::new(flag));
    if error.kind() != ErrorKind::TooManyValues || is_twice {
        return false;
    }
    let plain = match (value, flag) {
        ("1" | "t" | "T" | "true" | "TRUE" | "True", _) => Some(flag),
        ("0" | "f" | "F" | "false" | "FALSE" | "False", "--init") => Some("--no-init"),
        ("0" | "f" | "F" | "false" | "FALSE" | "False", "--no-init") => Some("--init"),
        ("0" | "f" | "F" | "false" | "FALSE" | "False", _) => None,
        _ => return false,
    };
    words.splice(at..=at, plain.map(OsString::from));
    true
}

/// Whether help was asked for by `-h`, as an option of `run` with a value.
pub(crate) fn means_hostname(error: &clap::Error, words: &[String]) -> bool {
    let of_run = words.iter().skip_while(|word| *word != "run" && *word != "spec").skip(1);
    let is_short = |word: &&String| {
        let cluster = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        cluster.is_some_and(|cluster| cluster.ends_with('h'))
    };
    let value = of_run.skip_while(|word| !is_short(word)).nth(1);
    error.kind() == ErrorKind::DisplayHelp && value.is_some_and(|value| !value.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::super::args::Action;
    use super::*;

    fn read(line: &[&str]) -> Result<Arguments, clap::Error> {
        parse([&["longshore"], line].concat().into_iter().map(OsString::from).collect())
    }

    #[test]
    fn flags_may_have_a_truth() {
        let container = |line: &[&str]| {
            let Action::Run(run) = read(&[&["run"], line, &["cat", "--rm=true"]].concat()).unwrap().action
            else {
                panic!("not run")
            };
            assert_eq!(run.container.command, ["cat", "--rm=true"]);
            let (process, rights) = (&run.container.process, &run.container.rights);
            (run.interactive, rights.privileged, process.init, process.no_init)
        };
        let plain = (false, false, false, false);
        assert_eq!(container(&["--rm=true"]), plain);
        assert_eq!(container(&["--privileged=true", "--interactive=1"]), (true, true, false, false));
        assert_eq!(container(&["--privileged=false", "--read-only=0"]), plain);
        assert_eq!(container(&["--init=false"]), (false, false, false, true));
        assert_eq!(container(&["--no-init=false"]), (false, false, true, false));
        for wrong in ["--rm=maybe", "--rm=", "--memory=true"] {
            assert!(read(&["run", wrong, "true"]).is_err(), "{wrong}");
        }
        assert!(read(&["run", "--privileged", "--privileged=false", "true"]).is_err());
    }

    #[test]
    fn the_host_name_of_docker_is_no_help() {
        let means = |line: &[&str]| {
            let words: Vec<_> = line.iter().map(ToString::to_string).collect();
            means_hostname(&read(line).unwrap_err(), &words)
        };
        assert!(means(&["run", "-h", "web", "true"]) && means(&["run", "--rm", "-ith", "web", "sh"]));
        assert!(!means(&["run", "-h"]) && !means(&["-h", "run"]) && !means(&["run", "-h", "--rm"]));
        assert!(!means(&["run", "--help", "true"]));
    }
}
