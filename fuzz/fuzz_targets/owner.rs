//! Whose a container is, and where its cgroups are.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| executor_host::fuzzing::owner(bytes));
