//! What a guest says, line by line, and the table that it comes to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Program;
use super::options::Options;
use super::script::MARK;

/// The test programs that `cargo test --no-run` names: those of a file or a directory of `tests`.
pub(super) fn executables(said: &str) -> Vec<Program> {
    let program = |line: &str| {
        let (source, path) = line.trim().strip_prefix("Executable ")?.split_once(" (")?;
        let name = source.strip_prefix("tests/")?.trim_end_matches("/main.rs").trim_end_matches(".rs");
        Some((name.to_owned(), PathBuf::from(path.strip_suffix(')')?)))
    };
    said.lines().filter_map(program).collect()
}

/// A line of a guest's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The machine is up.
    Up,
    /// A suite begins.
    Suite(String),
    /// A suite has ended, with this status.
    End(u8),
    /// Everything has ended.
    Done,
    /// A test begins. If it wrote nothing by itself, its result is in the same line.
    Test(String, Option<Outcome>),
    /// The result of the test that has begun.
    Outcome(Outcome),
    /// What a suite sums up.
    Sum { passed: u32, failed: u32 },
    /// What a test wrote.
    Other,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    Ignored,
}

impl Line {
    pub(super) fn parse(line: &str) -> Self {
        if let Some(own) = line.strip_prefix(MARK) {
            return Self::own(own).unwrap_or(Self::Other);
        }
        if let Some(sum) = line.strip_prefix("test result: ") {
            return Self::Sum { passed: number(sum, " passed"), failed: number(sum, " failed") };
        }
        if let Some((name, rest)) = line.strip_prefix("test ").and_then(|test| test.split_once(" ... ")) {
            return Self::Test(name.to_owned(), Outcome::parse(rest));
        }
        Outcome::parse(line).map_or(Self::Other, Self::Outcome)
    }

    fn own(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        match words.next()? {
            "up" => Some(Self::Up),
            "suite" => Some(Self::Suite(words.next()?.to_owned())),
            "end" => Some(Self::End(words.nth(1)?.parse().ok()?)),
            "done" => Some(Self::Done),
            _ => None,
        }
    }
}

impl Outcome {
    /// A result comes after what the test's processes have written to the same line.
    fn parse(text: &str) -> Option<Self> {
        let word = text.rsplit([' ', '\t']).next().unwrap_or_default();
        match word {
            "ok" => Some(Self::Passed),
            _ if word.ends_with("FAILED") => Some(Self::Failed),
            _ if text.starts_with("ignored") => Some(Self::Ignored),
            _ => None,
        }
    }
}

/// The number before a word: `3 passed`.
fn number(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// What became of a suite.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) name: String,
    pub(super) passed: u32,
    pub(super) failed: Vec<String>,
    pub(super) seconds: u64,
    /// Why it did not end well, if no failed test says it.
    pub(super) trouble: Option<String>,
}

/// What has been said so far.
#[derive(Debug, Default)]
pub(super) struct Results {
    suites: Vec<Suite>,
    begun: Duration,
    /// The suite that runs, and the test of it.
    running: Option<Suite>,
    test: Option<(String, Duration)>,
    is_done: bool,
}

impl Results {
    /// Takes a line in, at a time since the beginning. Returns what is to be shown.
    pub(super) fn take(&mut self, line: Line, text: &str, now: Duration) -> Option<String> {
        match line {
            Line::Up => return Some(format!("guest: up after {} s", now.as_secs())),
            Line::Suite(name) => {
                self.begun = now;
                self.running = Some(Suite { name, ..Suite::default() });
            }
            Line::Test(name, outcome) => {
                // It comes twice: when it begins, and with its result.
                if self.test.as_ref().is_none_or(|(running, _)| *running != name) {
                    self.test = Some((name, now));
                }
                return outcome.and_then(|outcome| self.outcome(outcome, now));
            }
            Line::Outcome(outcome) if self.test.is_some() => return self.outcome(outcome, now),
            Line::Sum { passed, failed } => {
                if let Some(suite) = &mut self.running
                    && (suite.passed, suite.failed.len()) != (passed, failed as usize)
                {
                    suite.trouble = Some(format!("its own sum is {passed} passed, {failed} failed"));
                }
            }
            Line::End(status) => self.end_suite(status, now),
            Line::Done => self.is_done = true,
            Line::Outcome(_) | Line::Other => return (!text.is_empty()).then(|| format!("    {text}")),
        }
        None
    }

