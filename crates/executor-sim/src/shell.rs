//! The small part of a shell that lets one specification run on the simulator and on a real runtime.
//!
//! Understood are `sh -c SCRIPT [NAME ARG…]`, `sleep`, `echo`, `cat`, `true` and `false` as programs. A script is
//! commands separated by `;`, newlines or `&&`: those programs, `exit [N]`, `trap 'SCRIPT' SIGNAL`, `exec`,
//! `kill -SIGNAL $$`, `while :; do …; done`, each with `>&2` or, after `sleep`, with `&`. `$NAME`, `$1` and `$$` are
//! replaced. Anything else is a command that is not found: code 127.

use std::collections::BTreeMap;
use std::time::Duration;

use executor_core::lifecycle::Signal;

use crate::program::{Program, Step, Trap};

/// The program that these arguments name, when this shell knows it.
pub(crate) fn program(args: &[String], env: &BTreeMap<String, String>) -> Option<Program> {
    let name = args.first()?.rsplit('/').next()?;
    let mut shell = Shell { env: env.clone(), steps: Vec::new(), status: 0 };
    match name {
        "sh" | "bash" if args.get(1).is_some_and(|flag| flag == "-c") => {
            for (number, value) in args.iter().skip(3).enumerate() {
                shell.env.insert(number.to_string(), value.clone());
            }
            shell.script(args.get(2)?);
        }
        "sleep" | "echo" | "cat" | "true" | "false" => {
            let words: Vec<_> =
                std::iter::once(name).chain(args.iter().skip(1).map(String::as_str)).collect();
            shell.command(&words);
        }
        _ => return None,
    }
    shell.steps.push(Step::Exit(shell.status));
    Some(Program { steps: shell.steps, ..Program::default() })
}

struct Shell {
    env: BTreeMap<String, String>,
    steps: Vec<Step>,
    /// Of the last command. Nothing here depends on time, so it is known beforehand.
    status: u8,
}

impl Shell {
    fn script(&mut self, script: &str) {
        let mut rest = script;
        while !rest.trim_start().is_empty() {
            rest = rest.trim_start();
            if let Some(body) =
                rest.strip_prefix("while :; do").or_else(|| rest.strip_prefix("while true; do"))
            {
                let (body, after) = body.split_once("done").unwrap_or((body, ""));
                let mut inner = Self { env: self.env.clone(), steps: Vec::new(), status: 0 };
                inner.script(body);
                self.steps.push(Step::Repeat(inner.steps));
                rest = after.trim_start().trim_start_matches(';');
                continue;
            }
            let (command, only_if, after) = next_command(rest);
            let words = self.words(command);
            self.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
            rest = after;
            if only_if && self.status != 0 {
                rest = skip_chain(rest);
            }
        }
    }

    fn command(&mut self, words: &[&str]) {
        let (words, stderr) = match words {
            [words @ .., ">&2"] => (words, true),
            words => (words, false),
        };
        self.status = 0;
        match words {
            [] | [":" | "true"] => {}
            ["false"] => self.status = 1,
            ["exec", rest @ ..] => self.command(rest),
            ["echo", text @ ..] => {
                let line = format!("{}\n", text.join(" ")).into_bytes();
                self.steps.push(if stderr { Step::Stderr(line) } else { Step::Stdout(line) });
            }
            ["cat"] => self.steps.push(Step::CopyStdin),
            ["sleep", time, "&"] => self.steps.push(Step::Fork(seconds(time))),
            ["sleep", time] => self.steps.push(Step::Sleep(seconds(time))),
            ["exit"] => self.steps.push(Step::Exit(self.status)),
            ["exit", code] => self.steps.push(Step::Exit(code.parse().unwrap_or(2))),
            ["trap", script, signal] => self.trap(script, signal),
            ["kill", signal, "$$"] => match signal.trim_start_matches('-').parse() {
                Ok(signal) => self.steps.push(Step::Die(signal)),
                Err(_) => self.status = 1,
            },
            [unknown, ..] => {
                self.steps.push(Step::Stderr(format!("sh: {unknown}: not found\n").into_bytes()));
                self.status = 127;
            }
        }
    }

