//! The events and effects of the container machine, and the phases that a caller sees.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::process::{Kill, Terms};
use crate::{
    Cancel, ExecId, Exit, HostPid, Leftover, ProcessId, Signal, SignalScope, StartFailure, TerminalSize,
};

/// Where a container is in its life, as a caller sees it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is being made.
    Creating,
    /// Init exists and waits for its program to be executed.
    Created,
    /// Init runs.
    Running,
    /// Init exists and all processes are frozen.
    Paused,
    /// Init has ended. What it had is kept, or is being given back.
    Exited,
    /// Nothing of it is left.
    Released,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
            Self::Released => "released",
        })
    }
}

/// How long a container that has exited is kept: its id, its exit, what its outputs replay, and what it has on the
/// machine.
///
/// As JSON: `"no"`, `"until_removed"`, or `{"for": seconds}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeepExited {
    /// Not at all: it is released at once.
    #[default]
    No,
    /// So long, or until it is removed before.
    For(
        #[serde(with = "crate::json::seconds")]
        #[cfg_attr(feature = "schema", schemars(with = "f64"))]
        Duration,
    ),
    /// Until it is removed.
    UntilRemoved,
}

/// What a container is like, from its specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContainerTraits {
    /// Its init has a terminal. Its size has to be right before the program's first instruction, so it is always created
    /// before it is started.
    pub has_terminal: bool,
    /// It has no pid namespace: its processes do not end with init.
    pub shares_pids: bool,
    /// How long it is kept once it has exited.
    pub keep_exited: KeepExited,
}

/// What can happen to a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEvent {
    /// It is to be made, and held at created.
    Create,
    /// Its program is to be executed, as soon as it can be.
    Start(Terms),
    /// Its bundle is ready.
    Prepared,
    /// Its bundle cannot be made.
    PrepareFailed(StartFailure),
    /// Its init was created.
    InitCreated {
        /// Its pid on the host.
        pid: HostPid,
    },
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
    /// One of its processes was killed a while ago and has not ended.
    StillAlive(ProcessId),
    /// Another process is wanted in it, under this id or the next of ours; the `AddExec` effect says which.
    Exec(Option<ExecId>),
    /// Everything in it is to be ended.
    Cancel(Cancel),
    /// Everything in it is to be ended, and nothing of it kept: the executor ends.
    End(Cancel),
    /// What is kept of it after its exit is to be given back.
    Remove,
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
    /// The runtime answered the `Resume` or `Thaw` effect.
    ResumeEnded {
        /// Whether all processes run.
        thawed: bool,
    },
    /// The pids of its processes are asked for.
    ListProcesses,
    /// What it has used so far is asked for.
    ReadUsage,
    /// Nothing is left of its processes.
    RestEnded,
    /// Everything it had was given back, but for this.
    ReleaseEnded {
        /// What could not be removed.
        left: Vec<Leftover>,
    },
    /// A deadline may have come.
    Tick,
}

/// What is to be done for a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEffect {
    /// Make its bundle; comes back as `Prepared` or `PrepareFailed`.
    Prepare,
    /// Set up a process that waits to be launched.
    AddExec(ExecId),
    /// The time of init counts from now on.
    ArmInit(Terms),
    /// Have init created, short of its program.
    CreateInit,
    /// Have a process started.
    Launch(ProcessId),
    /// A process that waits will not run.
    Withdraw(ProcessId, StartFailure),
    /// End a process.
    CancelProcess(ProcessId, Cancel),
    /// Send SIGKILL to a process once more.
    KillAgain(ProcessId, Kill),
    /// Hand a signal to init.
    SignalInit(Signal, SignalScope),
    /// Hand the size of its terminal to init.
    ResizeInit(TerminalSize),
    /// Have the runtime freeze it; comes back as `PauseEnded`.
    Pause,
    /// Have the runtime thaw it; comes back as `ResumeEnded`.
    Resume,
    /// Thaw it at once, since processes in it are being killed; comes back as `ResumeEnded`.
    Thaw,
    /// Answer with the pids of its processes.
    ListProcesses,
    /// Answer with what it has used so far.
    ReadUsage,
    /// Publish an event.
    Publish(Event),
    /// Kill what did not end with init; comes back as `RestEnded`.
    EndRest,
    /// Kill what is left in it and give everything back; comes back as `ReleaseEnded`.
    Release,
    /// Nothing is left: the registry frees the id and publishes this last event, and the actor may end.
    Finished(Event),
}
