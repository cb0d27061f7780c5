//! What can be done with a process that was exec'd into a container.

use actix::Recipient;
use executor_lifecycle::{
    Cancel, Exit, HostPid, ProcessRef, Refusal, Refused, Signal, SignalScope, TerminalSize,
};

use super::ProcessHandle;
use super::ask::{OnDrop, ask, order_cancel};
use crate::exits::lost;
use crate::io::{Io, Streams};
use crate::messages::{self, ProcessParts, ProcessView};
use crate::{Error, ExitNotice};

impl ProcessHandle {
    pub(super) fn new(parts: ProcessParts, streams: Streams, cancel_on_drop: bool) -> Self {
        let ProcessParts { id, address, view, exit_recipients, shared } = parts;
        let cancel = cancel_on_drop.then(|| OnDrop::cancel(&address));
        Self { id, address, view, exit_recipients, io: Io::new(streams, shared), _cancel: cancel }
    }

    /// Which process it is.
    pub const fn id(&self) -> &ProcessRef {
        &self.id
    }

    /// Waits until it runs; answers with its pid on the host.
    ///
    /// # Errors
    /// [`Error::NotStarted`] when it never will, with the reason in the exit.
    pub async fn started(&self) -> Result<HostPid, Error> {
        let known = self.wait_for(|view| view.started_at.is_some() || view.exit.is_some()).await;
        match known {
            Some(ProcessView { started_at: Some(_), pid: Some(pid), .. }) => Ok(pid),
            Some(ProcessView { exit: Some(exit), .. }) => {
                Err(Error::NotStarted { process: self.id.clone(), exit: exit.into() })
            }
            Some(_) | None => Err(Error::Stopped),
        }
    }

    /// Waits until it has ended; answers at once when it has. It reads no output; [`output`](Self::output) does.
    ///
    /// When the executor stops without having seen the end, the exit's reason is `Lost`.
    pub async fn wait(&self) -> Exit {
        let ended = self.wait_for(|view| view.exit.is_some()).await;
        ended.and_then(|view| view.exit).unwrap_or_else(|| lost(self.view.borrow().started_at))
    }

    /// Sends its exit to an actor of yours: one [`ExitNotice`], exactly once; see
    /// [`ContainerHandle::notify_exit`].
    pub fn notify_exit(&self, to: Recipient<ExitNotice>) {
        if let Some(exits) = self.exit_recipients.upgrade() {
            return exits.add(to);
        }
        let view = self.view.borrow();
        let exit = view.exit.clone().unwrap_or_else(|| lost(view.started_at));
        to.do_send(ExitNotice { process: self.id.clone(), exit });
    }

    /// Sends it a signal; before the start it waits.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.signal_to(signal, SignalScope::Process).await
    }

    /// Sends a signal to it, to its process group, or to everything in the container.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn signal_to(&self, signal: Signal, scope: SignalScope) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Signal(signal, scope)).await)
    }

    /// Gives its terminal another size; before the start the last one waits.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended, or has no terminal.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Resize(size)).await)
    }

    fn answer(&self, answer: Option<Result<(), Refused>>) -> Result<(), Error> {
        let answer = answer.unwrap_or_else(|| Err(Refusal::Exited.from_state("exited")));
        answer.map_err(|refused| Error::Refused { process: self.id.clone(), refused })
    }

    /// Ends it with its process group, and waits for the end. The intent is kept from the call on,
    /// whether or not the future is awaited.
    ///
    /// In a container that is paused a process may not die of SIGKILL (cgroup v1). The whole container is thawed then, after a
    /// second, and its events say so.
    pub fn cancel(&self, cancel: Cancel) -> impl Future<Output = Exit> + Send + 'static {
        order_cancel(&self.address, cancel);
        let process = self.clone();
        async move { process.wait().await }
    }

    /// Its streams.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    async fn wait_for(&self, known: impl FnMut(&ProcessView) -> bool) -> Option<ProcessView> {
        self.view.clone().wait_for(known).await.ok().map(|view| view.clone())
    }
}
