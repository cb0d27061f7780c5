//! What a container uses: CPU time, memory, processes, and traffic.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::json;

/// What a container has used so far, all its processes together. Values that the host does not have are absent.
///
/// More fields will come: make one with `..Usage::default()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// CPU time, user and system.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::optional_seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<f64>"))]
    pub cpu: Option<Duration>,
    /// CPU time in user mode.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::optional_seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<f64>"))]
    pub cpu_user: Option<Duration>,
    /// CPU time in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::optional_seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<f64>"))]
    pub cpu_system: Option<Duration>,
    /// How long it was throttled by its CPU limit.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::optional_seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<f64>"))]
    pub cpu_throttled: Option<Duration>,
    /// Memory charged now, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The most memory ever charged, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// Swap used now, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// How many processes of the container the OOM killer has killed. Init need not be one of them.
    pub oom_kills: u64,
    /// Processes and threads now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// The most processes and threads there ever were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_peak: Option<u64>,
    /// Traffic with block devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoUsage>,
    /// How long its processes were stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// Traffic over its network interfaces, without the loopback. Absent on the network of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkUsage>,
}

/// Traffic with block devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IoUsage {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Stalls, as in the kernel's documentation of PSI. A resource is `None` if the kernel has no file for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pressure {
    /// For a CPU.
    pub cpu: Option<Stall>,
    /// For memory.
    pub memory: Option<Stall>,
    /// For block devices.
    pub io: Option<Stall>,
}

/// How long processes were stalled for lack of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stall {
    /// At least one process was stalled.
    #[serde(with = "json::seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "f64"))]
    pub some: Duration,
    /// All processes were stalled at once.
    #[serde(with = "json::seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "f64"))]
    pub full: Duration,
}

/// Traffic over network interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NetworkUsage {
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
}

impl NetworkUsage {
    /// Adds up the counters in the text of `/proc/<pid>/net/dev`, without the loopback. Invalid lines count as
    /// nothing.
    pub fn of_interfaces(text: &str) -> Self {
        let mut sum = Self::default();
        for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
            let counters: Vec<u64> =
                counters.split_whitespace().map(|number| number.parse().unwrap_or_default()).collect();
            let counter = |index: usize| counters.get(index).copied().unwrap_or_default();
            if name.trim() != "lo" {
                sum.received_bytes = sum.received_bytes.saturating_add(counter(0));
                sum.received_packets = sum.received_packets.saturating_add(counter(1));
                sum.sent_bytes = sum.sent_bytes.saturating_add(counter(8));
                sum.sent_packets = sum.sent_packets.saturating_add(counter(9));
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_added_up_but_for_the_loopback() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets errs|bytes packets\n\
                    lo:    3193      29    0    0    0     0          0         0     3193      29    0 0 0 0 0 0\n\
                    eth0: 100       2    0    0    0     0          0         0  200    3    0 0 0 0 0 0\n  e1:1 1 0 0 0 0 0 0 1 1\n";
        let expected =
            NetworkUsage { received_bytes: 101, received_packets: 3, sent_bytes: 201, sent_packets: 4 };
        assert_eq!(NetworkUsage::of_interfaces(text), expected);
        assert_eq!(NetworkUsage::of_interfaces("nonsense"), NetworkUsage::default());
    }
}
