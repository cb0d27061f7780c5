#![doc = include_str!("../../../docs/metrics.md")]
// The document is for embedders. For the code:
//
// | file | holds |
// |---|---|
// | `table` | every name, unit, label and description |
// | `series` | the handles of a metric, one for each combination of its label values |
// | `live` | what the actors and a runtime record |
// | `silent` | the same without the feature: empty types, and functions that do nothing |
//
// Neighbours: the hub of a container (`events.rs`) shows it every event; the actors show it what no event says; a
// runtime shows it its calls and its pools.

#[cfg(feature = "metrics")]
mod live;
#[cfg(feature = "metrics")]
mod series;
#[cfg(not(feature = "metrics"))]
mod silent;
#[cfg(feature = "metrics")]
mod table;

#[cfg(feature = "metrics")]
pub(crate) use self::live::{CancelMeter, ContainerMeter, Meters};
#[cfg(feature = "metrics")]
pub use self::live::{PoolJob, PoolJobs, RuntimeCall, RuntimeCalls};
#[cfg(not(feature = "metrics"))]
pub(crate) use self::silent::{CancelMeter, ContainerMeter, Meters};
#[cfg(not(feature = "metrics"))]
pub use self::silent::{PoolJob, PoolJobs, RuntimeCall, RuntimeCalls};
#[cfg(feature = "metrics")]
pub use self::table::{Label, METRICS, Metric, MetricKind};

/// How a call of the OCI runtime ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It did what it was asked for.
    Ok,
    /// It failed, or could not be executed.
    Failed,
    /// It gave no answer within its time, and was killed.
    TimedOut,
    /// The start was cancelled, and the call was killed.
    Abandoned,
}

/// What a container is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartKind {
    /// It is started as soon as it is made.
    Run,
    /// It is held at created until a caller starts it.
    Create,
    /// It is kept ready for a run.
    Ready,
}
