//! The judge: makes embedders suffer round after round, ends or kills them, sweeps, and counts what is left.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;
use tempfile::TempDir;

use super::{Figures, plan};
use crate::HUNG;
use crate::leftovers::{Leftovers, executors_elsewhere};

/// How long, and what from.
#[derive(Args, Clone, Debug)]
pub struct Trial {
    /// How long new rounds are begun.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// What the rounds are drawn from; made up when absent.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Holds a trial, printing what it does. Answers with the figures.
///
/// # Errors
/// At the first round with something wrong in it, saying what, and how to see it again.
///
/// # Panics
/// When something is left, saying what.
pub fn judge(trial: &Trial) -> Result<Figures, Box<dyn Error>> {
    let seed = trial.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000_000));
    println!("again with: cargo xtask chaos --seconds {} --seed {seed}", trial.seconds);
    let mut court = Court::open()?;
    let mut bystander = Bystander::start(&court.dir.path().join("other-root"))?;
    court.clean = Leftovers::count(court.dir.path());
    let (mut rng, mut figures) = (Rng::with_seed(seed), Figures::default());
    let began = Instant::now();
    let end = began + Duration::from_secs(trial.seconds);
    for number in 0.. {
        if number > 0 && Instant::now() > end {
            break;
        }
        let round = Round::any(&mut rng, number);
        println!("{:>5} s  {round:?}", began.elapsed().as_secs());
        court.hold(&round, &mut figures)?;
        if round.sweep {
            court.sweep(&mut figures)?;
        }
        bystander.answers()?;
        figures.count("rounds");
    }
    court.sweep(&mut figures)?;
    bystander.end()?;
    figures.add("left", 0);
    Ok(figures)
}

/// One embedder or several on the same root, each from its start to its end.
#[derive(Debug)]
struct Round {
    number: u64,
    embedders: Vec<Member>,
    /// Whether the judge sweeps after it, or leaves that to the next.
    sweep: bool,
}

/// One embedder.
#[derive(Debug)]
struct Member {
    seed: u64,
    /// When it starts, from the beginning of the round.
    start: Duration,
    /// How long it lives before it is ended.
    length: Duration,
    killed: bool,
    abrupt: bool,
    files: Option<u64>,
    waits_elsewhere: bool,
}

/// The most containers of a round that run at once.
const AT_ONCE: u64 = 8;

/// The most embedders of a round.
const CROWD: u64 = 4;

impl Round {
    fn any(rng: &mut Rng, number: u64) -> Self {
        let count = if rng.bool() { 1 } else { rng.u64(2..=CROWD) };
        let embedders: Vec<_> = (0..count).map(|index| Member::any(rng, index)).collect();
        let sweep = embedders.iter().all(|embedder| !embedder.killed) || rng.bool();
        Self { number, embedders, sweep }
    }
}

impl Member {
    fn any(rng: &mut Rng, index: u64) -> Self {
        let killed = rng.bool();
        Self {
            seed: rng.u64(..),
            start: Duration::from_millis(if index == 0 { 0 } else { rng.u64(0..2000) }),
            length: Duration::from_millis(if killed { rng.u64(50..3000) } else { rng.u64(1000..5000) }),
            killed,
            abrupt: rng.bool(),
            files: (rng.u8(0..5) == 0).then(|| rng.u64(40..120)),
            waits_elsewhere: rng.u8(0..4) == 0,
        }
    }
}

/// Where it is held.
struct Court {
    dir: TempDir,
    /// What there was before the first round.
    clean: Leftovers,
    calls: BTreeSet<String>,
}

impl Court {
    fn open() -> Result<Self, Box<dyn Error>> {
        let dir = TempDir::with_prefix("longshore-chaos-")?;
        let runc = crate::runtime_program();
        let script = format!("#!/bin/bash\nRUNC={}\n{}", runc.display(), plan::faulty_runtime());
        let path = dir.path().join("runtime");
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let calls = executors_calls(dir.path());
        Ok(Self { dir, clean: Leftovers::default(), calls })
    }

    /// Sweeps what dead embedders left, and counts what is left of them then.
    fn sweep(&self, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        let swept = longshore::sweep(&self.dir.path().join("root"))?;
        figures.add("swept", swept.len() as u64);
        let left: Vec<_> = swept.iter().filter(|swept| !swept.left.is_empty()).collect();
        if !left.is_empty() {
            return Err(format!("the sweep left something: {left:?}").into());
        }
        self.clean.assert_nothing_new(self.dir.path());
        let calls: Vec<_> = executors_calls(self.dir.path()).difference(&self.calls).cloned().collect();
        if calls.is_empty() {
            Ok(())
        } else {
            Err(format!("calls of the runtime are left: {calls:?}").into())
        }
    }

