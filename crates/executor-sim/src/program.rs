//! What a program does from its start to its end, and what goes wrong with it.

use std::time::Duration;

use executor_core::lifecycle::{Leftover, Signal, StartFailure, StartFailureKind};

/// A script: what a program does, in order. At the end of it the program exits with code 0.
///
/// ```
/// # use std::time::Duration;
/// # use executor_core::lifecycle::Signal;
/// # use executor_sim::Program;
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
    Exit(u8),
    Die(Signal),
    OutOfMemory,
}

/// What a signal does to a program that has made arrangements for it.
#[derive(Clone, Debug)]
pub(crate) enum Trap {
    Ignore,
    Run(Vec<Step>),
}

/// The faults of a program, by the call of the runtime in which they come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles {
    pub(crate) prepare: Option<StartFailure>,
    /// In the order they were scripted.
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
        let no_pid = || StartFailure::new(StartFailureKind::RuntimeBroken, "the runtime told no pid");
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
    /// The runtime hangs until the start is given up.
    StartHangs,
    /// The runtime started it and cannot say what its pid is, so it was killed again.
    NoPid,
    /// Its end is seen before the runtime has said that it runs, if it ends within a minute.
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
    /// There is no room for the bundle.
    pub fn out_of_disk() -> Self {
        Self::PrepareFails(StartFailure::new(StartFailureKind::NoResources, "no space left on device"))
    }
}

impl Program {
    /// One that does nothing yet, and exits with code 0.
    pub const fn new() -> Self {
        Self { steps: Vec::new(), troubles: Troubles::none() }
    }

    /// One that runs until it is killed.
    pub fn forever() -> Self {
        Self::new().runs_forever()
    }

    /// Runs for a while.
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
    pub fn complains(self, text: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Stderr(text.into()))
    }

    /// Copies stdin to stdout until stdin ends.
    #[must_use]
    pub fn copies_stdin(self) -> Self {
        self.then(Step::CopyStdin)
    }

    /// Is deaf to this signal from here on.
    #[must_use]
    pub fn ignores(self, signal: Signal) -> Self {
        self.then(Step::Trap(signal, Trap::Ignore))
    }

    /// Exits with this code when it gets this signal, from here on.
    #[must_use]
    pub fn exits_on(self, signal: Signal, code: u8) -> Self {
        self.then(Step::Trap(signal, Trap::Run(vec![Step::Exit(code)])))
    }

    /// Leaves a child behind that holds its streams for a while, and goes on itself.
    #[must_use]
    pub fn forks(self, time: Duration) -> Self {
        self.then(Step::Fork(time))
    }

    /// Exits with this code.
    #[must_use]
    pub fn exits(self, code: u8) -> Self {
        self.then(Step::Exit(code))
    }

    /// Is chosen by the OOM killer.
    #[must_use]
    pub fn runs_out_of_memory(self) -> Self {
        self.then(Step::OutOfMemory)
    }

    /// Goes wrong like this.
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
