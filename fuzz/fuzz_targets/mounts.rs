//! `--volume SOURCE:DESTINATION[:ro]`.
#![no_main]

use executor_core::Mount;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(mount) = text.parse::<Mount>() {
        assert_eq!(mount.to_string().parse::<Mount>(), Ok(mount));
    }
});
