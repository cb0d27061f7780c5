//! Which ids of the host the users and groups of a user namespace are.

use std::fmt;
use std::str::FromStr;

use crate::InvalidSpec;
use crate::spec::invalid;
use serde::{Deserialize, Serialize};

/// The users and groups of a user namespace. An id that no range contains is the overflow id (`nobody`) inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// A range of ids, in the container and on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// The first in the container.
    pub container: u32,
    /// The first on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

impl IdMap {
    /// The same ranges for users and groups.
    pub fn both(ranges: Vec<IdRange>) -> Self {
        Self { uids: ranges.clone(), gids: ranges }
    }

    /// The host user that a user of the container is. `None` if no range contains it.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        self.uids.iter().find_map(|range| range.host_of(uid))
    }

    /// The host group that a group of the container is. `None` if no range contains it.
    pub fn host_gid(&self, gid: u32) -> Option<u32> {
        self.gids.iter().find_map(|range| range.host_of(gid))
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidSpec> {
        for (field, ranges) in [("uid map", &self.uids), ("gid map", &self.gids)] {
            // The runtime starts as root in the container, even if the program has another user.
            if !ranges.iter().any(|range| range.host_of(0).is_some()) {
                return Err(invalid(field, "the container's root (0) has to be mapped"));
            }
            let ends = |first: u32, size: u32| u64::from(first) + u64::from(size);
            for (index, range) in ranges.iter().enumerate() {
                // The greatest number is not an id: it means "none".
                let fits = |first| ends(first, range.size) <= u64::from(u32::MAX);
                if range.size == 0 || !fits(range.container) || !fits(range.host) {
                    return Err(invalid(field, format!("{range}: there are no such ids")));
                }
                let overlap = |a: u32, b: u32, other: &IdRange| {
                    u64::from(a) < ends(b, other.size) && u64::from(b) < ends(a, range.size)
                };
                let twice = ranges.iter().skip(index + 1).find(|other| {
                    overlap(range.container, other.container, other) || overlap(range.host, other.host, other)
                });
                if let Some(other) = twice {
                    return Err(invalid(field, format!("{range} and {other} overlap")));
                }
            }
        }
        Ok(())
    }
}

impl IdRange {
    fn host_of(&self, id: u32) -> Option<u32> {
        let offset = id.checked_sub(self.container).filter(|offset| *offset < self.size)?;
        self.host.checked_add(offset)
    }
}

impl FromStr for IdRange {
    type Err = InvalidSpec;

    /// Reads `CONTAINER:HOST:SIZE`.
    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[container, host, size]) => Ok(Self { container, host, size }),
            Some(_) | None => {
                Err(invalid("id map", format!("{text:?}: give CONTAINER:HOST:SIZE, as in 0:100000:65536")))
            }
        }
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.container, self.host, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[&str]) -> IdMap {
        IdMap::both(ranges.iter().map(|range| range.parse().unwrap()).collect())
    }

    #[test]
    fn ids_are_looked_up() {
        let map = map(&["0:1000:1", "1:100000:65536"]);
        assert_eq!(map.validate(), Ok(()));
        for (inside, outside) in [(0, Some(1000)), (1, Some(100_000)), (65536, Some(165_535)), (65537, None)]
        {
            assert_eq!((map.host_uid(inside), map.host_gid(inside)), (outside, outside), "{inside}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [
            &["1:1000:1"][..],
            &[],
            &["0:0:0"],
            &["0:1000:4294967295"],
            &["0:1000:10", "5:2000:1"],
            &["0:1000:10", "20:1005:1"],
        ] {
            assert!(map(bad).validate().is_err(), "{bad:?} was taken");
        }
        for bad in ["", "0:1", "a:b:c", "0:1:2:3", "-1:0:1"] {
            assert!(bad.parse::<IdRange>().is_err(), "{bad:?} was taken");
        }
    }
}
