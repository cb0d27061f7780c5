//! What an ordinary user's containers cannot have, in the words of the options.

use std::fs;

use longshore::{ContainerSpec, IdRange, Network};
use rustix::process::{getegid, geteuid};

use super::status::Failure;

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

    /// What has failed, and what to do.
    pub(crate) fn failure(self) -> Failure {
        let Self { option, file, first, size } = self;
        let ids = match size {
            1 => first.to_string(),
            size => format!("{first} to {}", first.saturating_add(size - 1)),
        };
        let cause = format!("{option}: no range of this user's in {file} has {ids}");
        Failure::new(cause, "name ids of such a range, or leave out --uidmap and --gidmap")
    }
}

/// Fails if the specification asks for what only root has.
pub(crate) fn check(spec: &ContainerSpec) -> Result<(), Failure> {
    if matches!(spec.network, Network::Cni { .. }) && !geteuid().is_root() {
        let cause = "ordinary users cannot have CNI networks";
        return Err(Failure::new(cause, "give --net host or none, or run as root"));
    }
    Ok(())
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
