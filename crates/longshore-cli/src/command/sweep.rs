//! `longshore sweep`: removes what dead executors left, a line for each container.

use std::process::ExitCode;

use longshore::with_causes;

use super::args::{Global, Sweep};
use super::plain::{plain, print, say};
use super::refused::Refused;
use super::remark::Remark;
use super::run::sandbox;
use super::status::{Failure, OUR_FAILURE, refused_root, remedy_of_root};

pub(crate) fn sweep(global: &Global, arguments: &Sweep) -> Result<ExitCode, Failure> {
    if global.runtime.is_some() || arguments.names_a_runtime() {
        return Err(Refused::SweepRuntime.into());
    }
    let root = global.root();
    let swept = longshore::sweep_with(&root, &sandbox(global)).map_err(|error| {
        let cause = refused_root(&error).unwrap_or_else(|| with_causes(&error));
        let refused = Failure::from(Refused::SweepRoot { cause });
        Failure { remedy: remedy_of_root(&error).unwrap_or(refused.remedy), ..refused }
    })?;
    // A sweep is not undone by an answer that cannot be written: all that is left is said first.
    let (mut clean, mut lines) = (true, Vec::new());
    for container in &swept {
        let killed = match container.killed {
            0 => "no process was left".to_owned(),
            1 => "1 process killed".to_owned(),
            more => format!("{more} processes killed"),
        };
        lines.push(format!("swept {}: {killed}", plain(&container.container)));
        for left in &container.left {
            clean = false;
            say(Remark::LeftBySweep { what: left.to_string() });
        }
    }
    if swept.is_empty() {
        lines.push(format!("nothing to sweep in {}", plain(root.display())));
    }
    print(lines.join("\n"))?;
    Ok(if clean { ExitCode::SUCCESS } else { OUR_FAILURE.into() })
}
