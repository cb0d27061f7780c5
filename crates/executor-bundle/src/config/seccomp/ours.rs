//! What the default filter refuses beyond the profile of containers-common: new cgroup namespaces, and AF_VSOCK.

use super::{ARCHITECTURE, Action, Argument, Condition, Operator, Profile, Rule};

/// From linux/sched.h and asm-generic/errno.h. The flag makes a new cgroup namespace.
const CLONE_NEWCGROUP: u64 = 0x0200_0000;
const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSYS: u32 = 38;

/// From linux/socket.h and linux/netlink.h.
const AF_NETLINK: u32 = 16;
const AF_VSOCK: u32 = 40;
const NETLINK_AUDIT: u32 = 9;

/// More address families, or protocols of netlink, than any kernel knows. Those beyond are answered with ENOSYS.
const FAMILIES: u32 = 64;
const PROTOCOLS: u32 = 32;

impl Profile {
    /// Refuses new cgroup namespaces. Whoever makes one together with a user namespace may mount the cgroup hierarchies.
    /// The container's own cgroup is theirs there, and they lift its limits.
    pub(super) fn refuse_cgroup_namespaces(&mut self) {
        self.forget(&["clone", "clone3", "unshare"]);
        let without = |index| {
            vec![Argument { index, value: CLONE_NEWCGROUP, value_two: Some(0), op: Operator::MaskedEqual }]
        };
        let clone_flags = u32::from(ARCHITECTURE.0 == "s390x");
        self.syscalls.push(rule("clone", Action::Allow, without(clone_flags), None));
        self.syscalls.push(rule("unshare", Action::Allow, without(0), None));
        // The flags of clone3 are in memory, which a filter cannot read. libc takes clone then.
        self.syscalls.push(rule("clone3", Action::Errno, Vec::new(), Some(ENOSYS)));
    }

    /// Decides which sockets can be made. A socket of AF_VSOCK reaches the hypervisor from every network namespace. The log of
    /// the kernel's audit takes a capability.
    ///
    /// The kernel reads the lower half of an argument, and a profile that compares the whole of it is got round with a bit in the upper half.
    /// So what is allowed is named, by the lower half, in as few rules as there are aligned blocks.
    pub(super) fn decide_on_sockets(&mut self, vsock: bool, audit: bool) {
        self.forget(&["socket"]);
        let refused = [(!vsock, AF_VSOCK), (!audit, AF_NETLINK)];
        let refused: Vec<_> = refused.into_iter().filter_map(|(is, family)| is.then_some(family)).collect();
        for block in blocks(FAMILIES, &refused) {
            self.syscalls.push(rule("socket", Action::Allow, vec![block.of(0)], None));
        }
        if !vsock {
            let family = vec![Block::one(AF_VSOCK).of(0)];
            self.syscalls.push(rule("socket", Action::Errno, family, Some(EPERM)));
        }
        if !audit {
            let netlink = || Block::one(AF_NETLINK).of(0);
            for block in blocks(PROTOCOLS, &[NETLINK_AUDIT]) {
                self.syscalls.push(rule("socket", Action::Allow, vec![netlink(), block.of(2)], None));
            }
            let both = vec![netlink(), Block::one(NETLINK_AUDIT).of(2)];
            self.syscalls.push(rule("socket", Action::Errno, both, Some(EINVAL)));
        }
    }

    /// Drops every rule on these system calls.
    fn forget(&mut self, calls: &[&str]) {
        for rule in &mut self.syscalls {
            rule.names.retain(|name| !calls.contains(&name.as_str()));
        }
        self.syscalls.retain(|rule| !rule.names.is_empty());
    }
}

fn rule(name: &str, action: Action, args: Vec<Argument>, errno_ret: Option<u32>) -> Rule {
    Rule {
        names: vec![name.to_owned()],
        name: None,
        action,
        args: Some(args),
        errno: None,
        _comment: None,
        errno_ret,
        includes: Condition::default(),
        excludes: Condition::default(),
    }
}

/// The numbers from `first` on that have all bits but the lowest in common with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    first: u32,
    /// How many: a power of two.
    len: u32,
}

impl Block {
    fn one(number: u32) -> Self {
        Self { first: number, len: 1 }
    }

    /// The condition that the lower half of an argument is one of these.
    fn of(self, index: u32) -> Argument {
        let mask = u64::from(!(self.len - 1));
        Argument { index, value: mask, value_two: Some(self.first.into()), op: Operator::MaskedEqual }
    }
}

