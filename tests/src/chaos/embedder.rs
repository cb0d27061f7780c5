//! The embedder that is made to suffer: it lives the lives of the plan until its input ends, checks every
//! end and the order of events, shuts down, and counts what is left.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use fastrand::Rng;
use futures::future::{BoxFuture, join_all};
use longshore::{
    Cancel, Chunk, ContainerHandle, ContainerId, ContainerSpec, Error, EventKind, EventOrder, ExecSpec,
    Executor, Exit, ExitReason, Io, Notice, ProcessHandle, Signal, SignalScope, Stdio, StdioSpec,
    TerminalSize,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Figures;
use super::plan::{Act, Container, End, Life, Program, Reader};
use super::truth::Done;
use crate::HUNG;
use crate::leftovers::Leftovers;

/// Containers that are there at once.
const AT_ONCE: u64 = 8;

/// What `cat` is given to read.
const FOOD: usize = 200_000;

/// The options of an embedder, which the judge sets.
#[derive(Args, Clone, Debug)]
pub struct Orders {
    /// The directory of the test, with the executors' root in it.
    #[arg(long)]
    pub dir: PathBuf,
    /// The runtime: the faulty one.
    #[arg(long)]
    pub runtime: PathBuf,
    /// What the lives are drawn from.
    #[arg(long)]
    pub seed: u64,
    /// Begins every id.
    #[arg(long)]
    pub prefix: String,
    /// How many files it may have open.
    #[arg(long)]
    pub files: Option<u64>,
    /// Whether it shuts down in the midst of everything.
    #[arg(long)]
    pub abrupt: bool,
}

struct World {
    executor: Executor,
    starved: bool,
    /// Nothing new is begun.
    stopping: AtomicBool,
    shutdown: AtomicBool,
    figures: Mutex<Figures>,
    lies: Mutex<Vec<String>>,
}

/// Lives until the input ends. Answers with what was wrong.
///
/// # Errors
/// When there is no executor to be had.
///
/// # Panics
/// When something is left at the end, saying what.
pub async fn embed(orders: Orders) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut figures = Figures::default();
    // What libraries open once for the whole process shall not count as left.
    let first = executor(&orders)?;
    figures.add("swept", first.swept().len() as u64);
    first.run(ContainerSpec::host(["true"])).await?.wait().await;
    first.shutdown(Cancel::now(), HUNG).await;
    drop(first);

    let before = Leftovers::count(&orders.dir);
    let world = Arc::new(World::new(&orders, figures)?);
    let plenty = getrlimit(Resource::Nofile);
    if let Some(files) = orders.files {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: plenty.maximum })?;
    }
    let watching = tokio::spawn(Arc::clone(&world).watch());
    let printing = tokio::spawn(Arc::clone(&world).print_again());
    let lives = world.begin_lives(&orders);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    world.stopping.store(true, Ordering::Relaxed);
    let mut lives = tokio::spawn(join_all(lives));
    let early = if orders.abrupt { None } else { Some(world.ended("the lives", &mut lives).await) };
    setrlimit(Resource::Nofile, plenty)?;
    world.shut_down().await;
    let lives = match early {
        Some(lives) => lives,
        None => world.ended("the lives", lives).await,
    };
    let lives = lives.into_iter().flatten().flatten();
    lives.filter_map(Result::err).for_each(|panic| world.lie(panic.to_string()));
    world.ended("the events", watching).await;
    printing.abort();
    drop(printing.await);
    world.print();
    let lies = std::mem::take(&mut *lock(&world.lies));
    drop(world);
    before.assert_nothing_new(&orders.dir);
    Ok(lies)
}

/// A container whose streams are this process's own, until its input ends.
///
/// # Errors
/// When it cannot be run.
pub async fn bystander(root: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let executor =
        Executor::builder(crate::runtime_under_test(longshore::runc()).build()?).root(root).build()?;
    let mut spec = ContainerSpec::host(["cat"]);
    spec.process.stdio = StdioSpec { stdin: Stdio::Inherit, stdout: Stdio::Inherit, stderr: Stdio::Null };
    let exit = executor.run(spec).await?.wait().await;
    executor.shutdown(Cancel::now(), HUNG).await;
    if exit.is_success() { Ok(()) } else { Err(exit.to_string().into()) }
}

