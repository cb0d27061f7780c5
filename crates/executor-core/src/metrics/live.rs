//! What the actors and a runtime record.

mod container;
mod runtime;

use std::sync::Arc;
use std::time::Duration;

use executor_lifecycle::process::Process as Machine;
use executor_lifecycle::{Exit, ExitReason, Leftover, LeftoverKind, ProcessId, StartFailureKind, Timestamp};
use metrics::{Counter, Gauge, Histogram};

pub(crate) use self::container::ContainerMeter;
pub use self::runtime::{PoolJob, PoolJobs, RuntimeCall, RuntimeCalls};
use super::series::Series;
use super::{StartKind, table};
use crate::Swept;
use crate::clock::Clock;

/// The metrics of one executor. Several executors of a recorder count in the same series.
#[derive(Clone, Debug)]
pub(crate) struct Meters(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    containers: Series<Gauge, 1>,
    ready_containers: Series<Gauge, 1>,
    execs: Series<Gauge, 0>,
    starts: Series<Counter, 2>,
    start_duration: Series<Histogram, 2>,
    exec_start_duration: Series<Histogram, 0>,
    exits: Series<Counter, 3>,
    oom_kills: Series<Counter, 0>,
    run_duration: Series<Histogram, 1>,
    cancel_duration: Series<Histogram, 1>,
    release_duration: Series<Histogram, 0>,
    leftovers: Series<Counter, 1>,
    swept_containers: Series<Counter, 0>,
    swept_processes: Series<Counter, 0>,
    missed_events: Series<Counter, 0>,
}

impl Meters {
    /// Registers every series with the recorder of the calling thread, or with the global one.
    pub(crate) fn register() -> Self {
        table::describe();
        Self(Arc::new(Handles {
            containers: Series::gauges(&table::CONTAINERS),
            ready_containers: Series::gauges(&table::READY_CONTAINERS),
            execs: Series::gauges(&table::EXECS),
            starts: Series::counters(&table::STARTS),
            start_duration: Series::histograms(&table::START_DURATION),
            exec_start_duration: Series::histograms(&table::EXEC_START_DURATION),
            exits: Series::counters(&table::EXITS),
            oom_kills: Series::counters(&table::OOM_KILLS),
            run_duration: Series::histograms(&table::RUN_DURATION),
            cancel_duration: Series::histograms(&table::CANCEL_DURATION),
            release_duration: Series::histograms(&table::RELEASE_DURATION),
            leftovers: Series::counters(&table::LEFTOVERS),
            swept_containers: Series::counters(&table::SWEPT_CONTAINERS),
            swept_processes: Series::counters(&table::SWEPT_PROCESSES),
            missed_events: Series::counters(&table::MISSED_EVENTS),
        }))
    }

    /// A container that is requested now.
    pub(crate) fn container(&self, kind: StartKind, clock: Clock) -> ContainerMeter {
        ContainerMeter::new(Arc::clone(&self.0), kind, clock)
    }

    /// What was swept when the executor was built.
    pub(crate) fn swept(&self, all: &[Swept]) {
        for swept in all {
            self.0.swept_containers.add([], 1);
            self.0.swept_processes.add([], u64::try_from(swept.killed).unwrap_or(u64::MAX));
            self.leftovers(&swept.left);
        }
    }

    /// What could not be removed.
    pub(crate) fn leftovers(&self, left: &[Leftover]) {
        self.0.leftovers(left);
    }

    /// A subscriber has missed events.
    pub(crate) fn missed(&self, events: u64) {
        self.0.missed_events.add([], events);
    }

    /// A release begins. The returned function is called at its end.
    pub(crate) fn release(&self, clock: Clock) -> impl FnOnce() + use<> {
        let (handles, began) = (Arc::clone(&self.0), clock.now());
        move || handles.release_duration.record([], clock.now().since(began))
    }
}

impl Handles {
    fn leftovers(&self, left: &[Leftover]) {
        for leftover in left {
            self.leftovers.add([leftover_label(leftover.what)], 1);
        }
    }

    /// Counts the exit of a process, and with it the start that did not come.
    fn exited(&self, kind: &'static str, process: &'static str, exit: &Exit) {
        match exit.started_at {
            Some(started_at) => {
                self.run_duration.record([process], exit.exited_at.since(started_at));
            }
            None => self.starts.add([kind, unstarted_label(&exit.reason)], 1),
        }
        let success = if exit.success { "true" } else { "false" };
        self.exits.add([process, reason_label(&exit.reason), success], 1);
    }
}

/// When a process was first cancelled.
#[derive(Debug)]
pub(crate) struct CancelMeter(Option<Timestamp>);

impl CancelMeter {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Its machine has taken a step.
    pub(crate) fn stepped(&mut self, machine: &Machine, clock: Clock) {
        if self.0.is_none() && machine.is_cancelled() {
            self.0 = Some(clock.now());
        }
    }

    /// Its exit is reported. A process that waited ends with its cancel.
    pub(crate) fn exited(&self, meters: &Meters, process: &ProcessId, exit: &Exit) {
        let is_cancelled = matches!(exit.reason, ExitReason::Cancelled { .. } | ExitReason::TimedOut { .. });
        let time = match self.0 {
            Some(cancelled_at) => exit.exited_at.since(cancelled_at),
            None if is_cancelled => Duration::ZERO,
            None => return,
        };
        meters.0.cancel_duration.record([process_label(process)], time);
    }
}

