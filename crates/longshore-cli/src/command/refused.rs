//! What the command refuses by itself: the cause, and what to do. docs/messages.md is made of it.

use std::fmt;
use std::path::PathBuf;

use super::ordinary::{LoweredOomScore, Unmapped};
use super::status::{MORE_FILES, OUR_FAILURE};

/// A request that is refused, or cannot be carried out, before or beside the library.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(strum::EnumCount))]
pub(crate) enum Refused {
    /// `-t` with `-i`, and stdin is no terminal.
    NoTerminal,
    /// The specification and the program want stdin.
    StdinTwice,
    /// `-i`, and stdin is a directory.
    StdinDirectory,
    /// A file of `--spec` cannot be read.
    SpecUnreadable { file: PathBuf, why: String },
    /// A file of `--spec` has no specification.
    SpecWrong { file: PathBuf, why: String },
    /// A secret has no form in JSON.
    SecretInJson { why: String },
    /// A file of `--env-file` cannot be used.
    EnvFile { file: PathBuf, line: Option<u64>, why: String },
    /// A file of `--env-file` cannot be read.
    EnvFileUnreadable { file: PathBuf, why: String },
    /// A value of `--env` cannot be used.
    Variable { entry: String, why: &'static str },
    /// A file of `--events` cannot be written.
    Events { file: PathBuf, why: String },
    /// A file of `--cidfile` cannot be written.
    CidFile { file: PathBuf, why: String },
    /// `sweep --runtime`.
    SweepRuntime,
    /// A root cannot be swept.
    SweepRoot { cause: String },
    /// There are too few file descriptors, or threads.
    Files { cause: String },
    /// A collector of spans cannot be used.
    #[cfg_attr(not(any(feature = "otlp", test)), expect(dead_code, reason = "only with the feature otlp"))]
    Collector { endpoint: String, why: String },
    /// An ordinary user wants a CNI network.
    OrdinaryCni,
    /// An ordinary user may not map these ids.
    Ids(Unmapped),
    /// An ordinary user may not lower the score.
    OomScore(LoweredOomScore),
    /// The answer of a command cannot be written to stdout.
    Answer { why: String },
    /// The manual pages cannot be written.
    Man { file: PathBuf, why: String },
}

impl Refused {
    /// What to do.
    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Self::NoTerminal => "leave out -t for a pipe or a file, or leave out -i",
            Self::StdinTwice => "leave out -i, or name a file with --spec",
            Self::StdinDirectory => "give it a file or a pipe, or leave out -i",
            Self::SpecUnreadable { .. } | Self::EnvFileUnreadable { .. } => "name a file that you may read",
            Self::SpecWrong { .. } => "docs/schema/container-spec.json has the form",
            Self::SecretInJson { .. } => "leave out --secret",
            Self::EnvFile { .. } => "give it NAME=VALUE, or NAME, on each line",
            Self::Variable { .. } => "give NAME=VALUE, or the NAME of a variable to pass on",
            Self::Events { .. } => "name a file of your own, or a FIFO with a reader",
            Self::CidFile { .. } => "name a file that does not exist, in a directory of your own",
            Self::SweepRuntime => "leave out --runtime",
            Self::SweepRoot { .. } => "sweep as the user whose root it is",
            Self::Files { .. } => MORE_FILES,
            Self::Collector { .. } => "name one such as http://localhost:4318/v1/traces",
            Self::OrdinaryCni => "give --net host or none, or run as root",
            Self::Ids(_) => "name ids of such a range, or leave out --uidmap and --gidmap",
            Self::OomScore(_) => "run with that capability, or give a score that is not lower",
            Self::Answer { .. } => "free some space, or send stdout elsewhere",
            Self::Man { .. } => "name a directory in which you may write",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTerminal => f.write_str("stdin is no terminal, and -t with -i passes on the keys of one"),
            Self::StdinTwice => {
                f.write_str("the specification is read from stdin, so the program cannot have it")
            }
            Self::StdinDirectory => f.write_str("stdin is a directory, which cannot be read"),
            Self::SpecUnreadable { file, why } | Self::SpecWrong { file, why } => {
                write!(f, "--spec {}: {why}", file.display())
            }
            Self::SecretInJson { why } => f.write_str(why),
            Self::EnvFile { file, line: Some(line), why } => {
                write!(f, "--env-file {}:{line}: {why}", file.display())
            }
            Self::EnvFile { file, line: None, why } | Self::EnvFileUnreadable { file, why } => {
                write!(f, "--env-file {}: {why}", file.display())
            }
            Self::Variable { entry, why } => write!(f, "--env {entry}: {why}"),
            Self::Events { file, why } => write!(f, "--events {}: {why}", file.display()),
            Self::CidFile { file, why } => write!(f, "--cidfile {}: {why}", file.display()),
            Self::SweepRuntime => f.write_str("a sweep uses no runtime"),
            Self::SweepRoot { cause } | Self::Files { cause } => f.write_str(cause),
            Self::Collector { endpoint, why } => write!(f, "--otlp {endpoint}: {why}"),
            Self::OrdinaryCni => f.write_str("ordinary users cannot have CNI networks"),
            Self::Ids(unmapped) => unmapped.fmt(f),
            Self::OomScore(lowered) => lowered.fmt(f),
            Self::Answer { why } => write!(f, "stdout: {why}"),
            Self::Man { file, why } => write!(f, "{}: {why}", file.display()),
        }
    }
}

impl From<Refused> for super::status::Failure {
    fn from(refused: Refused) -> Self {
        Self { cause: refused.to_string(), remedy: refused.remedy(), code: OUR_FAILURE }
    }
}
