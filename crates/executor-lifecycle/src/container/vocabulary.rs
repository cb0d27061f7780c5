//! What the container machine is told, what it asks for, and how far it says it is.

use crate::event::Event;
use crate::{Cancel, ExecId, Exit, HostPid, ProcessId, Signal, SignalScope, StartFailure, TerminalSize};

/// Where a container is in its life, as a caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It is being made.
    Creating,
    /// Init runs.
    Running,
    /// Init exists and all processes are frozen.
    Paused,
    /// Init has ended; what is left of it is going.
    Exited,
    /// Nothing of it is left.
    Released,
}

/// What can happen to a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEvent {
    /// It is to be made.
    Create,
    /// Its bundle is ready.
    Prepared,
    /// Its bundle cannot be made.
    PrepareFailed(StartFailure),
    /// One of its processes runs.
    ProcessStarted {
        /// Which one.
        process: ProcessId,
        /// Its pid on the host.
        pid: HostPid,
    },
    /// One of its processes ended, or could not be started.
    ProcessExited {
        /// Which one.
        process: ProcessId,
        /// How and why.
        exit: Exit,
    },
    /// Another process is wanted in it; its id is [`Container::next_exec`](super::Container::next_exec).
    Exec,
    /// Everything in it is to be ended.
    Cancel(Cancel),
    /// Its init, or all of it, is to get a signal.
    Signal(Signal, SignalScope),
    /// The terminal of its init is to have this size.
    Resize(TerminalSize),
    /// It is to be frozen.
    Pause,
    /// It is to be thawed.
    Resume,
    /// The runtime answered the `Pause` effect.
    PauseEnded {
        /// Whether all processes are frozen.
        frozen: bool,
    },
    /// The runtime answered the `Resume` effect.
    ResumeEnded {
        /// Whether all processes run.
        thawed: bool,
    },
    /// Everything it had was given back, but for this.
    ReleaseEnded {
        /// What could not be removed.
        left: Vec<String>,
    },
}

/// What is to be done for a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEffect {
    /// Make its bundle; comes back as `Prepared` or `PrepareFailed`.
    Prepare,
    /// Set up a process that waits to be launched.
    AddExec(ExecId),
    /// Tell a process to start.
    Launch(ProcessId),
    /// Tell a process that waits that it will not run.
    Withdraw(ProcessId, StartFailure),
    /// Tell a process to end.
    CancelProcess(ProcessId, Cancel),
    /// Hand a signal to init.
    SignalInit(Signal, SignalScope),
    /// Hand the size of its terminal to init.
    ResizeInit(TerminalSize),
    /// Have the runtime freeze it; comes back as `PauseEnded`.
    Pause,
    /// Have the runtime thaw it; comes back as `ResumeEnded`.
    Resume,
    /// Tell subscribers.
    Publish(Event),
    /// Kill what is left in it and give everything back; comes back as `ReleaseEnded`.
    Release,
    /// Its id is free and its actor may end.
    Finished,
}
