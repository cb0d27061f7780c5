//! The seam between a driver and the parent of its processes. Values and file descriptors go in, values come
//! out.
//!
//! ```text
//!  driver ── HostClient ── Request, Vec<OwnedFd> ──▶ ProcessHost: LocalHost, in the embedder's process
//!               ▲                                        │
//!               └────────────── Event ───────────────────┘
//! ```
//! A host spawns runtimes, adopts the processes that runtimes have started, signals them and reports their
//! exits. It carries requests out in the order in which they were entered. Everything here can be serialised,
//! so that a process that outlives the embedder can be a host, too.
//!
//! The driver sends every [`Request`], and its client receives every [`Event`]. If the client is gone, its
//! events are dropped. If the host is gone, it drops the [`EventSink`], and every open request fails.

mod command;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use executor_core::Delivery;
use executor_core::lifecycle::{
    ContainerId, ExitStatus, HostPid, OomEvidence, OomKill, ProcessRef, Signal, SignalScope, Timestamp,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use self::command::{Command, FileIdentity, Image, ImageFate, StdioSource};

/// The parent of processes.
pub trait ProcessHost: Send + Sync {
    /// Enters a request, which is carried out after all earlier ones. Does not block. The request refers to
    /// `fds` by index. A host that ends drops its [`EventSink`].
    fn request(&self, request: Request, fds: Vec<OwnedFd>);
}

/// The receiver of one client's events, one after the other. The host drops it when no more will come.
pub trait EventSink: Send + 'static {
    /// Takes an event. Called on the host's own thread, so it must not block.
    fn deliver(&mut self, event: Event);
}

/// Identifies a request and its answer. The client chooses it and uses it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

/// Identifies a call of a runtime. The client chooses it and uses it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// A request to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Execute a runtime. Answered with [`Event::Spawned`] or [`Event::SpawnFailed`]. After `Spawned`,
    /// [`Event::CallEnded`] follows.
    Spawn {
        /// The call's id from now on.
        call: CallId,
        /// What to execute.
        command: Command,
    },
    /// Send SIGKILL to the process group of a runtime, and to the processes of a container that it has started.
    KillCall {
        /// The call.
        call: CallId,
    },
    /// Take charge of a process that a runtime has started. Answered with [`Event::Adopted`] or
    /// [`Event::AdoptFailed`]. After `Adopted`, [`Event::Exited`] follows.
    Adopt {
        /// Identifies the answer.
        token: Token,
        /// The process's name from now on.
        process: ProcessRef,
        /// The pid that the runtime has written.
        pid: HostPid,
        /// The process whose child it is.
        parent: Parent,
        /// Its container. A process outside of it is a stranger that has the pid by now.
        members: Members,
    },
    /// Signal an adopted process. Answered with [`Event::Signalled`]. After its exit nothing is signalled.
    Signal {
        /// Identifies the answer.
        token: Token,
        /// The process.
        process: ProcessRef,
        /// The signal.
        signal: Signal,
        /// The process alone, or its process group. The whole container is [`SignalAll`](Self::SignalAll).
        scope: SignalScope,
    },
    /// Signal every process of a container. Answered with [`Event::Signalled`].
    SignalAll {
        /// Identifies the answer.
        token: Token,
        /// The container.
        members: Members,
        /// The signal.
        signal: Signal,
    },
    /// Send SIGKILL to an adopted process and its group. Answered with [`Event::Signalled`].
    Kill {
        /// Identifies the answer.
        token: Token,
        /// The process.
        process: ProcessRef,
        /// Also kill the processes of this container, and reap those that become children of the host.
        everything: Option<Members>,
        /// Then thaw the freezers in these directories and in all below them.
        thaw: Vec<OsString>,
    },
    /// Thaw the freezers in these directories of a container, in all below them, and in our own above them. Answered with [`Event::Done`].
    Thaw {
        /// Identifies the answer.
        token: Token,
        /// The directories of a cgroup.
        dirs: Vec<OsString>,
    },
    /// Kill and reap unadopted children that a runtime has left half made. Answered with [`Event::Done`]
    /// within seconds.
    EndUnadopted {
        /// Identifies the answer.
        token: Token,
        /// The container.
        members: Members,
        /// Also those that run the container's program already.
        all: bool,
        /// Also the process with this pid, if it is in the container.
        started: Option<HostPid>,
    },
    /// Remember the processes that are in a container now, and reap those that become children of the host.
    /// Needed for a container without a pid namespace, which would kill and reap them.
    Remember {
        /// The container.
        container: ContainerId,
        /// The evidence that a process is in it.
        members: Members,
    },
    /// As [`Remember`](Self::Remember), and kill the processes until none is left. Answered with
    /// [`Event::Done`], after `patience` at the latest.
    EndAll {
        /// Identifies the answer.
        token: Token,
        /// The container.
        container: ContainerId,
        /// The evidence that a process is in it.
        members: Members,
        /// The directories of its cgroup, whose freezers are thawed.
        thaw: Vec<OsString>,
        /// The time limit.
        patience: Duration,
    },
    /// A process is going to be started in a container with a memory limit. From now on, look for it among the
    /// processes that are killed for lack of memory.
    TrackKills {
        /// The process.
        process: ProcessRef,
        /// Whether it is an init that starts the program and reports its end as its own.
        has_program: bool,
        /// Its container, which need not exist yet.
        members: Members,
    },
    /// The process of a [`TrackKills`](Self::TrackKills) was not started.
    UntrackKills {
        /// The process.
        process: ProcessRef,
    },
    /// A container with a memory limit runs: watch its cgroup, and look for its adopted processes as well.
    WatchKills {
        /// The container.
        container: ContainerId,
        /// Whether its init starts the program and reports its end as its own.
        has_program: bool,
        /// The evidence that a process is in it.
        members: Members,
    },
    /// Make the host a child subreaper, or stop that. Answered with [`Event::Done`] or [`Event::Failed`].
    Subreap {
        /// Identifies the answer.
        token: Token,
        /// Whether it is to be one.
        on: bool,
    },
    /// From now on reap unadopted children that exit inside one of these containers.
    ReapOrphans {
        /// The containers.
        containers: Containers,
    },
    /// Somebody else in the host's process may wait for any child. From now on runtimes are executed below a
    /// subreaper.
    WaitsElsewhere,
    /// From now on also reap every other child of the host that nobody has reaped for `age` since its exit was seen.
    ReapOthers {
        /// The time.
        age: Duration,
    },
    /// A child may have exited: reap orphans now. Answered with [`Event::Done`].
    LookForOrphans {
        /// Identifies the answer.
        token: Token,
    },
    /// Forget a container. No later request names it.
    Forget {
        /// The container.
        container: ContainerId,
    },
    /// Refuse later `Spawn` requests, and kill and reap every runtime and every adopted process of this
    /// client. Answered with [`Event::Done`], after `patience` at the latest.
    Close {
        /// Identifies the answer.
        token: Token,
        /// The time limit.
        patience: Duration,
    },
}

