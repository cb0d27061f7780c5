//! What an OCI runtime keeps of a container, and what it says of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    executor_host::fuzzing::state(bytes);
    executor_host::fuzzing::init(bytes);
    runc_driver::fuzzing::state(bytes);
});
