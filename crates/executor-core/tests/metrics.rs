//! Metrics, on the simulated runtime: what a recorder of the embedder's sees, and that the document has all of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use executor_core::lifecycle::{Cancel, Leftover, LeftoverKind, Signal, StartFailure, StartFailureKind};
use executor_core::metrics::{METRICS, Metric, MetricKind};
use executor_core::{ContainerSpec, ExecSpec, Executor, KeepExited, Notice};
use executor_sim::{Fault, Program, Request, Sim, SimRuntime, Simulation};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

fn row(Metric { name, kind, labels, description, .. }: &Metric) -> String {
    let kind = match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    let labels: Vec<_> = labels.iter().map(|label| format!("`{}`", label.name)).collect();
    format!("| `{name}` | {kind} | {} | {description} |", labels.join(", "))
}

fn label_rows(metric: &Metric) -> Vec<String> {
    let row = |label: &executor_core::metrics::Label| {
        let values: Vec<_> = label.values.iter().map(|value| format!("`{value}`")).collect();
        format!("| `{}` | `{}` | {} |", metric.name, label.name, values.join(", "))
    };
    metric.labels.iter().map(row).collect()
}

#[test]
fn the_document_has_exactly_the_metrics_of_the_code() {
    let in_document: Vec<_> =
        DOCUMENT.lines().filter(|line| line.starts_with("| `longshore_")).map(str::to_owned).collect();
    let mut in_code: Vec<_> = METRICS.iter().map(row).collect();
    in_code.extend(METRICS.iter().flat_map(label_rows));
    assert_eq!(in_document, in_code, "docs/metrics.md; the code has:\n{}", in_code.join("\n"));
}

/// What was recorded so far, by series, as `name{label=value}`.
#[derive(Default)]
struct Seen {
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, f64>,
    histograms: BTreeMap<String, Vec<f64>>,
    names: BTreeSet<String>,
}

/// A recorder's book. A snapshot of it starts from 0 again, so snapshots are added up.
struct Book {
    snapshotter: Snapshotter,
    seen: RefCell<Seen>,
}

impl Book {
    fn read<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        let mut seen = self.seen.borrow_mut();
        for (key, unit, description, value) in self.snapshotter.snapshot().into_vec() {
            let key = key.key();
            assert!(unit.is_some() && description.is_some(), "{key} is not described");
            let labels: Vec<_> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let series = match labels.as_slice() {
                [] => key.name().to_owned(),
                labels => format!("{}{{{}}}", key.name(), labels.join(",")),
            };
            let short = series.trim_start_matches("longshore_").to_owned();
            seen.names.insert(key.name().to_owned());
            match value {
                DebugValue::Counter(count) => *seen.counters.entry(short).or_default() += count,
                DebugValue::Gauge(change) => *seen.gauges.entry(short).or_default() += change.into_inner(),
                DebugValue::Histogram(values) => {
                    let values = values.into_iter().map(|value| value.into_inner());
                    seen.histograms.entry(short).or_default().extend(values);
                }
            }
        }
        read(&seen)
    }

    /// The counters that are not 0, but for those of no interest.
    fn counted(&self) -> Vec<(String, u64)> {
        self.read(|seen| {
            let counted = seen.counters.iter().filter(|(_, count)| **count > 0);
            counted.map(|(series, count)| (series.clone(), *count)).collect()
        })
    }

    fn gauges(&self) -> Vec<(String, f64)> {
        self.read(|seen| {
            let counted = seen.gauges.iter().filter(|(_, count)| **count != 0.0);
            counted.map(|(series, count)| (series.clone(), *count)).collect()
        })
    }

    /// What a histogram has, in milliseconds and the shortest first. Actors sleep a millisecond longer than they have to.
    fn times(&self, series: &str) -> Vec<u64> {
        self.read(|seen| {
            let values = seen.histograms.get(series).map(Vec::as_slice).unwrap_or_default();
            let mut times: Vec<_> = values.iter().map(|seconds| (seconds * 1000.0).round() as u64).collect();
            times.sort_unstable();
            times
        })
    }

    fn sum(&self, beginning: &str) -> u64 {
        self.counted().iter().filter(|(name, _)| name.starts_with(beginning)).map(|(_, count)| count).sum()
    }
}

