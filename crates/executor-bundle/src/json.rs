//! Places within a configuration, as JSON: objects and lists that are made when absent.

use executor_core::lifecycle::StartFailure;
use serde_json::{Map, Value, json};

use crate::error::bad;

/// An object within another, made when absent.
pub(crate) fn object<'a>(
    value: &'a mut Value,
    path: &[&str],
) -> Result<&'a mut Map<String, Value>, StartFailure> {
    let mut found = value;
    for part in path {
        let object = found.as_object_mut().ok_or_else(|| not_an(path, "object"))?;
        found = object.entry(*part).or_insert_with(|| json!({}));
    }
    found.as_object_mut().ok_or_else(|| not_an(path, "object"))
}

/// A list within an object, made when absent.
pub(crate) fn list<'a>(value: &'a mut Value, path: &[&str]) -> Result<&'a mut Vec<Value>, StartFailure> {
    let (last, above) = path.split_last().ok_or_else(|| not_an(path, "array"))?;
    let entry = object(value, above)?.entry(*last).or_insert_with(|| json!([]));
    if entry.is_null() {
        *entry = json!([]);
    }
    entry.as_array_mut().ok_or_else(|| not_an(path, "array"))
}

fn not_an(path: &[&str], kind: &str) -> StartFailure {
    bad("config", &format!("{}: it is no {kind}", path.join(".")))
}
