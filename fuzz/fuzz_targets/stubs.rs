//! The mount points that were made for a container.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| executor_bundle::fuzzing::stubs(bytes));
