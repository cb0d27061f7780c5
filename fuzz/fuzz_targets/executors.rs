//! What the executors of a root have written down: their cgroups.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| executor_host::fuzzing::records(bytes));
