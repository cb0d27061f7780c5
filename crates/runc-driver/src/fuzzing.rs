//! What holds of the driver's parsers whatever they are given: fed by `fuzz/`, and by the test below.

use crate::command_line::StateAnswer;
use crate::failure;

/// A runtime's log: its words are the failure's, and no empty ones.
///
/// # Panics
/// When that does not hold.
pub fn log(bytes: &[u8]) {
    if let Some(words) = failure::words(bytes) {
        assert_eq!(failure::classify(words.clone()).message, words);
    }
}

/// What a runtime says of a container's state: it is understood, or not.
pub fn state(bytes: &[u8]) {
    drop(serde_json::from_slice::<StateAnswer>(bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn anything(bytes: Vec<u8>) {
            super::log(&bytes);
            super::state(&bytes);
        }

        #[test]
        fn lines(level in "error|warning|fatal|x", message: String, tail: String) {
            let line = serde_json::json!({ "level": level, "msg": message });
            super::log(format!("{line}\n{tail}").as_bytes());
        }
    }
}
