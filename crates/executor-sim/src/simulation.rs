//! An executor on virtual time. The clock stands still while any task can run, and jumps to the next timer when none can.
//!
//! Without a seed, everything happens at once and in the order in which it was asked for. With a seed, the simulation
//! decides what a real machine leaves open: which actor runs next, how long the runtime takes, when an exit is seen, and, if
//! wanted, what fails. The same seed decides the same way again.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_rt::System;
use executor_core::lifecycle::{Cancel, StartFailure, StartFailureKind, Timestamp};
use executor_core::{Events, Executor, Notice, Observed, Observer, Survival};
use tokio::time::Instant;

use crate::program::Fault;
use crate::timeline::{Record, Timeline, What};
use crate::{SimRuntime, lock};

/// An environment variable. If it is set to a seed, `explore` runs that seed only.
const SEED: &str = "LONGSHORE_SIM_SEED";
/// An environment variable. If it is set, the timeline of a simulation that fails is printed.
const TRACE: &str = "LONGSHORE_SIM_TRACE";

/// The virtual time that a test may take by default. If the test waits for something that never happens, the clock jumps
/// there at once.
const TIME_LIMIT: Duration = Duration::from_secs(24 * 3600);
const SHUTDOWN: Duration = Duration::from_secs(600);

/// Runs tests on a simulated executor.
///
/// When the test's future has ended, the executor is shut down. Then no process may be alive, and the promises that
/// [`Timeline::check`] lists must hold.
pub struct Simulation {
    runtime: SimRuntime,
    seed: Option<u64>,
    faults: f64,
    time_limit: Duration,
    quiet: bool,
    survival: Survival,
}

/// A simulation that runs: what a test gets.
pub struct Sim {
    /// The executor, on the thread of the test.
    pub executor: Executor,
    /// Its runtime.
    pub runtime: SimRuntime,
    began: Instant,
    survival: Survival,
    quiet: bool,
    seed: Option<u64>,
    latest: Mutex<Latest>,
}

/// The executor that lives, and the task that listens to it.
struct Latest {
    executor: Executor,
    listener: tokio::task::JoinHandle<()>,
}

impl Sim {
    /// The virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits for this much virtual time. Everything that is due meanwhile happens.
    pub async fn passes(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Kills the process of the executor, as SIGKILL does, and builds another one on the same runtime, which takes up what was
    /// left: that one is returned. Nothing that the former has asked for, and that was not done, is done. Its handles see their
    /// containers as lost.
    ///
    /// # Panics
    /// Unless the simulation was made with [`Simulation::keep`].
    pub fn crash_embedder(&self) -> Executor {
        assert_ne!(
            self.survival,
            Survival::EndWithMe,
            "a simulation whose executor is not kept cannot crash"
        );
        self.runtime.crash();
        let executor = self.build();
        let listener = self.listen(&executor);
        let latest = Latest { executor: executor.clone(), listener };
        let former = std::mem::replace(&mut *lock(&self.latest), latest);
        // What it has published is recorded, and is read from there.
        former.listener.abort();
        // Its actors end some time, and cannot change anything.
        actix_rt::spawn(async move { former.executor.detach().await });
        executor
    }

    fn build(&self) -> Executor {
        build(&self.runtime, self.seed, self.quiet, &self.survival, self.began.elapsed())
    }

    fn listen(&self, executor: &Executor) -> tokio::task::JoinHandle<()> {
        let timeline = self.runtime.timeline().clone();
        let last = timeline.last_number();
        let events = executor.events_since(last).unwrap_or_else(|_| executor.events());
        actix_rt::spawn(listen(events, timeline, self.quiet))
    }

    /// What happened so far.
    pub fn records(&self) -> Vec<Record> {
        self.runtime.timeline().records()
    }
}

impl Simulation {
    /// A simulation without a seed: everything happens at once and in the order in which it was asked for.
    pub const fn new(runtime: SimRuntime) -> Self {
        let (time_limit, survival) = (TIME_LIMIT, Survival::EndWithMe);
        Self { runtime, seed: None, faults: 0.0, time_limit, quiet: false, survival }
    }

    /// Keeps the executor, so that it can [crash](Sim::crash_embedder).
    #[must_use]
    pub fn keep(self) -> Self {
        Self { survival: Survival::keep("sim"), ..self }
    }

    /// Decides by this seed what a real machine leaves open: orders and durations.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Makes this share of the runtime's operations fail, from 0 to 1. The seed decides which and how: a start fails, hangs
    /// for a while, or has no pid; a process ends before its start is reported; a kill is refused; the disk is full; the
    /// freezer fails. Without a seed, nothing fails.
    #[must_use]
    pub fn faults(self, share: f64) -> Self {
        Self { faults: share, ..self }
    }

