//! Cancels: how a process is ended, and why.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Signal, json};

/// How long before a deadline a process is killed, at most.
const KILL: Duration = Duration::from_millis(500);

/// How to end a process: a signal first, and SIGKILL after the grace.
///
/// The default is SIGKILL at once. A cancel is kept: if it comes before the process exists, the process is ended as
/// soon as it does, or is never started.
///
/// In JSON the grace is in seconds, and absent fields are those of [`Cancel::now`]; a grace without a signal means SIGTERM.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(from = "CancelForm")]
pub struct Cancel {
    /// The first signal.
    pub signal: Signal,
    /// The time from that signal to SIGKILL. Unused if the signal is SIGKILL.
    #[serde(with = "json::seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "f64"))]
    pub grace: Duration,
    /// The cause, which the exit reason will have.
    pub cause: CancelCause,
}

/// The cause of a cancel.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CancelCause {
    /// The caller requested it.
    #[default]
    Requested,
    /// The time limit of the specification was over.
    TimedOut,
    /// The init of the container ended, and with it every process in the container.
    ContainerExited,
    /// The executor is shutting down.
    Shutdown,
    /// The actor of the process failed, and the process was killed.
    Abandoned,
}

/// A [`Cancel`] as it is read.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct CancelForm {
    signal: Option<Signal>,
    #[serde(default, with = "json::seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "f64"))]
    grace: Duration,
    #[serde(default)]
    cause: CancelCause,
}

impl From<CancelForm> for Cancel {
    fn from(CancelForm { signal, grace, cause }: CancelForm) -> Self {
        let first = if grace.is_zero() { Signal::KILL } else { Signal::TERM };
        Self { signal: signal.unwrap_or(first), grace, cause }
    }
}

impl Cancel {
    /// SIGKILL at once.
    pub const fn now() -> Self {
        Self { signal: Signal::KILL, grace: Duration::ZERO, cause: CancelCause::Requested }
    }

    /// SIGTERM, and SIGKILL after `grace`.
    pub const fn with_grace(grace: Duration) -> Self {
        Self { signal: Signal::TERM, grace, cause: CancelCause::Requested }
    }

    /// Sets the first signal.
    #[must_use]
    pub const fn signal(self, signal: Signal) -> Self {
        Self { signal, ..self }
    }

    /// Sets the cause.
    #[must_use]
    pub const fn cause(self, cause: CancelCause) -> Self {
        Self { cause, ..self }
    }

    /// The same with a grace that ends before `deadline`, so that the end by SIGKILL is known by then: half a second earlier, or a
    /// quarter of the time if that is less.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        let last = deadline.saturating_sub((deadline / 4).min(KILL));
        Self { grace: self.grace.min(last), ..self }
    }

    /// Whether SIGKILL comes at once.
    pub fn is_immediate(&self) -> bool {
        self.signal == Signal::KILL || self.grace.is_zero()
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_ends_before_the_deadline() {
        let millis = Duration::from_millis;
        for (grace, deadline, within) in [
            (millis(60_000), millis(0), millis(0)),
            (millis(60_000), millis(1000), millis(750)),
            (millis(60_000), millis(10_000), millis(9_500)),
            (millis(700), millis(1000), millis(700)),
            (Duration::MAX, Duration::MAX, Duration::MAX - KILL),
        ] {
            assert_eq!(
                Cancel::with_grace(grace).within(deadline),
                Cancel::with_grace(within),
                "{deadline:?}"
            );
        }
    }
}
