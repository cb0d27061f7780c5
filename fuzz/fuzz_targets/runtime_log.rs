//! The log of an OCI runtime.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runc_driver::fuzzing::log(bytes));
