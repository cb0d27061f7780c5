//! What a client waits for, and the sink that answers it with the host's events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, OomKill, ProcessRef};
use futures::channel::mpsc::UnboundedSender;
use futures::channel::oneshot;

use crate::seam::{CallId, Delivered, Event, EventSink, ImageFate, OsError, ProcessEnd, Token};
use crate::{Error, Result, lock};

/// Answers that have not arrived, and the stream of exits.
pub(super) struct Pending {
    /// `None` once the host has ended.
    pub(super) answers: Mutex<Option<PendingAnswers>>,
    pub(super) exits: UnboundedSender<(ProcessRef, ProcessEnd)>,
    pub(super) oom_kills: UnboundedSender<(ContainerId, OomKill)>,
}

pub(super) type Spawned = std::result::Result<(HostPid, ImageFate), OsError>;

#[derive(Default)]
pub(super) struct PendingAnswers {
    pub(super) tokens: HashMap<Token, PendingAnswer>,
    pub(super) spawned: HashMap<CallId, oneshot::Sender<Spawned>>,
    pub(super) call_exits: HashMap<CallId, oneshot::Sender<ExitStatus>>,
    pub(super) process_exits: HashMap<ProcessRef, oneshot::Sender<ProcessEnd>>,
    /// Adopted processes whose exits must not be reported yet. The end is there once the process has exited.
    pub(super) unreported: HashMap<ProcessRef, Option<ProcessEnd>>,
}

pub(super) enum PendingAnswer {
    Done(oneshot::Sender<std::result::Result<(), OsError>>),
    /// Whether the process had executed its program.
    Adopted(oneshot::Sender<std::result::Result<bool, OsError>>),
    /// A thread blocks until it arrives.
    Blocking(mpsc::Sender<std::result::Result<(), OsError>>),
    Signalled(oneshot::Sender<std::result::Result<Delivered, OsError>>),
}

/// Delivers a host's events to the futures and threads that wait for them.
pub struct ClientSink(pub(super) Arc<Pending>);

impl EventSink for ClientSink {
    fn deliver(&mut self, event: Event) {
        let mut answers = lock(&self.0.answers);
        let Some(answers) = &mut *answers else { return };
        match event {
            Event::Spawned { call, pid, image } => {
                send_answer(answers.spawned.remove(&call), Ok((pid, image)));
            }
            Event::SpawnFailed { call, error } => {
                answers.call_exits.remove(&call);
                send_answer(answers.spawned.remove(&call), Err(error));
            }
            Event::CallEnded { call, status } => {
                send_answer(answers.call_exits.remove(&call), status);
            }
            Event::Adopted { token, has_executed } => {
                if let Some(PendingAnswer::Adopted(awaits)) = answers.tokens.remove(&token) {
                    send_answer(Some(awaits), Ok(has_executed));
                }
            }
            Event::Done { token } => answers.done(token, Ok(())),
            Event::AdoptFailed { token, error } | Event::Failed { token, error } => {
                answers.done(token, Err(error))
            }
            Event::Signalled { token, delivery } => {
                if let Some(PendingAnswer::Signalled(awaits)) = answers.tokens.remove(&token) {
                    send_answer(Some(awaits), delivery);
                }
            }
            Event::Exited { process, end } => {
                send_answer(answers.process_exits.remove(&process), end);
                match answers.unreported.get_mut(&process) {
                    Some(kept) => *kept = Some(end),
                    None => {
                        let _stream_dropped = self.0.exits.unbounded_send((process, end));
                    }
                }
            }
            Event::OomKilled { container, kill } => {
                let _stream_dropped = self.0.oom_kills.unbounded_send((container, kill));
            }
        }
    }
}

impl PendingAnswers {
    fn done(&mut self, token: Token, outcome: std::result::Result<(), OsError>) {
        match self.tokens.remove(&token) {
            Some(PendingAnswer::Done(awaits)) => send_answer(Some(awaits), outcome),
            Some(PendingAnswer::Blocking(awaits)) => {
                let _gave_up_waiting = awaits.send(outcome);
            }
            Some(PendingAnswer::Adopted(awaits)) => send_answer(Some(awaits), outcome.map(|()| true)),
            Some(PendingAnswer::Signalled(_)) | None => {}
        }
    }
}

fn send_answer<T>(awaits: Option<oneshot::Sender<T>>, value: T) {
    if let Some(awaits) = awaits {
        let _receiver_dropped = awaits.send(value);
    }
}

pub(super) async fn receive_answer<T>(answer: oneshot::Receiver<T>) -> Result<T> {
    answer.await.map_err(|_| Error::HostGone)
}

impl Drop for ClientSink {
    /// No more events arrive. The senders are dropped, so every waiting receiver fails.
    fn drop(&mut self) {
        lock(&self.0.answers).take();
        self.0.exits.close_channel();
        self.0.oom_kills.close_channel();
    }
}
