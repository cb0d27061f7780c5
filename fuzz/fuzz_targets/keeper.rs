//! What a keeper's client sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| executor_host::fuzzing::keeper(bytes));
