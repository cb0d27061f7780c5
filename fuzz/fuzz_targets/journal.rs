//! The processes that a container has had.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| executor_host::fuzzing::journal(bytes));
