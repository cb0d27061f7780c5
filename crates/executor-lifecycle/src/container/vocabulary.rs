//! The events and effects of the container machine, and the phases that a caller sees.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::process::{Kill, Terms};
use crate::{
    Cancel, ExecId, Exit, HostPid, Leftover, OomKill, ProcessId, Signal, SignalScope, StartFailure,
    TerminalSize,
};

/// Where a container is in its life, as a caller sees it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its bundle is being made, or the runtime is creating it.
    Creating,
    /// Init exists, and its program is not executed yet.
    Created,
    /// Init's program runs.
    Running,
    /// Init's program runs, and all processes are frozen.
    Paused,
    /// Init has ended. The container's resources are kept, or are being released.
    Exited,
    /// All its resources are released, but for those that its last event lists as left.
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

/// How long a container that has exited is kept: its id, its exit, the output that can be replayed, and its resources
/// on the machine.
///
/// As JSON: `"no"`, `"until_removed"`, or `{"for": seconds}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeepExited {
    /// It is not kept, but released at once.
    #[default]
    No,
    /// It is kept for this time, counted from its exit, unless it is removed earlier.
    For(
        #[serde(with = "crate::json::seconds")]
        #[cfg_attr(feature = "schema", schemars(with = "f64"))]
        Duration,
    ),
    /// Until it is removed.
    UntilRemoved,
}

/// What the machine has to know of a container's specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContainerTraits {
    /// Its init has a terminal. The terminal's size has to be set before the program's first instruction, so such a
    /// container is always created before it is started.
    pub has_terminal: bool,
    /// It has no pid namespace: its processes do not end with init.
    pub shares_pids: bool,
    /// How long it is kept after its exit.
    pub keep_exited: KeepExited,
}

/// What can happen to a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEvent {
    /// A caller wants it made, and held at created.
    Create,
    /// A caller wants its program executed, as soon as that is possible.
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
        /// How it ended and why.
        exit: Exit,
    },
    /// The OOM killer has killed one of its processes.
    OomKilled(OomKill),
    /// One of its processes was killed a while ago and has not ended.
    StillAlive(ProcessId),
    /// A caller wants another process in it. Without an id the machine generates one. The `AddExec` effect carries the id.
    Exec(Option<ExecId>),
    /// A caller wants all its processes ended.
    Cancel(Cancel),
    /// The registry wants all its processes ended and nothing of it kept.
    End(Cancel),
    /// A caller wants released what is kept of it after its exit.
    Remove,
    /// A caller sends a signal to init, or to all processes.
    Signal(Signal, SignalScope),
    /// A caller changes the size of init's terminal.
    Resize(TerminalSize),
    /// A caller wants it frozen.
    Pause,
    /// A caller wants it thawed.
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
    /// A caller asks for the pids of its processes.
    ListProcesses,
    /// A caller asks for the resources it has used so far.
    ReadUsage,
    /// A caller asks for other limits.
    Update,
    /// The `KillRemaining` effect is complete: none of its processes is left.
    RemainingEnded,
    /// The `Release` effect is complete.
    ReleaseEnded {
        /// What could not be removed.
        left: Vec<Leftover>,
    },
    /// Time has passed: a deadline may be reached.
    Tick,
}

/// What is to be done for a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ContainerEffect {
    /// Make its bundle. Comes back as `Prepared` or `PrepareFailed`.
    Prepare,
    /// Start the machine and the actor of an exec, which waits to be launched.
    AddExec(ExecId),
    /// Pass init its terms: its time counts from now on.
    ArmInit(Terms),
    /// Have init created, without executing its program.
    CreateInit,
    /// Have a process started.
    Launch(ProcessId),
    /// Report to a process that waits that it will not run.
    Withdraw(ProcessId, StartFailure),
    /// End a process.
    CancelProcess(ProcessId, Cancel),
    /// Send SIGKILL to a process once more.
    KillAgain(ProcessId, Kill),
    /// Pass a signal to init.
    SignalInit(Signal, SignalScope),
    /// Pass the size of its terminal to init.
    ResizeInit(TerminalSize),
    /// Have the runtime freeze it. Comes back as `PauseEnded`.
    Pause,
    /// Have the runtime thaw it. Comes back as `ResumeEnded`.
    Resume,
    /// Thaw it at once, because processes in it are being killed. Comes back as `ResumeEnded`.
    Thaw,
    /// Answer with the pids of its processes.
    ListProcesses,
    /// Answer with the resources it has used so far.
    ReadUsage,
    /// Have the runtime change its limits, and answer when it has.
    Update,
    /// Publish an event.
    Publish(Event),
    /// Kill the processes that did not end with init. Comes back as `RemainingEnded`.
    KillRemaining,
    /// Kill what is left in it and release all its resources. Comes back as `ReleaseEnded`.
    Release,
    /// The release is over: the registry frees the id and publishes this last event, and the actor may end.
    Finished(Event),
}
