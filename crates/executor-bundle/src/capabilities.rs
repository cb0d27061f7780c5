//! The capabilities of a container's processes: what they may have at most, and what each has at once.
//!
//! | user | bounding | effective, permitted | inheritable, ambient |
//! |---|---|---|---|
//! | root | all | all | none |
//! | another | all | those that were asked for | those that were asked for |
//!
//! *All* are the usual ones and those that were added, without those that were dropped. Another user than root has no capability
//! only because a container has it: the kernel takes it away when the program is executed, but for the ambient ones, and until
//! then the runtime would execute what the user may not. Without the sandbox every capability counts as asked for.

use std::collections::BTreeSet;

use executor_core::{Capability, ProcessSpec, Security};
use serde_json::{Value, json};

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
    if let Some(denied) = process.cap_add.iter().find(|capability| !capability.can_be_given()) {
        return Err(Error::field(
            "capability",
            format!("{denied}: the executor does not have this capability itself"),
        ));
    }
    let mut all: BTreeSet<_> = match security {
        Security::Sandbox => Capability::all().filter(|one| CAPABILITIES.contains(&one.name())).collect(),
        Security::Insecure => Capability::all().filter(|one| one.can_be_given()).collect(),
    };
    all.extend(&process.cap_add);
    all.retain(|capability| !process.cap_drop.contains(capability));
    Ok(all)
}

/// The five sets of one process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: BTreeSet<Capability>,
    /// Effective and permitted.
    pub(crate) effective: BTreeSet<Capability>,
    /// Inheritable and ambient.
    pub(crate) ambient: BTreeSet<Capability>,
}

impl Sets {
    /// The sets of a process of this user of the container, who may have `all` at most.
    pub(crate) fn of(
        all: &BTreeSet<Capability>,
        process: &ProcessSpec,
        security: Security,
        uid: u32,
    ) -> Self {
        let is_asked_for = |one: &Capability| security == Security::Insecure || process.cap_add.contains(one);
        let asked: BTreeSet<_> = all.iter().copied().filter(is_asked_for).collect();
        match uid {
            0 => Self { bounding: all.clone(), effective: all.clone(), ambient: BTreeSet::new() },
            _ => Self { bounding: all.clone(), effective: asked.clone(), ambient: asked },
        }
    }

    /// As `process.capabilities` of a configuration.
    pub(crate) fn to_json(&self) -> Value {
        let names = |set: &BTreeSet<Capability>| json!(set.iter().map(|one| one.name()).collect::<Vec<_>>());
        json!({
            "bounding": names(&self.bounding),
            "effective": names(&self.effective),
            "permitted": names(&self.effective),
            "inheritable": names(&self.ambient),
            "ambient": names(&self.ambient),
        })
    }
}

#[cfg(test)]
mod tests {
    use executor_core::ContainerSpec;

    use super::*;

    fn names(set: &BTreeSet<Capability>) -> Vec<&'static str> {
        set.iter().map(|one| one.name().trim_start_matches("CAP_")).collect()
    }

    #[test]
    fn caps_non_root() {
        let mut spec = ContainerSpec::host(["true"]);
        spec.process.cap_add = ["NET_ADMIN", "KILL", "SYS_TIME"].map(|name| name.parse().unwrap()).to_vec();
        spec.process.cap_drop = vec!["SYS_TIME".parse().unwrap()];
        let sets = |uid, security| {
            let all = of(&spec.process, security).unwrap();
            (Sets::of(&all, &spec.process, security, uid), all)
        };
        let (root, all) = sets(0, Security::Sandbox);
        assert_eq!((&root.bounding, &root.effective, root.ambient.len()), (&all, &all, 0));
        let (other, all) = sets(1000, Security::Sandbox);
        assert_eq!((&other.bounding, all.len()), (&all, CAPABILITIES.len() + 1));
        assert_eq!(
            (names(&other.effective), names(&other.ambient)),
            (vec!["KILL", "NET_ADMIN"], vec!["KILL", "NET_ADMIN"])
        );
        let (insecure, all) = sets(1000, Security::Insecure);
        assert_eq!(insecure, Sets { bounding: all.clone(), effective: all.clone(), ambient: all });
        assert!(!names(&insecure.effective).contains(&"SYS_TIME"));
    }
}
