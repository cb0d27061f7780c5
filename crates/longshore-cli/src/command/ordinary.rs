//! What an ordinary user's containers cannot have, in the words of the options.

use std::fmt;
use std::fs;

use longshore::runtime::set_of_status;
use longshore::{ContainerSpec, IdRange, Network, without_names};
use rustix::process::{getegid, geteuid};

use super::refused::Refused;

/// Ids of an id map that this user may probably not map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unmapped {
    option: &'static str,
    file: &'static str,
    first: u32,
    size: u32,
}

impl Unmapped {
    /// The first ones of a specification. It is not asked before the start has failed: there are other sources of ranges.
    pub(crate) fn find(spec: &ContainerSpec) -> Option<Self> {
        let map = spec.id_map.as_ref().filter(|_| !geteuid().is_root())?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let name = name_of(uid, &read("/etc/passwd"));
        let find = |option, file, ranges: &[IdRange], own| {
            let refused = first_refused(ranges, own, &[&uid.to_string(), &name], &read(file))?;
            Some(Self { option, file, first: refused.host, size: refused.size })
        };
        find("--uidmap", "/etc/subuid", &map.uids, uid)
            .or_else(|| find("--gidmap", "/etc/subgid", &map.gids, gid))
    }

    #[cfg(test)]
    pub(crate) const fn specimen() -> Self {
        Self { option: "--uidmap", file: "/etc/subuid", first: 1000, size: 10 }
    }
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, file, first, size } = self;
        write!(f, "{option}: no range of this user's in {file} has {first}")?;
        if *size > 1 { write!(f, " to {}", first.saturating_add(size - 1)) } else { Ok(()) }
    }
}

/// A score for the OOM killer that is lower than this process's own, without the right to lower it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoweredOomScore {
    asked: i32,
    own: i32,
}

impl LoweredOomScore {
    /// That of a specification. It is not asked before the start has failed: a process that has raised its score may lower it
    /// again.
    pub(crate) fn find(spec: &ContainerSpec) -> Option<Self> {
        let asked = spec.process.oom_score_adj?;
        let own = read("/proc/self/oom_score_adj").trim().parse().ok()?;
        (asked < own && !may_lower(&read("/proc/self/status"))).then_some(Self { asked, own })
    }

    /// Whether a failure is what a runtime says of it: crun names the file, and runc's first process ends without a word.
    pub(crate) fn explains(message: &str) -> bool {
        let own = without_names(message);
        ["oom_score_adj", "final child's PID"].iter().any(|words| own.contains(words))
    }

    #[cfg(test)]
    pub(crate) const fn specimen() -> Self {
        Self { asked: -500, own: 0 }
    }
}

impl fmt::Display for LoweredOomScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, own } = self;
        write!(f, "--oom-score-adj {asked}: to go below this process's own {own} needs CAP_SYS_RESOURCE")
    }
}

/// Whether a process with this `/proc/PID/status` has CAP_SYS_RESOURCE.
fn may_lower(status: &str) -> bool {
    const SYS_RESOURCE: u32 = 24;
    set_of_status(status, "CapEff:").is_some_and(|set| set & (1 << SYS_RESOURCE) != 0)
}

/// Fails if the specification asks for what only root has.
pub(crate) fn check(spec: &ContainerSpec) -> Result<(), Refused> {
    let is_refused = matches!(spec.network, Network::Cni { .. }) && !geteuid().is_root();
    if is_refused { Err(Refused::OrdinaryCni) } else { Ok(()) }
}

/// newuidmap(1) maps a user's own id, and what is within one of the user's ranges.
fn first_refused(ranges: &[IdRange], own: u32, owners: &[&str], text: &str) -> Option<IdRange> {
    let given: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            let (first, size) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (owners.contains(&owner) && !owner.is_empty()).then_some((first, size))
        })
        .collect();
    let is_given = |range: &IdRange| {
        let (first, size) = (u64::from(range.host), u64::from(range.size));
        (range.host == own && size == 1)
            || given.iter().any(|(from, of)| *from <= first && first + size <= from + of)
    };
    ranges.iter().find(|range| !is_given(range)).copied()
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn name_of(uid: u32, passwd: &str) -> String {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)));
    line.and_then(|fields| fields.first().map(ToString::to_string)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_needs_a_capability_is_named() {
        assert!(may_lower("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lower("CapEff:\t000001fffeffffff\n") && !may_lower(""));
        let said = LoweredOomScore::specimen().to_string();
        assert!(said.contains("-500") && said.contains("CAP_SYS_RESOURCE"), "{said}");
        for words in [
            "write to /proc/self/oom_score_adj: Permission denied",
            "can't get final child's PID from pipe: EOF",
        ] {
            assert!(LoweredOomScore::explains(words), "{words}");
        }
        assert!(!LoweredOomScore::explains("no such file"));
    }

    #[test]
    fn ids_outside_the_users_ranges_are_found() {
        let text = "bob:1000:10\nann:100000:65536\n1001:5000:10\n";
        let refused = |container, host, size| {
            let range = IdRange { container, host, size };
            first_refused(&[range], 1001, &["1001", "ann"], text).map(|range| range.host)
        };
        assert_eq!(refused(0, 1001, 1), None);
        assert_eq!(refused(0, 100_000, 65_536), None);
        assert_eq!(refused(0, 5_001, 9), None);
        assert_eq!(refused(0, 1000, 10), Some(1000));
        assert_eq!(refused(0, 1001, 2), Some(1001));
        assert_eq!(refused(0, 5_001, 10), Some(5_001));
        assert_eq!(refused(0, u32::MAX, u32::MAX), Some(u32::MAX));
    }
}