    fn trap(&mut self, script: &str, signal: &str) {
        let Ok(signal) = signal.parse::<Signal>() else {
            self.status = 1;
            return;
        };
        let trap = if script.is_empty() {
            Trap::Ignore
        } else {
            let mut inner = Self { env: self.env.clone(), steps: Vec::new(), status: 0 };
            inner.script(script);
            Trap::Run(inner.steps)
        };
        self.steps.push(Step::Trap(signal, trap));
    }

    /// Splits at spaces outside of quotes and replaces variables outside of single quotes.
    fn words(&self, command: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        let mut rest = command.chars().peekable();
        while let Some(c) = rest.next() {
            match (c, quote) {
                ('\'' | '"', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (c, Some(q)) if c == q => quote = None,
                ('$', None | Some('"')) if rest.peek() == Some(&'$') => {
                    rest.next();
                    word.get_or_insert_default().push_str("$$");
                }
                ('$', None | Some('"')) => {
                    let mut name = String::new();
                    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    let value = self.env.get(&name).map_or("", String::as_str);
                    word.get_or_insert_default().push_str(value);
                }
                (c, None) if c.is_whitespace() => words.extend(word.take()),
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }
}

/// The next command, whether the one after it wants it to succeed, and the rest.
fn next_command(script: &str) -> (&str, bool, &str) {
    let mut quote = None;
    for (at, c) in script.char_indices() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            (';' | '\n', None) => return (&script[..at], false, &script[at + 1..]),
            ('&', None) if script[at..].starts_with("&&") => return (&script[..at], true, &script[at + 2..]),
            ('&', None) if !script[..at].ends_with('>') => {
                return (&script[..=at], false, script[at + 1..].trim_start_matches(';'));
            }
            _ => {}
        }
    }
    (script, false, "")
}

/// What follows the commands that depend on one that has failed.
fn skip_chain(script: &str) -> &str {
    let (_, only_if, rest) = next_command(script);
    if only_if { skip_chain(rest) } else { rest }
}

fn seconds(text: &str) -> Duration {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test shows the rest as it is")]
mod tests {
    use super::*;

    fn steps(script: &str) -> String {
        let env = BTreeMap::from([("NAME".to_owned(), "a b".to_owned())]);
        let args = ["sh", "-c", script, "sh", "one"].map(str::to_owned);
        let program = program(&args, &env).expect("a shell");
        let show = |step: &Step| {
            let (stream, text) = match step {
                Step::Stdout(text) => ("out", text),
                Step::Stderr(text) => ("err", text),
                _ => return format!("{step:?}"),
            };
            format!("{stream} {}", String::from_utf8_lossy(text).trim_end())
        };
        program.steps.iter().map(show).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn scripts_become_steps() {
        for (script, expected) in [
            ("", "Exit(0)"),
            ("exit 3", "Exit(3), Exit(0)"),
            ("echo 'a; b'  $NAME \"$NAME\" '$NAME' $1", "out a; b a b a b $NAME one, Exit(0)"),
            ("echo out; echo err >&2", "out out, err err, Exit(0)"),
            ("sleep 0.5 & echo on", "Fork(500ms), out on, Exit(0)"),
            ("true && echo yes", "out yes, Exit(0)"),
            ("false && echo no && echo no; echo on", "out on, Exit(0)"),
            ("nonsense -x", "err sh: nonsense: not found, Exit(127)"),
            ("exec sleep 1", "Sleep(1s), Exit(0)"),
            ("while :; do sleep 1; done; echo never", "Repeat([Sleep(1s)]), out never, Exit(0)"),
        ] {
            assert_eq!(steps(script), expected, "{script}");
        }
        assert!(steps("trap '' TERM; trap 'echo x; exit 4' HUP").contains("Ignore"));
        assert!(steps("kill -TERM $$").contains("Die"));
    }

    #[test]
    fn only_known_programs_are_known() {
        let known = |args: &[&str]| {
            let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
            program(&args, &BTreeMap::new()).is_some()
        };
        assert!(known(&["/bin/sleep", "1"]) && known(&["true"]) && known(&["cat"]));
        assert!(!known(&["sh"]) && !known(&["make"]) && !known(&[]));
    }
}
