//! The terminal of a process that is being started: its socket, and receiving it.

use std::io;
use std::sync::Arc;

use executor_core::ChildStdio;
use executor_core::lifecycle::{ProcessId, ProcessRef, StartFailure, StartFailureKind};
use executor_host::terminal::{self, ConsoleSocket, Terminal};
use futures::FutureExt;
use tokio::task::JoinHandle;

use super::DriverState;
use super::container::DriverContainer;
use super::launch::StartResult;
use super::pools::Pool;
use crate::{Error, Result};

/// A terminal that is being received. Dropping it stops that.
pub(super) struct Console {
    pub(super) path: String,
    received: JoinHandle<executor_host::Result<()>>,
}

impl Console {
    /// If there were too few resources to receive the terminal: that. The runtime then fails as well, and does not know why.
    pub(super) fn shortage(mut self) -> Option<StartFailure> {
        let received = (&mut self.received).now_or_never()?.ok()?;
        let failure = Error::from(received.err()?).start_failure();
        (failure.kind == StartFailureKind::NoResources).then_some(failure)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.received.abort();
    }
}

impl DriverState {
    /// For a process with a terminal: makes the console socket, and begins to receive the terminal. Also
    /// returns the streams of the runtime itself, which are empty then, since the process uses the terminal
    /// for all three.
    pub(super) async fn console(
        &self,
        container: &Arc<DriverContainer>,
        process: &ProcessId,
        stdio: ChildStdio,
    ) -> StartResult<(Option<Console>, ChildStdio)> {
        let Some(size) = stdio.terminal else { return Ok((None, stdio)) };
        let terminal = container.await_terminal(process, size);
        let (own, name) = (Arc::clone(container), self.next_socket());
        let listen = move || ConsoleSocket::listen(own.reservation.open()?, name);
        let listening = self.pools.run(Pool::Reads, listen).await;
        let socket = listening.and_then(|socket| Ok(socket?)).map_err(|error| error.start_failure())?;
        let path = socket.path();
        let ChildStdio { stdin, stdout, .. } = stdio;
        let holder =
            self.holder(ProcessRef { container: container.reservation.id.clone(), process: process.clone() });
        let received =
            tokio::spawn(async move { Terminal::receive(&terminal, socket, stdin, stdout, holder).await });
        Ok((Some(Console { path, received }), ChildStdio::default()))
    }

    /// Waits until the terminal of a process that runs is received.
    pub(super) async fn receive_terminal(
        &self,
        container: &DriverContainer,
        mut console: Console,
    ) -> Result<()> {
        match tokio::time::timeout(terminal::PATIENCE, &mut console.received).await {
            Ok(received) => Ok(received??),
            Err(_) => Err(Error::Io {
                op: "receive the terminal of".to_owned(),
                subject: container.reservation.id.to_string(),
                source: io::Error::new(io::ErrorKind::TimedOut, "the runtime sent no terminal"),
            }),
        }
    }
}
