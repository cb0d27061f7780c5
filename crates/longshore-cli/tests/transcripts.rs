//! Transcripts of the command: its words, without a container. `SNAPSHOTS=overwrite cargo test -p longshore-cli` writes the
//! files anew.

use std::process::Command;

use snapbox::{Data, assert_data_eq, file};

/// What a call prints, with its exit code, on a terminal of 80 columns.
fn transcript(lines: &[&str]) -> String {
    let call = |line: &&str| {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("longshore"), "{line}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.args(words).env("COLUMNS", "80").env_remove("LONGSHORE_LOG");
        let output = command.output().expect("the command is built");
        let text = [output.stdout, output.stderr].concat();
        let code = match output.status.code() {
            Some(0) => String::new(),
            code => format!("? {}\n", code.unwrap_or(-1)),
        };
        format!("$ {line}\n{}{code}", String::from_utf8_lossy(&text))
    };
    lines.iter().map(call).collect::<Vec<_>>().join("\n")
}

fn check(lines: &[&str], expected: Data) {
    assert_data_eq!(transcript(lines), expected.raw());
}

#[test]
fn help() {
    check(&["longshore -h", "longshore run -h", "longshore doctor -h"], file!["transcripts/help.txt"]);
}

/// The help that is asked for most fits on a screen. The other has every option under a heading.
#[test]
fn help_on_a_screen() {
    let short = transcript(&["longshore run -h"]);
    assert!(short.lines().count() <= 42, "{} lines", short.lines().count());
    assert!(short.lines().all(|line| line.chars().count() <= 80), "{short}");
    let long = transcript(&["longshore run --help"]);
    for heading in [
        "Program:",
        "Files:",
        "Network:",
        "Limits (-1 and 0 are none):",
        "Rights:",
        "Container:",
        "Longshore:",
    ] {
        assert!(long.lines().any(|line| line == heading), "{heading}");
    }
    for option in ["--rm", "--sysctl", "--cidfile", "--cni-plugins", "--no-pivot"] {
        assert!(long.contains(option) && !short.contains(option), "{option}");
    }
}

#[test]
fn words() {
    let lines = [
        "longshore runn true",
        "longshore echo hi",
        "longshore run",
        "longshore run --memry 1g true",
        "longshore run --memory 1x true",
        "longshore run --pids -2 true",
        "longshore run --stdio pip true",
        "longshore run --gidmap 0:1:1 true",
        "longshore run -d true",
        "longshore run -p 80:80 true",
        "longshore run --restart always true",
        "longshore run --entrypoint sh true",
        "longshore run --network bridge true",
        "longshore run --sysctl vm.swappiness=1 true",
        "longshore run --net host --sysctl net.core.somaxconn=1 true",
        "longshore run --env-file /no/such true",
        "longshore run --config /no/such true",
        "longshore ps",
        "longshore exec x sh",
        "longshore logs x",
        "longshore pull alpine",
        "longshore completion",
        "longshore sweep --runtime runc",
    ];
    check(&lines, file!["transcripts/words.txt"]);
}

/// A shell reads the completions, and man(1) the pages: every subcommand and option is in them.
#[test]
fn pages() {
    let directory = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let script = transcript(&[&format!("longshore completion {shell}")]);
        assert!(script.contains("sweep") && script.contains("cidfile"), "{shell}");
    }
    let path = directory.path().display();
    assert_eq!(transcript(&[&format!("longshore man {path}")]).lines().count(), 1);
    let page = std::fs::read_to_string(directory.path().join("longshore-run.1")).expect("a page");
    assert!(page.contains("Exit status") && page.contains("cidfile"), "{page}");
    let mut names: Vec<_> =
        directory.path().read_dir().expect("readable").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let expected =
        ["", "-completion", "-doctor", "-run", "-spec", "-sweep"].map(|name| format!("longshore{name}.1"));
    let mut expected: Vec<_> = expected.into_iter().map(std::ffi::OsString::from).collect();
    expected.sort();
    assert_eq!(names, expected);
}