    /// Sets the virtual time that the test may take. The default is a day.
    #[must_use]
    pub fn time_limit(self, limit: Duration) -> Self {
        Self { time_limit: limit, ..self }
    }

    /// Keeps no timeline, and does not check the promises. For tests with very many containers.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// Runs a test, and returns what its future returns. However much virtual time it takes, it takes almost no real time.
    ///
    /// # Panics
    /// If the test panics, if it waits for something that never happens, or if a promise is broken. Also inside an async
    /// runtime, such as in `#[actix::test]` or `#[tokio::test]`: this function blocks, and brings a runtime of its own.
    /// Make the test a plain `#[test]`.
    #[track_caller]
    pub fn run<T>(self, test: impl AsyncFnOnce(&Sim) -> T) -> T {
        refuse_inside_a_runtime();
        let timeline = self.runtime.timeline().clone();
        catch_unwind(AssertUnwindSafe(|| self.simulate(test))).unwrap_or_else(|panic| {
            if std::env::var_os(TRACE).is_some() {
                timeline.records().iter().for_each(|record| eprintln!("{record}"));
            }
            resume_unwind(panic)
        })
    }

    /// Runs a test once for each seed, on the simulation that `simulation` makes. If a seed fails, the command line is
    /// printed that runs this seed again.
    ///
    /// ```
    /// use longshore::sim::{SimRuntime, Simulation};
    /// use longshore::ContainerSpec;
    ///
    /// Simulation::explore(0..20, || Simulation::new(SimRuntime::new()), async |sim| {
    ///     let container = sim.executor.run(ContainerSpec::host(["sleep", "5"])).await.unwrap();
    ///     assert!(container.wait().await.is_success());
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`run`](Self::run), with the first seed that fails.
    #[track_caller]
    pub fn explore(seeds: Range<u64>, simulation: impl Fn() -> Self, test: impl AsyncFn(&Sim)) {
        refuse_inside_a_runtime();
        let only = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let seeds = only.map_or(seeds, |seed: u64| seed..seed + 1);
        for seed in seeds {
            let simulation = simulation().seed(seed);
            let run = || simulation.run(async |sim| test(sim).await);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                let thread = std::thread::current();
                let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
                eprintln!("seed {seed} fails; to see it again: {TRACE}=1 {SEED}={seed} cargo test {test}");
                resume_unwind(panic);
            }
        }
    }

    fn simulate<T>(self, test: impl AsyncFnOnce(&Sim) -> T) -> T {
        let Self { runtime, seed, faults, time_limit, quiet, survival } = self;
        runtime.dice().load(seed, faults);
        if quiet {
            runtime.timeline().turn_off();
        }
        #[expect(clippy::expect_used, reason = "there is nothing to simulate on without")]
        let system = System::with_tokio_rt(|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().expect("a tokio runtime")
        });
        system.block_on(async {
            let executor = build(&runtime, seed, quiet, &survival, Duration::ZERO);
            let listener = actix_rt::spawn(listen(executor.events(), runtime.timeline().clone(), quiet));
            let latest = Mutex::new(Latest { executor: executor.clone(), listener });
            let sim = Sim { executor, runtime, began: Instant::now(), survival, quiet, seed, latest };
            let Ok(value) = tokio::time::timeout(time_limit, test(&sim)).await else {
                let latest = lock(&sim.latest).executor.clone();
                let all = latest.list().await.unwrap_or_default();
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                panic!("the test waits for something that does not happen; there are {all:?}");
            };
            sim.finish().await;
            value
        })
    }
}

impl Sim {
    async fn finish(self) {
        let Self { executor: first, runtime, latest, .. } = self;
        drop(first);
        let Latest { executor, listener } = latest.into_inner().unwrap_or_else(PoisonError::into_inner);
        let report = executor.shutdown(Cancel::now(), SHUTDOWN).await;
        drop(executor);
        let _listened = listener.await;
        assert_eq!(report.late, [], "not released by the shutdown");
        assert_eq!(runtime.alive(), [], "alive after the shutdown");
        if let Err(broken) = runtime.timeline().check() {
            panic!("{broken}");
        }
    }
}

/// A simulation has a tokio runtime of its own, and one runtime cannot block a thread of another.
#[track_caller]
fn refuse_inside_a_runtime() {
    assert!(
        tokio::runtime::Handle::try_current().is_err(),
        "a Simulation cannot run inside an async runtime, such as in #[actix::test] or #[tokio::test]: \
         make the test a plain #[test] function and put the async code into the closure given to Simulation::run"
    );
}

