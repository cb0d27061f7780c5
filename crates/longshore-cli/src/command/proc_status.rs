//! The sets of signals and capabilities in a `/proc/PID/status`.

use std::fs;

use longshore::Capability;

/// The set in the line that begins with `name`, as in `SigIgn:`. Bit 0 is signal 1, or capability 0. `None` if there is no such
/// line.
pub(crate) fn set(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Whether this process can give a capability to others. If that cannot be found out, it can.
pub(crate) fn can_give(capability: Capability) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    set(&status, "CapBnd:").is_none_or(|bounding| bounding >> capability.number() & 1 == 1)
}
