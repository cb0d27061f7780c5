//! docs/messages.md: every sentence of the command, made of the types that it prints. A test compares the two;
//! `LONGSHORE_WRITE_MESSAGES=1` has it write the file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Parser;
use longshore::{
    Cancel, CancelCause, ContainerId, ContainerSpec, Error, Exit, ExitReason, ExitStatus, InvalidSpec,
    RuntimeError, Signal, StartFailure, StartFailureKind, TimeLimit, Timestamp, Usage,
};
use strum::EnumCount;

use super::args::Arguments;
use super::hints::{self, COMMANDS, HABITS};
use super::ordinary::{LoweredOomScore, Unmapped};
use super::refused::Refused;
use super::remark::Remark;
use super::shortage::{SHORTAGES, SUSPECTS};
use super::status::{self, Asked, Failure, OPTIONS};
use super::words::HOSTNAME;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/messages.md");

const HEAD: &str = "\
# What the command says

Every sentence that `longshore` prints on stderr begins with `longshore: `. Where something has failed, it has the cause, a
semicolon, and what to do. Everything else on stderr is the program's, but for the help that `longshore` without a command prints there,
for `--events -`, and for the log that `LONGSHORE_LOG` asks for. Every kind of sentence is in these tables. Words in capitals stand for
what varies: names of your own, as `FILE`, and what the kernel, the runtime or a check of a value says, as `WHY`. This file is made of
the command's types: `LONGSHORE_WRITE_MESSAGES=1 cargo test --package longshore-cli messages` writes it.
";

/// A table under a heading.
struct Table(String);

impl Table {
    fn new(title: &str, about: &str, columns: &[&str]) -> Self {
        let rule = vec!["---"; columns.len()].join("|");
        Self(format!("\n## {title}\n\n{about}\n\n| {} |\n|{rule}|\n", columns.join(" | ")))
    }

    fn row(&mut self, cells: &[&str]) {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        writeln!(self.0, "| {} |", cells.join(" | ")).unwrap();
    }

    fn failure(&mut self, failure: &Failure) {
        self.row(&[&failure.cause, &failure.code.0.to_string(), failure.remedy]);
    }
}

fn refused() -> Vec<Refused> {
    let (file, why) = (|| "FILE".into(), || "WHY".to_owned());
    let all = vec![
        Refused::NoTerminal,
        Refused::StdinTwice,
        Refused::StdinDirectory,
        Refused::SpecUnreadable { file: file(), why: why() },
        Refused::SpecWrong { file: file(), why: "FIELD: WHY at line N column N".into() },
        Refused::SecretInJson { why: "a secret has no form in JSON".into() },
        Refused::EnvFile { file: file(), line: Some(3), why: why() },
        Refused::EnvFileUnreadable { file: file(), why: why() },
        Refused::Variable { entry: "VARIABLE".into(), why: "WHY" },
        Refused::Events { file: file(), why: why() },
        Refused::CidFile { file: file(), why: why() },
        Refused::Answer { why: why() },
        Refused::SweepRuntime,
        Refused::SweepRoot { cause: "the root DIR cannot be used: WHY".into() },
        Refused::Files { cause: "too many open files".into() },
        Refused::Collector { endpoint: "ENDPOINT".into(), why: why() },
        Refused::OrdinaryCni,
        Refused::Ids(Unmapped::specimen()),
        Refused::OomScore(LoweredOomScore::specimen()),
        Refused::Man { file: file(), why: why() },
    ];
    let kinds: Vec<_> = all.iter().map(std::mem::discriminant).collect();
    assert!((1..kinds.len()).all(|n| !kinds[..n].contains(&kinds[n])) && kinds.len() == Refused::COUNT);
    all
}

fn of_the_line() -> Table {
    let about = "One of each kind. Exit code 125.";
    let mut table = Table::new("The command line is wrong", about, &["sentence", "what to do"]);
    for line in [
        "run --memory x true",
        "run --stdio x true",
        "run --memory",
        "run --privileged --security sandbox true",
        "run --gidmap 0:1:1 true",
        "run --unheard-of true",
        "run --memry 1g true",
        "run --it sh",
        "run --name /x true",
        "echo hi",
        "runn true",
    ] {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let parsed = Arguments::try_parse_from(std::iter::once("longshore").chain(line.split(' ')));
        let sentence = hints::sentence(&parsed.unwrap_err(), &words);
        let (cause, remedy) = sentence.rsplit_once("; ").unwrap();
        table.row(&[cause, remedy]);
    }
    table
}

fn of_the_command() -> Table {
    let mut table = Table::new(
        "Refused before a container is made",
        "By the command itself.",
        &["sentence", "exit code", "what to do"],
    );
    refused().into_iter().for_each(|refused| table.failure(&refused.into()));
    table
}