    fn outcome(&mut self, outcome: Outcome, now: Duration) -> Option<String> {
        let (suite, (test, since)) = (self.running.as_mut()?, self.test.take()?);
        let said = match outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Ignored => return None,
        };
        match outcome {
            Outcome::Passed => suite.passed += 1,
            Outcome::Failed => suite.failed.push(test.clone()),
            Outcome::Ignored => {}
        }
        let took = now.saturating_sub(since).as_secs_f32();
        Some(format!("{}::{test} ... {said} ({took:.1} s)", suite.name))
    }

    fn end_suite(&mut self, status: u8, now: Duration) {
        let Some(mut suite) = self.running.take() else { return };
        suite.seconds = now.saturating_sub(self.begun).as_secs();
        let running = self.test.take().map(|(test, _)| format!(" in {test}")).unwrap_or_default();
        if suite.trouble.is_none() && status != 0 && (suite.failed.is_empty() || !running.is_empty()) {
            suite.trouble = Some(format!("ended with {status}{running}"));
        }
        self.suites.push(suite);
    }

    /// The machine says nothing any more.
    pub(super) fn hang(&mut self, now: Duration) {
        self.stop("hung", now);
    }

    /// The machine has ended.
    pub(super) fn end(&mut self, now: Duration) {
        self.stop("the machine ended", now);
    }

    fn stop(&mut self, why: &str, now: Duration) {
        if let Some(mut suite) = self.running.take() {
            suite.seconds = now.saturating_sub(self.begun).as_secs();
            let running = self.test.take().map(|(test, _)| format!(" in {test}")).unwrap_or_default();
            suite.trouble = Some(format!("{why}{running}"));
            self.suites.push(suite);
        }
    }
}

/// What the command prints at the end.
pub(super) struct Table {
    /// A suite each, in the order they were asked for.
    rows: Vec<Suite>,
}

impl Table {
    pub(super) fn new(options: &Options, results: &Results) -> Self {
        let of = |name: &String| {
            let suite = results.suites.iter().find(|suite| suite.name == *name);
            suite.map_or_else(
                || Suite { name: name.clone(), trouble: Some("it was not run".into()), ..Suite::default() },
                |suite| Suite {
                    name: suite.name.clone(),
                    failed: suite.failed.clone(),
                    trouble: suite.trouble.clone(),
                    ..*suite
                },
            )
        };
        Self { rows: options.suites.iter().map(of).collect() }
    }

