//! Checks that the bundle's parsers keep their promises on any input. Called by `fuzz/` and by the tests below.

use std::path::{Component, Path};

use crate::process::users::look_up;
use crate::stubs;

/// Looks users up in `bytes`, which are read as the text of passwd, a line with `---`, and the text of group. Checks that a
/// user who is found is a member of its primary group, and that its home is an absolute path.
///
/// # Panics
/// When a check fails.
pub fn users(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (passwd, group) = text.split_once("---\n").unwrap_or((&text, ""));
    for user in ["0", "root", "ann", "1000", "ann:7", "ann:wheel", "4294967295", "", ":"] {
        if let Ok(found) = look_up(user, passwd, || Ok(group.to_owned())) {
            assert!(found.groups.contains(&found.gid), "{user}: {found:?}");
            assert!(found.home.as_ref().is_none_or(|home| home.starts_with('/')), "{user}");
            let name = user.split(':').next().unwrap_or_default();
            let number = name.parse() == Ok(found.uid);
            assert!(number || passwd.contains(name), "{user}: {found:?}");
        }
    }
}

/// Reads `bytes` as a `stubs.json`. Checks that what is removed from a directory is an entry of that directory.
///
/// # Panics
/// When a check fails.
pub fn stubs(bytes: &[u8]) {
    for name in stubs::names(bytes).into_iter().flatten() {
        let mut parts = Path::new(&name).components();
        assert!(matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)), "{name:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn anything(bytes: Vec<u8>) {
            super::users(&bytes);
            super::stubs(&bytes);
        }

        #[test]
        fn paths(root: String, paths in prop::collection::vec("(/|\\.\\.|\\.|a|b){0,5}", 0..4), device: u64) {
            let made: Vec<_> = paths.iter().map(|path| serde_json::json!({"path": path, "device": device})).collect();
            let json = serde_json::json!({"root": root, "identity": [device, 7], "made": made}).to_string();
            prop_assert!(crate::stubs::names(json.as_bytes()).is_some(), "{json}");
            super::stubs(json.as_bytes());
        }

        #[test]
        fn lines(text in "((root|ann|1000|:|x|-1|0|4294967296|/home|,|\n|---\n){1,6}(\n|:)){0,9}") {
            super::users(text.as_bytes());
        }
    }
}
