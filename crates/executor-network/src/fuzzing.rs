//! Properties of this crate's parsers for any input. `fuzz/` and the test below provide the input.

use crate::attachment;

/// An `attachment.json`. What is called for it is a program in one of the directories of plugins.
///
/// # Panics
/// When the property does not hold.
pub fn attachment(bytes: &[u8]) {
    for program in attachment::programs(bytes).into_iter().flatten() {
        assert!(!program.is_empty() && !program.contains('/'), "{program:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn anything(bytes: Vec<u8>) {
            super::attachment(&bytes);
        }

        #[test]
        fn networks(name: String, kinds in prop::collection::vec("(/|\\.\\.|bridge|\u{e4}){0,3}", 0..3),
                    dirs: Vec<String>, address in "(10\\.88\\.0\\.2|fd00::2|/|16|x){0,3}") {
            let plugins: Vec<_> = kinds.iter().map(|kind| json!({"type": kind})).collect();
            let result = json!({"ips": [{"address": address}, {}, 7], "dns": {"nameservers": [address, null]}});
            let json = json!({"config": {"name": name, "plugins": plugins}, "plugins": dirs, "result": result});
            super::attachment(json.to_string().as_bytes());
            let programs = crate::attachment::programs(json.to_string().as_bytes());
            let are_programs = kinds.iter().all(|kind| !kind.is_empty() && !kind.contains('/'));
            prop_assert_eq!(programs.is_some(), are_programs && !kinds.is_empty() && !name.is_empty());
        }
    }
}