fn build(
    runtime: &SimRuntime,
    seed: Option<u64>,
    quiet: bool,
    survival: &Survival,
    elapsed: Duration,
) -> Executor {
    let (dice, timeline) = (Arc::clone(runtime.dice()), runtime.timeline().clone());
    let observer = ObserverSlot { dice, timeline, quiet, is_alive: Box::new(runtime.next_is_current()) };
    let began_at = Timestamp::default().after(elapsed);
    let builder = Executor::builder(runtime.clone()).began_at(began_at).survival(survival.clone());
    let builder = if quiet && seed.is_none() { builder } else { builder.observer(observer) };
    match builder.build_here() {
        Ok(executor) => executor,
        Err(error) => panic!("the executor cannot be built: {error}"),
    }
}

/// Writes the events that are published to the timeline, until the executor ends.
async fn listen(mut events: Events, timeline: Timeline, quiet: bool) {
    while let Some(notice) = events.next().await {
        match notice {
            Notice::Event(event) if !quiet => timeline.push(What::Published(event)),
            Notice::Gap { missed } => assert!(quiet, "{missed} events were missed: run more quietly"),
            Notice::Event(_) | Notice::Snapshot(_) | Notice::Swept(_) | _ => {}
        }
    }
}

/// Writes the messages that the actors handle to the timeline, and decides which actor runs next.
struct ObserverSlot {
    dice: Arc<Dice>,
    timeline: Timeline,
    quiet: bool,
    /// Whether its executor has not crashed.
    is_alive: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Observer for ObserverSlot {
    fn postpone(&self) -> bool {
        self.dice.postpone()
    }

    fn took(&self, Observed { message, refused, .. }: Observed) {
        if !self.quiet && (self.is_alive)() {
            self.timeline.push(What::Handled { message, refused });
        }
    }
}

/// How long a runtime hangs if its start is not abandoned before.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Decides what a real machine leaves open. Without a seed, it always decides the same: no delay, no fault.
#[derive(Default)]
pub(crate) struct Dice {
    state: Mutex<Option<Seeded>>,
}

struct Seeded {
    random: fastrand::Rng,
    faults: f64,
}

/// The longest time that the runtime's answer, or the report of an exit, may take.
const LONGEST_DELAY_MS: u64 = 20;

impl Dice {
    fn load(&self, seed: Option<u64>, faults: f64) {
        *lock(&self.state) = seed.map(|seed| Seeded { random: fastrand::Rng::with_seed(seed), faults });
    }

    fn throw<T>(&self, unseeded: T, seeded: impl FnOnce(&mut fastrand::Rng, f64) -> T) -> T {
        lock(&self.state).as_mut().map_or(unseeded, |state| seeded(&mut state.random, state.faults))
    }

    fn postpone(&self) -> bool {
        self.throw(false, |random, _| random.bool())
    }

    /// How long an operation takes. `None` if it takes no time.
    pub(crate) fn delay(&self) -> Option<Duration> {
        let delay =
            self.throw(0, |random, _| if random.bool() { 0 } else { random.u64(1..=LONGEST_DELAY_MS) });
        (delay > 0).then(|| Duration::from_millis(delay))
    }

    pub(crate) async fn take_time(&self) {
        if let Some(delay) = self.delay() {
            tokio::time::sleep(delay).await;
        }
    }

    pub(crate) fn goes_wrong(&self) -> bool {
        self.throw(false, |random, faults| random.f64() < faults)
    }

    pub(crate) fn kills_refused(&self) -> u32 {
        if self.goes_wrong() { self.throw(0, |random, _| random.u32(1..=3)) } else { 0 }
    }

    pub(crate) fn start_faults(&self) -> Vec<Fault> {
        if !self.goes_wrong() {
            return Vec::new();
        }
        let fails = |kind| Fault::StartFails(StartFailure::new(kind, "a simulated fault"));
        self.throw(Vec::new(), |random, _| match random.u8(0..5) {
            0 => vec![Fault::StartSlow(Duration::from_millis(random.u64(1..=30_000)))],
            1 => vec![Fault::StartSlow(HANG), fails(StartFailureKind::RuntimeTimedOut)],
            2 => vec![fails(StartFailureKind::RuntimeBroken)],
            3 => vec![Fault::NoPid],
            _ => vec![Fault::EndsBeforeStarted],
        })
    }
}
