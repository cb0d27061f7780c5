//! The sentence on a command line that is wrong, with the option that was probably meant.

mod habits;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error};

pub(crate) use self::habits::{COMMANDS, HABITS};
use super::args::Arguments;

/// What is wrong with the command line of these words, and what to do.
pub(crate) fn sentence(error: &Error, words: &[String]) -> String {
    let text = error.to_string();
    let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let cause = as_typed(cause, words);
    let remedy = remedy(error).unwrap_or_else(|| see_help(words));
    // The missing arguments are on the lines below.
    let missing: Vec<_> = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(all)) if error.kind() == ErrorKind::MissingRequiredArgument => all.clone(),
        Some(_) | None => Vec::new(),
    };
    match missing.is_empty() {
        true => format!("{cause}; {remedy}"),
        false => format!("{cause} {}; {remedy}", missing.join(", ")),
    }
}

/// The cause with the other name of an option, if that was typed.
fn as_typed(cause: &str, words: &[String]) -> String {
    let is_typed = |name: &str| {
        words.iter().any(|word| word.split('=').next().and_then(|word| word.strip_prefix("--")) == Some(name))
    };
    let all = Arguments::command();
    let options = all.get_subcommands().flat_map(clap::Command::get_arguments);
    for option in options {
        let Some(name) = option.get_long().filter(|name| !is_typed(name)) else { continue };
        let aliases = option.get_all_aliases().unwrap_or_default();
        let (own, is_named) = (format!("'--{name} "), |own: &str| cause.contains(own));
        if let Some(alias) = aliases.into_iter().find(|alias| is_typed(alias) && is_named(&own)) {
            return cause.replacen(&own, &format!("'--{alias} "), 1);
        }
    }
    cause.to_owned()
}

/// Options of one letter that were typed with two dashes, as in `--it`.
fn letters(option: &str) -> Option<String> {
    let letters = option.strip_prefix("--")?;
    let all = Arguments::command();
    let run = all.find_subcommand("run")?;
    let is_flag = |letter| {
        run.get_arguments()
            .any(|known| known.get_short() == Some(letter) && !known.get_action().takes_values())
    };
    letters.chars().all(is_flag).then(|| format!("is it -{letters}?"))
}

/// The help of the subcommand among these words, if there is one.
fn see_help(words: &[String]) -> String {
    let all = Arguments::command();
    let subcommand = words.iter().find_map(|word| all.find_subcommand(word));
    match subcommand {
        Some(subcommand) => format!("see `longshore {} --help`", subcommand.get_name()),
        None => "see `longshore --help`".into(),
    }
}

fn remedy(error: &Error) -> Option<String> {
    let text = |kind| {
        if let Some(ContextValue::String(text)) = error.get(kind) { Some(text.as_str()) } else { None }
    };
    let texts = |kind| match error.get(kind) {
        Some(ContextValue::Strings(several)) if !several.is_empty() => Some(several.as_slice()),
        Some(_) | None => None,
    };
    if error.kind() == ErrorKind::InvalidSubcommand {
        let command = text(ContextKind::InvalidSubcommand)?;
        let suggested = texts(ContextKind::SuggestedSubcommand).and_then(<[_]>::first);
        let known = of_habit(&COMMANDS, command).map(str::to_owned);
        return known
            .or_else(|| suggested.map(|command| format!("is it `longshore {command}`?")))
            .or_else(|| Some(format!("`longshore run {command}` runs a program; see `longshore --help`")));
    }
    if let Some(value) = text(ContextKind::SuggestedValue) {
        return Some(format!("is it {value}?"));
    }
    if let Some(values) = texts(ContextKind::ValidValue) {
        return Some(format!("give {}", values.join(" or ")));
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let argument = text(ContextKind::InvalidArg);
    let habit = argument.and_then(|argument| of_habit(&HABITS, argument));
    habit
        .map(str::to_owned)
        .or_else(|| argument.and_then(letters))
        .or_else(|| text(ContextKind::SuggestedArg).map(|option| format!("is it {option}?")))
}

fn of_habit(all: &[(&[&str], &'static str)], word: &str) -> Option<&'static str> {
    all.iter().find(|(words, _)| words.contains(&word)).map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn wrong(line: &[&str]) -> String {
        let words: Vec<_> = line.iter().map(ToString::to_string).collect();
        sentence(&Arguments::try_parse_from([&["longshore"], line].concat()).unwrap_err(), &words)
    }

    #[test]
    fn subcommands_of_other_commands_have_a_hint() {
        for (command, hint) in [
            ("ps", "the library does the rest"),
            ("exec", "sh -c"),
            ("logs", "redirect it"),
            ("kill", "kill PID"),
            ("pull", "no images"),
            ("runn", "is it `longshore run`?"),
            ("docter", "is it `longshore doctor`?"),
            ("echo", "`longshore run echo` runs a program"),
        ] {
            let said = wrong(&[command]);
            assert!(said.starts_with("unrecognized subcommand") && said.contains(hint), "{said}");
        }
    }

    #[test]
    fn options_of_other_commands_have_a_hint() {
        for (options, hint) in [
            (&["-d"][..], "&"),
            (&["-itd"], "&"),
            (&["-p", "80:80"], "--net host"),
            (&["--entrypoint=sh"], "name the program"),
            (&["--restart", "always"], "a loop"),
            (&["--memry", "1"], "is it --memory?"),
            (&["--it"], "is it -it?"),
            (&["--ti"], "is it -ti?"),
            (&["--unheard-of"], "see `longshore run --help`"),
        ] {
            let said = wrong(&[&["run"], options, &["true"]].concat());
            assert!(said.starts_with("unexpected argument") && said.contains(hint), "{options:?}: {said}");
        }
    }

    /// What clap prints on further lines is kept.
    #[test]
    fn tips_are_kept() {
        for (line, hint) in [
            (&["run", "--stdio", "pip", "true"][..], "is it pipe?"),
            (&["run", "--stdio", "x", "true"], "give pipe or inherit"),
            (&["run", "--gidmap", "0:1:1", "true"], "--uidmap"),
            (&["run", "--memory"], "see `longshore run --help`"),
            (&["--root", "/r", "run", "--pids", "x", "true"], "see `longshore run --help`"),
            (&["completion"], "<SHELL>"),
        ] {
            assert!(wrong(line).contains(hint), "{line:?}: {}", wrong(line));
        }
    }

    #[test]
    fn an_option_is_named_as_it_was_typed() {
        for (line, name) in [
            (&["run", "--name", "", "true"][..], "'--name <ID>'"),
            (&["run", "--name=", "true"], "'--name <ID>'"),
            (&["run", "--id", "", "true"], "'--id <ID>'"),
            (&["run", "--network", "x", "true"], "'--network <NETWORK>'"),
            (&["run", "--pids-limit", "x", "true"], "'--pids-limit <N>'"),
            (&["run", "--stop-timeout", "x", "true"], "'--stop-timeout <TIME>'"),
        ] {
            assert!(wrong(line).contains(name), "{line:?}: {}", wrong(line));
        }
    }
}
