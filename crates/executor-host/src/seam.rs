//! The seam to what must be the parent of something: values and file descriptors go in, values come out.
//!
//! ```text
//!  driver ── HostClient ── Request, Vec<OwnedFd> ──▶ ProcessHost: LocalHost, in the embedder's process
//!               ▲                                        │
//!               └────────────── Event ───────────────────┘
//! ```
//! A host spawns runtimes, adopts the processes they leave behind, signals these and reports their exits. It carries
//! requests out in the order in which they enter. Everything here can be serialised, so that a process that outlives the
//! embedder can be a host as well.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use executor_core::Delivery;
use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessRef, Signal, SignalScope};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Something that processes are children of.
pub trait ProcessHost: Send + Sync {
    /// Enters a request; it is carried out after those that were entered before. Does not block. The request refers to
    /// `fds` by their index. A host that has ended says so by dropping its [`EventSink`].
    fn request(&self, request: Request, fds: Vec<OwnedFd>);
}

/// Where a host delivers the events of one client, one after the other. It is dropped when no more will come.
pub trait EventSink: Send + 'static {
    /// Takes an event. Called on the host's own thread: it must not block.
    fn deliver(&mut self, event: Event);
}

/// The name of a request whose answer is awaited; the client's choice, used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

/// The name of a call of a runtime; the client's choice, used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// What a host is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Execute a runtime: [`Event::Spawned`] or [`Event::SpawnFailed`], and [`Event::CallEnded`] in the end.
    Spawn {
        /// Its name from now on.
        call: CallId,
        /// What to execute.
        command: Command,
    },
    /// Send SIGKILL to the process group of a runtime.
    KillCall {
        /// Which.
        call: CallId,
    },
    /// Take charge of a process that a runtime has started: [`Event::Adopted`] or [`Event::AdoptFailed`], and
    /// [`Event::Exited`] in the end.
    Adopt {
        /// Names the answer.
        token: Token,
        /// Its name from now on.
        process: ProcessRef,
        /// Its pid, as the runtime wrote it.
        pid: HostPid,
        /// Whose child it is.
        parent: Parent,
        /// Where it is, if it is what the runtime started.
        members: Members,
    },
    /// Signal an adopted process: [`Event::Signalled`]. After its end nothing is signalled.
    Signal {
        /// Names the answer.
        token: Token,
        /// Which.
        process: ProcessRef,
        /// The signal.
        signal: Signal,
        /// The process alone, or its process group. The whole container is [`SignalAll`](Self::SignalAll).
        scope: SignalScope,
    },
    /// Signal every process of a container: [`Event::Signalled`].
    SignalAll {
        /// Names the answer.
        token: Token,
        /// The container.
        members: Members,
        /// The signal.
        signal: Signal,
    },
    /// Send SIGKILL to an adopted process and its group: [`Event::Signalled`].
    Kill {
        /// Names the answer.
        token: Token,
        /// Which.
        process: ProcessRef,
        /// Kill these as well, and reap those of them that become children of the host.
        everything: Option<Members>,
        /// Then thaw the freezers in these directories and in all below them.
        thaw: Vec<OsString>,
    },
    /// Thaw the freezers in these directories and in all below them: [`Event::Done`].
    Thaw {
        /// Names the answer.
        token: Token,
        /// The directories of a cgroup.
        dirs: Vec<OsString>,
    },
    /// Kill and reap children that nobody adopted, which a runtime left half made: [`Event::Done`], at the latest after a
    /// moment.
    EndUnadopted {
        /// Names the answer.
        token: Token,
        /// Those of this container.
        members: Members,
        /// All of them, not only what has not executed the container's program yet.
        all: bool,
        /// And the process that has this pid, if it is the container's.
        started: Option<HostPid>,
    },
    /// Remember who is in a container now, and reap those that become children of the host when they have ended: where
    /// no pid namespace does.
    Remember {
        /// The container.
        container: ContainerId,
        /// Who is in it.
        members: Members,
    },
    /// As [`Remember`](Self::Remember), and kill them until nothing is left: [`Event::Done`], at the latest after
    /// `patience`.
    EndAll {
        /// Names the answer.
        token: Token,
        /// The container.
        container: ContainerId,
        /// Who is in it.
        members: Members,
        /// The directories of its cgroup, whose freezers are thawed.
        thaw: Vec<OsString>,
        /// How long that may take.
        patience: Duration,
    },
    /// Make the host a child subreaper, or give that up: [`Event::Done`] or [`Event::Failed`].
    Subreap {
        /// Names the answer.
        token: Token,
        /// Whether it is to be one.
        on: bool,
    },
    /// From now on reap children that end in one of these containers and that nobody adopted.
    ReapOrphans {
        /// Which.
        containers: Containers,
    },
    /// A child may have ended: reap orphans now. [`Event::Done`].
    LookForOrphans {
        /// Names the answer.
        token: Token,
    },
    /// Nothing of this container will be asked for any more.
    Forget {
        /// Which.
        container: ContainerId,
    },
    /// Execute nothing more; kill and reap every runtime and every adopted process of this client: [`Event::Done`], at
    /// the latest after `patience`.
    Close {
        /// Names the answer.
        token: Token,
        /// How long that may take.
        patience: Duration,
    },
}