/// The numbers below `end`, a power of two, without these, in as few blocks as there can be.
fn blocks(end: u32, without: &[u32]) -> Vec<Block> {
    fn split(block: Block, without: &[u32], found: &mut Vec<Block>) {
        let Block { first, len } = block;
        if !without.iter().any(|number| (first..first + len).contains(number)) {
            found.push(block);
        } else if len > 1 {
            split(Block { first, len: len / 2 }, without, found);
            split(Block { first: first + len / 2, len: len / 2 }, without, found);
        }
    }
    let mut found = Vec::new();
    split(Block { first: 0, len: end }, without, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use executor_core::Capability;
    use serde_json::{Value, json};

    use super::super::convert_default;
    use super::*;

    fn capabilities(names: &[&str]) -> BTreeSet<Capability> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_cgroup_namespace_takes_sys_admin() {
        let rules = |names: &[&str], call: &str| -> Vec<Value> {
            let filter: Value =
                serde_json::from_str(convert_default(&capabilities(names), false).unwrap().get()).unwrap();
            let rules = filter["syscalls"].as_array().unwrap().clone();
            rules
                .into_iter()
                .filter(|rule| rule["names"].as_array().unwrap().contains(&json!(call)))
                .collect()
        };
        let without =
            json!([{"index": 0, "value": CLONE_NEWCGROUP, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        let unshare = json!({"names": ["unshare"], "action": "SCMP_ACT_ALLOW", "args": without});
        assert_eq!(rules(&["KILL"], "unshare"), [unshare]);
        assert_eq!(
            rules(&["KILL"], "clone3"),
            [json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})]
        );
        assert_eq!(rules(&["KILL"], "clone").len(), 1);
        for call in ["unshare", "clone", "clone3"] {
            let rules = rules(&["SYS_ADMIN"], call);
            assert!(rules.len() == 1 && rules[0].get("args").is_none(), "{rules:?}");
        }
    }

    /// What the filter answers to `socket(family, _, protocol)`: `None` if the call is allowed, or an error number.
    fn answer(filter: &Value, family: u64, protocol: u64) -> Option<u64> {
        let argument = |index: &Value| if *index == json!(0) { family } else { protocol };
        let holds = |condition: &Value| {
            assert_eq!(condition["op"], "SCMP_CMP_MASKED_EQ");
            let (mask, value) =
                (condition["value"].as_u64().unwrap(), condition["valueTwo"].as_u64().unwrap());
            argument(&condition["index"]) & mask == value
        };
        let rules = filter["syscalls"].as_array().unwrap().iter();
        let matching: Vec<_> = rules
            .filter(|rule| rule["names"] == json!(["socket"]))
            .filter(|rule| rule["args"].as_array().unwrap().iter().all(holds))
            .collect();
        assert!(matching.len() <= 1, "a call has one answer: {matching:?}");
        let rule = matching.first().map_or(&filter["none"], |rule| rule);
        match rule["action"].as_str() {
            Some("SCMP_ACT_ALLOW") => None,
            Some(_) => rule["errnoRet"].as_u64(),
            None => filter["defaultErrnoRet"].as_u64(),
        }
    }

    #[test]
    fn sockets_are_allowed_by_family_and_protocol() {
        for (names, host) in
            [(&["AUDIT_WRITE"][..], false), (&["AUDIT_WRITE"], true), (&[], false), (&[], true)]
        {
            let filter = convert_default(&capabilities(names), host).unwrap();
            let filter: Value = serde_json::from_str(filter.get()).unwrap();
            for family in 0..70 {
                for protocol in 0..34 {
                    let expected = match (family, protocol) {
                        (64.., _) => Some(38),
                        (40, _) if !host => Some(1),
                        (16, 9) if names.is_empty() => Some(22),
                        (16, 32..) if names.is_empty() => Some(38),
                        _ => None,
                    };
                    // The kernel does not read the upper half.
                    for (upper, other) in [(0, 0), (1 << 32, 0), (u64::from(u32::MAX) << 32, 1 << 40)] {
                        let said = answer(&filter, family | upper, protocol | other);
                        assert_eq!(said, expected, "{names:?} {host} {family} {protocol}");
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_are_few() {
        let block = |first, len| Block { first, len };
        assert_eq!(blocks(8, &[]), [block(0, 8)]);
        assert_eq!(blocks(8, &[5]), [block(0, 4), block(4, 1), block(6, 2)]);
        assert_eq!(blocks(64, &[AF_VSOCK]).len(), 6);
    }
}
