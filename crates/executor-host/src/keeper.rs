//! The keeper: a process that is the parent of an executor's processes, and outlives the embedder's.
//!
//! ```text
//!  KeeperHost ── ChildTable ── KeeperKernel ──┐
//!                                             ├── Keeper ── connection ──▶ socket ──▶ the program, which decides nothing
//!  whoever holds pipes and terminals ─────────┘
//! ```
//! The program is `keeper` of `executor-programs`, the protocol its `wire`. A keeper has one client at a time. Each call has one
//! answer and takes 10 to 50 µs; a call that takes longer than ten seconds ends the connection.
//!
//! # Example
//! An executor has a keeper in its directory, and is killed while container `c` runs. `c` goes on, ends with 3 a minute later, and
//! is reaped by the keeper. The next executor connects ([`Keeper::connect`]). The init of `c` is gone, and
//! [`Keeper::record`] says how and when it ended. The record stays until the executor has written that down and
//! [forgets](Keeper::forget) it.

mod connection;
mod error;
mod host;
mod kernel;
mod logs;
mod requests;
mod start;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use executor_core::lifecycle::{ExitStatus, HostPid, Timestamp};
use executor_programs::messages::{HAS_EXECUTED, IS_MARKED, Record, WAS_SPAWNED};
use rustix::process::{WaitId, WaitIdOptions};

use self::connection::Connection;
pub use self::error::KeeperError;
pub use self::host::KeeperHost;
pub use self::logs::{LogFile, LogForm, LogStream, Logged};
pub use self::requests::{KeptProcess, KeptProgram, Started};
pub use self::start::SOCKET;
use crate::{lock, pidfd};

type Result<T> = std::result::Result<T, KeeperError>;

/// A connection to a keeper. Its clones share it; the keeper accepts the next client when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Keeper {
    shared: Arc<Mutex<Shared>>,
}

/// A connection to a keeper, for those who do not keep it open.
#[derive(Clone, Debug)]
pub struct WeakKeeper {
    shared: Weak<Mutex<Shared>>,
}

impl WeakKeeper {
    /// The connection, unless its last clone was dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<Keeper> {
        Some(Keeper { shared: self.shared.upgrade()? })
    }
}

#[derive(Debug)]
struct Shared {
    /// `None` after it has failed.
    connection: Option<Connection>,
    pid: HostPid,
    pidfd: Arc<OwnedFd>,
    /// Identifies the program that it executes.
    program: u64,
    /// What it had when the connection was made.
    had: Had,
    /// The path of its cgroups, if it was put into some of its own.
    cgroup: Option<String>,
    /// Counts the keepers that this one was replaced by.
    generation: u64,
}

/// What a keeper had when the connection was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Had {
    /// The number of records.
    pub records: usize,
    /// The number of descriptors that are held.
    pub held: usize,
    /// Whether it had children.
    pub children: bool,
}

/// How a child of the keeper's has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeeperRecord {
    /// The number of the record. A later record has a higher one, across upgrades too.
    pub number: u64,
    /// The process.
    pub pid: HostPid,
    /// When it was started, in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub start: u64,
    /// Its exit status.
    pub status: ExitStatus,
    /// Whether it has executed a program since it was forked.
    pub has_executed: bool,
    /// Whether the keeper has spawned it. Any other was left behind by one of those.
    pub was_spawned: bool,
    /// Whether a client has [marked](Keeper::mark) it.
    pub is_marked: bool,
    /// When it was reaped, which is moments after its end.
    pub at: Timestamp,
    /// The time of processors that it and the children that it had waited for have used: by themselves, and by the kernel for them.
    pub times: [Duration; 2],
    /// The most memory that it has had, in bytes.
    pub memory: u64,
}

/// What a keeper knows of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is a child that has not ended.
    Alive,
    /// It has ended.
    Ended(KeeperRecord),
    /// It is no child, or its record was forgotten.
    Unknown,
}

impl KeeperRecord {
    fn new(record: &Record) -> Result<Self> {
        let pid = HostPid::new(record.process.pid).ok_or(KeeperError::Answer)?;
        Ok(Self {
            number: record.number,
            pid,
            start: record.process.start,
            status: pidfd::wait_status(record.status),
            has_executed: record.flags & HAS_EXECUTED != 0,
            was_spawned: record.flags & WAS_SPAWNED != 0,
            is_marked: record.flags & IS_MARKED != 0,
            at: Timestamp::from_epoch(Duration::from_nanos(record.at)),
            times: record.times.map(Duration::from_micros),
            memory: record.memory.saturating_mul(1024),
        })
    }
}

impl Keeper {
    /// A handle that does not keep the connection open.
    #[must_use]
    pub fn downgrade(&self) -> WeakKeeper {
        WeakKeeper { shared: Arc::downgrade(&self.shared) }
    }

    /// The keeper's pid.
    pub fn pid(&self) -> HostPid {
        lock(&self.shared).pid
    }

    /// What it had when the connection was made.
    pub fn had(&self) -> Had {
        lock(&self.shared).had
    }

    /// Its pidfd, which can be read when it has ended.
    pub fn pidfd(&self) -> Arc<OwnedFd> {
        Arc::clone(&lock(&self.shared).pidfd)
    }

    /// Whether it executes the program that this library carries.
    pub fn is_current(&self) -> bool {
        u64::from_str_radix(executor_programs::KEEPER_HASH, 16) == Ok(lock(&self.shared).program)
    }

    /// Whether the keeper is alive. If it is not, its children have gone to the next subreaper, or to process 1.
    pub fn is_alive(&self) -> bool {
        !pidfd::has_ended(self.pidfd().as_fd())
    }

    /// Waits until it has ended. Needs a tokio runtime.
    ///
    /// # Errors
    /// When its pidfd cannot be watched.
    pub async fn ended(&self) -> std::io::Result<()> {
        let watched = pidfd::watch(self.pidfd(), tokio::io::Interest::READABLE)?;
        watched.readable().await.map(drop)
    }

    /// Goes on with another keeper, of which there are no other clones. All clones of this one do.
    pub fn replace_by(&self, other: Self) {
        let mut shared = lock(&self.shared);
        let generation = shared.generation + 1;
        match Arc::try_unwrap(other.shared) {
            Ok(other) => {
                let other = other.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
                *shared = Shared { generation, ..other };
            }
            Err(_) => tracing::error!("a keeper with other clones cannot replace one"),
        }
    }

    fn generation(&self) -> u64 {
        lock(&self.shared).generation
    }

    /// Reaps the keeper if it has ended and has become a child of this process, as it does if this process is a subreaper.
    fn reap(&self) {
        let pidfd = self.pidfd();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _not_a_child = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options);
    }
}
