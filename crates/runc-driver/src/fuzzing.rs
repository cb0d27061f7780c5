//! Properties of the driver's parsers for any input. `fuzz/` and the test below provide the input.

use crate::command_line::StateAnswer;
use crate::failure;

/// A runtime's log. If it has words, they are the message of the failure.
///
/// # Panics
/// When the property does not hold.
pub fn log(bytes: &[u8]) {
    if let Some(words) = failure::words(bytes) {
        assert_eq!(failure::classify(words.clone()).message, words);
    }
}

/// A runtime's answer to `state`. Parsing it does not panic.
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
