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
    /// The first handle has the ends of its pipes.
    pub(super) fn new(parts: ProcessParts, ours: Option<Streams>, cancel_on_drop: bool) -> Self {
        let ProcessParts { id, address, view, exit_recipients, io } = parts;
        let cancel = cancel_on_drop.then(|| OnDrop::cancel(&address));
        let io = ours.map_or(io.clone(), |ours| io.with(ours));
        Self { id, address, view, exit_recipients, io, _cancel: cancel }
    }

    /// The container and the id of the process.
    pub const fn id(&self) -> &ProcessRef {
        &self.id
    }

    /// Waits until the process runs. Returns its pid on the host, as the runtime reported it.
    ///
    /// # Errors
    /// [`Error::NotStarted`] if it ended first; the exit has the reason. [`Error::Stopped`] if the executor stops
    /// first.
    ///
    /// # Cancel safety
    /// The future only waits. It can be dropped at any time.
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

    /// Waits until the process has ended, and returns its exit. This reads no output; [`output`](Self::output) does.
    ///
    /// If the executor stops before it sees the end, the reason of the exit is `Lost`.
    ///
    /// # Cancel safety
    /// The future only waits. It can be dropped at any time.
    pub async fn wait(&self) -> Exit {
        let ended = self.wait_for(|view| view.exit.is_some()).await;
        ended.and_then(|view| view.exit).unwrap_or_else(|| lost(self.view.borrow().started_at))
    }

    /// Sends the exit to an actor of yours: one [`ExitNotice`], exactly once; see
    /// [`ContainerHandle::notify_exit`](crate::ContainerHandle::notify_exit).
    pub fn notify_exit(&self, to: Recipient<ExitNotice>) {
        if let Some(exits) = self.exit_recipients.upgrade() {
            return exits.add(to);
        }
        let view = self.view.borrow();
        let exit = view.exit.clone().unwrap_or_else(|| lost(view.started_at));
        to.do_send(ExitNotice { process: self.id.clone(), exit });
    }

    /// Sends a signal to the process. If it does not run yet, the signal is kept and sent when it does.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has ended.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on it is carried out, even if the future is
    /// dropped.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.signal_to(signal, SignalScope::Process).await
    }

    /// Sends a signal to the process, to its process group, or to every process in the container.
    ///
    /// # Errors
    /// As for [`signal`](Self::signal).
    ///
    /// # Cancel safety
    /// As for [`signal`](Self::signal).
    pub async fn signal_to(&self, signal: Signal, scope: SignalScope) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Signal(signal, scope)).await)
    }

    /// Changes the size of the terminal of the process. If it does not run yet, the last size is kept for it.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has ended, or has no terminal.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on it is carried out, even if the future is
    /// dropped.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        self.answer(ask(&self.address, messages::Resize(size)).await)
    }

    fn answer(&self, answer: Option<Result<(), Refused>>) -> Result<(), Error> {
        let answer = answer.unwrap_or_else(|| Err(Refusal::Exited.from_state("exited")));
        answer.map_err(|refused| Error::Refused { process: self.id.clone(), refused })
    }

    /// Ends the process with its process group, and waits for the end. Returns its exit.
    ///
    /// In a paused container, SIGKILL may have no effect on a process (cgroup v1). After a second the whole container
    /// is thawed then, and a `Resumed` event says so.
    ///
    /// # Cancel safety
    /// The request is sent by the call, before the future is polled. Dropping the future does not take it back.
    pub fn cancel(&self, cancel: Cancel) -> impl Future<Output = Exit> + Send + 'static {
        order_cancel(&self.address, cancel);
        let process = self.clone();
        async move { process.wait().await }
    }

    /// The streams of the process.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    async fn wait_for(&self, known: impl FnMut(&ProcessView) -> bool) -> Option<ProcessView> {
        self.view.clone().wait_for(known).await.ok().map(|view| view.clone())
    }
}
