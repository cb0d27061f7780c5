//! The events and effects of the process machine, and the values in them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Cancel, Exit, HostPid, RawExit, Signal, SignalScope, StartFailure, TerminalSize, Timestamp};

/// What a process is like, from its specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessTraits {
    /// It has a terminal.
    pub has_terminal: bool,
    /// It is the init of a container without a pid namespace: nothing ends with it by itself.
    pub shares_pids: bool,
}

/// What is expected of a process, from the moment its time counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The most time it may take.
    pub time_limit: Option<TimeLimit>,
    /// Exit codes beside 0 that count as success.
    pub valid_codes: BTreeSet<u8>,
}

/// The most time a process may take, and how it is ended then.
///
/// As JSON `after` is in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TimeLimit {
    /// How long.
    #[serde(with = "crate::json::seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "f64"))]
    pub after: Duration,
    /// How it is ended then; SIGKILL at once when absent.
    #[serde(default)]
    pub cancel: Cancel,
}

/// What can happen to a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProcessEvent {
    /// Its time counts from now on.
    Arm(Terms),
    /// The container is ready for it: make it, short of executing the program.
    Create,
    /// The container is ready for it: start it.
    Launch,
    /// The container will never be ready for it.
    Withdraw(StartFailure),
    /// The runtime made it.
    Created {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// The runtime started it.
    Started {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// The runtime could not make it, or not start it.
    StartFailed(StartFailure),
    /// The exit source saw it end.
    Ended(RawExit),
    /// It is to be ended.
    Cancel(Cancel),
    /// It is to get a signal.
    Signal(Signal, SignalScope),
    /// Its terminal is to have this size.
    Resize(TerminalSize),
    /// SIGKILL could not be delivered, and it is not because the process is gone.
    KillFailed,
    /// A deadline may have come.
    Tick,
}

/// What is to be done for a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProcessEffect {
    /// Have the runtime make it, short of executing the program; comes back as `Created` or `StartFailed`.
    Create,
    /// Have the runtime start it; comes back as `Started` or `StartFailed`.
    Launch,
    /// Have the runtime execute the program of what it created; comes back as `Started` or `StartFailed`.
    StartCreated,
    /// Give the creation or the start up: end the runtime, remove what it left; comes back as `StartFailed`.
    AbandonStart,
    /// Ask for its end, which comes back as `Ended`.
    Watch,
    /// Send it a signal.
    Signal(Signal, SignalScope),
    /// Give its terminal this size, also if it has none yet: the size is set before the program can ask for it.
    Resize(TerminalSize),
    /// Send SIGKILL to it and its process group; a failure comes back as `KillFailed`.
    Kill(Kill),
    /// Tell the container that it was killed and has not ended: something may be frozen. Comes again while it does not end.
    ReportStillAlive,
    /// Tell the container that it was created.
    ReportCreated {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Tell the container that it runs.
    ReportStarted {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Tell the container that it ended. Comes exactly once, and nothing comes after it.
    ReportExited(Exit),
}

/// What a kill does beside sending SIGKILL to a process and its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kill {
    /// Everything else in the container is killed as well: there is no pid namespace that ends with this process.
    pub everything: bool,
    /// The container is thawed with all freezers below its own: an earlier SIGKILL has not ended the process.
    pub thaw: bool,
}

/// What is known of a process whose actor failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Remains {
    /// What the runtime was asked for last; it answers, or has answered.
    pub asked: Option<Asked>,
    /// The pid, once it was reported.
    pub pid: Option<HostPid>,
    /// When it was reported to run.
    pub started_at: Option<Timestamp>,
    /// How it ended, once that was delivered: it is not delivered again.
    pub ended: Option<RawExit>,
}

/// What a runtime can be asked for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// [`ProcessEffect::Create`].
    Create,
    /// [`ProcessEffect::Launch`].
    Launch,
    /// [`ProcessEffect::StartCreated`].
    StartCreated,
}
