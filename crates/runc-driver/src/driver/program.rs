//! Whether a process that was started has executed its program.
//!
//! runc and crun report that a process runs before it executes the program. If that fails, the process writes why to its
//! stderr and exits with code 1, as a program may. What tells them apart is a flag of the kernel: a process that was forked and
//! has executed nothing since. See docs/adr/0019.
//!
//! ```text
//!  adopted ──▶ has executed ──────────────────────────────▶ started   (nearly always, at the first look)
//!     └──────▶ not yet ── looked at each ms ── it executes ──▶ started
//!                 ├────── it exits: the host has looked before it reaped it ──▶ failed, for the reason in stderr
//!                 └────── 1 s ───────────────────────────────▶ started   (a runtime may run programs itself)
//! ```
//! With `--init`, init is the process, and says by its name how it has fared with the program: `executor-programs` has it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use executor_core::lifecycle::{ExitStatus, HostPid, ProcessId, StartFailure};
use executor_core::{ChildFd, ChildStdio};
use executor_host::procfs::Stat;
use executor_host::{Ended, ProcessEnd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use super::container::PendingStart;
use crate::failure;

/// How long a start waits for the program.
const PATIENCE: Duration = Duration::from_secs(1);

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// The most bytes of a stderr that are looked at: a pipe has no more by default.
const MOST_WORDS: usize = 64 << 10;

/// The names of our init, before it has started the program and if it could not.
const INIT: &str = "longshore-init";
const NO_PROGRAM: &str = "no program: ";

/// Whether a process has executed its program, as far as that is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExecState {
    Executed,
    NotYet,
    /// The program was not executed, for this reason if it is known.
    Failed(Option<Errno>),
}

/// The stderr of a process that is being started, if it is a pipe: in it is why the program was not executed.
pub(super) struct Stderr(Option<Arc<OwnedFd>>);

impl Stderr {
    pub(super) fn of(stdio: &ChildStdio) -> Self {
        match &stdio.stderr {
            ChildFd::Fd(file) if is_pipe(file) => Self(Some(Arc::clone(file))),
            ChildFd::Fd(_) | ChildFd::Null | ChildFd::Inherit => Self(None),
        }
    }

    pub(super) const fn unknown() -> Self {
        Self(None)
    }

    /// What is in the pipe. It stays there, since it may be the caller's. We have the end for writing, by which the kernel
    /// opens the other one.
    fn peek(&self) -> Option<Vec<u8>> {
        let path = format!("/proc/self/fd/{}", self.0.as_ref()?.as_raw_fd());
        let pipe = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        let (copy, into) = std::io::pipe().ok()?;
        let copied = rustix::pipe::tee(pipe.ok()?, into, MOST_WORDS, SpliceFlags::NONBLOCK).ok()?;
        let mut words = vec![0; copied];
        let read = rustix::io::read(&copy, &mut words).ok()?;
        words.truncate(read);
        Some(words)
    }
}

fn is_pipe(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Waits until a process that was started has executed its program. An error if it never will.
pub(super) async fn await_program(
    start: &PendingStart,
    program: &str,
    pid: HostPid,
    has_executed: bool,
    ended: Ended<ProcessEnd>,
    stderr: Stderr,
) -> Result<(), StartFailure> {
    let has_init = start.process == ProcessId::Init && start.container.spec.init;
    if has_executed && !has_init {
        return Ok(());
    }
    let waited = tokio::select! {
        seen = executes(pid, has_init, ended) => seen,
        () = tokio::time::sleep(PATIENCE) => ExecState::Executed,
        // The caller ends it, whatever it executes.
        () = start.abandoned() => ExecState::Executed,
    };
    let ExecState::Failed(errno) = waited else { return Ok(()) };
    let errno = errno.or_else(|| failure::errno_of(&failure::words(&stderr.peek()?)?));
    Err(failure::not_executed(program, errno))
}

async fn executes(pid: HostPid, has_init: bool, ended: Ended<ProcessEnd>) -> ExecState {
    loop {
        let seen = Stat::of(pid).map_or(ExecState::NotYet, |stat| look(&stat, has_init));
        if seen != ExecState::NotYet {
            return seen;
        }
        tokio::select! {
            biased;
            end = ended.clone() => return how_it_ended(end),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// A process that was killed has not failed to execute its program. Its exit says what happened.
fn how_it_ended(end: ProcessEnd) -> ExecState {
    match (end.has_executed, end.status) {
        (Some(false), ExitStatus::Code(1..)) => ExecState::Failed(None),
        (Some(_) | None, ExitStatus::Code(_) | ExitStatus::Signal(_) | ExitStatus::Unknown) => {
            ExecState::Executed
        }
    }
}

fn look(stat: &Stat, has_init: bool) -> ExecState {
    if !stat.has_executed() {
        return ExecState::NotYet;
    }
    match stat.comm.strip_prefix(NO_PROGRAM) {
        Some(errno) if has_init => ExecState::Failed(errno.parse().ok().map(Errno::from_raw_os_error)),
        None if has_init && stat.comm == INIT => ExecState::NotYet,
        Some(_) | None => ExecState::Executed,
    }
}
