//! Which parameters of the kernel a container may set: those of which each namespace has its own.

use std::collections::BTreeMap;

use super::Network;
use super::validate::{invalid, no_control};
use crate::InvalidSpec;

/// Parameters of the ipc namespace, which every container has for itself. A later kernel may have more of each kind.
const IPC: [&str; 3] = ["kernel.shm", "kernel.msg", "fs.mqueue."];

pub(super) fn validate(sysctls: &BTreeMap<String, String>, network: &Network) -> Result<(), InvalidSpec> {
    for (name, value) in sysctls {
        if let Some(why) = refused(name, network) {
            return Err(invalid("sysctl", format!("/sysctls/{}: {why}", name.escape_debug())));
        }
        no_control("sysctl", value)?;
    }
    Ok(())
}

/// Why a parameter cannot be set.
fn refused(name: &str, network: &Network) -> Option<&'static str> {
    // A runtime makes a path of the name.
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.split('.').all(|part| !part.is_empty() && part.chars().all(fine)) {
        return Some("give a name such as net.core.somaxconn");
    }
    let is_of_ipc = name == "kernel.sem" || IPC.iter().any(|kind| name.starts_with(kind));
    match (name.starts_with("net."), network) {
        (true, Network::Host) => Some("the network is the host's, and so is this parameter"),
        (true, Network::None | Network::Cni { .. }) => None,
        (false, _) if is_of_ipc => None,
        (false, _) if ["kernel.hostname", "kernel.domainname"].contains(&name) => {
            Some("the field hostname sets the name; the domain cannot be set")
        }
        (false, _) => Some(
            "the machine has one for all containers; kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* can be set",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContainerSpec;

    #[test]
    fn only_parameters_of_the_containers_own_are_set() {
        let own = Network::None;
        for name in
            ["kernel.shmmax", "kernel.msgmnb", "kernel.sem", "fs.mqueue.msg_max", "net.ipv4.ip_forward"]
        {
            assert_eq!(refused(name, &own), None, "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "kernel.hostname",
            "kernel.domainname",
            "vm.swappiness",
            "kernel.semx",
            "fs.file-max",
        ] {
            assert!(refused(name, &own).is_some(), "{name}");
        }
        assert!(refused("net.core.somaxconn", &Network::Host).is_some());
        for name in
            ["", "net", "net.", "net..x", "net/../kernel/core_pattern", "net.a/b", "net.a\n", ".net.a"]
        {
            assert!(refused(name, &own).is_some(), "{name:?}");
        }
    }

    #[test]
    fn the_error_points_at_the_parameter() {
        let spec = ContainerSpec::host(["true"]).sysctl("kernel.sem", "1").sysctl("vm.swappiness", "1");
        let error = spec.validate().unwrap_err();
        assert_eq!(error.field, "sysctl");
        assert!(error.to_string().starts_with("sysctl: /sysctls/vm.swappiness: "), "{error}");
        let spec = ContainerSpec::host(["true"]).sysctl("kernel.sem", "1\n2");
        assert_eq!(spec.validate().unwrap_err().field, "sysctl");
    }
}