fn with_book<T>(test: impl FnOnce(&Book) -> T) -> T {
    let recorder = DebuggingRecorder::new();
    let book = Book { snapshotter: recorder.snapshotter(), seen: RefCell::default() };
    metrics::with_local_recorder(&recorder, || test(&book))
}

/// Runs a test in a simulation. After its shutdown, no gauge counts anything.
fn measured(simulation: Simulation, test: impl AsyncFn(&Sim, &Book)) -> Vec<(String, u64)> {
    with_book(|book| {
        simulation.run(async |sim| test(sim, book).await);
        assert_eq!(book.gauges(), [], "after the shutdown");
        book.counted()
    })
}

fn counts<const N: usize>(expected: [(&str, u64); N]) -> Vec<(String, u64)> {
    expected.map(|(series, count)| (series.to_owned(), count)).into()
}

fn gauges<const N: usize>(expected: [(&str, f64); N]) -> Vec<(String, f64)> {
    expected.map(|(series, count)| (series.to_owned(), count)).into()
}

fn sim() -> SimRuntime {
    let slow = Fault::StartSlow(Duration::from_secs(2));
    SimRuntime::new()
        .program("forever", Program::new().exits_on(Signal::TERM, 15).runs_forever())
        .program("deaf", Program::new().ignores(Signal::TERM).runs_forever())
        .program("second", Program::new().runs_for(Duration::from_secs(1)))
        .program("slow", Program::new().runs_for(Duration::from_secs(1)).fault(slow))
        .program("bad", Program::new().exits(3))
        .program("oom", Program::new().runs_out_of_memory())
}

fn spec(program: &str) -> ContainerSpec {
    ContainerSpec::host([program])
}

#[test]
fn a_run_and_its_execs_are_counted() {
    let counted = measured(Simulation::new(sim()), async |Sim { executor, .. }, book| {
        let container = executor.run(spec("forever")).await.unwrap();
        container.started().await.unwrap();
        let exec = container.exec(ExecSpec::new(["second"])).await.unwrap();
        exec.started().await.unwrap();
        assert_eq!(book.gauges(), gauges([("containers{phase=running}", 1.0), ("execs", 1.0)]));
        exec.wait().await;
        container.exec(ExecSpec::new(["bad"])).await.unwrap().wait().await;
        container.exec(ExecSpec::new(["unknown"])).await.unwrap().wait().await;
        assert_eq!(book.gauges(), gauges([("containers{phase=running}", 1.0)]));
        assert_eq!(book.times("run_duration_seconds{process=exec}"), [0, 1000]);
        assert_eq!(book.times("exec_start_duration_seconds"), [0, 0]);
        let slow = executor.run(spec("slow")).await.unwrap();
        let creating = ("containers{phase=creating}", 1.0);
        assert_eq!(book.gauges(), gauges([creating, ("containers{phase=running}", 1.0)]));
        assert!(slow.wait().await.is_success());
        assert_eq!(book.times("start_duration_seconds{kind=run,step=prepared}"), [0, 0]);
        assert_eq!(book.times("start_duration_seconds{kind=run,step=started}"), [0, 2000]);
        assert_eq!(book.times("run_duration_seconds{process=init}"), [1000]);
        executor.run(spec("oom")).await.unwrap().wait().await;
    });
    let expected = counts([
        ("exits_total{process=exec,reason=normal,success=false}", 1),
        ("exits_total{process=exec,reason=normal,success=true}", 1),
        ("exits_total{process=exec,reason=start_failed,success=false}", 1),
        ("exits_total{process=init,reason=cancelled,success=false}", 1),
        ("exits_total{process=init,reason=normal,success=true}", 1),
        ("exits_total{process=init,reason=out_of_memory,success=false}", 1),
        ("oom_kills_total", 1),
        ("starts_total{kind=exec,outcome=not_found}", 1),
        ("starts_total{kind=exec,outcome=started}", 2),
        ("starts_total{kind=run,outcome=started}", 3),
    ]);
    assert_eq!(counted, expected);
}

