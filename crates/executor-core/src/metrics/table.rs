//! Every metric: its name, kind, unit, labels and description. `docs/metrics.md` has the same table, which a test compares.

use metrics::Unit;

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it counts with.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels, in the order of their names here.
    pub labels: &'static [Label],
    /// What it shows.
    pub description: &'static str,
}

/// What a metric counts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It grows and shrinks.
    Gauge,
    /// It collects values.
    Histogram,
}

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Every value that it can have.
    pub values: &'static [&'static str],
}

const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

const PROCESS: Label = label("process", &["init", "exec"]);

const POOL: Label = label("pool", &["bundles", "attachments", "detachments", "releases", "reads"]);

pub(super) const OPERATION: Label = label(
    "operation",
    &[
        "create", "run", "exec", "start", "kill", "pause", "resume", "update", "delete", "state", "ps",
        "features", "version",
    ],
);

impl Metric {
    const fn new(kind: MetricKind, name: &'static str, unit: Unit) -> Self {
        Self { name, kind, unit, labels: &[], description: "" }
    }

    const fn counter(name: &'static str) -> Self {
        Self::new(MetricKind::Counter, name, Unit::Count)
    }

    const fn gauge(name: &'static str) -> Self {
        Self::new(MetricKind::Gauge, name, Unit::Count)
    }

    const fn seconds(name: &'static str) -> Self {
        Self::new(MetricKind::Histogram, name, Unit::Seconds)
    }

    const fn labels(self, labels: &'static [Label]) -> Self {
        Self { labels, ..self }
    }

    const fn shows(self, description: &'static str) -> Self {
        Self { description, ..self }
    }
}

pub(super) const CONTAINERS: Metric = Metric::gauge("longshore_containers")
    .labels(&[label("phase", &["creating", "created", "running", "paused", "exited"])])
    .shows("Containers that callers see, until they are released.");

pub(super) const READY_CONTAINERS: Metric = Metric::gauge("longshore_ready_containers")
    .labels(&[label("state", &["making", "ready"])])
    .shows("Containers that are kept ready, until a run is given them.");

pub(super) const EXECS: Metric = Metric::gauge("longshore_execs").shows("Execs that run.");

pub(super) const STARTS: Metric = Metric::counter("longshore_starts_total")
    .labels(&[
        label("kind", &["run", "create", "ready", "exec"]),
        label(
            "outcome",
            &[
                "started",
                "not_found",
                "not_executable",
                "bad_config",
                "id_taken",
                "permission_denied",
                "no_resources",
                "runtime_timed_out",
                "runtime_broken",
                "container_gone",
                "exited",
                "cancelled",
                "timed_out",
                "out_of_memory",
                "lost",
            ],
        ),
    ])
    .shows("Containers and execs whose program was executed, or that ended before.");

pub(super) const START_DURATION: Metric = Metric::seconds("longshore_start_duration_seconds")
    .labels(&[label("kind", &["run", "create", "ready"]), label("step", &["prepared", "created", "started"])])
    .shows("From the request for a container to its bundle and network, to its init, to its program.");

pub(super) const EXEC_START_DURATION: Metric = Metric::seconds("longshore_exec_start_duration_seconds")
    .shows("From the request for an exec to its program, the wait for the container included.");

pub(super) const EXITS: Metric = Metric::counter("longshore_exits_total")
    .labels(&[
        PROCESS,
        label("reason", &["normal", "cancelled", "timed_out", "out_of_memory", "start_failed", "lost"]),
        label("success", &["true", "false"]),
    ])
    .shows("Exits of containers (process init) and of execs.");

pub(super) const OOM_KILLS: Metric = Metric::counter("longshore_oom_kills_total")
    .shows("Processes of containers that the OOM killer has killed, children included.");

pub(super) const RUN_DURATION: Metric = Metric::seconds("longshore_run_duration_seconds")
    .labels(&[PROCESS])
    .shows("From the start of a program to its exit.");

pub(super) const CANCEL_DURATION: Metric = Metric::seconds("longshore_cancel_duration_seconds")
    .labels(&[PROCESS])
    .shows("From the first cancel of a process, or its time limit, to its exit.");

pub(super) const RELEASE_DURATION: Metric = Metric::seconds("longshore_release_duration_seconds")
    .shows("How long it takes to give back what a container has.");

pub(super) const LEFTOVERS: Metric = Metric::counter("longshore_leftovers_total")
    .labels(&[label("kind", &["cgroup", "mount", "network", "network_namespace", "runtime_state", "file"])])
    .shows("What a release, a sweep or the end of an executor could not remove, at each attempt.");

pub(super) const SWEPT_CONTAINERS: Metric = Metric::counter("longshore_swept_containers_total")
    .shows("Containers of dead executors that were removed when an executor was built.");

pub(super) const SWEPT_PROCESSES: Metric = Metric::counter("longshore_swept_processes_total")
    .shows("Processes of dead executors that were killed when an executor was built.");

pub(super) const MISSED_EVENTS: Metric = Metric::counter("longshore_missed_events_total")
    .shows("Events that slow subscribers have missed: the sum of their gaps.");

pub(super) const RUNTIME_CALLS: Metric = Metric::counter("longshore_runtime_calls_total")
    .labels(&[OPERATION, label("outcome", &["ok", "failed", "timed_out", "abandoned"])])
    .shows("Calls of the OCI runtime that have ended.");

pub(super) const RUNTIME_CALL_DURATION: Metric = Metric::seconds("longshore_runtime_call_duration_seconds")
    .labels(&[OPERATION])
    .shows("How long a call of the OCI runtime takes. In the foreground, until its process runs.");

pub(super) const POOL_JOBS: Metric = Metric::gauge("longshore_pool_jobs")
    .labels(&[POOL, label("state", &["waiting", "running"])])
    .shows("Blocking work of the driver: pieces that wait for their pool, and that are being done.");

pub(super) const POOL_WAIT: Metric = Metric::seconds("longshore_pool_wait_seconds")
    .labels(&[POOL])
    .shows("How long a piece of blocking work waits before it begins.");

/// Every metric of Longshore.
pub const METRICS: &[Metric] = &[
    CONTAINERS,
    READY_CONTAINERS,
    EXECS,
    STARTS,
    START_DURATION,
    EXEC_START_DURATION,
    EXITS,
    OOM_KILLS,
    RUN_DURATION,
    CANCEL_DURATION,
    RELEASE_DURATION,
    LEFTOVERS,
    SWEPT_CONTAINERS,
    SWEPT_PROCESSES,
    MISSED_EVENTS,
    RUNTIME_CALLS,
    RUNTIME_CALL_DURATION,
    POOL_JOBS,
    POOL_WAIT,
];

/// Has the recorder know what every metric is.
pub(super) fn describe() {
    for &Metric { name, kind, unit, description, .. } in METRICS {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, description),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, description),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, description),
        }
    }
}
