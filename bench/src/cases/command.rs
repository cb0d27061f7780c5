//! The command between two pipes of a shell.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::Done;
use crate::figures::{Report, Times};
use crate::ground::Side;

const COUNT: u64 = 1 << 30;

/// A gibibyte through `cat` in a container, against `cat` alone between the same pipes. The start and the end of the container
/// are part of it. `cargo xtask bench` has built the command beside this program.
pub(super) fn through_cat(side: &Side, report: &mut Report, rounds: usize) -> Done {
    let command = std::env::current_exe()?.with_file_name("longshore");
    let root = side.path("command");
    let (mut ours, mut plain) = (Times::default(), Times::default());
    for _ in 0..rounds {
        let begun = Instant::now();
        pipe_through("\"$0\" --root \"$1\" run -i -- cat", &command, &root)?;
        ours.push(begun.elapsed());
        let begun = Instant::now();
        pipe_through("cat", &command, &root)?;
        plain.push(begun.elapsed());
    }
    let rate = |times: &Times| COUNT as f64 / times.median().as_secs_f64() / 1e9;
    let what = "a gibibyte through `longshore run -i -- cat`, to `cat` alone between the same pipes";
    report.compare_rates(what, rate(&ours), rate(&plain), "GB/s", "≥ 0.7");
    Ok(())
}

fn pipe_through(middle: &str, command: &Path, root: &Path) -> Done {
    let script = format!("head -c {COUNT} /dev/zero | {middle} | wc -c");
    let counted = Command::new("sh").arg("-c").arg(script).arg(command).arg(root).output()?;
    match String::from_utf8_lossy(&counted.stdout).trim() == COUNT.to_string() {
        true => Ok(()),
        false => Err(format!("bytes are missing: {}", String::from_utf8_lossy(&counted.stderr)).into()),
    }
}