#[test]
fn a_cancel_is_measured_to_the_exit() {
    let counted = measured(Simulation::new(sim()), async |Sim { executor, .. }, book| {
        let grace = Cancel::with_grace(Duration::from_secs(5));
        let container = executor.run(spec("deaf")).await.unwrap();
        let exec = container.exec(ExecSpec::new(["deaf"])).await.unwrap();
        exec.started().await.unwrap();
        exec.cancel(grace).await;
        exec.cancel(Cancel::now()).await;
        assert_eq!(book.times("cancel_duration_seconds{process=exec}"), [5001]);
        let limited = spec("deaf").time_limit(Duration::from_secs(60), grace);
        executor.run(limited).await.unwrap().wait().await;
        assert_eq!(book.times("cancel_duration_seconds{process=init}"), [5001], "from the time limit on");
        container.cancel(grace).await;
        let slow = executor.run(spec("slow")).await.unwrap();
        slow.cancel(Cancel::now()).await;
        assert_eq!(book.times("cancel_duration_seconds{process=init}").len(), 3);
        assert!(
            book.times("cancel_duration_seconds{process=init}").contains(&2000),
            "its start was waited for"
        );
        let held = executor.create(spec("forever")).await.unwrap();
        held.created().await.unwrap();
        held.cancel(grace).await;
        assert_eq!(book.times("cancel_duration_seconds{process=init}")[0], 0, "it is killed at created");
    });
    let expected = counts([
        ("exits_total{process=exec,reason=cancelled,success=false}", 1),
        ("exits_total{process=init,reason=cancelled,success=false}", 3),
        ("exits_total{process=init,reason=timed_out,success=false}", 1),
        ("starts_total{kind=create,outcome=cancelled}", 1),
        ("starts_total{kind=exec,outcome=started}", 1),
        ("starts_total{kind=run,outcome=started}", 3),
    ]);
    assert_eq!(counted, expected);
}

#[test]
fn starts_that_fail_are_counted_by_their_failure() {
    let failure = |kind| StartFailure::new(kind, "it does not work");
    let disk = Fault::PrepareFails(failure(StartFailureKind::NoResources));
    let config = Fault::StartFails(failure(StartFailureKind::BadConfig));
    let runtime =
        sim().program("disk", Program::new().fault(disk)).program("config", Program::new().fault(config));
    let counted = measured(Simulation::new(runtime), async |Sim { executor, .. }, book| {
        for program in ["disk", "config", "unknown"] {
            executor.run(spec(program)).await.unwrap().released().await.unwrap();
        }
        assert!(executor.prepare(spec("config"), 1).await.is_err());
        assert_eq!(book.times("start_duration_seconds{kind=run,step=prepared}"), [0, 0]);
        assert!(book.times("start_duration_seconds{kind=run,step=started}").is_empty());
        assert_eq!(book.times("release_duration_seconds").len(), 4);
    });
    let expected = counts([
        ("exits_total{process=init,reason=start_failed,success=false}", 3),
        ("starts_total{kind=ready,outcome=bad_config}", 1),
        ("starts_total{kind=run,outcome=bad_config}", 1),
        ("starts_total{kind=run,outcome=no_resources}", 1),
        ("starts_total{kind=run,outcome=not_found}", 1),
    ]);
    assert_eq!(counted, expected);
}

