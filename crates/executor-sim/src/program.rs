//! Scripted programs: what a program does from its start to its exit, and the faults of its runtime.

use std::time::Duration;

use executor_core::lifecycle::{Leftover, Signal, StartFailure, StartFailureKind, Usage};

/// A scripted program: the steps that it takes, in order. After the last step it exits with code 0.
///
/// ```
/// # use std::time::Duration;
/// # use longshore::Signal;
/// # use longshore::sim::Program;
/// let stubborn = Program::new().ignores(Signal::TERM).prints("ready\n").runs_forever();
/// let greedy = Program::new().runs_for(Duration::from_secs(1)).runs_out_of_memory();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) troubles: Troubles,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Sleep(Duration),
    Forever,
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    CopyStdin,
    Trap(Signal, Trap),
    Fork(Duration),
    Repeat(Vec<Step>),
    Use(Box<Usage>),
    Exit(u8),
    Die(Signal),
    OutOfMemory,
    /// A child in the background is killed by the OOM killer.
    ChildOutOfMemory,
}

/// What a signal does to a program that has a handler for it, or ignores it.
#[derive(Clone, Debug)]
pub(crate) enum Trap {
    Ignore,
    Run(Vec<Step>),
}

/// The faults of a program, by the call of the runtime in which they happen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles {
    pub(crate) prepare: Option<StartFailure>,
    /// In the order in which they were scripted.
    pub(crate) start: Vec<StartTrouble>,
    pub(crate) kill_refused: u32,
    pub(crate) pause_fails: bool,
    pub(crate) release_busy: Duration,
    pub(crate) release_leaves: Vec<Leftover>,
}

#[derive(Clone, Debug)]
pub(crate) enum StartTrouble {
    Slow(Duration),
    Fails(StartFailure),
    Hangs,
    EndsFirst,
}

impl Troubles {
    const fn none() -> Self {
        Self {
            prepare: None,
            start: Vec::new(),
            kill_refused: 0,
            pause_fails: false,
            release_busy: Duration::ZERO,
            release_leaves: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        let no_pid =
            || StartFailure::new(StartFailureKind::RuntimeBroken, "the runtime did not report a pid");
        match fault {
            Fault::PrepareFails(failure) => self.prepare = Some(failure),
            Fault::StartSlow(time) => self.start.push(StartTrouble::Slow(time)),
            Fault::StartFails(failure) => self.start.push(StartTrouble::Fails(failure)),
            Fault::StartHangs => self.start.push(StartTrouble::Hangs),
            Fault::NoPid => self.start.push(StartTrouble::Fails(no_pid())),
            Fault::EndsBeforeStarted => self.start.push(StartTrouble::EndsFirst),
            Fault::KillRefused(times) => self.kill_refused += times,
            Fault::PauseFails => self.pause_fails = true,
            Fault::ReleaseBusy(time) => self.release_busy = time,
            Fault::ReleaseLeaves(what) => self.release_leaves.push(what),
        }
    }
}

/// Something that goes wrong between the runtime and a program.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The bundle cannot be made.
    PrepareFails(StartFailure),
    /// The runtime takes this long to start it.
    StartSlow(Duration),
    /// The runtime cannot start it.
    StartFails(StartFailure),
    /// The runtime hangs until the start is abandoned.
    StartHangs,
    /// The runtime starts it, but does not report its pid, so the process is killed.
    NoPid,
    /// Its exit is seen before the runtime reports that it runs, if it ends within a minute.
    EndsBeforeStarted,
    /// SIGKILL cannot be delivered this many times.
    KillRefused(u32),
    /// The container cannot be frozen.
    PauseFails,
    /// The container's cgroups are busy for this long when it is released.
    ReleaseBusy(Duration),
    /// This cannot be removed when the container is released.
    ReleaseLeaves(Leftover),
}

