//! A container's `/etc/passwd` and `/etc/group`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| executor_bundle::fuzzing::users(bytes));
