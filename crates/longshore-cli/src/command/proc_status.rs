//! The sets of signals and capabilities in a `/proc/PID/status`.

pub(crate) use longshore::runtime::set_of_status as set;
