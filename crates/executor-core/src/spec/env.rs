//! Variables as JSON: a list of `NAME=value`, as in the OCI runtime specification.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

type Variables = Vec<(String, String)>;

pub(super) fn serialize<S: Serializer>(env: &Variables, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(env.iter().map(|(name, value)| format!("{name}={value}")))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Variables, D::Error> {
    let entries = Vec::<String>::deserialize(deserializer)?;
    let variable = |entry: &String| {
        let (name, value) = entry.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    let read = |entry: String| {
        variable(&entry).ok_or_else(|| D::Error::custom(format!("{entry:?}: give NAME=value")))
    };
    entries.into_iter().map(read).collect()
}