fn of_the_library() -> Table {
    let about = "By the library: the specification, the root, the runtime.";
    let mut table = Table::new("Refused by the library", about, &["sentence", "exit code", "what to do"]);
    let invalid = ContainerSpec::host::<String>([]).validate().unwrap_err();
    let id = || ContainerId::new("ID").unwrap();
    let root = RuntimeError::Root { root: "DIR".into(), source: "WHY".into() };
    let words = || ("runc OPERATION".into(), "ID".to_owned());
    let ((op, subject), after) = (words(), Duration::from_secs(60));
    let errors: [Error; 12] = [
        invalid.into(),
        ContainerSpec::host(["true"]).memory(64).validate().unwrap_err().into(),
        ContainerSpec::host(["true"]).sysctl("NAME", "1").validate().unwrap_err().into(),
        InvalidSpec::new("config", "DIR: cannot be read").into(),
        ContainerId::new("a/b").unwrap_err().into(),
        Error::IdTaken { id: id() },
        RuntimeError::NoRuntime { tried: vec!["runc".into(), "crun".into()] }.into(),
        root.into(),
        RuntimeError::Refused { op, subject, words: "WORDS OF THE RUNTIME".into() }.into(),
        RuntimeError::TimedOut { op: words().0, subject: words().1, after }.into(),
        Error::ShuttingDown,
        Error::Stopped,
    ];
    errors.into_iter().for_each(|error| table.failure(&error.into()));
    table
}

fn of_starts() -> Table {
    let about = "The program did not run. The cause begins with the field of the specification, or is in the runtime's words. Where these \
                 are about the value of an option, the next table has the remedy.";
    let mut table =
        Table::new("The program was not started", about, &["sentence", "exit code", "what to do"]);
    for (kind, message) in [
        (StartFailureKind::NotFound, "PROGRAM: not found on the container's PATH"),
        (StartFailureKind::NotFound, "PROGRAM: no such file in the container"),
        (StartFailureKind::NotExecutable, "PROGRAM: permission denied"),
        (StartFailureKind::BadConfig, "FIELD: WHY"),
        (StartFailureKind::BadConfig, "rootfs: DIR: No such file or directory"),
        (StartFailureKind::BadConfig, "layer: DIR: No such file or directory"),
        (StartFailureKind::BadConfig, "mount source: PATH: No such file or directory"),
        (StartFailureKind::BadConfig, "network NAME: WHY"),
        (StartFailureKind::IdTaken, "the container id ID is taken"),
        (StartFailureKind::PermissionDenied, "FIELD: permission denied"),
        (
            StartFailureKind::PermissionDenied,
            "resources: limits need cgroups, and none are delegated to this user",
        ),
        (StartFailureKind::NoResources, "WHAT: no space left on device"),
        (StartFailureKind::RuntimeTimedOut, "the runtime did not answer in time"),
        (StartFailureKind::RuntimeBroken, "OPERATION FILE: WHY"),
        (StartFailureKind::RuntimeBroken, "WORDS OF THE RUNTIME"),
        (StartFailureKind::ContainerGone, "the container has ended"),
        (StartFailureKind::Interrupted, "the executor ended while it was starting the process"),
    ] {
        table.failure(&StartFailure::new(kind, message).into());
    }
    table
}

fn of_shortages() -> Table {
    let about = "Exit code 125. The first row counts that applies.";
    let columns = ["words", "with the option", "what to do"];
    let mut table = Table::new("Words of the kernel on what has run out at a start", about, &columns);
    for (words, option, _, remedy) in SHORTAGES {
        table.row(&[&format!("… {words} …"), option, remedy]);
    }
    table
}

fn of_options() -> Table {
    let about = "Exit code 125. The runtime or the kernel has refused a value.";
    let mut table =
        Table::new("Words of the runtime that are about an option", about, &["words", "what to do"]);
    OPTIONS.iter().for_each(|(words, remedy)| table.row(&[&format!("… {words} …"), remedy]));
    for (option, _, remedy) in SUSPECTS {
        table.row(&[&format!("other words, with {option}"), remedy]);
    }
    table
}

