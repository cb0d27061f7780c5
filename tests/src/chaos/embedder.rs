//! The embedder of the chaos test. It lives the lives of the plan until its input ends, checks every exit and the
//! order of events, shuts down, and counts what is left.

mod lives;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use fastrand::Rng;
use futures::future::join_all;
use longshore::{
    Cancel, ContainerId, ContainerSpec, Error, EventKind, EventOrder, Executor, Notice, Stdio, StdioSpec,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Figures;
use super::plan::Container;
use crate::HUNG;
use crate::leftovers::Leftovers;

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
    /// Whether other embedders live on the same root, whose containers are none of its leftovers.
    #[arg(long)]
    pub crowd: bool,
    /// How many containers run at once.
    #[arg(long, default_value_t = 8)]
    pub at_once: u64,
    /// Whether calls of the runtime have a subreaper.
    #[arg(long)]
    pub waits_elsewhere: bool,
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

/// Runs until the input ends. Returns what was wrong.
///
/// # Errors
/// If the executor cannot be built.
///
/// # Panics
/// If something is left at the end.
pub async fn embed(orders: Orders) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut figures = Figures::default();
    // What libraries open once for the whole process shall not count as left.
    let first = executor(&orders)?;
    figures.add("swept", first.swept().len() as u64);
    first.run(ContainerSpec::host(["true"])).await?.wait().await;
    first.shutdown(Cancel::now(), HUNG).await;
    drop(first);

    let before = if orders.crowd { Leftovers::count_own() } else { Leftovers::count(&orders.dir) };
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
    match orders.crowd {
        true => before.assert_nothing_new_of_its_own(),
        false => before.assert_nothing_new(&orders.dir),
    }
    Ok(lies)
}

/// Runs a container whose streams are those of this process, until its input ends.
///
/// # Errors
/// If it cannot be run.
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
    let runtime = runtime.waits_elsewhere(orders.waits_elsewhere);
    let runtime = runtime.start_deadline(Duration::from_millis(1500)).build()?;
    Executor::builder(runtime).root(orders.dir.join("root")).build()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let lives = (0..orders.at_once).map(|worker| {
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
            | Error::Thread(_)
            | _ => false,
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
}
