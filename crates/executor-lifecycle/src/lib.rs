//! The lifecycle of containers and processes as pure state machines.
//!
//! Every decision about a container's life is taken here, and only here: what may happen in which
//! state, what a cancel means before the process exists, which exit ends which process, and in which
//! order events are published. The actors of `executor-core` translate messages into events, call
//! `step`, and perform the effects that come back; they decide nothing.
//!
//! There is no clock, no randomness and no I/O in this crate, and its manifest is the proof. Time and
//! ids are passed in, `next_deadline` says when the next `Tick` is due, and an effect that fails comes
//! back as an event.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | names of containers, processes and host pids |
//! | [`signal`] | signals, their names and numbers |
//! | [`exit`] | how a process ended and why; why a start failed |
//! | [`cancel`] | what a cancel asks for |
//! | [`process`] | the machine of one process: waiting, starting, running, exited |
//! | [`container`] | the machine of a container and the processes in it |
//! | [`exit_router`] | the machine that gives each exit to its process, also an exit that comes early |
//! | [`ready`] | the machine of the containers that are kept ready for one specification |
//! | [`registry`] | the machine of an executor's containers: ids, pools, draining and shutdown |
//! | [`event`] | the events of a container, and their order |
//! | [`oom`] | kills of the kernel's OOM killer |
//! | [`usage`] | what a container uses |
//! | [`terminal`] | the size of a terminal |
//! | [`json`] | how spans and paths are written as JSON |
//! | [`step`] | effects, refusals and time, shared by the machines |

pub mod cancel;
pub mod container;
pub mod event;
pub mod exit;
pub mod exit_router;
pub mod id;
pub mod json;
pub mod oom;
pub mod process;
pub mod ready;
pub mod registry;
pub mod signal;
pub mod step;
pub mod terminal;
pub mod usage;

pub use cancel::{Cancel, CancelCause};
pub use event::{Event, EventKind, EventOrder, OutOfOrder};
pub use exit::{
    Exit, ExitReason, ExitStatus, Leftover, LeftoverKind, RawExit, StartFailure, StartFailureKind,
    with_causes, without_names,
};
pub use id::{ContainerId, ExecId, HostPid, InvalidId, ProcessId, ProcessRef};
pub use oom::{OomEvidence, OomFindings, OomKill, ReportedEnd, SeenKills};
pub use signal::{InvalidSignal, Signal, SignalScope};
pub use step::{Effects, InvalidTimestamp, Refusal, Refused, Timestamp};
pub use terminal::TerminalSize;
pub use usage::{IoUsage, NetworkUsage, Pressure, Stall, Usage};
