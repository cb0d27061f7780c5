//! The sentence on a command line that is wrong, with the option that was probably meant.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error};

use super::args::Arguments;

/// Options of other commands that run containers, and what to do instead.
pub(crate) const HABITS: [(&[&str], &str); 27] = [
    (
        &["-d", "--detach", "--detach-keys", "-a", "--attach"],
        "leave it out: the command waits for the program; a shell puts it in the background with &",
    ),
    (
        &["-p", "--publish", "-P", "--publish-all", "--expose"],
        "--net host has the ports of this machine, and --net cni those that CNI maps",
    ),
    (&["--entrypoint"], "name the program as the command"),
    (
        &["--restart", "--replace"],
        "leave it out: the command waits for one container, and remembers none; a loop of the shell starts another",
    ),
    (&["--security-opt"], "see --seccomp, --apparmor, --selinux and --no-new-privileges"),
    (
        &["--group-add"],
        "name the user's group with --user USER:GROUP, or start from a config.json, with --config",
    ),
    (&["--userns"], "--uidmap and --gidmap make a user namespace"),
    (&["--pid"], "--process-mode no-sandbox shows the processes of this machine"),
    (
        &["--ipc", "--uts", "--cgroupns"],
        "start from a config.json without that namespace, with --config and --allow-host-namespaces",
    ),
    (&["--gpus"], "--device names one by its CDI name, as in nvidia.com/gpu=all"),
    (&["--pull", "--platform", "--arch", "--os"], "there are no images: --rootfs names a root file system"),
    (&["--volumes-from", "--volume-driver"], "-v and --mount name what is mounted"),
    (&["--link", "--network-alias"], "--add-host gives it the name of another"),
    (&["--ip", "--ip6", "--mac-address"], "--net cni:NAME takes what the configuration of that network says"),
    (&["--log-driver", "--log-opt"], "redirect stdout and stderr"),
    (
        &["--health-cmd", "--health-interval", "--health-retries", "--health-timeout", "--no-healthcheck"],
        "there are no health checks: the library's `exec` makes one",
    ),
    (&["--storage-opt"], "give --rootfs a file system with a limit, or --tmpfs with size="),
    (&["--sig-proxy"], "leave it out: signals are passed on"),
    (&["--pod", "--pod-id-file"], "there are no pods: --net and --cgroup-parent name what containers share"),
    (&["--label-file"], "give each label with --label"),
    (&["--domainname"], "--hostname takes the whole name"),
    (
        &["--memory-reservation", "--memory-swappiness", "--kernel-memory", "--oom-kill-disable"],
        "start from a config.json that has it, with --config",
    ),
    (
        &[
            "--blkio-weight",
            "--device-read-bps",
            "--device-write-bps",
            "--device-read-iops",
            "--device-write-iops",
        ],
        "start from a config.json that has it, with --config",
    ),
    (&["--annotation"], "--label makes an annotation; start from a config.json for others, with --config"),
    (&["--umask", "--tz"], "set it in the program: sh -c 'umask 027; exec …', or with -e TZ=…"),
    (&["--hooks-dir"], "start from a config.json with hooks, with --config"),
    (&["--isolation"], "leave it out: there is one kind"),
];

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

/// Subcommands of other commands, and what to do instead.
pub(crate) const COMMANDS: [(&[&str], &str); 8] = [
    (
        &["ps", "ls", "list", "inspect", "state", "stats", "top", "events"],
        "a call of `longshore run` is one container: `--events` says what happens to it, and the library does the rest",
    ),
    (
        &["logs", "attach"],
        "a call of `longshore run` is one container, and its output is the program's: redirect it",
    ),
    (
        &["stop", "kill", "pause", "resume", "unpause", "rm", "delete"],
        "a call of `longshore run` is one container: send that process a signal, as in kill PID; `longshore sweep` removes what dead ones left",
    ),
    (
        &["exec", "cp", "wait", "start", "restart", "create", "update", "rename", "port"],
        "a call of `longshore run` is one container, with one program: start others from it, as in sh -c, or use the library",
    ),
    (
        &["pull", "push", "images", "build", "image", "load", "save", "import", "login", "tag", "commit"],
        "there are no images: `longshore run --rootfs DIR` takes a root file system",
    ),
    (&["checkpoint", "restore"], "containers are not saved; use the runtime itself"),
    (&["info", "system"], "`longshore doctor` says what is here, and `longshore sweep` tidies up"),
    (
        &["network", "volume", "pod", "compose"],
        "name what is there with --net, -v and --cgroup-parent of `longshore run`",
    ),
];

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

    /// A word of another command that this one has as well would never be looked for.
    #[test]
    fn what_is_answered_is_not_taken() {
        let mut all = Arguments::command();
        all.build();
        let run = all.find_subcommand("run").unwrap();
        for (options, _) in HABITS {
            for option in options {
                let short = option.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
                let long = option.strip_prefix("--");
                let is_taken = run.get_arguments().any(|known| {
                    known.get_all_aliases().unwrap_or_default().iter().any(|alias| Some(*alias) == long)
                        || (long.is_some() && known.get_long() == long)
                        || short.is_some_and(|short| {
                            known.get_short().map(String::from).as_deref() == Some(short)
                        })
                });
                assert!(!is_taken, "{option}");
            }
        }
        for command in COMMANDS.iter().flat_map(|(commands, _)| *commands) {
            assert!(all.find_subcommand(command).is_none(), "{command}");
        }
    }
}
