//! The lives of containers and their processes, from the plan to the judgement of their ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures::future::{BoxFuture, join_all};
use longshore::{
    Cancel, Chunk, ContainerHandle, ContainerId, ContainerSpec, Error, ExecSpec, Exit, ExitReason, Io,
    ProcessHandle, Signal, SignalScope, Stdio, StdioSpec, TerminalSize,
};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{World, lock};
use crate::chaos::plan::{Act, Container, End, Life, Program, Reader};
use crate::chaos::truth::Done;

/// What `cat` is given to read.
const FOOD: usize = 200_000;

/// What can be done to containers and execs alike.
#[derive(Clone)]
enum Handle {
    Container(ContainerHandle),
    Exec(ProcessHandle),
}

impl Handle {
    fn io(&self) -> &Io {
        match self {
            Self::Container(container) => container.io(),
            Self::Exec(exec) => exec.io(),
        }
    }

    fn cancel(&self, cancel: Cancel) -> BoxFuture<'static, Exit> {
        match self {
            Self::Container(container) => Box::pin(container.cancel(cancel)),
            Self::Exec(exec) => Box::pin(exec.cancel(cancel)),
        }
    }

    async fn wait(&self) -> Exit {
        match self {
            Self::Container(container) => container.wait().await,
            Self::Exec(exec) => exec.wait().await,
        }
    }

    async fn signal(&self, signal: Signal, scope: SignalScope) -> Result<(), Error> {
        match self {
            Self::Container(container) => container.signal_to(signal, scope).await,
            Self::Exec(exec) => exec.signal_to(signal, scope).await,
        }
    }

    async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        match self {
            Self::Container(container) => container.resize(size).await,
            Self::Exec(exec) => exec.resize(size).await,
        }
    }
}

/// What the processes of one container share.
struct Household {
    plan: Container,
    /// Every signal that was sent to any of them.
    signals: Mutex<Vec<Signal>>,
    /// Whether the container was cancelled, and all in it.
    cancelled: AtomicBool,
}

impl Household {
    fn fails(&self, call: &str) -> bool {
        self.plan.fault.is_some_and(|(failing, _)| failing == call)
    }

    /// Whether it may stay frozen.
    fn may_freeze(&self) -> bool {
        self.fails("pause") || self.fails("resume")
    }

    /// Whether the end of a process is waited for: it has one, and nothing stands still for want of a
    /// reader.
    fn lets_end(&self, life: &Life) -> bool {
        let ends = life.program.natural().is_some() && life.reader != Reader::Slow;
        life.end == End::Wait && ends && !self.may_freeze()
    }
}

impl World {
    /// Runs of what containers are kept ready for, now more of them and now fewer.
    pub(super) async fn ready(self: Arc<Self>, mut rng: Rng) {
        let spec = ContainerSpec::host(["true"]);
        while !self.stopping.load(Ordering::Relaxed) {
            let prepared =
                self.ended("to be ready", self.executor.prepare(spec.clone(), rng.usize(0..4))).await;
            if let Some(Err(error)) = prepared {
                self.refused("prepare", &error);
            }
            for _ in 0..rng.usize(0..6) {
                self.count("ready runs");
                let container = match self.executor.run(spec.clone()).await {
                    Ok(container) => container,
                    Err(error) => {
                        self.refused("a run of what is ready", &error);
                        continue;
                    }
                };
                let cancelled = rng.u8(0..4) == 0;
                let exit =
                    if cancelled { container.cancel(Cancel::now()).await } else { container.wait().await };
                let is_true = match &exit.reason {
                    ExitReason::Normal => exit.is_success(),
                    ExitReason::Cancelled { .. } => cancelled || self.is_shutting_down(),
                    ExitReason::StartFailed(_) => self.starved,
                    ExitReason::TimedOut { .. } | ExitReason::OutOfMemory | ExitReason::Lost | _ => false,
                };
                if !is_true {
                    self.lie(format!("{} was ready: {exit:?}", container.id()));
                }
                self.released(container.id()).await;
            }
        }
    }

