//! Limits of a container, and the cgroup that enforces them.

use std::fmt;
use std::str::FromStr;

use crate::InvalidSpec;
use crate::spec::invalid;
use serde::{Deserialize, Serialize};

/// Limits of a container. An absent field is no limit, except for `pids`.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Memory and swap together, in bytes. `u64::MAX` is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<u64>,
    /// CPU time, in CPUs: 0.5 is half of one. It stands for a quota and a period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// CPU time in each period, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<u64>,
    /// The period of the quota, in microseconds. The default is 100,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
    /// The weight of the container when CPU time is scarce, from 2 to 262,144. The default is 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// The CPUs it runs on, as in `0-2,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes it uses, as in `0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// The number of processes and threads. The default is 4096 ([`Resources::DEFAULT_PIDS`]), except in a container
    /// that brings its own configuration, and for a user who has no cgroups. `u64::MAX` is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

impl Resources {
    /// Limits the memory, in bytes.
    #[must_use]
    pub fn memory(self, bytes: u64) -> Self {
        Self { memory: Some(bytes), ..self }
    }

    /// Limits memory and swap together, in bytes. `u64::MAX` is no limit.
    #[must_use]
    pub fn memory_swap(self, bytes: u64) -> Self {
        Self { memory_swap: Some(bytes), ..self }
    }

    /// Limits the CPU time, in CPUs: 0.5 is half of one.
    #[must_use]
    pub fn cpus(self, cpus: f64) -> Self {
        Self { cpus: Some(cpus), ..self }
    }

    /// Sets the CPU time in each period, in microseconds.
    #[must_use]
    pub fn cpu_quota(self, quota: u64) -> Self {
        Self { cpu_quota: Some(quota), ..self }
    }

    /// Sets the period of the quota, in microseconds.
    #[must_use]
    pub fn cpu_period(self, period: u64) -> Self {
        Self { cpu_period: Some(period), ..self }
    }

    /// Sets the weight of the container when CPU time is scarce, from 2 to 262,144.
    #[must_use]
    pub fn cpu_shares(self, shares: u64) -> Self {
        Self { cpu_shares: Some(shares), ..self }
    }

    /// Sets the CPUs that it runs on, as in `0-2,7`.
    #[must_use]
    pub fn cpuset_cpus(self, cpus: impl Into<String>) -> Self {
        Self { cpuset_cpus: Some(cpus.into()), ..self }
    }

    /// Sets the memory nodes that it uses, as in `0`.
    #[must_use]
    pub fn cpuset_mems(self, mems: impl Into<String>) -> Self {
        Self { cpuset_mems: Some(mems.into()), ..self }
    }

    /// Limits the number of processes and threads. `u64::MAX` is no limit.
    #[must_use]
    pub fn pids(self, pids: u64) -> Self {
        Self { pids: Some(pids), ..self }
    }

    /// The least memory a container can be started with: the runtime's own init needs some.
    pub const LEAST_MEMORY: u64 = 6 << 20;

    /// The scheduler's period, in microseconds, where none is given.
    pub const CPU_PERIOD: u64 = 100_000;

    /// How many processes and threads a container has at most if `pids` is absent. A container that forks without end
    /// cannot take all pids of the machine then.
    pub const DEFAULT_PIDS: u64 = 4096;

    /// The highest limit of processes that the kernel takes: as many pids as a machine can have.
    pub const MOST_PIDS: u64 = 4 << 20;

    /// Whether it asks for no limit.
    pub fn is_unlimited(&self) -> bool {
        let asked = Self { pids: self.pids.filter(|pids| *pids != u64::MAX), ..self.clone() };
        asked == Self::default()
    }

