//! Containers that are created and wait to be started.
//!
//! ```text
//!  create: create ▶ pid file ▶ adopt          (as a run, short of the program)
//!  start:  exec.fifo ▶ one byte ▶ it runs     (runc's and crun's layouts; another's is started by its `start`)
//! ```
//! runc's init waits in open(2) of a fifo for a reader, writes a byte to it and executes the program; crun's has it open
//! and waits for a byte. `start` does no more than to be the other side, and to remove the fifo.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use executor_core::ChildStdio;
use executor_core::lifecycle::{HostPid, StartFailure, StartFailureKind};
use executor_host::procfs::Stat;
use executor_host::{Adopted, Ended};
use futures::FutureExt;
use rustix::fs::OFlags;
use tokio::net::unix::pipe;

use super::container::{DriverContainer, PendingStart};
use super::launch::LaunchKind;
use super::pools::Pool;
use super::{DriverState, gone};
use crate::Error;

/// How a created container waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Its init writes to the fifo when somebody reads.
    Runc,
    /// Its init reads from the fifo.
    Crun,
    /// The runtime knows.
    Other,
}

impl DriverState {
    /// Makes a container up to the point where its program would be executed.
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

    /// Executes the program of a container that was created. When it fails or is given up half way, init may still wait, or run
    /// the program: who asked for the start ends it, and its exit is reported.
    pub(super) async fn start_created(&self, start: &PendingStart) -> Result<(), StartFailure> {
        let container = &start.container;
        let given_up = async {
            tokio::select! {
                () = tokio::time::sleep(self.start_deadline) => {
                    format!("the container did not start within {:?}", self.start_deadline)
                }
                () = start.abandoned() => "the start was given up".to_owned(),
            }
        };
        tokio::select! {
            biased;
            started = self.open_exec_fifo(container) => started,
            message = given_up => Err(StartFailure::new(StartFailureKind::RuntimeTimedOut, message)),
        }
    }

    async fn open_exec_fifo(&self, container: &Arc<DriverContainer>) -> Result<(), StartFailure> {
        let (Some(pid), Some(ended)) = (container.init.get().copied(), container.ended.get().cloned()) else {
            return Err(gone("the container was not created".to_owned()));
        };
        let fifo = container.reservation.state.join("exec.fifo");
        let failed = |error| Error::file("start by", &fifo)(error).start_failure();
        // Known since it was created, mostly.
        let layout = match container.layout.get() {
            Some(layout) => *layout,
            None => {
                let own = Arc::clone(container);
                self.work(Pool::Reads, move || Ok(own.layout())).await?
            }
        };
        // Opening, writing and removing a fifo takes microseconds, and handing it to another thread and back many more: a
        // program that is ready has run in two or three milliseconds.
        let opened = match layout {
            Layout::Runc => open(&fifo, false).map_err(failed)?,
            Layout::Crun => {
                return match release_crun_init(&fifo, pid).map_err(failed)? {
                    StartOutcome::Executed => Ok(()),
                    StartOutcome::Gone => Err(ended_before()),
                };
            }
            Layout::Other => {
                let runtime = self.opened().map_err(|error| error.start_failure())?.runtime.clone();
                return runtime.start(&container.reservation.id).await.map_err(|error| error.start_failure());
            }
        };
        match await_program(opened, ended).await.map_err(failed)? {
            // Until it is gone the runtime says that the container is created.
            StartOutcome::Executed => fs::remove_file(&fifo).map_err(failed),
            StartOutcome::Gone => Err(ended_before()),
        }
    }
}

impl DriverContainer {
    /// How it waits; looked for once. Blocks for a moment.
    pub(super) fn layout(&self) -> Layout {
        *self.layout.get_or_init(|| {
            let has = |file: &str| self.reservation.state.join(file).exists();
            match (has("exec.fifo"), has("state.json"), has("status")) {
                (true, true, _) => Layout::Runc,
                (true, false, true) => Layout::Crun,
                (true, false, false) | (false, _, _) => Layout::Other,
            }
        })
    }
}

fn ended_before() -> StartFailure {
    gone("the container has ended before its start".to_owned())
}

/// Does not wait for the other side.
fn open(fifo: &Path, write: bool) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(write).custom_flags(flags).open(fifo)
}

/// How a wait for the program of a created container is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartOutcome {
    Executed,
    /// Init has ended without it.
    Gone,
}

/// Gives crun's init its byte, and removes the fifo. Open on both sides, it ends nothing by SIGPIPE.
fn release_crun_init(fifo: &Path, pid: HostPid) -> io::Result<StartOutcome> {
    let mut gate = open(fifo, true)?;
    // Asked first: afterwards it may have run already.
    if Stat::of(pid).is_none_or(|stat| stat.is_ending()) {
        return Ok(StartOutcome::Gone);
    }
    gate.write_all(&[0])?;
    fs::remove_file(fifo)?;
    Ok(StartOutcome::Executed)
}

/// Waits for the byte of runc's init, which goes on as soon as the fifo is open. One that ends without it has not started
/// anything.
async fn await_program(fifo: File, ended: Ended) -> io::Result<StartOutcome> {
    let gate = pipe::Receiver::from_owned_fd(fifo.into())?;
    loop {
        tokio::select! {
            biased;
            ready = gate.readable() => ready?,
            _ = ended.clone() => {}
        }
        let over = ended.clone().now_or_never().is_some();
        let mut byte = [0];
        if over {
            // The reactor may not have seen yet what it wrote before it ended.
            return match rustix::io::read(&gate, &mut byte) {
                Ok(1..) => Ok(StartOutcome::Executed),
                Ok(0) | Err(_) => Ok(StartOutcome::Gone),
            };
        }
        match gate.try_read(&mut byte) {
            Ok(1..) => return Ok(StartOutcome::Executed),
            // The other side is not open yet, or not any more: then the byte has come.
            Ok(0) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
