//! What the processes of a container may do at most.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use executor_core::{Capability, ProcessSpec, Security};

use crate::error::Error;

/// What root in a container may do: the set that container engines have agreed on.
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

/// What a process may do at most.
pub(crate) fn of(process: &ProcessSpec, security: Security) -> Result<BTreeSet<Capability>, Error> {
    if let Some(denied) = process.cap_add.iter().find(|capability| !is_ours_to_give(**capability)) {
        return Err(Error::field("capability", format!("{denied}: this process has none of it to give")));
    }
    let mut all: BTreeSet<_> = match security {
        Security::Sandbox => Capability::all().filter(|one| CAPABILITIES.contains(&one.name())).collect(),
        Security::Insecure => Capability::all().filter(|one| is_ours_to_give(*one)).collect(),
    };
    all.extend(&process.cap_add);
    all.retain(|capability| !process.cap_drop.contains(capability));
    Ok(all)
}

/// The capabilities this process can hand on, one in each bit: its bounding set.
static BOUNDING: LazyLock<Option<u64>> = LazyLock::new(|| {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
});

/// Whether this process has a capability to hand on.
pub(crate) fn is_ours_to_give(capability: Capability) -> bool {
    BOUNDING.is_none_or(|set| set >> capability.number() & 1 == 1)
}
