//! Containers that are created and wait for their start.
//!
//! ```text
//!  create: create ▶ pid file ▶ adopt          (as a run, without the program)
//!  start:  exec.fifo ▶ one byte ▶ started     (runc and crun; for other runtimes, their own `start` is called)
//! ```
//! runc's init blocks in open(2) of a fifo until there is a reader. Then it writes a byte and executes the
//! program. crun's init has the fifo open, and blocks until it can read a byte. The runtime's `start` only
//! opens the other side and removes the fifo, so the driver does that itself.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use executor_core::ChildStdio;
use executor_core::lifecycle::{HostPid, StartFailure, StartFailureKind};
use executor_disk::Dir;
use executor_host::procfs::Stat;
use executor_host::{Adopted, Ended, ProcessEnd};
use futures::FutureExt;
use rustix::fs::OFlags;
use tokio::net::unix::pipe;

use super::container::{DriverContainer, PendingStart};
use super::launch::LaunchKind;
use super::pools::Pool;
use super::program::{Stderr, await_program};
use super::{DriverState, gone};
use crate::Error;

/// The fifo, in the runtime's state of a container.
const FIFO: &str = "exec.fifo";

/// How a created container waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Init writes to the fifo once it has a reader.
    Runc,
    /// Init reads from the fifo.
    Crun,
    /// Unknown. The runtime's own `start` is called.
    Other,
}

impl DriverState {
    /// Makes a container, up to the point where its program would be executed.
    pub(super) async fn create(
        self: &Arc<Self>,
        start: &PendingStart,
        stdio: ChildStdio,
    ) -> Result<(HostPid, Adopted), StartFailure> {
        let created = self.launch_init(start, LaunchKind::Create, stdio).await?;
        let (shared, container) = (Arc::clone(self), Arc::clone(&start.container));
        tokio::spawn(async move { shared.pools.run(Pool::Reads, move || container.layout()).await });
        Ok(created)
    }

    /// Executes the program of a created container. If it fails or is abandoned, init may still wait, or may
    /// run the program. The caller has to kill it then, and its exit is reported.
    pub(super) async fn start_created(&self, start: &PendingStart) -> Result<(), StartFailure> {
        let container = &start.container;
        let timed_out = async {
            tokio::select! {
                () = tokio::time::sleep(self.start_deadline) => {
                    format!("the container did not start within {:?}", self.start_deadline)
                }
                () = start.abandoned() => "the start was abandoned".to_owned(),
            }
        };
        tokio::select! {
            biased;
            started = self.start_program(start) => {
                // A program of init can be found from now on.
                self.watch_kills(container);
                started
            }
            message = timed_out => Err(StartFailure::new(StartFailureKind::RuntimeTimedOut, message)),
        }
    }

    async fn start_program(&self, start: &PendingStart) -> Result<(), StartFailure> {
        let container = &start.container;
        self.open_exec_fifo(container).await?;
        let (Some(pid), Some(ended)) = (container.init.get(), container.ended.get()) else { return Ok(()) };
        await_program(start, container.program(), *pid, false, ended.clone(), Stderr::unknown()).await
    }

    async fn open_exec_fifo(&self, container: &Arc<DriverContainer>) -> Result<(), StartFailure> {
        let (Some(pid), Some(ended)) = (container.init.get().copied(), container.ended.get().cloned()) else {
            return Err(gone("the container was not created".to_owned()));
        };
        // Usually it was read when the container was created.
        let layout = match container.layout.get() {
            Some(layout) => *layout,
            None => {
                let own = Arc::clone(container);
                self.work(Pool::Reads, move || Ok(own.layout())).await?
            }
        };
        // Opening, writing and removing a fifo takes microseconds, which is less than moving the work to
        // another thread. A started program may be done in two milliseconds.
        let state = || container.reservation.open_state().map_err(|error| Error::from(error).start_failure());
        let outcome = match layout {
            Layout::Runc => {
                let state = state()?;
                let released = release_runc_init(&state, ended).await;
                released.map_err(Error::file("start by", &state.path_of(FIFO)))
            }
            Layout::Crun => {
                let state = state()?;
                release_crun_init(&state, pid).map_err(Error::file("start by", &state.path_of(FIFO)))
            }
            Layout::Other => {
                let runtime = self.opened().map_err(|error| error.start_failure())?.runtime.clone();
                runtime.start(&container.reservation.id).await.map(|()| StartOutcome::Executed)
            }
        };
        match outcome.map_err(|error| error.start_failure())? {
            StartOutcome::Executed => Ok(()),
            StartOutcome::Gone => Err(gone("the container has ended before its start".to_owned())),
        }
    }
}

impl DriverContainer {
    /// How it waits for its start. Read once. Blocks for a moment.
    pub(super) fn layout(&self) -> Layout {
        *self.layout.get_or_init(|| {
            let state = self.reservation.open_state().ok();
            let has = |file: &str| state.as_ref().is_some_and(|state| state.has(file));
            match (has(FIFO), has("state.json"), has("status")) {
                (true, true, _) => Layout::Runc,
                (true, false, true) => Layout::Crun,
                (true, false, false) | (false, _, _) => Layout::Other,
            }
        })
    }
}

/// Opens the fifo without blocking until the other side is open.
fn open(state: &Dir, access: OFlags) -> io::Result<File> {
    state.open_file(FIFO, access | OFlags::NONBLOCK)
}

/// The outcome of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartOutcome {
    Executed,
    /// Init has exited before it has executed the program.
    Gone,
}

/// Writes the byte that crun's init waits for, and removes the fifo. The fifo is open for reading and
/// writing, so that the write cannot raise SIGPIPE.
fn release_crun_init(state: &Dir, pid: HostPid) -> io::Result<StartOutcome> {
    let mut gate = open(state, OFlags::RDWR)?;
    // This is checked first. After the write, the program may have run and exited already.
    if Stat::read(pid)?.is_none_or(|stat| stat.is_ending()) {
        return Ok(StartOutcome::Gone);
    }
    gate.write_all(&[0])?;
    state.remove_file(FIFO)?;
    Ok(StartOutcome::Executed)
}

/// Opens the fifo for runc's init, and removes it once the program is executed: while it exists, the runtime reports the
/// container as created.
async fn release_runc_init(state: &Dir, ended: Ended<ProcessEnd>) -> io::Result<StartOutcome> {
    let outcome = await_byte(open(state, OFlags::RDONLY)?, ended).await?;
    if outcome == StartOutcome::Executed {
        state.remove_file(FIFO)?;
    }
    Ok(outcome)
}

/// Waits for the byte of runc's init. Init continues as soon as the fifo is open. If it exits without writing
/// the byte, it has not executed the program.
async fn await_byte(fifo: File, ended: Ended<ProcessEnd>) -> io::Result<StartOutcome> {
    let gate = pipe::Receiver::from_owned_fd(fifo.into())?;
    loop {
        tokio::select! {
            biased;
            ready = gate.readable() => ready?,
            _ = ended.clone() => {}
        }
        let has_exited = ended.clone().now_or_never().is_some();
        let mut byte = [0];
        if has_exited {
            // It may have written the byte before its exit, without the reactor having noticed.
            return match rustix::io::read(&gate, &mut byte) {
                Ok(1..) => Ok(StartOutcome::Executed),
                Ok(0) | Err(_) => Ok(StartOutcome::Gone),
            };
        }
        match gate.try_read(&mut byte) {
            Ok(1..) => return Ok(StartOutcome::Executed),
            // The other side is not open yet, or it is closed again. In the latter case, the byte can be read.
            Ok(0) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
