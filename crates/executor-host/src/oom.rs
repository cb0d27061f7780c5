//! What the kernel reports of its OOM killer: its log, and notices of cgroups.
//!
//! | source | says | needs |
//! |---|---|---|
//! | `log` | the pid of each process that was killed, and most of the time its cgroup | `/dev/kmsg`, and the host's pid namespace |
//! | `notices` | that something was killed; the counters of the cgroups say how much | cgroups |
//!
//! There is one descriptor for the log, and one for the notices of v2, however many containers there are. Notices of v1 have one
//! for each container.

mod log;
mod notices;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::log::KillReader;
pub(crate) use self::log::{KernelLog, LogNews, LoggedKill};
pub(crate) use self::notices::Notices;
