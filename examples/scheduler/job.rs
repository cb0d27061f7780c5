//! A job, its run in a container, and the messages about it.

use std::fmt::{Display, Formatter};
use std::time::Duration;

use actix::Message;
use longshore::{Cancel, ContainerSpec, Error, Executor, Exit};
use tokio::sync::oneshot;

/// CPUs, and MiB of memory.
pub(crate) type Size = (u32, u64);

/// Jobs are ordered by importance: by rank, then by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Job {
    pub(crate) rank: u32,
    pub(crate) number: u32,
    pub(crate) size: Size,
}

/// The messages to the scheduler.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum JobMessage {
    Submit(Job),
    Ended(Job, Result<Exit, Error>),
}

impl Display for Job {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>4}  {:>3}  {:>4}  {:>3}", self.rank, self.number, self.size.0, self.size.1)
    }
}

impl Job {
    /// Runs until it ends, or is preempted: then it is cancelled, with grace.
    pub(crate) async fn run(
        self,
        executor: &Executor,
        preempted: oneshot::Receiver<()>,
    ) -> Result<Exit, Error> {
        let spec = ContainerSpec::host(["sleep", "0.1"]);
        let (cpus, mib) = self.size;
        let spec = spec.cpus(cpus.into()).memory(mib << 20).pids(16);
        let container = executor.run(spec).await?;
        Ok(tokio::select! {
            exit = container.wait() => exit,
            _ = preempted => container.cancel(Cancel::with_grace(Duration::from_millis(20))).await,
        })
    }
}