/// What a host delivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A runtime was executed.
    Spawned {
        /// The call.
        call: CallId,
        /// Its pid.
        pid: HostPid,
        /// Whether its image was executed.
        image: ImageFate,
    },
    /// A runtime was not executed.
    SpawnFailed {
        /// The call.
        call: CallId,
        /// The cause.
        error: OsError,
    },
    /// A runtime has exited. If it failed, the rest of its process group has been killed.
    CallEnded {
        /// The call.
        call: CallId,
        /// Its exit status.
        status: ExitStatus,
    },
    /// A process is watched.
    Adopted {
        /// The request's token.
        token: Token,
        /// Whether it has executed its program: until then it is a part of the runtime.
        has_executed: bool,
    },
    /// A process cannot be watched. It was killed.
    AdoptFailed {
        /// The request's token.
        token: Token,
        /// The cause.
        error: OsError,
    },
    /// A signal was sent, or not.
    Signalled {
        /// The request's token.
        token: Token,
        /// The delivery, or why it failed.
        delivery: Result<Delivered, OsError>,
    },
    /// An adopted process has exited.
    Exited {
        /// The process.
        process: ProcessRef,
        /// How it has ended.
        end: ProcessEnd,
    },
    /// A process of a container with a memory limit was killed for lack of memory. Comes before the exit of that
    /// process.
    OomKilled {
        /// The container.
        container: ContainerId,
        /// What was killed.
        kill: OomKill,
    },
    /// A request was carried out.
    Done {
        /// The request's token.
        token: Token,
    },
    /// A request could not be carried out.
    Failed {
        /// The request's token.
        token: Token,
        /// The cause.
        error: OsError,
    },
}

/// The end of an adopted process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    /// Its exit status.
    pub status: ExitStatus,
    /// Whether it was killed for lack of memory. Absent if nobody has looked.
    pub oom: Option<OomEvidence>,
    /// Whether it has executed its program. Absent if it was not known before, and somebody else has reaped it.
    pub has_executed: Option<bool>,
    /// When it ended, if that was noted.
    pub at: Option<Timestamp>,
}

/// The parent of an adopted process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parent {
    /// The host, which reaps it.
    Us,
    /// The host: this call of a runtime has ended and left it behind.
    LeftBy(CallId),
    /// The runtime, which stays as its monitor.
    Call(CallId),
    /// None: it has ended, and whoever was its parent has recorded how. Another process may have its pid.
    Ended,
}

/// The evidence that a process is in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Members {
    /// Its cgroup.
    Cgroup {
        /// The path within each hierarchy.
        path: String,
        /// The directories in the hierarchies.
        dirs: Vec<OsString>,
    },
    /// Its pid namespace, if this user may make no cgroups: that of `init`, or any below the host's own.
    PidNamespace {
        /// The container's init, once it is known.
        init: Option<HostPid>,
    },
}

/// The evidence that a process is in any container of an executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Containers {
    /// Its cgroup: the containers of the executor of this name.
    Of(String),
    /// Its pid namespace, if this user may make no cgroups: it is below the host's own.
    InNestedNamespaces,
}

/// A [`Delivery`] that can be serialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// The kernel has accepted the signal.
    Sent,
    /// The process is gone.
    Gone,
}

impl From<Delivery> for Delivered {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Sent => Self::Sent,
            Delivery::Gone => Self::Gone,
        }
    }
}

impl From<Delivered> for Delivery {
    fn from(delivered: Delivered) -> Self {
        match delivered {
            Delivered::Sent => Self::Sent,
            Delivered::Gone => Self::Gone,
        }
    }
}

/// An error of the system, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsError(pub i32);

impl From<io::Error> for OsError {
    /// An error of the standard library has no number. It is about an argument that the system would reject
    /// as well.
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()))
    }
}

impl From<OsError> for io::Error {
    fn from(error: OsError) -> Self {
        Self::from_raw_os_error(error.0)
    }
}
