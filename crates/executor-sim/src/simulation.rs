//! An executor on virtual time: the clock stands still while anything can happen, and jumps to the next
//! timer when nothing can. With a seed, what is open in reality is open here too: whose turn it is, how
//! long the runtime takes, when an exit is seen, and, if wanted, what goes wrong.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_rt::System;
use executor_core::lifecycle::{Cancel, StartFailure, StartFailureKind, Timestamp};
use executor_core::{Executor, Notice, Observed, Observer};
use tokio::time::Instant;

use crate::program::Fault;
use crate::timeline::{Record, Timeline, What};
use crate::{SimRuntime, lock};

/// Set to a seed, only that one is run.
const SEED: &str = "LONGSHORE_SIM_SEED";
/// Set to anything, the timeline of what failed is printed.
const TRACE: &str = "LONGSHORE_SIM_TRACE";

/// What a test may take of virtual time, unless it says more. When nothing can happen any more, the
/// clock jumps here at once.
const TIME_LIMIT: Duration = Duration::from_secs(24 * 3600);
const SHUTDOWN: Duration = Duration::from_secs(600);

/// Runs tests on a simulated executor.
///
/// When the test's future is over, the executor is shut down and the promises of
/// [`Timeline::check`] are checked; nothing may be alive then.
pub struct Simulation {
    runtime: SimRuntime,
    seed: Option<u64>,
    faults: f64,
    time_limit: Duration,
    quiet: bool,
}

/// What a test has in its hands.
pub struct Sim {
    /// The executor, on the thread of the test.
    pub executor: Executor,
    /// Its runtime.
    pub runtime: SimRuntime,
    began: Instant,
}

impl Sim {
    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Lets virtual time go by, and everything happen that happens meanwhile.
    pub async fn passes(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// What happened so far.
    pub fn records(&self) -> Vec<Record> {
        self.runtime.timeline().records()
    }
}

impl Simulation {
    /// A simulation in which everything happens at once and in the order it was asked for.
    pub const fn new(runtime: SimRuntime) -> Self {
        Self { runtime, seed: None, faults: 0.0, time_limit: TIME_LIMIT, quiet: false }
    }

    /// Has everything that is open decided by this seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Has this share of what the runtime does go wrong, from 0 to 1, as the seed decides: starts that
    /// fail, hang for a while or end early, no pid, refused kills, a full disk, a failing freezer.
    #[must_use]
    pub fn faults(self, share: f64) -> Self {
        Self { faults: share, ..self }
    }

    /// How much virtual time the test may take; a day by default.
    #[must_use]
    pub fn time_limit(self, limit: Duration) -> Self {
        Self { time_limit: limit, ..self }
    }

    /// Keeps no timeline, and so checks less: for very many containers.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    /// Runs a test. It is over in no time, however long it takes.
    ///
    /// # Panics
    /// When the test does, when nothing can happen any more and the test still waits, when a promise
    /// is broken; and within a tokio runtime: give it a thread without one.
    pub fn run<T>(self, test: impl AsyncFnOnce(&Sim) -> T) -> T {
        let timeline = self.runtime.timeline().clone();
        catch_unwind(AssertUnwindSafe(|| self.simulate(test))).unwrap_or_else(|panic| {
            if std::env::var_os(TRACE).is_some() {
                timeline.records().iter().for_each(|record| eprintln!("{record}"));
            }
            resume_unwind(panic)
        })
    }

    /// Runs a test once for each seed, on a runtime and with the settings that `simulation` makes. A
    /// seed that fails is printed with the line that repeats it.
    ///
    /// ```
    /// use executor_core::ContainerSpec;
    /// use executor_sim::{SimRuntime, Simulation};
    ///
    /// Simulation::explore(0..20, || Simulation::new(SimRuntime::new()), async |sim| {
    ///     let container = sim.executor.run(ContainerSpec::host(["sleep", "5"])).await.unwrap();
    ///     assert!(container.wait().await.is_success());
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`run`](Self::run), for the first seed that fails.
    pub fn explore(seeds: Range<u64>, simulation: impl Fn() -> Self, test: impl AsyncFn(&Sim)) {
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
        let Self { runtime, seed, faults, time_limit, quiet } = self;
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
            let observer = ObserverSlot {
                dice: Arc::clone(runtime.dice()),
                timeline: runtime.timeline().clone(),
                quiet,
            };
            let builder = Executor::builder(runtime.clone()).began_at(Timestamp::default());
            let builder = if quiet && seed.is_none() { builder } else { builder.observer(observer) };
            let executor = match builder.build_here() {
                Ok(executor) => executor,
                Err(error) => panic!("the executor cannot be built: {error}"),
            };
            let told = actix_rt::spawn(listen(executor.clone(), runtime.timeline().clone(), quiet));
            let sim = Sim { executor, runtime, began: Instant::now() };
            let Ok(value) = tokio::time::timeout(time_limit, test(&sim)).await else {
                let all = sim.executor.list().await.unwrap_or_default();
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                panic!("the test waits for something that does not happen; there are {all:?}");
            };
            sim.finish(told).await;
            value
        })
    }
}

impl Sim {
    async fn finish(self, told: tokio::task::JoinHandle<()>) {
        let Self { executor, runtime, .. } = self;
        let report = executor.shutdown(Cancel::now(), SHUTDOWN).await;
        drop(executor);
        let _listened = told.await;
        assert_eq!(report.late, [], "not released by the shutdown");
        assert_eq!(runtime.alive(), [], "alive after the shutdown");
        if let Err(broken) = runtime.timeline().check() {
            panic!("{broken}");
        }
    }
}

/// Writes what subscribers are told into the timeline, until the executor ends.
async fn listen(executor: Executor, timeline: Timeline, quiet: bool) {
    let mut events = executor.events();
    drop(executor);
    while let Some(notice) = events.next().await {
        match notice {
            Notice::Event(event) if !quiet => timeline.push(What::Told(event)),
            Notice::Gap { missed } => assert!(quiet, "{missed} events were missed: run more quietly"),
            Notice::Event(_) | Notice::Snapshot(_) | Notice::Swept(_) | _ => {}
        }
    }
}

/// Shows the timeline what the actors take, and says whose turn it is.
struct ObserverSlot {
    dice: Arc<Dice>,
    timeline: Timeline,
    quiet: bool,
}

impl Observer for ObserverSlot {
    fn postpone(&self) -> bool {
        self.dice.postpone()
    }

    fn took(&self, Observed { message, refused, .. }: Observed) {
        if !self.quiet {
            self.timeline.push(What::Took { message, refused });
        }
    }
}

/// How long a runtime that hangs is waited for, when nobody gives it up before.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Decides what is open. Without a seed nothing is.
#[derive(Default)]
pub(crate) struct Dice {
    state: Mutex<Option<Seeded>>,
}

struct Seeded {
    random: fastrand::Rng,
    faults: f64,
}

/// How long an answer of the runtime, or the sight of an exit, may take.
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

    /// How long something takes; `None` when it takes no time.
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
        let fails = |kind| Fault::StartFails(StartFailure::new(kind, "the seed says so"));
        self.throw(Vec::new(), |random, _| match random.u8(0..5) {
            0 => vec![Fault::StartSlow(Duration::from_millis(random.u64(1..=30_000)))],
            1 => vec![Fault::StartSlow(HANG), fails(StartFailureKind::RuntimeTimedOut)],
            2 => vec![fails(StartFailureKind::RuntimeBroken)],
            3 => vec![Fault::NoPid],
            _ => vec![Fault::EndsBeforeStarted],
        })
    }
}
