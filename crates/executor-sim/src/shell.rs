//! The part of a POSIX shell that lets one specification run on the simulator and on a real runtime.
//!
//! It knows these programs: `sh -c SCRIPT [NAME ARG…]`, `bash` likewise, `sleep`, `echo`, `cat`, `true` and `false`.
//! A script has:
//!
//! - commands, separated by `;`, newlines, `&&` and `||`; comments
//! - the programs above, `:`, `exit [N]`, `exec COMMAND`, `trap 'SCRIPT' SIGNAL…`, `kill -SIGNAL $$`
//! - `echo … >&2`, and `sleep N &`
//! - `NAME=value`, `export NAME=value`, and the expansions `$NAME`, `${NAME}`, `$1`, `$@` and `$?`
//! - `for NAME in WORDS; do …; done` and `while :; do …; done`
//!
//! Everything else that a shell has is refused: the start fails and says what is not supported. A command of another name
//! is not found, as in a container without that program: code 127. Nothing in a script depends on time, so a script becomes
//! the steps of a program before it is started.

mod lex;
mod parse;
mod syntax;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use executor_core::lifecycle::{Signal, StartFailure, StartFailureKind};

use self::syntax::{Command, List, Part, RunIf, Simple, Unsupported, Word};
use crate::program::{Program, Step, Trap};

/// Commands that every shell has and this one does not.
const OTHER_COMMANDS: [&str; 22] = [
    ".", "[", "alias", "break", "cd", "command", "continue", "eval", "getopts", "local", "printf", "pwd",
    "read", "return", "seq", "set", "shift", "source", "test", "umask", "unset", "wait",
];

/// The program that these arguments name. `None` if this shell does not know it. `is_scripted` says whether a name is that
/// of a scripted program.
///
/// # Errors
/// If a script has something that is not supported.
pub(crate) fn program(
    args: &[String],
    env: &BTreeMap<String, String>,
    is_scripted: &dyn Fn(&str) -> bool,
) -> Option<Result<Program, StartFailure>> {
    let name = args.first()?.rsplit('/').next()?;
    let mut shell =
        Shell { env: env.clone(), arguments: Vec::new(), is_scripted, steps: Vec::new(), status: 0 };
    let run = match (name, args) {
        ("sh" | "bash", [_, flag, script, rest @ ..]) if flag == "-c" => {
            shell.arguments = rest.to_vec();
            shell.script(script)
        }
        ("sh" | "bash", _) => Err(Unsupported(format!("`{name}` other than as `{name} -c SCRIPT`"))),
        ("sleep" | "echo" | "cat" | "true" | "false", [_, rest @ ..]) => {
            let words: Vec<_> = std::iter::once(name).chain(rest.iter().map(String::as_str)).collect();
            shell.run_command(&words, false, false)
        }
        _ => return None,
    };
    Some(match run {
        Ok(()) => {
            shell.steps.push(Step::Exit(shell.status));
            Ok(Program { steps: shell.steps, ..Program::default() })
        }
        Err(Unsupported(what)) => {
            let message = format!(
                "the simulator's shell does not support {what}; script the program with SimRuntime::program instead"
            );
            Err(StartFailure::new(StartFailureKind::BadConfig, message))
        }
    })
}

struct Shell<'a> {
    env: BTreeMap<String, String>,
    /// `$0`, `$1` and so on.
    arguments: Vec<String>,
    is_scripted: &'a dyn Fn(&str) -> bool,
    steps: Vec<Step>,
    /// The exit code of the last command.
    status: u8,
}

