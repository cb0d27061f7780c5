//! What a client holds: a runtime that was executed, a process that was adopted.

use std::time::Duration;

use executor_core::BoxFuture;
use executor_core::lifecycle::{ExitStatus, ProcessRef};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;

use super::HostClient;
use crate::lock;
use crate::seam::{CallId, ImageFate, ProcessEnd, Request};

/// Completes with the exit status of a call, or with the end of an adopted process.
pub type Ended<T = ExitStatus> = Shared<BoxFuture<'static, T>>;

/// A runtime that was executed. It is reaped whether or not its end is awaited. If it fails, what it has left
/// in its process group is killed before the call ends.
#[derive(Clone)]
pub struct Call {
    pub(super) id: CallId,
    pub(super) image: ImageFate,
    pub(super) ended: Ended,
    pub(super) client: HostClient,
}

/// An adopted process. Its exit is reported in [`HostClient::exits`] once this is dropped.
pub struct Adopted {
    pub(super) process: ProcessRef,
    pub(super) ended: Ended<ProcessEnd>,
    /// Whether it had executed its program when it was adopted.
    pub(super) has_executed: bool,
    /// Whether dropping it reports the exit.
    pub(super) reports: bool,
    pub(super) client: HostClient,
}

/// How waiting for a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The call ended by itself.
    Ended(ExitStatus),
    /// It did not end within the deadline, and was killed.
    Overdue,
    /// It was abandoned, and killed.
    Abandoned,
}

impl Call {
    /// Its id at the host.
    pub const fn id(&self) -> CallId {
        self.id
    }

    /// Whether the program in memory was executed.
    pub const fn image(&self) -> ImageFate {
        self.image
    }

    /// Its end.
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// Sends SIGKILL to its process group, and to the processes of a container that it has started.
    pub fn kill(&self) {
        self.client.shared.host.request(Request::KillCall { call: self.id }, Vec::new());
    }

    /// Waits until the call ends. Kills it at the deadline, or when `abandoned` completes.
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
    /// Its exit.
    pub fn ended(&self) -> Ended<ProcessEnd> {
        self.ended.clone()
    }

    /// Whether it had executed its program when it was adopted.
    pub const fn has_executed(&self) -> bool {
        self.has_executed
    }

    /// Has its exit reported from now on.
    pub fn report(self) {
        // `Drop` does it.
        drop(self);
    }

    /// Kills a process whose start has failed after its adoption. Completes when it has exited, after
    /// `patience` at the latest. Its exit is not reported, and its name may be used again.
    pub async fn disown(mut self, patience: Duration) {
        if let Err(error) = self.client.kill(self.process.clone(), None, Vec::new()).await {
            tracing::warn!(process = %self.process, %error, "a process whose start failed was not killed");
        }
        let ended = tokio::time::timeout(patience, self.ended()).await.is_ok();
        self.client.register(|answers| {
            // If it is still alive, its entry stays, so that its exit is never reported.
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
        let mut answers = lock(&self.client.shared.pending.answers);
        let kept = answers.as_mut().and_then(|answers| answers.unreported.remove(&self.process));
        drop(answers);
        if let Some(Some(end)) = kept {
            let _stream_dropped =
                self.client.shared.pending.exits.unbounded_send((self.process.clone(), end));
        }
    }
}

/// `unknown` stands for an end that is never delivered.
pub(super) fn exit_future<T: Clone + Send + Sync + 'static>(
    ended: oneshot::Receiver<T>,
    unknown: T,
) -> Ended<T> {
    ended.map(|end| end.unwrap_or(unknown)).boxed().shared()
}