    /// Lets the embedders of a round live, and ends each.
    fn hold(&self, round: &Round, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        let ended: Vec<_> = thread::scope(|scope| {
            let lives = round.embedders.iter().enumerate().map(|(index, member)| {
                let prefix = format!("r{}-{index}", round.number);
                scope.spawn(move || self.live(member, &prefix, round.embedders.len() as u64))
            });
            lives.collect::<Vec<_>>().into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for ended in ended {
            figures.take(ended.map_err(|_| "the judge has panicked")??);
        }
        if round.embedders.len() > 1 {
            figures.count("rounds with several embedders");
        }
        Ok(())
    }

    /// Lets an embedder live, one of `crowd` on this root, and ends it.
    fn live(&self, member: &Member, prefix: &str, crowd: u64) -> Result<Figures, String> {
        let failed = |error: std::io::Error| format!("{member:?}: {error}");
        thread::sleep(member.start);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("embed").arg("--dir").arg(self.dir.path());
        command.arg("--runtime").arg(self.dir.path().join("runtime"));
        command.args(["--seed", &member.seed.to_string(), "--prefix", prefix]);
        command.args([format!("--at-once={}", AT_ONCE.div_ceil(crowd))]);
        command.args((crowd > 1).then_some("--crowd"));
        command.args(member.files.map(|files| format!("--files={files}")));
        command.args(member.abrupt.then_some("--abrupt"));
        command.args(member.waits_elsewhere.then_some("--waits-elsewhere"));
        let mut embedder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let figures_read = last_figures(&mut embedder);
        // How long it lives is what varies here.
        thread::sleep(member.length);
        if member.killed {
            embedder.kill().map_err(failed)?;
        } else {
            drop(embedder.stdin.take());
        }
        let status = ended(&mut embedder).map_err(failed)?;
        let mut figures = figures_read.join().map_err(|_| "the figures cannot be read")?;
        figures.count(if member.killed { "embedders killed" } else { "embedders shut down" });
        match status {
            None => Err(format!("{member:?} does not end")),
            Some(status) if member.killed || status.success() => Ok(figures),
            Some(status) => Err(format!("{member:?} ended with {status}")),
        }
    }
}

/// Waits for an embedder that was ended. `None` if it does not end, and was killed.
fn ended(embedder: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + 3 * HUNG;
    while Instant::now() < deadline {
        if let Some(status) = embedder.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(5));
    }
    embedder.kill()?;
    embedder.wait()?;
    Ok(None)
}

/// The last line of figures an embedder wrote as a whole.
fn last_figures(embedder: &mut Child) -> JoinHandle<Figures> {
    let stdout = embedder.stdout.take();
    thread::spawn(move || {
        let lines =
            stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok));
        lines.filter_map(|line| serde_json::from_str(&line).ok()).last().unwrap_or_default()
    })
}

/// Calls of a runtime, each by an executor's mark in its environment. Those of executors of other test programs do not count.
fn executors_calls(stage: &Path) -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let marked: Vec<_> = processes.filter_map(|process| Some((mark(&process.path())?, process))).collect();
    let elsewhere = executors_elsewhere(stage);
    let ours = marked.into_iter().filter(|(executor, _)| !elsewhere.contains(executor));
    ours.map(|(_, process)| process.file_name().to_string_lossy().into_owned()).collect()
}

/// The executor whose mark a process has.
fn mark(process: &Path) -> Option<String> {
    let environ = fs::read(process.join("environ")).ok()?;
    let mut variables = environ.split(|byte| *byte == 0);
    let mark = variables.find_map(|variable| variable.strip_prefix(b"LONGSHORE_EXECUTOR="))?;
    String::from_utf8_lossy(mark).split('.').next().map(str::to_owned)
}

/// A container of another root, by another embedder.
struct Bystander {
    embedder: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Bystander {
    fn start(root: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("observer-slot").arg(root).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut embedder = command.spawn()?;
        let stdout = embedder.stdout.take().ok_or("no stdout")?;
        let mut bystander = Self { embedder, lines: BufReader::new(stdout).lines() };
        bystander.answers()?;
        Ok(bystander)
    }

    fn answers(&mut self) -> Result<(), Box<dyn Error>> {
        self.embedder.stdin.as_mut().ok_or("no stdin")?.write_all(b"alive\n")?;
        match self.lines.next() {
            Some(Ok(line)) if line == "alive" => Ok(()),
            other => Err(format!("a container of another root says {other:?}").into()),
        }
    }

    fn end(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.embedder.stdin.take());
        let status = self.embedder.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the bystander: {status}").into()) }
    }
}
