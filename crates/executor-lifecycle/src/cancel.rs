//! What a cancel asks for, and who asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Signal, json};

/// A wish to end a process: a signal first, SIGKILL after the grace.
///
/// The default is SIGKILL at once. Cancel is an intent that is kept: asked for before the process
/// exists, it is carried out the moment it does, or the process is never started.
///
/// As JSON the grace is in seconds; what is absent is as in [`Cancel::now`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Cancel {
    /// What is sent first.
    pub signal: Signal,
    /// From that signal to SIGKILL. Not used when the signal is SIGKILL.
    #[serde(with = "json::seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "f64"))]
    pub grace: Duration,
    /// Who asked; kept in the exit reason.
    pub cause: CancelCause,
}

/// Who asked for a cancel.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CancelCause {
    /// The caller did.
    Requested,
    /// The time allowed in the specification was over.
    TimedOut,
    /// The container's init ended, and with it everything in the container.
    ContainerExited,
    /// The executor is shutting down.
    Shutdown,
    /// The actor in charge failed; the process was ended because nobody watched it any more.
    Abandoned,
}

impl Cancel {
    /// SIGKILL at once.
    pub const fn now() -> Self {
        Self { signal: Signal::KILL, grace: Duration::ZERO, cause: CancelCause::Requested }
    }

    /// SIGTERM, and SIGKILL `grace` later.
    pub const fn with_grace(grace: Duration) -> Self {
        Self { signal: Signal::TERM, grace, cause: CancelCause::Requested }
    }

    /// The same with another first signal.
    #[must_use]
    pub const fn signal(self, signal: Signal) -> Self {
        Self { signal, ..self }
    }

    /// The same for another cause.
    #[must_use]
    pub const fn cause(self, cause: CancelCause) -> Self {
        Self { cause, ..self }
    }

    /// Whether nothing is waited for before SIGKILL.
    pub fn is_immediate(&self) -> bool {
        self.signal == Signal::KILL || self.grace.is_zero()
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::now()
    }
}
