//! Files of the kernel whose text is a process's or a user's: `stat`, `environ` and `mountinfo` of `/proc`, and the kernel's log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    executor_host::fuzzing::stat(bytes);
    executor_host::fuzzing::environ(bytes);
    executor_host::fuzzing::mountinfo(bytes);
    executor_host::fuzzing::kernel_log(bytes);
});