/// What a host reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A runtime was executed.
    Spawned {
        /// Which.
        call: CallId,
        /// Its pid.
        pid: HostPid,
        /// What became of its image.
        image: ImageFate,
    },
    /// A runtime was not executed.
    SpawnFailed {
        /// Which.
        call: CallId,
        /// Why not.
        error: OsError,
    },
    /// A runtime has ended; when it failed, what it had left in its process group has ended too.
    CallEnded {
        /// Which.
        call: CallId,
        /// How.
        status: ExitStatus,
    },
    /// A process is watched.
    Adopted {
        /// The request.
        token: Token,
    },
    /// A process cannot be watched; it was killed.
    AdoptFailed {
        /// The request.
        token: Token,
        /// Why not.
        error: OsError,
    },
    /// What became of a signal.
    Signalled {
        /// The request.
        token: Token,
        /// It.
        delivery: Result<Delivered, OsError>,
    },
    /// An adopted process has ended.
    Exited {
        /// Which.
        process: ProcessRef,
        /// How.
        status: ExitStatus,
    },
    /// A request was carried out.
    Done {
        /// The request.
        token: Token,
    },
    /// A request could not be carried out.
    Failed {
        /// The request.
        token: Token,
        /// Why not.
        error: OsError,
    },
}

/// A runtime to be executed, in a process group of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its program, an absolute path, and its first argument.
    pub program: OsString,
    /// The program in memory, which is executed in its place while the file is still what it was made of.
    pub image: Option<Image>,
    /// The other arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// stdin, stdout and stderr.
    pub stdio: [StdioSource; 3],
}

/// A program in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The index of its file descriptor.
    pub fd: usize,
    /// The file it is a copy of.
    pub of: FileIdentity,
}

/// What became of a [`Command`]'s image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageFate {
    /// There is none.
    None,
    /// It was executed.
    Executed,
    /// The program's file is another by now, and was executed.
    Outdated,
    /// It cannot be executed; the program's file was.
    Unfit,
}

/// Which file, with which content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device and inode.
    pub file: (u64, u64),
    /// Its size in bytes.
    pub size: u64,
    /// When it was changed last, in seconds and nanoseconds.
    pub changed: (i64, i64),
}

impl FileIdentity {
    /// That of a file as it is now.
    pub fn of(meta: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let (file, changed) = ((meta.dev(), meta.ino()), (meta.ctime(), meta.ctime_nsec()));
        Self { file, size: meta.size(), changed }
    }
}

/// A stream of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdioSource {
    /// `/dev/null`.
    Null,
    /// The host's own stream of the same number.
    Inherit,
    /// The file descriptor at this index.
    Fd(usize),
}

/// Whose child an adopted process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parent {
    /// The host's, which reaps it.
    Us,
    /// The runtime's, which stays as its monitor.
    Call(CallId),
}

/// What says that a process is in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Members {
    /// Its cgroup.
    Cgroup {
        /// The path within each hierarchy.
        path: String,
        /// The directories in the hierarchies.
        dirs: Vec<OsString>,
    },
    /// Its pid namespace, where no cgroups may be made: that of this process, or any below the host's own.
    PidNamespace {
        /// The container's init, if it is known.
        init: Option<HostPid>,
    },
}

/// What says that a process is in some container of an executor's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Containers {
    /// Its cgroup: the containers of the executor of this name.
    Of(String),
    /// Its pid namespace, where no cgroups may be made: it lies below the host's.
    InNestedNamespaces,
}

/// [`Delivery`], as it crosses the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// The kernel took it.
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

/// An error of the system's, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsError(pub i32);

impl From<io::Error> for OsError {
    /// What the standard library finds wrong itself is an argument that the system would not take either.
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()))
    }
}

impl From<OsError> for io::Error {
    fn from(error: OsError) -> Self {
        Self::from_raw_os_error(error.0)
    }
}
