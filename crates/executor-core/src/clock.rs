//! The executor's clock: the time of day when it was built plus monotonic time since.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use executor_lifecycle::Timestamp;
use tokio::time::Instant;

/// A clock that never goes back. It stands still while tokio's clock is paused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    built_at: Timestamp,
    built: Instant,
}

impl Clock {
    /// A clock that shows `built_at` now, or the time of day.
    pub(crate) fn new(built_at: Option<Timestamp>) -> Self {
        let time_of_day = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let built_at = built_at.unwrap_or_else(|| Timestamp::from_epoch(time_of_day()));
        Self { built_at, built: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.built_at.after(self.built.elapsed())
    }

    /// The time until `deadline`. Zero if it is over.
    pub(crate) fn until(&self, deadline: Timestamp) -> Duration {
        deadline.since(self.now())
    }
}
