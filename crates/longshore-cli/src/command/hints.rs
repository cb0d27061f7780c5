//! The sentence on a command line that is wrong, with the option that was probably meant.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options of other commands that run containers, and what to do instead.
const HABITS: [(&[&str], &str); 17] = [
    (&["--rm"], "leave it out: a container is always removed when it has ended"),
    (&["--name"], "--id gives a container its id"),
    (&["--network"], "--net chooses the network"),
    (
        &["-d", "--detach"],
        "leave it out: the command waits for the program; a shell puts it in the background with &",
    ),
    (
        &["-p", "--publish", "-P", "--publish-all", "--expose"],
        "--net host has the ports of this machine, and --net cni those that CNI maps",
    ),
    (&["-m"], "--memory limits the memory"),
    (&["-c"], "--cpu-shares sets the share of the CPU"),
    (&["--pids-limit"], "--pids limits the processes"),
    (&["--entrypoint"], "name the program as the command"),
    (&["--privileged"], "--security insecure gives every right and device"),
    (&["--security-opt"], "see --seccomp, --apparmor, --selinux and --no-new-privileges"),
    (&["--tmpfs"], "--mount type=tmpfs,dst=DIR mounts a tmpfs"),
    (&["--stop-timeout", "--stop-signal"], "--grace sets the time from SIGTERM to SIGKILL"),
    (&["--env-file"], "give each variable with -e, or the whole environment in the JSON form of --spec"),
    (&["--sysctl", "--group-add", "--shm-size"], "start from a config.json that has it, with --config"),
    (
        &["--label", "-l", "--restart"],
        "leave it out: the command waits for one container, and remembers none",
    ),
    (&["--userns"], "--uidmap and --gidmap make a user namespace"),
];

/// What is wrong with the command line, and what to do.
pub(crate) fn sentence(error: &Error) -> String {
    let text = error.to_string();
    let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let remedy = hint(error).unwrap_or_else(|| "see `longshore --help`".into());
    format!("{cause}; {remedy}")
}

/// Subcommands of other commands.
const COMMANDS: [&str; 24] = [
    "attach",
    "build",
    "checkpoint",
    "cp",
    "create",
    "delete",
    "events",
    "exec",
    "inspect",
    "kill",
    "list",
    "logs",
    "ls",
    "pause",
    "ps",
    "pull",
    "restart",
    "resume",
    "rm",
    "start",
    "state",
    "stats",
    "stop",
    "top",
];

fn hint(error: &Error) -> Option<String> {
    if error.kind() == ErrorKind::InvalidSubcommand {
        return hint_for_command(error);
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let habit = HABITS.iter().find(|(options, _)| options.contains(&argument.as_str()));
    if let Some((_, remedy)) = habit {
        return Some((*remedy).to_owned());
    }
    match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(option)) => Some(format!("is it {option}?")),
        _ => None,
    }
}

fn hint_for_command(error: &Error) -> Option<String> {
    let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    if COMMANDS.contains(&command.as_str()) {
        let one = "a call of `longshore run` is one container: signals to it reach the program, and its output is the program's";
        return Some(format!("{one}; the library does the rest"));
    }
    let suggested = error.get(ContextKind::SuggestedSubcommand);
    let suggested = if let Some(ContextValue::Strings(several)) = suggested { several.first() } else { None };
    suggested.map(|command| format!("is it `longshore {command}`?"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::args::Arguments;

    fn wrong(options: &[&str]) -> String {
        let line = [&["longshore", "run"], options, &["true"]].concat();
        sentence(&Arguments::try_parse_from(line).unwrap_err())
    }

    #[test]
    fn subcommands_of_other_commands_have_a_hint() {
        let wrong = |command| sentence(&Arguments::try_parse_from(["longshore", command]).unwrap_err());
        for command in ["ps", "exec", "logs", "kill", "stop"] {
            let said = wrong(command);
            assert!(said.ends_with("the library does the rest") && said.contains(command), "{said}");
        }
        assert!(wrong("runn").ends_with("is it `longshore run`?"), "{}", wrong("runn"));
        assert!(wrong("nonsense").ends_with("see `longshore --help`"), "{}", wrong("nonsense"));
    }

    #[test]
    fn options_of_other_commands_have_a_hint() {
        for (options, hint) in [
            (&["--rm"][..], "always removed"),
            (&["--name", "x"], "--id"),
            (&["--name=x"], "--id"),
            (&["--network", "host"], "--net"),
            (&["-d"], "&"),
            (&["-itd"], "&"),
            (&["--env-file", "x"], "-e"),
            (&["-p", "80:80"], "--net host"),
            (&["--memry", "1"], "is it --memory?"),
            (&["--unheard-of"], "see `longshore --help`"),
        ] {
            let said = wrong(options);
            assert!(said.starts_with("unexpected argument") && said.contains(hint), "{options:?}: {said}");
        }
    }
}