    /// The quota and its period, both in microseconds, as the kernel takes them. `cpus` stands for both.
    #[expect(clippy::cast_possible_truncation, reason = "validated: 0.01 to 100,000 CPUs")]
    #[expect(clippy::cast_sign_loss, reason = "validated: 0.01 to 100,000 CPUs")]
    #[expect(clippy::cast_precision_loss, reason = "the period is a small number")]
    pub fn cpu_time(&self) -> (Option<u64>, Option<u64>) {
        match self.cpus {
            Some(cpus) => (Some((cpus * Self::CPU_PERIOD as f64).round() as u64), Some(Self::CPU_PERIOD)),
            None => (self.cpu_quota, self.cpu_period),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidSpec> {
        if self.memory.is_some_and(|bytes| bytes < Self::LEAST_MEMORY) {
            return Err(invalid("memory", "less than 6 MiB: not even the runtime's init can start"));
        }
        let bytes = self.memory.into_iter().chain(self.memory_swap.filter(|bytes| *bytes != u64::MAX));
        if bytes.into_iter().any(|bytes| i64::try_from(bytes).is_err()) {
            return Err(invalid("memory", "more than any machine has"));
        }
        match (self.memory, self.memory_swap) {
            (None, Some(_)) => return Err(invalid("memory and swap", "needs a limit of memory as well")),
            (Some(memory), Some(both)) if both < memory => {
                return Err(invalid("memory and swap", "less than the memory alone"));
            }
            (_, _) => {}
        }
        if self.cpus.is_some_and(|cpus| !(0.01..=100_000.0).contains(&cpus)) {
            return Err(invalid("cpus", "give a number of CPUs from 0.01 to 100,000"));
        }
        if self.cpus.is_some() && (self.cpu_quota.is_some() || self.cpu_period.is_some()) {
            return Err(invalid("cpus", "stands for a quota and a period: give the one or the others"));
        }
        // What the kernel takes.
        if self.cpu_period.is_some_and(|period| !(1_000..=1_000_000).contains(&period)) {
            return Err(invalid("cpu period", "give 1,000 to 1,000,000 microseconds"));
        }
        if self.cpu_quota.is_some_and(|quota| quota < 1_000 || i64::try_from(quota).is_err()) {
            return Err(invalid("cpu quota", "give 1,000 microseconds or more"));
        }
        if self.cpu_shares.is_some_and(|shares| !(2..=262_144).contains(&shares)) {
            return Err(invalid("cpu shares", "give 2 to 262,144"));
        }
        for (field, set) in [("cpuset cpus", &self.cpuset_cpus), ("cpuset mems", &self.cpuset_mems)] {
            set.as_deref().map_or(Ok(()), |set| numbers(field, set))?;
        }
        if self.pids == Some(0) {
            return Err(invalid("pids", "at least one process has to be allowed"));
        }
        if self.pids.is_some_and(|pids| pids > Self::MOST_PIDS && pids != u64::MAX) {
            return Err(invalid("pids", "the kernel takes at most 4,194,304"));
        }
        Ok(())
    }
}

/// A list of numbers and ranges, as in cpuset(7).
fn numbers(field: &'static str, set: &str) -> Result<(), InvalidSpec> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u16>().ok();
        number(first).zip(number(last)).is_some_and(|(first, last)| first <= last)
    };
    match set.split(',').all(range) {
        true => Ok(()),
        false => Err(invalid(field, format!("{set:?}: give numbers and ranges, as in 0-2,7"))),
    }
}

/// The cgroup that contains the cgroup of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub enum CgroupParent {
    /// A path in each hierarchy, as in `/ci/jobs`. If it does not exist, it is created, and removed with the
    /// executor.
    Path(String),
    /// A systemd slice. systemd is asked for a scope in it; the OCI runtime needs systemd for that.
    Slice(String),
}

