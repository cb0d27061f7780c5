//! The sets of signals and capabilities in a `/proc/PID/status`.

use std::fs;

use longshore::Capability;
pub(crate) use longshore::runtime::set_of_status as set;

/// Whether this process can give a capability to others. If that cannot be found out, it can.
pub(crate) fn can_give(capability: Capability) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    set(&status, "CapBnd:").is_none_or(|bounding| bounding >> capability.number() & 1 == 1)
}
