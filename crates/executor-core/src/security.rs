//! What a container may do to the machine: capabilities, system calls, limits of its processes.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use crate::InvalidSpec;
use crate::set_of_status;
use crate::spec::invalid;
use serde::{Deserialize, Serialize};

/// How far a container is isolated from the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// The usual capabilities and devices, the usual system calls, the host's parts of /proc and /sys hidden. A mount that
    /// would show them elsewhere, or let them be changed, is an error: a second proc, a bind mount of `/sys`, and the like.
    /// Read-only bind mounts are allowed; a read-only `/proc` still leads to the files of processes with equal uids.
    /// What a caller's own configuration mounts is the caller's decision.
    #[default]
    Sandbox,
    /// All capabilities, devices and system calls; /sys and cgroups writable, nothing hidden.
    Insecure,
}

/// Which processes a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProcessMode {
    /// Its own processes: it has a pid namespace, and its init is process 1.
    #[default]
    Sandbox,
    /// All processes of the host: it has no pid namespace, and `/proc` is the host's. Processes that its init leaves
    /// behind are still killed with it, by its cgroup.
    ///
    /// For root this is an error unless the container is insecure, or has an id map without the host's root. The usual
    /// parts of `/proc` stay hidden or read-only then. Its processes may still signal every process of the host whose uid
    /// they have: map ids that nothing else uses.
    NoSandbox,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The system calls that the default profile allows for its capabilities.
    #[default]
    Default,
    /// All system calls.
    Unconfined,
    /// The system calls that the profile in this file allows. Its format is that of containers-common.
    Profile(PathBuf),
}

/// The SELinux labels of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Selinux {
    /// The usual types of containers, and a pair of categories that no other container of this process has.
    Generated,
    /// These.
    Labels {
        /// Of its processes.
        process: String,
        /// Of its files.
        mount: String,
    },
}

/// A capability, as in capabilities(7): `CAP_NET_ADMIN`. They are ordered by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Capability(u8);

/// The names, each at its number, as in linux/capability.h.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The bounding set of this process, one capability in each bit. `None` if it cannot be read.
static BOUNDING: LazyLock<Option<u64>> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    set_of_status(&status, "CapBnd:")
});

impl Capability {
    /// Whether this process can give it to others. If that cannot be found out, it can.
    pub fn can_be_given(self) -> bool {
        BOUNDING.is_none_or(|set| set >> self.number() & 1 == 1)
    }

    /// All capabilities, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).take(CAPABILITIES.len()).map(Self)
    }

    /// Its number. This is also the number of its bit in the sets of `/proc/<pid>/status`.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its name, `CAP_` included.
    pub fn name(self) -> &'static str {
        CAPABILITIES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl FromStr for Capability {
    type Err = InvalidSpec;

    /// Reads a name in either case, with or without `CAP_`.
    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let found = Self::all().find(|capability| capability.name().strip_prefix("CAP_") == Some(name));
        found.ok_or_else(|| invalid("capability", format!("{text:?} is none; give one such as NET_ADMIN")))
    }
}

impl TryFrom<String> for Capability {
    type Error = InvalidSpec;

    fn try_from(text: String) -> Result<Self, InvalidSpec> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.to_string()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A limit of each process, as in getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Ulimit {
    /// The index of its name in `ULIMITS`.
    kind: u8,
    /// The limit that is enforced. The process may raise it up to `hard`.
    pub soft: u64,
    /// The most that the process can raise `soft` to.
    pub hard: u64,
}

const ULIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];

impl Ulimit {
    /// The name of the limit, as in `RLIMIT_NOFILE`.
    pub fn kind(&self) -> &'static str {
        ULIMITS.get(usize::from(self.kind)).copied().unwrap_or_default()
    }
}

impl FromStr for Ulimit {
    type Err = InvalidSpec;

    /// Reads `nofile=SOFT`, `nofile=SOFT:HARD`; a number can be `unlimited`.
    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let bad = |why: String| invalid("ulimit", why);
        let form = || bad(format!("{text:?}: give NAME=SOFT or NAME=SOFT:HARD, as in nofile=1024:4096"));
        let (name, numbers) = text.split_once('=').ok_or_else(form)?;
        let upper = name.to_ascii_uppercase();
        let kind = (0u8..).zip(ULIMITS).find(|(_, kind)| kind.strip_prefix("RLIMIT_") == Some(&upper));
        let (kind, _) = kind.ok_or_else(|| bad(format!("{name:?} is none; give one such as nofile")))?;
        let number = |text: &str| match text {
            "unlimited" | "-1" => Ok(u64::MAX),
            number => number.parse().map_err(|_| form()),
        };
        let (soft, hard) = numbers.split_once(':').unwrap_or((numbers, numbers));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(bad(format!("{text:?}: the soft limit is above the hard one")));
        }
        Ok(Self { kind, soft, hard })
    }
}

/// As it is read: `nofile=64:128`, with `unlimited` for a number that is no limit.
impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |number: u64| match number {
            u64::MAX => "unlimited".to_owned(),
            number => number.to_string(),
        };
        let name = self.kind().trim_start_matches("RLIMIT_").to_ascii_lowercase();
        write!(f, "{name}={}:{}", shown(self.soft), shown(self.hard))
    }
}

impl TryFrom<String> for Ulimit {
    type Error = InvalidSpec;

    fn try_from(text: String) -> Result<Self, InvalidSpec> {
        text.parse()
    }
}

impl From<Ulimit> for String {
    fn from(limit: Ulimit) -> Self {
        limit.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_names() {
        for name in ["CAP_NET_ADMIN", "net_admin", "Cap_Net_Admin"] {
            let capability: Capability = name.parse().unwrap();
            assert_eq!((capability.name(), capability.number()), ("CAP_NET_ADMIN", 12));
        }
        for bad in ["", "CAP_", "ALL", "NET ADMIN"] {
            assert!(bad.parse::<Capability>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn limits_are_read() {
        let limit: Ulimit = "nofile=64:128".parse().unwrap();
        assert_eq!((limit.kind(), limit.soft, limit.hard), ("RLIMIT_NOFILE", 64, 128));
        assert_eq!("core=unlimited".parse::<Ulimit>().unwrap().hard, u64::MAX);
        for bad in ["", "nofile", "nofile=", "nofile=2:1", "files=1", "nofile=a:b", "nofile=-2"] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad:?} was taken");
        }
    }
}
