//! What a client holds: a runtime that was executed, a process that was adopted.

use std::time::Duration;

use executor_core::BoxFuture;
use executor_core::lifecycle::{ExitStatus, ProcessRef};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;

use super::HostClient;
use crate::lock;
use crate::seam::{CallId, ImageFate, Request};

/// How a call, or an adopted process, ends.
pub type Ended = Shared<BoxFuture<'static, ExitStatus>>;

/// A runtime that was executed. It is reaped whether or not anyone waits; when it fails, what it has left in its process
/// group is ended first.
#[derive(Clone)]
pub struct Call {
    pub(super) id: CallId,
    pub(super) image: ImageFate,
    pub(super) ended: Ended,
    pub(super) client: HostClient,
}

/// A process that was adopted, and whose exit is not reported yet. It is when this is dropped.
pub struct Adopted {
    pub(super) process: ProcessRef,
    pub(super) ended: Ended,
    pub(super) reports: bool,
    pub(super) client: HostClient,
}

/// How a call was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// It ended by itself.
    Ended(ExitStatus),
    /// It did not within the deadline, and was killed.
    Overdue,
    /// It was given up, and killed.
    Abandoned,
}

impl Call {
    /// Its name at the host.
    pub const fn id(&self) -> CallId {
        self.id
    }

    /// What became of the program in memory.
    pub const fn image(&self) -> ImageFate {
        self.image
    }

    /// How it ends.
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// Sends SIGKILL to its process group.
    pub fn kill(&self) {
        self.client.shared.host.request(Request::KillCall { call: self.id }, Vec::new());
    }

    /// Waits until it has ended, at most until the deadline or until it is abandoned; then it is killed.
    pub async fn wait(&self, deadline: Duration, abandoned: impl Future<Output = ()>) -> CallEnd {
        let early = tokio::select! {
            status = self.ended() => return CallEnd::Ended(status),
            () = tokio::time::sleep(deadline) => CallEnd::Overdue,
            () = abandoned => CallEnd::Abandoned,
        };
        self.kill();
        self.ended().await;
        early
    }
}

impl Adopted {
    /// How it ends.
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// From now on its exit is reported.
    pub fn report(self) {
        drop(self);
    }

    /// Ends a process that was adopted in vain; answers when it has ended, at the latest after `patience`. Its exit is not
    /// reported, and its name is free.
    pub async fn disown(mut self, patience: Duration) {
        if let Err(error) = self.client.kill(self.process.clone(), None, Vec::new()).await {
            tracing::warn!(process = %self.process, %error, "of a process that was adopted in vain");
        }
        let ended = tokio::time::timeout(patience, self.ended()).await.is_ok();
        self.client.register(|answers| {
            // One that does not end is never reported.
            if ended {
                answers.unreported.remove(&self.process);
            }
        });
        self.reports = false;
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if !self.reports {
            return;
        }
        let ended = lock(&self.client.shared.pending.answers)
            .as_mut()
            .and_then(|answers| answers.unreported.remove(&self.process))
            .flatten();
        if let Some(status) = ended {
            let _nobody_listens =
                self.client.shared.pending.exits.unbounded_send((self.process.clone(), status));
        }
    }
}

pub(super) fn exit_future(ended: oneshot::Receiver<ExitStatus>) -> Ended {
    ended.map(|status| status.unwrap_or(ExitStatus::Unknown)).boxed().shared()
}
