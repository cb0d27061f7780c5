//! Exits for actors: one message for each, exactly once, even if an actor in between panics.
//!
//! A recipient is kept beside the exit that it waits for, and not in a mailbox. It is sent the exit when that is
//! published, or from `Drop` if the executor stops before. `do_send` enters even a full mailbox.

use std::sync::{Mutex, MutexGuard, PoisonError};

use actix::{Message, Recipient};
use executor_lifecycle::{Exit, ProcessRef, Timestamp};
use serde::{Deserialize, Serialize};

/// A process has ended, or could not be started. See
/// [`ContainerHandle::notify_exit`](crate::ContainerHandle::notify_exit).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Message, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[rtype(result = "()")]
pub struct ExitNotice {
    /// The process. It is init if a container has ended.
    pub process: ProcessRef,
    /// Its exit.
    pub exit: Exit,
}

/// The recipients that wait for the exit of one process.
#[derive(Debug)]
pub(crate) struct ExitRecipients {
    process: ProcessRef,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    exit: Option<Exit>,
    waiting: Vec<Recipient<ExitNotice>>,
}

impl ExitRecipients {
    pub(crate) fn new(process: ProcessRef) -> Self {
        Self { process, state: Mutex::default() }
    }

    /// Sends the exit to `to`: at once if it is known, else when it is published.
    pub(crate) fn add(&self, to: Recipient<ExitNotice>) {
        let mut state = self.state();
        match &state.exit {
            Some(exit) => to.do_send(ExitNotice { process: self.process.clone(), exit: exit.clone() }),
            None => state.waiting.push(to),
        }
    }

    /// Sends the exit to all recipients. Only the first call counts.
    pub(crate) fn publish(&self, exit: &Exit) {
        let mut state = self.state();
        if state.exit.is_some() {
            return;
        }
        state.exit = Some(exit.clone());
        let notice = ExitNotice { process: self.process.clone(), exit: exit.clone() };
        for to in std::mem::take(&mut state.waiting) {
            to.do_send(notice.clone());
        }
    }

    /// A push or a take cannot leave the state half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ExitRecipients {
    /// The executor has stopped without having seen the end.
    fn drop(&mut self) {
        self.publish(&lost(None));
    }
}

/// The exit of a process that was not seen to end. Its time is unknown; it is not before the start.
pub(crate) fn lost(started_at: Option<Timestamp>) -> Exit {
    Exit::lost(started_at, started_at.unwrap_or_default())
}
