//! What outlives an executor: the choice, what a successor finds, and the record in between.
//!
//! ```text
//!  executor ── events, notes ──▶ Ledger ──────────┐
//!     │ ends at any moment                        ▼
//!  containers run on ──▶ Runtime::open_kept ──▶ the next executor of the same name: `Executor::adopted`
//! ```
//! An event is in the ledger before anybody can know of it. So a successor continues with the next number, and none comes twice.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use executor_lifecycle::{ContainerId, HostPid, ProcessId};

use crate::{ContainerSpec, Swept};

/// What becomes of the containers when their executor ends without a [`shutdown`](crate::Executor::shutdown).
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Survival {
    /// They end with it: at once if the executor is dropped, and at the next sweep if its process is killed.
    #[default]
    EndWithMe,
    /// They run on, and the next executor of the same root and name takes them up.
    Keep {
        /// The name of the executor: lowercase letters, digits, `-`, `_` and `.`, at most 64. No two executors that live have
        /// the same.
        name: String,
    },
}

impl Survival {
    /// [`Survival::Keep`] with this name.
    pub fn keep(name: impl Into<String>) -> Self {
        Self::Keep { name: name.into() }
    }
}

/// Where an executor that is kept records what its successor has to know: lines of text, in order.
pub trait Ledger: Send + Sync + 'static {
    /// Appends whole lines. They outlive this process when this returns; they need not outlive the machine. It blocks for no
    /// longer than a write to memory takes.
    ///
    /// # Errors
    /// If they are not appended. None of them is there then.
    fn append(&self, lines: &str) -> io::Result<()>;

    /// All lines. The last one may be incomplete, if the process that wrote it was killed.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&self) -> io::Result<Vec<u8>>;

    /// Whether it is a successor's by now. Then this executor publishes nothing any more. By default it never is: a process that
    /// has ended writes nothing.
    fn is_taken_over(&self) -> bool {
        false
    }

    /// Puts these lines in the place of all others, at once.
    ///
    /// # Errors
    /// If that fails. The former lines are there then.
    fn replace(&self, lines: &str) -> io::Result<()>;
}

/// What a runtime finds of the executor of a name; see [`Runtime::open_kept`](crate::Runtime::open_kept).
pub struct Kept {
    /// What executors that are dead, and were not kept, had left.
    pub swept: Vec<Swept>,
    /// The record of the executor. It is empty if there was none of this name.
    pub ledger: Arc<dyn Ledger>,
    /// The containers that can be taken up.
    pub containers: Vec<KeptContainer>,
    /// Those that cannot, and are left as they are.
    pub unadopted: Vec<Unadopted>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("containers", &self.containers).finish_non_exhaustive()
    }
}

/// A container that a runtime has found as its executor has left it.
#[derive(Debug)]
pub struct KeptContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its specification. Streams that were files of the embedder are null in it, and secrets are not there.
    pub spec: ContainerSpec,
    /// The processes that have executed their program, with their pids. They may have exited since.
    pub executed: BTreeMap<ProcessId, HostPid>,
    /// Whether its processes are frozen.
    pub is_frozen: bool,
    /// The ends of the pipes that its executor had.
    pub streams: BTreeMap<ProcessId, KeptStreams>,
}

/// The ends of a process's pipes that were kept.
#[derive(Debug, Default)]
pub struct KeptStreams {
    /// The end to write to stdin.
    pub stdin: Option<OwnedFd>,
    /// The end to read stdout from.
    pub stdout: Option<OwnedFd>,
    /// The end to read stderr from.
    pub stderr: Option<OwnedFd>,
}

/// Which stream of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// stdin.
    Stdin,
    /// stdout.
    Stdout,
    /// stderr.
    Stderr,
}

/// A container that cannot be taken up. It is left as it is: it may run on.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unadopted {
    /// Its id, or the name of its directory.
    pub container: String,
    /// Why, in a sentence.
    pub why: String,
}

impl Unadopted {
    /// The container with this id, and why it cannot be taken up.
    pub fn new(container: impl Into<String>, why: impl Into<String>) -> Self {
        Self { container: container.into(), why: why.into() }
    }
}

impl fmt::Display for Unadopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.container, self.why)
    }
}
