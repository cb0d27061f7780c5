//! A network that was set up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| executor_network::fuzzing::attachment(bytes));
