//! What a container uses while it runs.

use std::time::Duration;

use executor_lifecycle::{ContainerId, Timestamp, Usage};
use futures::Stream;
use tokio::sync::mpsc;

use crate::actors::World;
use crate::events::View;
use serde::{Deserialize, Serialize};

/// Samples that may wait for a slow reader; then none is taken until it reads.
const BACKLOG: usize = 16;

/// What a container had used at a moment.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sample {
    /// The moment.
    pub at: Timestamp,
    /// What it had used by then.
    pub usage: Usage,
}

/// Samples of a container's usage, from its start to its end.
#[derive(Debug)]
pub struct Samples(mpsc::Receiver<Sample>);

impl Samples {
    /// None: of a container that is gone.
    pub(crate) fn none() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// The next one; `None` after the last, which is what is told with the container's exit.
    pub async fn next(&mut self) -> Option<Sample> {
        self.0.recv().await
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Sample> + Send {
        futures::stream::unfold(self, |mut samples| async move {
            samples.next().await.map(|sample| (sample, samples))
        })
    }
}

/// Takes a sample so often, until the container has ended or nobody reads any more.
pub(crate) fn sample(world: World, id: ContainerId, view: View, every: Duration) -> Samples {
    let (samples, receiver) = mpsc::channel(BACKLOG);
    actix_rt::spawn(async move {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ended = view.wait_for(|snapshot| snapshot.exit.is_some());
            let sample = tokio::select! {
                biased;
                ended = ended => {
                    let exit = ended.and_then(|snapshot| snapshot.exit);
                    let last = exit.and_then(|exit| Some(Sample { at: exit.exited_at, usage: *exit.usage? }));
                    if let Some(last) = last {
                        let _nobody_reads = samples.send(last).await;
                    }
                    return;
                }
                () = samples.closed() => return,
                _ = ticks.tick() => world.runtime.usage(&id).await.ok(),
            };
            // It does not run yet, or not any more.
            let Some(usage) = sample else { continue };
            if samples.send(Sample { at: world.clock.now(), usage }).await.is_err() {
                return;
            }
        }
    });
    Samples(receiver)
}