    /// The whole life of a container.
    pub(super) async fn container(self: Arc<Self>, plan: Container) {
        let Ok(id) = ContainerId::new(plan.id.as_str()) else { return self.lie(plan.id) };
        let life = plan.life.clone();
        let mut spec = ContainerSpec::host(life.program.args()).id(id.clone());
        spec.process.stdio = stdio(&life);
        spec.process.terminal = life.terminal.then(TerminalSize::default);
        if life.program == Program::Hungry {
            spec = spec.memory(32 << 20);
        }
        if plan.fault.is_some() {
            self.count("faults");
        }
        self.count("runs");
        let run = self.executor.run(spec);
        let container = match life.end {
            End::Dropped(after) => {
                self.count("dropped");
                match timeout(after, run).await {
                    Ok(answered) => answered,
                    Err(_) => return self.released(&id).await,
                }
            }
            End::Wait | End::Cancel(_) | End::CancelTwice(_) => run.await,
        };
        let container = match container {
            Ok(container) => container,
            Err(error) => return self.refused(&plan.id, &error),
        };
        let household =
            Arc::new(Household { plan, signals: Mutex::default(), cancelled: AtomicBool::new(false) });
        Arc::clone(&self).live(Handle::Container(container), life, household).await;
        self.released(&id).await;
    }

    /// Waits for the release of a container. If no handle was left, it is cancelled.
    async fn released(&self, id: &ContainerId) {
        if let Ok(container) = self.executor.get(id).await {
            let released = self.ended(&format!("the release of {id}"), container.released()).await;
            if let Some(Err(error)) = released {
                self.refused(id.as_str(), &error);
            }
        }
    }

    async fn exec(self: Arc<Self>, container: ContainerHandle, life: Life, household: Arc<Household>) {
        let mut spec = ExecSpec::new(life.program.args());
        spec.stdio = stdio(&life);
        spec.terminal = life.terminal.then(TerminalSize::default);
        self.count("execs");
        let exec = container.exec(spec);
        let exec = match life.end {
            End::Dropped(after) => {
                self.count("dropped");
                timeout(after, exec).await.ok()
            }
            End::Wait | End::Cancel(_) | End::CancelTwice(_) => Some(exec.await),
        };
        match exec {
            Some(Ok(exec)) => self.live(Handle::Exec(exec), life, household).await,
            Some(Err(error)) => self.refused(&household.plan.id, &error),
            None => {}
        }
    }

    /// The life of a process, once it is asked for.
    fn live(
        self: Arc<Self>,
        handle: Handle,
        life: Life,
        household: Arc<Household>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let eater = feed(&handle, life.program);
            let reader = tokio::spawn(read(handle.clone(), life.reader));
            let mut execs = Vec::new();
            for (pause, act) in &life.acts {
                sleep(*pause).await;
                match (act, &handle) {
                    (Act::Exec(exec), Handle::Container(container)) => {
                        let exec =
                            Arc::clone(&self).exec(container.clone(), exec.clone(), Arc::clone(&household));
                        execs.push(tokio::spawn(exec));
                    }
                    (act, handle) => self.act(act, handle, &household).await,
                }
            }
            let exit = self.end(&handle, &life, &household).await;
            // The exit is published once, and does not change.
            if let Some(exit) = exit {
                self.judge(&handle, &life, &household, &exit).await;
                self.read_all(reader, &life, &household, &exit).await;
            }
            drop(eater);
            self.ended("the execs", join_all(execs)).await;
        })
    }

    async fn act(&self, act: &Act, handle: &Handle, household: &Household) {
        let done = match (act, handle) {
            (Act::Signal(signal, scope), handle) => {
                self.count("signals");
                lock(&household.signals).push(*signal);
                handle.signal(*signal, *scope).await
            }
            (Act::Resize, handle) => handle.resize(TerminalSize { rows: 40, columns: 100 }).await,
            (Act::Pause(pause), Handle::Container(container)) => {
                self.count("pauses");
                match container.pause().await {
                    Ok(()) => {
                        sleep(*pause).await;
                        container.resume().await
                    }
                    Err(error) => Err(error),
                }
            }
            (Act::Look, Handle::Container(container)) => {
                self.count("looks");
                drop(self.executor.get(container.id()).await);
                drop(container.processes().await);
                return;
            }
            (Act::Exec(_) | Act::Pause(_) | Act::Look, _) => return,
        };
        match done {
            // The container may have ended before it could be frozen or thawed.
            Err(Error::Runtime(_)) | Ok(()) => {}
            Err(error) => self.refused(&household.plan.id, &error),
        }
    }

    async fn end(&self, handle: &Handle, life: &Life, household: &Household) -> Option<Exit> {
        let what = format!("{} of {:?}", household.plan.id, life.program);
        if household.lets_end(life) {
            return self.ended(&what, handle.wait()).await;
        }
        self.count("cancels");
        let grace = match life.end {
            End::Cancel(grace) | End::CancelTwice(grace) => grace,
            End::Wait | End::Dropped(_) => Duration::ZERO,
        };
        household.cancelled.fetch_or(matches!(handle, Handle::Container(_)), Ordering::Relaxed);
        let cancel = handle.cancel(Cancel::with_grace(grace));
        if matches!(life.end, End::CancelTwice(_)) {
            drop(handle.cancel(Cancel::now()));
        }
        self.ended(&what, cancel).await
    }

    async fn judge(&self, handle: &Handle, life: &Life, household: &Household, exit: &Exit) {
        let init = matches!(handle, Handle::Container(_));
        let done = Done {
            program: life.program,
            reader: life.reader,
            terminal: life.terminal,
            init,
            cancelled: !household.lets_end(life) || household.cancelled.load(Ordering::Relaxed),
            signals: lock(&household.signals).clone(),
            faulty: household.fails(if init { "run" } else { "exec" }) || !init && household.may_freeze(),
            starved: self.starved,
            shutdown: self.is_shutting_down(),
        };
        self.count("ends");
        if let Err(lie) = done.judge(exit) {
            self.lie(format!("{}: {lie}", household.plan.id));
        }
        if handle.wait().await != *exit {
            self.lie(format!("{}: an end that changes", household.plan.id));
        }
    }

    /// If a process was not disturbed, every byte of its output has been read.
    async fn read_all(&self, reader: JoinHandle<usize>, life: &Life, household: &Household, exit: &Exit) {
        let Some(Ok(read)) = self.ended("the output", reader).await else { return };
        lock(&self.figures).add("bytes", read as u64);
        let due = match life.program {
            Program::Cat => FOOD,
            Program::Flood => 1_000_000,
            Program::Code(_)
            | Program::Sleep
            | Program::Polite
            | Program::Family
            | Program::Hungry
            | Program::Missing => return,
        };
        let undisturbed =
            exit.is_success() && exit.reason == ExitReason::Normal && life.reader == Reader::All;
        let undisturbed = undisturbed && lock(&household.signals).is_empty() && !life.terminal;
        if undisturbed && read != due {
            self.lie(format!("{}: {read} of {due} bytes came from {:?}", household.plan.id, life.program));
        }
    }
}

