//! The soak: thousands of execs in one container, and thousands of runs in one process, one after the other. What the process
//! has of descriptors, threads and memory is sampled, and so are the files of the container. `cargo xtask soak` prints the table
//! of docs/reliability.md.

use std::fmt;
use std::fs;
use std::path::Path;

use longshore::{Cancel, ContainerHandle, ContainerSpec, Error, ExecSpec, Executor, Stdio, TerminalSize};

use crate::sleeper;

/// Every so many execs have a terminal.
const TERMINAL_EVERY: u64 = 10;

/// How much there is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many execs in one container.
    pub execs: u64,
    /// How many runs.
    pub runs: u64,
    /// After how many a sample is taken.
    pub every: u64,
}

/// What there was after so many execs or runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `execs` or `runs`.
    pub what: &'static str,
    /// After how many.
    pub after: u64,
    /// The open descriptors of this process.
    pub descriptors: usize,
    /// Its threads.
    pub threads: u64,
    /// Its resident memory, in KiB.
    pub resident: u64,
    /// The bytes of the journals of all containers.
    pub journals: u64,
    /// How many files there are below the root.
    pub files: usize,
}

impl Sample {
    /// Takes a sample of this process, and of the executors' root.
    pub fn take(what: &'static str, after: u64, root: &Path) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        let mut sample = Self {
            what,
            after,
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            threads: number("Threads:"),
            resident: number("VmRSS:"),
            journals: 0,
            files: 0,
        };
        sample.count(root);
        sample
    }

    fn count(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // The root file system of a container is the host's.
            if meta.is_dir() && entry.file_name() != "rootfs" {
                self.count(&entry.path());
            } else {
                self.files += 1;
                self.journals += if entry.file_name() == "journal" { meta.len() } else { 0 };
            }
        }
    }
}

/// The heading of the rows that samples are shown as.
pub const HEADING: &str =
    "| after | descriptors | threads | memory | journal | files |\n|---|---|---|---|---|---|";

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, after, descriptors, threads, resident, journals, files } = self;
        let mib = resident / 1024;
        write!(f, "| {after} {what} | {descriptors} | {threads} | {mib} MiB | {journals} bytes | {files} |")
    }
}

/// Does everything of the plan, and hands each sample out when it is taken.
///
/// # Errors
/// If a run or an exec does not end well.
pub async fn soak(
    executor: &Executor,
    root: &Path,
    plan: Plan,
    mut sampled: impl FnMut(Sample),
) -> Result<(), Error> {
    let held = executor.run(sleeper()).await?;
    held.started().await?;
    for number in 0..=plan.execs {
        if number.is_multiple_of(plan.every) {
            sampled(Sample::take("execs", number, root));
        }
        if number < plan.execs {
            exec(&held, number).await?;
        }
    }
    held.cancel(Cancel::now()).await;
    held.released().await?;
    for number in 0..=plan.runs {
        if number.is_multiple_of(plan.every) {
            sampled(Sample::take("runs", number, root));
        }
        if number < plan.runs {
            let run = executor.run(ContainerSpec::host(["true"]).piped()).await?;
            run.io().take_stdout();
            good(&run.wait().await, number);
            run.released().await?;
        }
    }
    Ok(())
}

/// One exec, to its end. The ends of its streams are held until then.
async fn exec(held: &ContainerHandle, number: u64) -> Result<(), Error> {
    let mut spec = ExecSpec::new(["true"]).piped();
    if number.is_multiple_of(TERMINAL_EVERY) {
        spec.stdio.stdin = Stdio::Pipe;
        spec = spec.terminal(TerminalSize::default());
    }
    let exec = held.exec(spec).await?;
    let (_input, output) = (exec.io().take_stdin(), exec.io().take_stdout());
    good(&exec.wait().await, number);
    drop(output);
    Ok(())
}

fn good(exit: &longshore::Exit, number: u64) {
    assert!(exit.is_success(), "number {number}: {exit:?}");
}
