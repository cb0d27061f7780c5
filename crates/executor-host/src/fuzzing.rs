//! Properties of this crate's parsers for any input. `fuzz/` and the test below provide the input.

use std::path::{Component, Path};

use crate::cgroup;

/// A runtime's `state.json`. Every directory that is taken from it is in our cgroups.
///
/// # Panics
/// When the property does not hold.
pub fn state(bytes: &[u8]) {
    let path = "/longshore/executor/container";
    for dir in cgroup::named_by(bytes, path) {
        assert!(dir.ends_with(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path))), "{dir:?}");
        assert!(dir.components().all(|part| part != Component::ParentDir), "{dir:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn path() -> impl Strategy<Value = String> {
        let part =
            prop::sample::select(vec!["..", ".", "", "longshore", "executor", "container", "sys", "\u{e4}"]);
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #[test]
        fn anything(bytes: Vec<u8>) {
            super::state(&bytes);
        }

        #[test]
        fn paths(paths in prop::collection::vec(path(), 0..4)) {
            let named: serde_json::Map<_, _> =
                paths.into_iter().enumerate().map(|(number, path)| (number.to_string(), path.into())).collect();
            super::state(serde_json::json!({ "cgroup_paths": named }).to_string().as_bytes());
        }
    }
}
