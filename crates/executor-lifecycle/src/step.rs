//! What the machines share: time, effects and refusals.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Exit;

/// A moment on the executor's clock, as time since the Unix epoch.
///
/// The clock shows the time of day when the executor was built plus monotonic time since, so it never goes back. The
/// simulator passes virtual time.
///
/// In JSON it is RFC 3339 in UTC, with nine digits after the second. The last year is 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The moment `since_epoch` after 1970-01-01T00:00:00Z.
    pub const fn from_epoch(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// Time since 1970-01-01T00:00:00Z.
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment. Zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `span` later, or the last representable one.
    #[must_use]
    pub const fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// The effects of a step, to be performed in this order.
///
/// It is empty for a request that is already satisfied, such as a second cancel.
#[must_use = "effects that are not performed are lost"]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Effects<E>(Vec<E>);

impl<E> Effects<E> {
    /// No effects.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The effects, the first one first.
    pub fn as_slice(&self) -> &[E] {
        &self.0
    }
}

impl<E> From<Vec<E>> for Effects<E> {
    fn from(effects: Vec<E>) -> Self {
        Self(effects)
    }
}

impl<E> IntoIterator for Effects<E> {
    type Item = E;
    type IntoIter = std::vec::IntoIter<E>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A machine did not take an event; its state is unchanged.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{reason}")]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// The name of the state that the machine is in, as in the diagrams of `docs/message-semantics.md`.
    pub state: Cow<'static, str>,
}

/// Why a machine refuses an event.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The process or container has ended.
    #[error("it has already exited")]
    Exited,
    /// The container ended well (exit code 0) and takes no exec.
    #[error("the container has stopped")]
    Stopped,
    /// The container ended with an error and takes no exec.
    #[error("the container has stopped with an error: {how}")]
    StoppedWithError {
        /// The exit, in words.
        how: String,
    },
    /// The container has been cancelled and is about to end.
    #[error("it is being cancelled")]
    Cancelled,
    /// The container is paused or being paused. A process that is started in it would hang.
    #[error("the container is paused")]
    Paused,
    /// The container is not running yet.
    #[error("the container is not running yet")]
    NotRunning,
    /// It was started before.
    #[error("it has been started already")]
    Started,
    /// It has not ended, so it cannot be removed.
    #[error("it has not ended")]
    NotExited,
    /// It has no terminal.
    #[error("it has no terminal")]
    NoTerminal,
    /// The container is not paused.
    #[error("the container is not paused")]
    NotPaused,
    /// An exec of this container that has not ended has the id.
    #[error("the exec id is taken")]
    ExecIdTaken,
    /// A container of this executor has the id.
    #[error("the container id is taken")]
    IdTaken,
    /// The executor takes no new containers.
    #[error("the executor takes nothing new")]
    Draining,
    /// A completion came twice, or for something that is not in flight. It is ignored.
    #[error("nothing is waiting for this event")]
    Stale,
}

impl Refusal {
    /// The refusal of an exec by a container that ended like this.
    pub fn stopped(exit: &Exit) -> Self {
        if exit.is_success() { Self::Stopped } else { Self::StoppedWithError { how: exit.to_string() } }
    }

    /// The refusal of a machine in the state of this name.
    pub fn from_state(self, state: &'static str) -> Refused {
        Refused { reason: self, state: Cow::Borrowed(state) }
    }
}

/// RFC 3339 in UTC, as in `2026-11-27T21:30:00.250000000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The last second of the year 9999, which is the last that RFC 3339 can say.
        const LAST: u64 = 253_402_300_799;
        let shown = if self.0.as_secs() > LAST { Duration::new(LAST, 999_999_999) } else { self.0 };
        humantime::format_rfc3339_nanos(UNIX_EPOCH + shown).fmt(f)
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> Self {
        moment.to_string()
    }
}

/// A text that is not a moment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a moment: give one such as 2026-11-27T21:30:00Z")]
pub struct InvalidTimestamp(String);

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads RFC 3339 in UTC. Moments before 1970 are errors.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let moment = humantime::parse_rfc3339(text).ok();
        let since_epoch = moment.and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
        since_epoch.map(Self).ok_or_else(|| InvalidTimestamp(text.to_owned()))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        text.parse()
    }
}