impl CgroupParent {
    pub(crate) fn validate(&self) -> Result<(), InvalidSpec> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.@:\\".contains(c);
        match self {
            Self::Path(path) => {
                let parts: Vec<_> = path.strip_prefix('/').unwrap_or_default().split('/').collect();
                let part =
                    |part: &&str| !part.is_empty() && *part != "." && *part != ".." && part.chars().all(fine);
                // With a colon behind it, it would be read as a slice.
                if !parts.iter().all(part) || path.ends_with(':') {
                    return Err(invalid(
                        "cgroup parent",
                        format!("{path:?}: give an absolute path such as /ci/jobs"),
                    ));
                }
            }
            Self::Slice(slice) => {
                let name = slice.strip_suffix(".slice").unwrap_or_default();
                if name.is_empty() || !name.chars().all(fine) || name.contains(':') {
                    return Err(invalid(
                        "cgroup parent",
                        format!("{slice:?}: give a slice such as ci.slice"),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl FromStr for CgroupParent {
    type Err = InvalidSpec;

    /// Reads a path, with or without the first `/`, or a slice with a colon behind it: `ci.slice:`.
    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        let parent = match text.strip_suffix(':') {
            Some(slice) => Self::Slice(slice.to_owned()),
            None => Self::Path(format!("/{}", text.trim_matches('/'))),
        };
        parent.validate().map(|()| parent)
    }
}

impl TryFrom<String> for CgroupParent {
    type Error = InvalidSpec;

    fn try_from(text: String) -> Result<Self, InvalidSpec> {
        text.parse()
    }
}

impl From<CgroupParent> for String {
    fn from(parent: CgroupParent) -> Self {
        parent.to_string()
    }
}

impl fmt::Display for CgroupParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Slice(slice) => write!(f, "{slice}:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(resources: Resources) -> Option<&'static str> {
        resources.validate().err().map(|error| error.field)
    }

    #[test]
    fn limits_that_cannot_be_set_are_named() {
        let none = Resources::default;
        assert!(none().is_unlimited());
        assert_eq!(field(none()), None);
        assert_eq!(field(Resources { memory: Some(1), ..none() }), Some("memory"));
        assert_eq!(field(Resources { memory: Some(u64::MAX), ..none() }), Some("memory"));
        assert_eq!(field(Resources { memory_swap: Some(8 << 20), ..none() }), Some("memory and swap"));
        let both = |memory, swap| Resources { memory: Some(memory), memory_swap: Some(swap), ..none() };
        assert_eq!(field(both(8 << 20, 7 << 20)), Some("memory and swap"));
        assert_eq!(field(both(8 << 20, u64::MAX)), None);
        assert_eq!(field(Resources { cpus: Some(f64::NAN), ..none() }), Some("cpus"));
        assert_eq!(field(Resources { cpus: Some(-1.0), ..none() }), Some("cpus"));
        assert_eq!(field(Resources { cpus: Some(1.0), cpu_quota: Some(5000), ..none() }), Some("cpus"));
        assert_eq!(field(Resources { cpu_period: Some(10), ..none() }), Some("cpu period"));
        assert_eq!(field(Resources { cpu_quota: Some(10), ..none() }), Some("cpu quota"));
        assert_eq!(field(Resources { cpu_shares: Some(1), ..none() }), Some("cpu shares"));
        for (set, expected) in
            [("0", None), ("0-2,7", None), ("", Some("cpuset cpus")), ("2-0", Some("cpuset cpus"))]
        {
            assert_eq!(field(Resources { cpuset_cpus: Some(set.into()), ..none() }), expected, "{set:?}");
        }
        assert_eq!(field(Resources { pids: Some(0), ..none() }), Some("pids"));
        assert_eq!(field(Resources { pids: Some(1 << 40), ..none() }), Some("pids"));
        assert_eq!(field(none().pids(u64::MAX)), None);
        assert!(none().pids(u64::MAX).is_unlimited() && !none().pids(5).is_unlimited());
    }

    #[test]
    fn parents_are_paths_or_slices() {
        for (text, shown) in
            [("/ci/jobs", "/ci/jobs"), ("ci", "/ci"), ("ci.slice:", "ci.slice:"), ("a.slice", "/a.slice")]
        {
            assert_eq!(text.parse::<CgroupParent>().unwrap().to_string(), shown);
        }
        for bad in ["", "/", "/a/../b", "a//b", ":", "ci:", "a b", ".slice:", "/."] {
            assert!(bad.parse::<CgroupParent>().is_err(), "{bad:?} was taken");
        }
    }
}
