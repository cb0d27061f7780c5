//! `longshore doctor`: what containers need, a line each, with the remedy where it is missing. The checks are in the order in
//! which `run` depends on them. The last one is a run.

mod checks;
mod trial;

use std::process::ExitCode;

use longshore::Signal;
use serde_json::{Value, json};

use super::args::Global;
use super::plain::{self, plain, print, say};
use super::remark::Remark;
use super::status::Failure;

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Fine(String),
    /// Something that `run` can do without, and how to get it.
    Limited(String, &'static str),
    /// Something that `run` needs, and how to get it.
    Missing(String, &'static str),
    /// It was not tried, because of the check of this name.
    Skipped(&'static str),
}

struct Check {
    name: &'static str,
    verdict: Verdict,
}

pub(crate) fn doctor(global: &Global, as_json: bool) -> Result<ExitCode, Failure> {
    let checks = match all(global) {
        Ok(checks) => checks,
        Err(Interrupted(signal)) => return Ok(ExitCode::from(128 + signal.number())),
    };
    let failed = first_failure(&checks);
    if as_json {
        let report = serde_json::to_string_pretty(&report(&checks)).unwrap_or_default();
        print(plain::json(&report))?;
    } else {
        print(checks.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    }
    let Some((check, what, remedy)) = failed else { return Ok(ExitCode::SUCCESS) };
    if !as_json {
        say(Remark::Doctor { check, what: what.to_owned(), remedy });
    }
    Ok(ExitCode::FAILURE)
}

/// A signal has ended the run of the last check.
struct Interrupted(Signal);

fn all(global: &Global) -> Result<Vec<Check>, Interrupted> {
    let mut all: Vec<_> =
        checks::all(global).into_iter().map(|(name, verdict)| Check { name, verdict }).collect();
    let verdict = match first_failure(&all) {
        Some((name, ..)) => Verdict::Skipped(name),
        None => trial::run(global)?,
    };
    all.push(Check { name: "run", verdict });
    Ok(all)
}

fn first_failure(checks: &[Check]) -> Option<(&'static str, &str, &'static str)> {
    checks.iter().find_map(|check| match &check.verdict {
        Verdict::Missing(what, remedy) => Some((check.name, what.as_str(), *remedy)),
        Verdict::Fine(_) | Verdict::Limited(..) | Verdict::Skipped(_) => None,
    })
}

fn line(check: &Check) -> String {
    let (mark, text) = match &check.verdict {
        Verdict::Fine(what) => ("ok", what.clone()),
        Verdict::Limited(what, remedy) => ("note", format!("{what}; {remedy}")),
        Verdict::Missing(what, remedy) => ("FAIL", format!("{what}; {remedy}")),
        Verdict::Skipped(name) => ("skip", format!("not tried, because of: {name}")),
    };
    format!("{mark:<5}{:<16} {}", check.name, plain(text))
}

fn report(checks: &[Check]) -> Value {
    let checks_json = checks.iter().map(|Check { name, verdict }| {
        let (state, what, remedy) = match verdict {
            Verdict::Fine(what) => ("ok", what.as_str(), None),
            Verdict::Limited(what, remedy) => ("note", what.as_str(), Some(*remedy)),
            Verdict::Missing(what, remedy) => ("fail", what.as_str(), Some(*remedy)),
            Verdict::Skipped(name) => ("skipped", *name, None),
        };
        json!({"name": name, "state": state, "what": what, "remedy": remedy})
    });
    let failed = first_failure(checks).map(|(name, ..)| name);
    json!({"works": failed.is_none(), "first_failure": failed, "checks": checks_json.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_named() {
        let check = |name, verdict| Check { name, verdict };
        let fine = check("a", Verdict::Fine("x".into()));
        let missing = |name| check(name, Verdict::Missing("no\u{1b}".into(), "get it"));
        let all = [fine, missing("b"), missing("c"), check("run", Verdict::Skipped("b"))];
        assert_eq!(first_failure(&all).map(|(name, ..)| name), Some("b"));
        assert_eq!(line(&all[1]), "FAIL b                no\\u{1b}; get it");
        let report = report(&all);
        assert_eq!((&report["works"], &report["first_failure"]), (&json!(false), &json!("b")));
        let expected = json!({"name": "run", "state": "skipped", "what": "b", "remedy": null});
        assert_eq!(report["checks"][3], expected);
        assert_eq!(first_failure(&all[..1]), None);
    }
}
