//! What the kernel says of itself and of processes, as text.

/// The first two numbers of a release of Linux, as in `6.1.0-18-amd64`. Releases compare by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRelease {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KernelRelease {
    /// The release with these numbers.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The release of the kernel that runs.
    pub fn running() -> Self {
        Self::of(&rustix::system::uname().release().to_string_lossy())
    }

    /// The release in a text that begins with it. A text without numbers is earlier than every release.
    pub fn of(text: &str) -> Self {
        let mut numbers =
            text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or_default());
        Self::new(numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
    }
}

/// The set of signals or capabilities in the line of a `/proc/PID/status` that begins with `name`, as in `SigIgn:`. Bit 0 is
/// signal 1, or capability 0. `None` if there is no such line.
pub fn set_of_status(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_number() {
        let least = |text, major, minor| KernelRelease::of(text) >= KernelRelease::new(major, minor);
        assert!(least("6.18.44-fc", 6, 15) && least("10.0", 6, 15) && least("5.12.0-rc1", 5, 12));
        assert!(least("6.1-x", 5, 12) && least("5.12", 5, 12));
        assert!(
            !least("6.9.0", 6, 15) && !least("unknown", 1, 0) && !least("", 1, 0) && !least("4.19", 5, 12)
        );
    }

    #[test]
    fn sets_are_read_by_their_names() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(set_of_status(status, "SigIgn:"), Some(0x1001));
        assert_eq!((set_of_status(status, "SigCgt:"), set_of_status("", "SigIgn:")), (None, None));
    }
}