    pub(super) fn is_good(&self) -> bool {
        self.rows.iter().all(|suite| suite.failed.is_empty() && suite.trouble.is_none())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:>6} {:>6} {:>7}", "suite", "passed", "failed", "seconds")?;
        for Suite { name, passed, failed, seconds, .. } in &self.rows {
            writeln!(f, "{name:<28} {passed:>6} {:>6} {seconds:>7}", failed.len())?;
        }
        let (passed, failed, seconds) =
            self.rows.iter().fold((0, 0, 0), |(passed, failed, seconds), suite| {
                (passed + suite.passed, failed + suite.failed.len(), seconds + suite.seconds)
            });
        writeln!(f, "{:<28} {passed:>6} {failed:>6} {seconds:>7}", "all")?;
        for suite in &self.rows {
            for test in &suite.failed {
                writeln!(f, "failed: {}::{test}", suite.name)?;
            }
            if let Some(trouble) = &suite.trouble {
                writeln!(f, "failed: {}: {trouble}", suite.name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_of_suites_are_found() {
        let said = "   Compiling x\n  Executable tests/ready.rs (target/debug/deps/ready-1)\n  \
            Executable tests/hostile/main.rs (target/debug/deps/hostile-2)\n  Executable unittests src/lib.rs (target/debug/deps/x-3)\n";
        let program = |name: &str, path: &str| (name.to_owned(), PathBuf::from(path));
        let expected = [
            program("ready", "target/debug/deps/ready-1"),
            program("hostile", "target/debug/deps/hostile-2"),
        ];
        assert_eq!(executables(said), expected);
    }

    #[test]
    fn lines_are_understood() {
        for (line, expected) in [
            ("=== guest up", Line::Up),
            ("=== guest suite ready", Line::Suite("ready".into())),
            ("=== guest end ready 101", Line::End(101)),
            ("=== guest what", Line::Other),
            ("test a::b ... ok", Line::Test("a::b".into(), Some(Outcome::Passed))),
            ("test a ... noise FAILED", Line::Test("a".into(), Some(Outcome::Failed))),
            ("test a ... ignored, slow", Line::Test("a".into(), Some(Outcome::Ignored))),
            ("test a ... what it wrote", Line::Test("a".into(), None)),
            ("test a ... ", Line::Test("a".into(), None)),
            ("ok", Line::Outcome(Outcome::Passed)),
            ("test result: FAILED. 9 passed; 12 failed; 0 ignored", Line::Sum { passed: 9, failed: 12 }),
            ("anything", Line::Other),
        ] {
            assert_eq!(Line::parse(line), expected, "{line}");
        }
    }

    fn results(lines: &[&str]) -> Results {
        let mut results = Results::default();
        for (second, line) in lines.iter().enumerate() {
            results.take(Line::parse(line), line, Duration::from_secs(second as u64));
        }
        results
    }

    fn options() -> Options {
        Options::parse(&["--suite", "ready", "--suite", "ids"].map(str::to_owned)).unwrap()
    }

    #[test]
    fn a_good_run_is_good() {
        let results = results(&[
            "=== guest suite ready",
            "test a ... ",
            "test a ... ok",
            "test b ... noise",
            "ok",
            "test result: ok. 2 passed; 0 failed",
            "=== guest end ready 0",
            "=== guest suite ids",
            "test result: ok. 0 passed; 0 failed",
            "=== guest end ids 0",
        ]);
        let table = Table::new(&options(), &results);
        assert!(table.is_good(), "{table}");
        let shown = table.to_string();
        assert!(shown.contains("ready                             2      0       6"), "{shown}");
    }

    #[test]
    fn what_fails_hangs_or_does_not_run_is_not_good() {
        let failed = ["=== guest suite ready", "test a ... FAILED", "=== guest end ready 101"];
        let killed = ["=== guest suite ready", "test a ... ", "=== guest end ready 137"];
        let lost = ["=== guest suite ready", "test result: ok. 1 passed; 0 failed", "=== guest end ready 0"];
        let good = ["=== guest suite ids", "=== guest end ids 0"];
        for (lines, why) in [
            (&failed[..], "failed: ready::a"),
            (&killed, "failed: ready: ended with 137 in a"),
            (&lost, "failed: ready: its own sum is 1 passed, 0 failed"),
            (&[], "failed: ready: it was not run"),
        ] {
            let table = Table::new(&options(), &results(&[lines, &good].concat()));
            assert!(!table.is_good() && table.to_string().contains(why), "{table}");
        }
        let mut hung = results(&["=== guest suite ready", "test a ... "]);
        hung.hang(Duration::from_secs(9));
        let table = Table::new(&options(), &hung);
        assert!(!table.is_good() && table.to_string().contains("failed: ready: hung in a"), "{table}");
    }
}
