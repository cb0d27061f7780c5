//! Inputs of strangers that failed once: the core and the driver. Each test has the name of its row in `tests/README.md`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::process::{Command, Stdio};

use longshore_tests::command::{Outcome, longshore};
use longshore_tests::on_bare_stage;

/// The command, with as many file descriptors as a shell's `ulimit -n` allows.
#[test]
fn emfile() {
    on_bare_stage(|stage| {
        let mut worked = 0;
        for limit in 4..=60 {
            for terminal in [&[][..], &["-t"]] {
                let longshore = longshore(&stage.root());
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={limit}:{limit}"));
                command.arg(longshore.get_program()).args(longshore.get_args());
                command.arg("run").args(terminal).args(["--", "true"]);
                let outcome: Outcome = command.stdin(Stdio::null()).output().unwrap().into();
                let is_sentence = outcome.stderr.lines().count() == 1 && outcome.stderr.starts_with("longshore: ");
                match outcome.code {
                    Some(0) => worked += 1,
                    Some(125) => assert!(is_sentence, "{limit} {terminal:?}: {outcome:?}"),
                    _ => panic!("{limit} {terminal:?}: {outcome:?}"),
                }
                let left = fs::read_dir(stage.root()).map_or(0, Iterator::count);
                assert_eq!(left, 0, "{limit} {terminal:?}: {outcome:?}");
            }
        }
        assert!(worked > 20, "{worked}");
        stage.check();
    });
}
