//! The entries of `mounts` in `config.json`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// An entry of any type.
pub(crate) fn mount(destination: &Path, kind: &str, source: &Path, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

/// The entry of a recursive bind mount. `access` is `ro` or `rw`.
pub(crate) fn bind(source: &Path, destination: &Path, access: &str) -> Value {
    mount(destination, "bind", source, &["rbind", access])
}

/// Adds a mount. It replaces an earlier one with the same destination.
pub(crate) fn put(mounts: &mut Vec<Value>, mount: Value) {
    let destination_of = |mount: &Value| {
        let destination = mount["destination"].as_str().unwrap_or_default();
        Path::new(destination).components().collect::<PathBuf>()
    };
    mounts.retain(|other| destination_of(other) != destination_of(&mount));
    mounts.push(mount);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_one_mount() {
        let mut mounts = Vec::new();
        for (source, destination) in [("/1", "/a"), ("/2", "/b"), ("/3", "//a/")] {
            put(&mut mounts, bind(Path::new(source), Path::new(destination), "rw"));
        }
        let sources: Vec<_> = mounts.iter().map(|mount| mount["source"].as_str().unwrap()).collect();
        assert_eq!(sources, ["/2", "/3"]);
    }
}
