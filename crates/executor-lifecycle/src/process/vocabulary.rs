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
    /// It is the init of a container without a pid namespace: the other processes do not end with it.
    pub shares_pids: bool,
}

/// What is expected of a process once its time counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The most time it may take.
    pub time_limit: Option<TimeLimit>,
    /// Exit codes other than 0 that count as success.
    pub valid_codes: BTreeSet<u8>,
}

/// The most time a process may take, and how it is ended then.
///
/// As JSON `after` is in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TimeLimit {
    /// The limit.
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
    /// The container is ready for it: create it, without executing its program.
    Create,
    /// The container is ready for it: execute its program.
    Launch,
    /// The container will never be ready for it.
    Withdraw(StartFailure),
    /// The runtime created it.
    Created {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// The runtime started it.
    Started {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// The runtime could not create it, or could not start it.
    StartFailed(StartFailure),
    /// The exit source saw it end.
    Ended(RawExit),
    /// A caller, the container or the executor wants it to end.
    Cancel(Cancel),
    /// A caller sends it a signal.
    Signal(Signal, SignalScope),
    /// A caller changes the size of its terminal.
    Resize(TerminalSize),
    /// SIGKILL could not be delivered, although the process has not ended.
    KillFailed,
    /// Time has passed: a deadline may be reached.
    Tick,
}

/// What is to be done for a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProcessEffect {
    /// Have the runtime create it, without executing its program. Comes back as `Created` or `StartFailed`.
    Create,
    /// Have the runtime create and start it. Comes back as `Started` or `StartFailed`.
    Launch,
    /// Have the runtime execute the program of the process that it created. Comes back as `Started` or `StartFailed`.
    StartCreated,
    /// Abandon the creation or the start: end the runtime and remove what it left. Comes back as `StartFailed`.
    AbandonStart,
    /// Ask for its exit. Comes back as `Ended`.
    Watch,
    /// Send it a signal.
    Signal(Signal, SignalScope),
    /// Give its terminal this size. If it has no terminal yet, the size is set before the program can read it.
    Resize(TerminalSize),
    /// Send SIGKILL to it and its process group. A failure comes back as `KillFailed`.
    Kill(Kill),
    /// Report to the container that it was killed and has not ended: something may be frozen. Repeated until it ends.
    ReportStillAlive,
    /// Report to the container that it was created.
    ReportCreated {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Report to the container that it runs.
    ReportStarted {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Report its exit to the container. Comes exactly once, and is the last effect.
    ReportExited(Exit),
}

/// What a kill does in addition to sending SIGKILL to a process and its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kill {
    /// Kill everything else in the container as well: there is no pid namespace that ends with this process.
    pub everything: bool,
    /// Thaw the container and all freezers below its own: an earlier SIGKILL has not ended the process.
    pub thaw: bool,
}

/// What is known of a process whose actor failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OrphanState {
    /// What the runtime was asked for last. It may have answered already.
    pub asked: Option<LaunchStep>,
    /// The pid, if it was reported.
    pub pid: Option<HostPid>,
    /// When it started, if that was reported.
    pub started_at: Option<Timestamp>,
    /// How it ended, if that was delivered: it is not delivered again.
    pub ended: Option<RawExit>,
}

/// What a runtime can be asked for on behalf of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaunchStep {
    /// [`ProcessEffect::Create`].
    Create,
    /// [`ProcessEffect::Launch`].
    Launch,
    /// [`ProcessEffect::StartCreated`].
    StartCreated,
}