impl Shell<'_> {
    fn script(&mut self, script: &str) -> Result<(), Unsupported> {
        self.run(&parse::parse(script)?)
    }

    fn run(&mut self, list: &List) -> Result<(), Unsupported> {
        for (run_if, command) in list {
            let is_due = match run_if {
                RunIf::Always => true,
                RunIf::Succeeded => self.status == 0,
                RunIf::Failed => self.status != 0,
            };
            if is_due {
                self.command(command)?;
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), Unsupported> {
        match command {
            Command::Simple(simple) => self.simple(simple),
            Command::For { name, words, body } => {
                self.status = 0;
                for value in self.expand(words)? {
                    self.env.insert(name.clone(), value);
                    self.run(body)?;
                }
                Ok(())
            }
            Command::Forever(body) => {
                let steps = self.steps_of(|inner| inner.run(body))?;
                self.steps.push(Step::Repeat(steps));
                Ok(())
            }
        }
    }

    /// The steps of commands that run later or more than once. They do not change the variables here.
    fn steps_of(
        &self,
        run: impl FnOnce(&mut Self) -> Result<(), Unsupported>,
    ) -> Result<Vec<Step>, Unsupported> {
        let mut inner = Self {
            env: self.env.clone(),
            arguments: self.arguments.clone(),
            is_scripted: self.is_scripted,
            steps: Vec::new(),
            status: 0,
        };
        run(&mut inner)?;
        Ok(inner.steps)
    }

    fn simple(&mut self, simple: &Simple) -> Result<(), Unsupported> {
        let words = match simple.words.split_first() {
            Some((first, rest)) if first.as_plain() == Some("export") => rest,
            Some(_) | None => simple.words.as_slice(),
        };
        if let Some(first) = words.first()
            && first.as_assignment().is_some()
        {
            return self.assign(words);
        }
        let words = self.expand(&simple.words)?;
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.run_command(&words, simple.to_stderr, simple.in_background)
    }

    fn assign(&mut self, words: &[Word]) -> Result<(), Unsupported> {
        for word in words {
            let Some((name, value)) = word.as_assignment() else {
                return Err(Unsupported::new("a command after `NAME=value`"));
            };
            let value = self.value_of(&value)?;
            self.env.insert(name.to_owned(), value);
        }
        self.status = 0;
        Ok(())
    }

    fn run_command(
        &mut self,
        words: &[&str],
        to_stderr: bool,
        in_background: bool,
    ) -> Result<(), Unsupported> {
        if in_background && !matches!(words, ["sleep", ..]) {
            return Err(Unsupported::new("`&` after another command than `sleep`"));
        }
        if words.contains(&PID) && words.first() != Some(&"kill") {
            return Err(Unsupported::new("`$$` outside of `kill -SIGNAL $$`"));
        }
        self.status = 0;
        match words {
            [] | [":" | "true", ..] => {}
            ["false", ..] => self.status = 1,
            ["exec", rest @ ..] if !rest.is_empty() => {
                self.run_command(rest, to_stderr, false)?;
                self.steps.push(Step::Exit(self.status));
            }
            ["echo", text @ ..] => self.echo(text, to_stderr),
            ["cat"] if !to_stderr => self.steps.push(Step::CopyStdin),
            ["cat", ..] => return Err(Unsupported::new("`cat` with arguments or `>&2`")),
            ["sleep", time] => {
                let time = seconds(time).ok_or_else(|| Unsupported(format!("`sleep {time}`")))?;
                self.steps.push(if in_background { Step::Fork(time) } else { Step::Sleep(time) });
            }
            ["sleep", ..] => return Err(Unsupported::new("`sleep` without a number of seconds")),
            ["exit", ..] => self.exit(words.get(1).copied()),
            ["trap", script, signals @ ..] if !signals.is_empty() => self.trap(script, signals)?,
            ["kill", signal, PID] if signal.starts_with('-') => {
                self.steps.push(Step::Die(parse_signal(signal.trim_start_matches('-'))?));
            }
            [other @ ("exec" | "export" | "trap" | "kill"), ..] => {
                return Err(Unsupported(format!("this form of `{other}`")));
            }
            [name, ..] => self.other_command(name)?,
        }
        Ok(())
    }

    /// A command that this shell does not know.
    fn other_command(&mut self, name: &str) -> Result<(), Unsupported> {
        if OTHER_COMMANDS.contains(&name) {
            return Err(Unsupported(format!("`{name}`")));
        }
        if (self.is_scripted)(name) {
            return Err(Unsupported(format!("scripted programs in a script (`{name}`)")));
        }
        self.steps.push(Step::Stderr(format!("sh: {name}: not found\n").into_bytes()));
        self.status = 127;
        Ok(())
    }

    fn echo(&mut self, text: &[&str], to_stderr: bool) {
        let (text, end) = match text {
            ["-n", text @ ..] => (text, ""),
            text => (text, "\n"),
        };
        let line = format!("{}{end}", text.join(" ")).into_bytes();
        self.steps.push(if to_stderr { Step::Stderr(line) } else { Step::Stdout(line) });
    }

    /// Without a code, that of the last command. A code that is not a number is an error of the script: 2.
    fn exit(&mut self, code: Option<&str>) {
        let code = match code {
            Some(code) => code.parse().unwrap_or(2),
            None => self.status,
        };
        self.steps.push(Step::Exit(code));
    }

    fn trap(&mut self, script: &str, signals: &[&str]) -> Result<(), Unsupported> {
        let trap = match script {
            "" => Trap::Ignore,
            "-" => return Err(Unsupported::new("`trap -`")),
            script => Trap::Run(self.steps_of(|inner| inner.script(script))?),
        };
        for signal in signals {
            self.steps.push(Step::Trap(parse_signal(signal)?, trap.clone()));
        }
        Ok(())
    }

    /// The words with their variables replaced.
    fn expand(&self, words: &[Word]) -> Result<Vec<String>, Unsupported> {
        let mut all = Vec::new();
        for word in words {
            if word.0 == [Part::Arguments] {
                all.extend(self.arguments.iter().skip(1).cloned());
            } else {
                all.extend(self.fields(word)?);
            }
        }
        Ok(all)
    }

    /// A word with its variables replaced. The value of a variable outside of quotes is split at its spaces, so this may be
    /// several words or none.
    fn fields(&self, word: &Word) -> Result<Vec<String>, Unsupported> {
        let mut done = Vec::new();
        // The word that is being put together, if it has begun.
        let mut current: Option<String> = None;
        for part in &word.0 {
            let value = self.part(part)?;
            if value == PID && word.0.len() > 1 {
                return Err(Unsupported::new("`$$` within a longer word"));
            }
            if !matches!(part, Part::Variable { is_quoted: false, .. }) {
                current.get_or_insert_default().push_str(&value);
                continue;
            }
            if value.starts_with(char::is_whitespace) {
                done.extend(current.take());
            }
            let mut fields = value.split_whitespace().peekable();
            while let Some(field) = fields.next() {
                current.get_or_insert_default().push_str(field);
                if fields.peek().is_some() || value.ends_with(char::is_whitespace) {
                    done.extend(current.take());
                }
            }
        }
        done.extend(current);
        Ok(done)
    }

    /// A word with its variables replaced, and not split.
    fn value_of(&self, word: &Word) -> Result<String, Unsupported> {
        word.0.iter().map(|part| self.part(part)).collect()
    }

    fn part(&self, part: &Part) -> Result<String, Unsupported> {
        Ok(match part {
            Part::Plain(text) | Part::Quoted(text) => text.clone(),
            Part::Arguments => return Err(Unsupported::new("`$@` within a longer word")),
            Part::Variable { name, .. } => match name.as_str() {
                "$" => PID.to_owned(),
                "?" => self.status.to_string(),
                name => match name.parse::<usize>() {
                    Ok(number) => self.arguments.get(number).cloned().unwrap_or_default(),
                    Err(_) => self.env.get(name).cloned().unwrap_or_default(),
                },
            },
        })
    }
}

/// The value of `$$`: the pid is not known before the program is started, and `kill` alone needs it.
const PID: &str = "$$";

fn parse_signal(name: &str) -> Result<Signal, Unsupported> {
    name.parse().map_err(|_| Unsupported(format!("the signal `{name}`")))
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}