const INIT: &str = "init";
const EXEC: &str = "exec";

const fn process_label(process: &ProcessId) -> &'static str {
    match process {
        ProcessId::Init => INIT,
        ProcessId::Exec(_) => EXEC,
    }
}

const fn kind_label(kind: StartKind) -> &'static str {
    match kind {
        StartKind::Run => "run",
        StartKind::Create => "create",
        StartKind::Ready => "ready",
    }
}

// Only this workspace makes the values of these enums: a new one is added here and in the table.

const fn reason_label(reason: &ExitReason) -> &'static str {
    match reason {
        ExitReason::Normal => "normal",
        ExitReason::Cancelled { .. } => "cancelled",
        ExitReason::TimedOut { .. } => "timed_out",
        ExitReason::OutOfMemory => "out_of_memory",
        ExitReason::StartFailed(_) => "start_failed",
        ExitReason::Lost | _ => "lost",
    }
}

/// Why a program was not executed.
const fn unstarted_label(reason: &ExitReason) -> &'static str {
    match reason {
        ExitReason::StartFailed(failure) => failure_label(failure.kind),
        ExitReason::Normal => "exited",
        ExitReason::Cancelled { .. }
        | ExitReason::TimedOut { .. }
        | ExitReason::OutOfMemory
        | ExitReason::Lost
        | _ => reason_label(reason),
    }
}

const fn failure_label(kind: StartFailureKind) -> &'static str {
    match kind {
        StartFailureKind::NotFound => "not_found",
        StartFailureKind::NotExecutable => "not_executable",
        StartFailureKind::BadConfig => "bad_config",
        StartFailureKind::IdTaken => "id_taken",
        StartFailureKind::PermissionDenied => "permission_denied",
        StartFailureKind::NoResources => "no_resources",
        StartFailureKind::RuntimeTimedOut => "runtime_timed_out",
        StartFailureKind::ContainerGone => "container_gone",
        StartFailureKind::RuntimeBroken | _ => "runtime_broken",
    }
}

const fn leftover_label(kind: LeftoverKind) -> &'static str {
    match kind {
        LeftoverKind::Cgroup => "cgroup",
        LeftoverKind::Mount => "mount",
        LeftoverKind::Network => "network",
        LeftoverKind::NetworkNamespace => "network_namespace",
        LeftoverKind::RuntimeState => "runtime_state",
        LeftoverKind::File | _ => "file",
    }
}

#[cfg(test)]
mod tests {
    use executor_lifecycle::StartFailure;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    fn values(metric: &table::Metric, label: &str) -> Vec<&'static str> {
        metric.labels.iter().find(|known| known.name == label).unwrap().values.to_vec()
    }

    #[test]
    fn what_was_swept_is_counted() {
        let left = Leftover::new(LeftoverKind::Mount, "/m", &std::io::Error::other("busy"));
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || {
            Meters::register().swept(&[Swept::new("a", 3, Vec::new()), Swept::new("b", 1, vec![left])]);
        });
        let all = recorder.snapshotter().snapshot().into_vec().into_iter();
        let counted = all.filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) if count > 0 => Some((key.key().name().to_owned(), count)),
            DebugValue::Counter(_) | DebugValue::Gauge(_) | DebugValue::Histogram(_) => None,
        });
        let expected = [(&table::LEFTOVERS, 1), (&table::SWEPT_CONTAINERS, 2), (&table::SWEPT_PROCESSES, 4)];
        let expected = expected.map(|(metric, count)| (metric.name.to_owned(), count));
        assert_eq!(counted.collect::<std::collections::BTreeMap<_, _>>(), expected.into());
    }

    #[test]
    fn labels_are_the_words_of_the_json_and_are_in_the_table() {
        use StartFailureKind as Kind;
        let outcomes = values(&table::STARTS, "outcome");
        for kind in [
            Kind::NotFound,
            Kind::NotExecutable,
            Kind::BadConfig,
            Kind::IdTaken,
            Kind::PermissionDenied,
            Kind::NoResources,
            Kind::RuntimeTimedOut,
            Kind::RuntimeBroken,
            Kind::ContainerGone,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), failure_label(kind));
            let reason = ExitReason::StartFailed(StartFailure::new(kind, ""));
            assert!(outcomes.contains(&unstarted_label(&reason)), "{kind:?}");
            assert!(values(&table::EXITS, "reason").contains(&reason_label(&reason)));
        }
        let kinds = values(&table::LEFTOVERS, "kind");
        for kind in [
            LeftoverKind::Cgroup,
            LeftoverKind::Mount,
            LeftoverKind::Network,
            LeftoverKind::NetworkNamespace,
            LeftoverKind::RuntimeState,
            LeftoverKind::File,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), leftover_label(kind));
            assert!(kinds.contains(&leftover_label(kind)), "{kind:?}");
        }
        let cancelled =
            ExitReason::Cancelled { cause: executor_lifecycle::CancelCause::Requested, killed: true };
        let timed_out = ExitReason::TimedOut { killed: true };
        for reason in [ExitReason::Normal, cancelled, timed_out, ExitReason::OutOfMemory, ExitReason::Lost] {
            assert!(outcomes.contains(&unstarted_label(&reason)), "{reason:?}");
            assert!(values(&table::EXITS, "reason").contains(&reason_label(&reason)), "{reason:?}");
        }
    }
}
