//! The capabilities that the processes of a container may have at most.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use executor_core::{Capability, ProcessSpec, Security};

use crate::error::Error;

/// The capabilities of root in a container: the default set of the usual container engines.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The capabilities that a process may have at most.
pub(crate) fn of(process: &ProcessSpec, security: Security) -> Result<BTreeSet<Capability>, Error> {
    if let Some(denied) = process.cap_add.iter().find(|capability| !can_give(**capability)) {
        return Err(Error::field(
            "capability",
            format!("{denied}: the executor does not have this capability itself"),
        ));
    }
    let mut all: BTreeSet<_> = match security {
        Security::Sandbox => Capability::all().filter(|one| CAPABILITIES.contains(&one.name())).collect(),
        Security::Insecure => Capability::all().filter(|one| can_give(*one)).collect(),
    };
    all.extend(&process.cap_add);
    all.retain(|capability| !process.cap_drop.contains(capability));
    Ok(all)
}

/// The capabilities that this process can give to others, one in each bit: its bounding set. `None` if it cannot be read.
static BOUNDING: LazyLock<Option<u64>> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
});

/// Whether this process can give a capability to others.
pub(crate) fn can_give(capability: Capability) -> bool {
    BOUNDING.is_none_or(|set| set >> capability.number() & 1 == 1)
}
