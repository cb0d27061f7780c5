//! The commands of the simulated shell, as the parser finds them.

/// Commands in order, each with the condition under which it runs.
pub(super) type List = Vec<(RunIf, Command)>;

/// Whether a command runs, from the status of the command before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunIf {
    Always,
    /// After `&&`.
    Succeeded,
    /// After `||`.
    Failed,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Simple(Simple),
    /// `for NAME in WORDS; do BODY; done`
    For {
        name: String,
        words: Vec<Word>,
        body: List,
    },
    /// `while :; do BODY; done`
    Forever(List),
}

/// A command that is not a loop: a name and its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Simple {
    pub(super) words: Vec<Word>,
    /// `>&2` follows.
    pub(super) to_stderr: bool,
    /// `&` follows.
    pub(super) in_background: bool,
}

/// A word before expansion: its parts without anything in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word(pub(super) Vec<Part>);

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text outside of quotes.
    Plain(String),
    /// Text in quotes.
    Quoted(String),
    /// `$NAME`
    Variable { name: String, is_quoted: bool },
    /// `$@`
    Arguments,
}

/// What the simulated shell does not support, as a part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsupported(pub(super) String);

impl Unsupported {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl Word {
    /// The text of a word without quotes and variables, as that of a reserved word.
    pub(super) fn as_plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Plain(text)] => Some(text),
            _ => None,
        }
    }

    /// The name and the value of `NAME=value`.
    pub(super) fn as_assignment(&self) -> Option<(&str, Self)> {
        let Some((Part::Plain(first), rest)) = self.0.split_first() else { return None };
        let (name, value) = first.split_once('=')?;
        if !is_name(name) {
            return None;
        }
        let mut parts = vec![Part::Plain(value.to_owned())];
        parts.extend(rest.iter().cloned());
        Some((name, Self(parts)))
    }
}

/// Whether a variable can have this name.
pub(super) fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}
