//! The JSON form of spans and paths, for every type of the workspace.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Spans as seconds, exact to a nanosecond up to 48 days.
pub mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    /// Writes a span as seconds.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(span.as_secs_f64())
    }

    /// Reads a span from seconds.
    ///
    /// # Errors
    /// If it is negative, or longer than a [`Duration`] can be.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::span(f64::deserialize(deserializer)?)
    }
}

/// Optional spans, as seconds.
pub mod optional_seconds {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

    /// Writes a span as seconds.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        span.map(|span| span.as_secs_f64()).serialize(serializer)
    }

    /// Reads a span from seconds.
    ///
    /// # Errors
    /// If it is negative, or longer than a [`Duration`] can be.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(deserializer)?.map(super::span).transpose()
    }
}

/// Writes a path for people. Bytes that are not UTF-8 are replaced by U+FFFD.
///
/// # Errors
/// Those of the serializer.
pub fn lossy_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The longest span there is reads back as itself.
fn span<E: serde::de::Error>(seconds: f64) -> Result<Duration, E> {
    if seconds >= Duration::MAX.as_secs_f64() && seconds.is_finite() {
        return Ok(Duration::MAX);
    }
    Duration::try_from_secs_f64(seconds).map_err(E::custom)
}