fn of_ends() -> Table {
    let about = "The program ran. `--quiet` leaves these out. The exit code is the program's own, 128+n after signal n, or 124.";
    let mut table =
        Table::new("How the program ended", about, &["end", "exit code", "sentence, and what to do"]);
    let at = Timestamp::default();
    let grace = Cancel::with_grace(Duration::from_secs(5));
    let limit = TimeLimit { after: Duration::from_secs(30), cancel: grace };
    let asked = Asked { time_limit: Some(limit), cancel: grace, memory: Some(64 << 20), ..Asked::default() };
    let interrupted = Asked { interrupted: Some(Signal::INT), ..asked };
    let init = Asked { has_init: true, ..asked };
    let hurried = Asked { hurried: true, ..interrupted };
    let at_once = Asked { cancel: Cancel::now(), ..interrupted };
    let cancelled = |killed| ExitReason::Cancelled { cause: CancelCause::Requested, killed };
    let timed = |killed| ExitReason::TimedOut { killed };
    let (kill, term, code) =
        (ExitStatus::Signal(Signal::KILL), ExitStatus::Signal(Signal::TERM), ExitStatus::Code);
    let usage = |oom_kills| Some(Box::new(Usage { oom_kills, ..Usage::default() }));
    for (end, status, reason, asked, oom_kills) in [
        ("it ended by itself", code(3), ExitReason::Normal, asked, 0),
        ("and lost a process to the OOM killer", code(0), ExitReason::Normal, asked, 1),
        ("and lost several", code(3), ExitReason::Normal, asked, 2),
        ("the same without a limit", code(3), ExitReason::Normal, Asked { memory: None, ..asked }, 1),
        ("the OOM killer ended it", kill, ExitReason::OutOfMemory, asked, 1),
        ("the time was over", code(7), timed(false), asked, 0),
        ("a signal ended it", term, timed(false), asked, 0),
        ("behind process 1", code(143), timed(false), init, 0),
        ("it had to be killed", kill, timed(true), asked, 0),
        ("Ctrl-C came meanwhile", kill, timed(true), interrupted, 0),
        ("without a grace", kill, timed(false), asked, 0),
        ("its status is unknown", ExitStatus::Unknown, timed(false), asked, 0),
        ("Ctrl-C, and it ended", code(3), cancelled(false), interrupted, 0),
        ("it had to be killed", kill, cancelled(true), interrupted, 0),
        ("a second Ctrl-C", kill, cancelled(true), hurried, 0),
        ("--grace 0", kill, cancelled(true), at_once, 0),
        ("somebody else has waited for it", ExitStatus::Unknown, ExitReason::Lost, asked, 0),
    ] {
        let exit = Exit::new(status, reason, &BTreeSet::new(), Some(at), at).with_usage(usage(oom_kills));
        let (code, sentence) = status::of(exit, &asked);
        table.row(&[end, &code.0.to_string(), &sentence.unwrap_or_else(|| "nothing is said".into())]);
    }
    table
}

fn of_habits() -> Table {
    let about = "Exit code 125: `unexpected argument 'OPTION' found`, or `unrecognized subcommand 'COMMAND'`. Where there is no row, the \
                 nearest one is named, as in `is it --memory?`, or the help.";
    let columns = ["option or command", "what to do"];
    let mut table = Table::new("Words of other commands that run containers", about, &columns);
    for (words, remedy) in HABITS.iter().chain(&COMMANDS) {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        table.row(&[&words.join(", "), remedy]);
    }
    let (cause, remedy) = HOSTNAME.split_once("; ").unwrap();
    table.row(&[&format!("`run -h NAME` ({cause})"), remedy]);
    table
}

fn of_remains() -> Table {
    let about = "Exit code: 125 in place of 0 where output is lost, 125 of a sweep, 1 of the doctor, and the program's where something is left, \
                 or spans or lines of the log are lost.";
    let mut table = Table::new("Beside the program's end", about, &["sentence", "what to do"]);
    let (why, what) = (|| "WHY".to_owned(), || "WHAT".to_owned());
    let all = [
        Remark::OutputLost { why: why() },
        Remark::OutputClosed,
        Remark::OutputNotRead,
        Remark::InputLost { why: why() },
        Remark::EventsLost { why: why() },
        Remark::Stuck,
        Remark::Left { what: what() },
        Remark::LeftBySweep { what: what() },
        Remark::LogLost { lines: 3 },
        Remark::SpansLost { why: why() },
        Remark::Doctor { check: "CHECK", what: what(), remedy: "the remedy of that check" },
    ];
    assert_eq!(all.len(), Remark::COUNT);
    for remark in all.map(|remark| remark.to_string()) {
        let (sentence, remedy) = remark.split_once("; ").unwrap();
        table.row(&[sentence, remedy]);
    }
    table
}

#[test]
fn the_messages_in_docs_are_those_of_the_types() {
    let tables = [
        of_the_line(),
        of_the_command(),
        of_the_library(),
        of_starts(),
        of_shortages(),
        of_options(),
        of_ends(),
        of_habits(),
        of_remains(),
    ];
    let text: String = std::iter::once(HEAD.to_owned()).chain(tables.map(|table| table.0)).collect();
    if std::env::var_os("LONGSHORE_WRITE_MESSAGES").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        written == text,
        "docs/messages.md is not what the types say: LONGSHORE_WRITE_MESSAGES=1 writes it"
    );
}
