//! Containers that are created and wait to be let go.
//!
//! ```text
//!  create: create ▶ pid file ▶ adopt          (as a start, short of the program)
//!  start:  exec.fifo ▶ one byte ▶ it runs     (runc's and crun's layouts; another's is started by its `start`)
//! ```
//! runc's init waits in open(2) of a fifo for a reader, writes a byte to it and executes the program; crun's has it open
//! and waits for a byte. `start` does no more than to be the other side, and to remove the fifo.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use executor_core::ChildStdio;
use executor_core::lifecycle::{HostPid, ProcessId, ProcessRef, StartFailure, StartFailureKind};
use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::net::unix::pipe;

use super::{Container, Mode, Shared, broken, from_io};
use crate::command_line::LaunchKind;
use crate::{pidfd, procfs};

impl Shared {
    /// Makes a container up to the point where its program would be executed.
    pub(super) async fn create(
        &self,
        container: &Arc<Container>,
        stdio: ChildStdio,
    ) -> Result<(), StartFailure> {
        if self.mode != Mode::Detached {
            let message = "a container that is kept ready needs a runtime that is not kept in the foreground";
            return Err(StartFailure::new(StartFailureKind::BadConfig, message));
        }
        let kind = LaunchKind::Create { bundle: &container.claim.dir, no_pivot: self.no_pivot };
        self.launch_init(container, kind, stdio).await?;
        container.created.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Lets a container go that was created. It can be given up: then it is killed, as by `start`.
    pub(super) async fn let_go(&self, container: &Container, pid: HostPid) -> Result<HostPid, StartFailure> {
        let mut abandoned = container.may_be_abandoned(ProcessId::Init);
        let gone = async {
            tokio::select! {
                () = tokio::time::sleep(self.start_deadline) => {
                    format!("the container did not start within {:?}", self.start_deadline)
                }
                _ = abandoned.wait_for(|abandoned| *abandoned) => "the start was given up".to_owned(),
            }
        };
        let started = tokio::select! {
            biased;
            started = self.open_gate(container, pid) => started,
            message = gone => Err(StartFailure::new(StartFailureKind::RuntimeTimedOut, message)),
        };
        crate::lock(&container.abandon).remove(&ProcessId::Init);
        started.map(|()| pid).inspect_err(|_| {
            let _gone = self.spawner.kill(&ProcessRef::init(container.claim.id.clone()));
        })
    }

    async fn open_gate(&self, container: &Container, pid: HostPid) -> Result<(), StartFailure> {
        let state = &container.claim.state;
        let (fifo, has) = (state.join("exec.fifo"), |file: &str| state.join(file).exists());
        let failed = |error| from_io(&fifo, &error);
        let is_runcs = has("state.json");
        if !(is_runcs || has("status")) || !fifo.exists() {
            let opened = self.opened().map_err(|error| broken(error.message))?;
            let started = opened.command_line.start(&container.claim.id).await;
            return started.map_err(|error| crate::failure::classify(error.message));
        }
        match is_runcs {
            true => be_told(&fifo, pid).await.map_err(failed)?,
            false => tell(&fifo, pid).map_err(failed)?,
        }
        // Until it is gone the runtime says that the container is created.
        fs::remove_file(&fifo).map_err(failed)
    }
}

/// Does not wait for whoever is on the other side.
fn open(fifo: &Path, write: bool) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(write).custom_flags(flags).open(fifo)
}

fn ended() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "the container has ended before its start")
}

fn is_ending(pid: HostPid) -> bool {
    procfs::Stat::of(pid).is_none_or(|stat| stat.is_ending())
}

/// Gives crun's init its byte. Open on both sides, the fifo lets nobody be killed by SIGPIPE.
fn tell(fifo: &Path, pid: HostPid) -> io::Result<()> {
    let mut gate = open(fifo, true)?;
    // Asked first: afterwards it may have run already.
    if is_ending(pid) {
        return Err(ended());
    }
    gate.write_all(&[0])
}

/// Opens runc's fifo, which lets init go on, and waits for its byte. One that ends without it has not started anything.
async fn be_told(fifo: &Path, pid: HostPid) -> io::Result<()> {
    let gate = pipe::Receiver::from_owned_fd(open(fifo, false)?.into())?;
    let init = pidfd::open(pid).map_err(|_| ended())?;
    let init = pidfd::watch(Arc::new(init), Interest::READABLE)?;
    loop {
        let over = tokio::select! {
            biased;
            ready = gate.readable() => ready.map(|()| false)?,
            end = init.readable() => end.map(|_| true)?,
        };
        let mut byte = [0];
        match gate.try_read(&mut byte) {
            Ok(1..) => return Ok(()),
            Ok(0) | Err(_) if over || is_ending(pid) => {
                return Err(ended());
            }
            // Nobody has it open to write, or not any more: then the byte has come.
            Ok(0) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
