//! Objects and lists within a configuration. They are made when absent.

use serde_json::{Map, Value, json};

use crate::error::Error;

/// The object at `path`, made when absent.
pub(crate) fn object<'a>(value: &'a mut Value, path: &[&str]) -> Result<&'a mut Map<String, Value>, Error> {
    let mut found = value;
    for part in path {
        let parent = found.as_object_mut().ok_or_else(|| not_an(path, "object"))?;
        found = parent.entry(*part).or_insert_with(|| json!({}));
    }
    found.as_object_mut().ok_or_else(|| not_an(path, "object"))
}

/// The list at `path`, made when absent.
pub(crate) fn list<'a>(value: &'a mut Value, path: &[&str]) -> Result<&'a mut Vec<Value>, Error> {
    let (last, above) = path.split_last().ok_or_else(|| not_an(path, "array"))?;
    let entry = object(value, above)?.entry(*last).or_insert_with(|| json!([]));
    if entry.is_null() {
        *entry = json!([]);
    }
    entry.as_array_mut().ok_or_else(|| not_an(path, "array"))
}

/// The strings of a list. Empty if it is not a list.
pub(crate) fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn not_an(path: &[&str], kind: &str) -> Error {
    Error::field("config", format!("{} is not an {kind}", path.join(".")))
}