impl Fault {
    /// The disk is full: the bundle cannot be made.
    pub fn out_of_disk() -> Self {
        Self::PrepareFails(StartFailure::new(StartFailureKind::NoResources, "no space left on device"))
    }
}

impl Program {
    /// A program without steps: it exits with code 0 at once.
    pub const fn new() -> Self {
        Self { steps: Vec::new(), troubles: Troubles::none() }
    }

    /// A program that runs until it is killed.
    pub fn forever() -> Self {
        Self::new().runs_forever()
    }

    /// Runs for this time.
    #[must_use]
    pub fn runs_for(self, time: Duration) -> Self {
        self.then(Step::Sleep(time))
    }

    /// Runs until it is killed.
    #[must_use]
    pub fn runs_forever(self) -> Self {
        self.then(Step::Forever)
    }

    /// Writes to stdout.
    #[must_use]
    pub fn prints(self, text: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Stdout(text.into()))
    }

    /// Writes to stderr.
    #[must_use]
    pub fn prints_to_stderr(self, text: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Stderr(text.into()))
    }

    /// Copies stdin to stdout until stdin ends.
    #[must_use]
    pub fn copies_stdin(self) -> Self {
        self.then(Step::CopyStdin)
    }

    /// Ignores this signal from here on.
    #[must_use]
    pub fn ignores(self, signal: Signal) -> Self {
        self.then(Step::Trap(signal, Trap::Ignore))
    }

    /// Exits with this code when it gets this signal, from here on.
    #[must_use]
    pub fn exits_on(self, signal: Signal, code: u8) -> Self {
        self.then(Step::Trap(signal, Trap::Run(vec![Step::Exit(code)])))
    }

    /// Starts a child in the background that holds its streams open for this time, and goes on.
    #[must_use]
    pub fn forks(self, time: Duration) -> Self {
        self.then(Step::Fork(time))
    }

    /// Sets the resources that its container has used, from here on. They are what `ContainerHandle::usage`, its samples
    /// and its exit say.
    ///
    /// Values that are absent stay as they were. Peaks that are absent are the highest values so far. `oom_kills` never
    /// decreases.
    ///
    /// ```
    /// use std::time::Duration;
    /// use longshore::sim::{Program, SimRuntime, Simulation};
    /// use longshore::{ContainerSpec, Usage};
    ///
    /// let build = Program::new()
    ///     .uses(Usage { memory: Some(300 << 20), ..Usage::default() })
    ///     .runs_for(Duration::from_secs(60))
    ///     .uses(Usage { cpu: Some(Duration::from_secs(55)), memory: Some(0), ..Usage::default() });
    /// Simulation::new(SimRuntime::new().program("build", build)).run(async |sim| {
    ///     let container = sim.executor.run(ContainerSpec::host(["build"])).await.unwrap();
    ///     container.started().await.unwrap();
    ///     sim.passes(Duration::from_secs(30)).await;
    ///     assert_eq!(container.usage().await.unwrap().memory, Some(300 << 20));
    ///     let usage = container.wait().await.usage.unwrap();
    ///     assert_eq!((usage.cpu, usage.memory_peak), (Some(Duration::from_secs(55)), Some(300 << 20)));
    /// });
    /// ```
    #[must_use]
    pub fn uses(self, usage: Usage) -> Self {
        self.then(Step::Use(Box::new(usage)))
    }

    /// Exits with this code.
    #[must_use]
    pub fn exits(self, code: u8) -> Self {
        self.then(Step::Exit(code))
    }

    /// Is killed by the OOM killer, which its container's usage counts.
    #[must_use]
    pub fn runs_out_of_memory(self) -> Self {
        self.then(Step::OutOfMemory)
    }

    /// Loses a child to the OOM killer, and goes on. The child's pid is one that no process has.
    #[must_use]
    pub fn loses_a_child_to_memory(self) -> Self {
        self.then(Step::ChildOutOfMemory)
    }

    /// Adds a fault.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.troubles.add(fault);
        self
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}
