//! The sets of signals and capabilities in a `/proc/PID/status`.

/// The set in the line that begins with `name`, as in `SigIgn:`. Bit 0 is signal 1, or capability 0. `None` if there is no such
/// line.
pub(crate) fn set(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