fn executor(orders: &Orders) -> Result<Executor, Error> {
    let runtime = longshore::runc().runtime(orders.runtime.to_string_lossy());
    let runtime = runtime.start_deadline(Duration::from_millis(1500)).build()?;
    Executor::builder(runtime).root(orders.dir.join("root")).build()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    fn new(orders: &Orders, figures: Figures) -> Result<Self, Error> {
        Ok(Self {
            executor: executor(orders)?,
            starved: orders.files.is_some(),
            stopping: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            figures: Mutex::new(figures),
            lies: Mutex::default(),
        })
    }

    /// Begins the lives of containers, some at once and one after another, and the runs of ready ones.
    fn begin_lives(self: &Arc<Self>, orders: &Orders) -> Vec<JoinHandle<()>> {
        let lives = (0..AT_ONCE).map(|worker| {
            let mut rng = Rng::with_seed(orders.seed.wrapping_add(worker));
            let (world, prefix) = (Arc::clone(self), format!("{}-{worker}", orders.prefix));
            tokio::spawn(async move {
                for number in 0.. {
                    if world.stopping.load(Ordering::Relaxed) {
                        break;
                    }
                    Arc::clone(&world).container(Container::any(&mut rng, &prefix, number)).await;
                }
            })
        });
        let ready = tokio::spawn(Arc::clone(self).ready(Rng::with_seed(orders.seed.wrapping_sub(1))));
        lives.chain([ready]).collect()
    }

    async fn shut_down(&self) {
        self.shutdown.store(true, Ordering::Relaxed);
        let report = self.executor.shutdown(Cancel::now(), HUNG).await;
        if report != longshore::ShutdownReport::default() {
            self.lie(format!("the shutdown left something: {report:?}"));
        }
    }

    fn lie(&self, what: String) {
        lock(&self.lies).push(what);
    }

    fn count(&self, what: &str) {
        lock(&self.figures).count(what);
    }

    fn is_shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::Relaxed)
    }

    /// Waits for something that must come. `None` when it has not.
    async fn ended<T>(&self, what: &str, task: impl Future<Output = T>) -> Option<T> {
        let ended = timeout(HUNG, task).await.ok();
        if ended.is_none() {
            self.lie(format!("{what}: no end in {HUNG:?}"));
        }
        ended
    }

    /// An error is true in a shutdown, without files, or when a refusal was to be expected.
    fn refused(&self, what: &str, error: &Error) {
        let true_then = match error {
            Error::Refused { .. } => true,
            Error::ShuttingDown | Error::Stopped => self.is_shutting_down(),
            Error::Pipe(_) | Error::NotReady(_) | Error::Runtime(_) => self.starved,
            Error::InvalidSpec(_)
            | Error::InvalidId(_)
            | Error::IdTaken { .. }
            | Error::NotFound { .. }
            | Error::NoProcess { .. }
            | Error::NotStarted { .. }
            | Error::NoOutput { .. }
            | Error::Thread(_) => false,
        };
        self.count("refused");
        if !true_then {
            self.lie(format!("{what}: {error:?}"));
        }
    }

    fn print(&self) {
        if let Ok(line) = serde_json::to_string(&*lock(&self.figures)) {
            println!("{line}");
        }
    }

    /// Prints the figures again and again, because the embedder may be killed at any moment.
    async fn print_again(self: Arc<Self>) {
        loop {
            self.print();
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Checks the order of all events until the executor has ended.
    async fn watch(self: Arc<Self>) {
        let mut events = self.executor.events();
        let mut orders: BTreeMap<ContainerId, EventOrder> = BTreeMap::new();
        while let Some(notice) = events.next().await {
            let event = match notice {
                Notice::Event(event) => event,
                Notice::Gap { .. } => {
                    self.count("gaps");
                    orders.clear();
                    continue;
                }
                Notice::Snapshot(_) | Notice::Swept(_) | _ => continue,
            };
            if event.seq != 1 && !orders.contains_key(&event.container) {
                continue;
            }
            self.count("events");
            if let EventKind::Released { left } = &event.kind
                && !left.is_empty()
                && !self.starved
            {
                self.lie(format!("{} left {left:?}", event.container));
            }
            let order = orders.entry(event.container.clone()).or_default();
            if let Err(error) = order.check(&event) {
                self.lie(format!("{}: {error}", event.container));
            }
            if order.is_complete() {
                orders.remove(&event.container);
            }
        }
        if !orders.is_empty() {
            self.lie(format!("never released: {:?}", orders.keys()));
        }
    }

    /// Runs of what containers are kept ready for, now more of them and now fewer.
    async fn ready(self: Arc<Self>, mut rng: Rng) {
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
    async fn container(self: Arc<Self>, plan: Container) {
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