#[test]
fn phases_are_counted_one_at_a_time() {
    let counted = measured(Simulation::new(sim()), async |Sim { executor, .. }, book| {
        let in_phase = |phase: &str| vec![(format!("containers{{phase={phase}}}"), 1.0)];
        let kept = spec("forever").keep_exited(KeepExited::For(Duration::from_secs(60)));
        let container = executor.create(kept).await.unwrap();
        container.created().await.unwrap();
        assert_eq!(book.gauges(), in_phase("created"));
        tokio::time::sleep(Duration::from_secs(10)).await;
        container.start().await.unwrap();
        container.started().await.unwrap();
        assert_eq!(book.gauges(), in_phase("running"));
        assert_eq!(book.times("start_duration_seconds{kind=create,step=created}"), [0]);
        assert_eq!(book.times("start_duration_seconds{kind=create,step=started}"), [0], "from its start on");
        container.pause().await.unwrap();
        assert_eq!(book.gauges(), in_phase("paused"));
        container.resume().await.unwrap();
        assert_eq!(book.gauges(), in_phase("running"));
        container.cancel(Cancel::now()).await;
        assert_eq!(book.gauges(), in_phase("exited"));
        container.released().await.unwrap();
        assert_eq!(book.gauges(), []);
    });
    let expected = counts([
        ("exits_total{process=init,reason=cancelled,success=false}", 1),
        ("starts_total{kind=create,outcome=started}", 1),
    ]);
    assert_eq!(counted, expected);
}

