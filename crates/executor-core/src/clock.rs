//! The executor's clock: wall-clock time when it was built plus monotonic time since.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use executor_lifecycle::Timestamp;
use tokio::time::Instant;

/// Never goes back, and stands still where tokio's clock is paused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    built_at: Timestamp,
    built: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { built_at: Timestamp::from_epoch(since_epoch), built: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.built_at.after(self.built.elapsed())
    }

    /// How long it is until `deadline`; zero when it is over.
    pub(crate) fn until(&self, deadline: Timestamp) -> Duration {
        deadline.since(self.now())
    }
}