fn stdio(life: &Life) -> StdioSpec {
    let stdin = if life.program == Program::Cat { Stdio::Pipe } else { Stdio::Null };
    let stderr = if life.terminal { Stdio::Null } else { life.reader.stdio() };
    StdioSpec { stdin, stdout: life.reader.stdio(), stderr }
}

/// Gives `cat` all it can eat, and then the end. Dropped, it stops.
fn feed(handle: &Handle, program: Program) -> Option<JoinHandle<()>> {
    let mut stdin = handle.io().take_stdin().filter(|_| program == Program::Cat)?;
    Some(tokio::spawn(async move { drop(stdin.write_all(vec![b'x'; FOOD]).await) }))
}

/// Reads as `reader` says; answers with how much it was.
async fn read(handle: Handle, reader: Reader) -> usize {
    let io = handle.io();
    let errors = io.take_stderr();
    match reader {
        Reader::All => {
            let (Some(output), errors) = (io.take_stdout(), errors) else { return 0 };
            let complaints = async {
                if let Some(errors) = errors {
                    errors.read_to_end().await;
                }
            };
            futures::join!(output.read_to_end(), complaints).0.len()
        }
        Reader::Slow => read_slowly(&handle).await,
        Reader::Attaches => attach_thrice(io).await,
        Reader::None => 0,
        Reader::Drops => {
            drop(io.take_stdout());
            0
        }
    }
}

/// Reads a little, and then holds the pipe without reading.
async fn read_slowly(handle: &Handle) -> usize {
    let Some(mut output) = handle.io().take_stdout() else { return 0 };
    let mut all = 0;
    for _ in 0..3 {
        sleep(Duration::from_millis(5)).await;
        all += output.next_chunk().await.map_or(0, |chunk| chunk.len());
    }
    handle.wait().await;
    all
}

async fn attach_thrice(io: &Io) -> usize {
    let mut all = 0;
    for _ in 0..3 {
        let Some(mut attached) = io.attach_stdout() else { return all };
        if let Some(Chunk::Bytes(bytes)) = attached.next().await {
            all += bytes.len();
        }
    }
    all
}