#[test]
fn containers_that_are_kept_ready_are_counted_apart() {
    let counted = measured(Simulation::new(sim()), async |Sim { executor, .. }, book| {
        executor.prepare(spec("forever"), 2).await.unwrap();
        assert_eq!(book.gauges(), gauges([("ready_containers{state=ready}", 2.0)]));
        assert_eq!(book.times("start_duration_seconds{kind=ready,step=created}"), [0, 0]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let container = executor.run(spec("forever")).await.unwrap();
        let after = gauges([("containers{phase=running}", 1.0), ("ready_containers{state=ready}", 1.0)]);
        assert_eq!(book.gauges(), after);
        assert_eq!(book.times("start_duration_seconds{kind=ready,step=started}"), [0], "from its run on");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(book.gauges().last().unwrap().1, 2.0, "another is made in its place");
        container.cancel(Cancel::now()).await;
    });
    // The others ended with the executor, and no caller has seen them.
    let expected = counts([
        ("exits_total{process=init,reason=cancelled,success=false}", 1),
        ("starts_total{kind=ready,outcome=started}", 1),
    ]);
    assert_eq!(counted, expected);
}

#[test]
fn what_a_lost_actor_had_counted_is_counted_down() {
    let buggy =
        sim().panicking(|asked| matches!(asked, Request::Pause(_) | Request::Signal(_, Signal::USR1, _)));
    let counted = measured(Simulation::new(buggy), async |Sim { executor, .. }, book| {
        let container = executor.run(spec("forever")).await.unwrap();
        for _ in 0..2 {
            container.exec(ExecSpec::new(["forever"])).await.unwrap().started().await.unwrap();
        }
        let exec = container.exec(ExecSpec::new(["forever"])).await.unwrap();
        exec.started().await.unwrap();
        assert!(exec.signal(Signal::USR1).await.is_err(), "its actor panics");
        exec.wait().await;
        assert_eq!(book.gauges(), gauges([("containers{phase=running}", 1.0), ("execs", 2.0)]));
        assert!(container.pause().await.is_err(), "the container's actor panics");
        container.released().await.unwrap();
        assert_eq!(book.gauges(), []);
        assert_eq!(book.times("release_duration_seconds").len(), 1);
    });
    let expected = counts([
        ("exits_total{process=exec,reason=cancelled,success=false}", 1),
        ("exits_total{process=exec,reason=lost,success=false}", 2),
        ("exits_total{process=init,reason=lost,success=false}", 1),
        ("starts_total{kind=exec,outcome=started}", 3),
        ("starts_total{kind=run,outcome=started}", 1),
    ]);
    assert_eq!(counted, expected);
}

#[test]
fn releases_leftovers_and_missed_events_are_counted() {
    let left = Leftover::new(LeftoverKind::Cgroup, "/sys/fs/cgroup/it", &std::io::Error::other("busy"));
    let program =
        Program::new().fault(Fault::ReleaseBusy(Duration::from_secs(3))).fault(Fault::ReleaseLeaves(left));
    let runtime = sim().program("untidy", program);
    let counted = measured(Simulation::new(runtime).quiet(), async |Sim { executor, .. }, book| {
        let mut events = executor.events();
        for _ in 0..1500 {
            executor.run(spec("bad")).await.unwrap().released().await.unwrap();
        }
        assert_eq!(events.next().await, Some(Notice::Gap { missed: 1500 * 4 - 4096 }));
        let untidy = executor.run(spec("untidy")).await.unwrap();
        assert_eq!(untidy.released().await.unwrap().len(), 1);
        assert_eq!(book.times("release_duration_seconds").last(), Some(&3000));
    });
    let of = |series: &str| counted.iter().find(|(name, _)| name == series).map(|(_, count)| *count);
    assert_eq!(of("missed_events_total"), Some(1500 * 4 - 4096));
    assert_eq!(of("leftovers_total{kind=cgroup}"), Some(1));
}

/// Whatever fails: everything is counted down, and each start and each exit is counted once.
#[test]
fn counts_agree_in_every_order() {
    for seed in 0..100 {
        let simulation = Simulation::new(sim()).seed(seed).faults(0.1);
        with_book(|book| {
            let made = simulation.run(async |Sim { executor, .. }| {
                let mut made = 0;
                drop(executor.prepare(spec("second"), 2).await);
                for round in 0..4 {
                    let programs = ["second", "slow", "forever", "bad"];
                    for program in programs {
                        let limit = Duration::from_secs(3);
                        let spec = spec(program).time_limit(limit, Cancel::now());
                        let Ok(container) = executor.run(spec).await else { continue };
                        made += 1;
                        if let Ok(exec) = container.exec(ExecSpec::new(["second"])).await {
                            made += 1;
                            drop(exec.cancel(Cancel::with_grace(Duration::from_secs(round))));
                        }
                        drop(container.pause().await);
                    }
                }
                if let Ok(given) = executor.run(spec("second")).await {
                    made += 1;
                    given.wait().await;
                }
                made
            });
            assert_eq!(book.gauges(), [], "seed {seed}");
            assert_eq!(book.sum("exits_total"), made, "seed {seed}: {:?}", book.counted());
            let made_ready = ["started", "cancelled", "timed_out", "exited", "lost"];
            let failed_ready = book.sum("starts_total{kind=ready")
                - made_ready
                    .iter()
                    .map(|outcome| book.sum(&format!("starts_total{{kind=ready,outcome={outcome}")))
                    .sum::<u64>();
            assert_eq!(book.sum("starts_total") - failed_ready, made, "seed {seed}: {:?}", book.counted());
        });
    }
}

/// The recorder is that of the thread that builds the executor, also where its actors have a thread of their own.
#[test]
fn an_executor_with_a_thread_records_and_counts_down() {
    with_book(|book| {
        let executor = Executor::builder(sim()).build().unwrap();
        let container = futures::executor::block_on(async {
            let container = executor.run(spec("forever")).await.unwrap();
            container.started().await.unwrap();
            container
        });
        assert_eq!(book.gauges(), gauges([("containers{phase=running}", 1.0)]));
        futures::executor::block_on(executor.shutdown(Cancel::now(), Duration::from_secs(10)));
        assert_eq!(book.gauges(), []);
        drop(container);
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
        let of_the_driver = |name: &&String| name.contains("_pool_") || name.contains("_runtime_call");
        let expected: BTreeSet<_> = names.iter().filter(|name| !of_the_driver(name)).cloned().collect();
        assert_eq!(book.read(|seen| seen.names.clone()), expected);
    });
}
