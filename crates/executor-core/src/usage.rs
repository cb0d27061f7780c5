//! Samples of what a container uses while it runs.

use std::time::Duration;

use executor_lifecycle::{ContainerId, Timestamp, Usage};
use futures::Stream;
use tokio::sync::mpsc;

use crate::actors::World;
use crate::events::View;
use serde::{Deserialize, Serialize};

/// How many samples may wait for a slow reader. While there are as many, none is taken.
const BACKLOG: usize = 16;

/// What a container had used at one moment.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sample {
    /// The moment, on the executor's clock.
    pub at: Timestamp,
    /// The usage from its start until then.
    pub usage: Usage,
}

/// Samples of a container's usage, from its start to its end.
#[derive(Debug)]
pub struct Samples(mpsc::Receiver<Sample>);

impl Samples {
    /// No samples, for a container that is released.
    pub(crate) fn none() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// The next sample. `None` after the last one, which is the usage in the exit of the container.
    ///
    /// # Cancel safety
    /// No sample is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Sample> {
        self.0.recv().await
    }

    /// Makes a stream of it.
    pub fn into_stream(self) -> impl Stream<Item = Sample> + Send {
        futures::stream::unfold(self, |mut samples| async move {
            samples.next().await.map(|sample| (sample, samples))
        })
    }
}

/// Takes a sample every `every`, until the container has ended or the reader is gone.
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
                        let _no_reader = samples.send(last).await;
                    }
                    return;
                }
                () = samples.closed() => return,
                _ = ticks.tick() => world.runtime.usage(&id).await.ok(),
            };
            // The container does not run yet, or no longer.
            let Some(usage) = sample else { continue };
            if samples.send(Sample { at: world.clock.now(), usage }).await.is_err() {
                return;
            }
        }
    });
    Samples(receiver)
}
