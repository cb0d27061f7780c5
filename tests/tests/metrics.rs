//! Metrics on the real runtime: what a recorder of the embedder's sees of a run, its execs, and the driver below.

use std::collections::{BTreeMap, BTreeSet};

use longshore::metrics::METRICS;
use longshore::{Cancel, ExecSpec};
use longshore_tests::{on_stage, shell, sleeper};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// What was recorded since the last look, by series, as `name{label=value}`. A histogram's values are seconds.
fn recorded(snapshotter: &Snapshotter) -> BTreeMap<String, DebugValue> {
    let all = snapshotter.snapshot().into_vec().into_iter();
    let named = all.map(|(key, _, _, value)| {
        let labels: Vec<_> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        (format!("{}{{{}}}", key.key().name(), labels.join(",")), value)
    });
    named.collect()
}

#[test]
fn a_recorder_sees_the_runtime_calls_the_pools_and_how_long_things_take() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    on_stage(async |stage| {
        // What came before is of the harness.
        recorded(&snapshotter);
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        container.exec(ExecSpec::new(["true"])).await.unwrap().wait().await;
        container.pause().await.unwrap();
        container.resume().await.unwrap();
        executor.run(shell("exit 3")).await.unwrap().wait().await;
        container.cancel(Cancel::now()).await;
        container.released().await.unwrap();
        stage.finish(executor).await;
    });
    let seen = recorded(&snapshotter);
    let names: BTreeSet<_> = seen.keys().filter_map(|series| series.split('{').next()).collect();
    assert_eq!(names, METRICS.iter().map(|metric| metric.name).collect());
    let count = |series: &str| match &seen[series] {
        DebugValue::Counter(count) => *count,
        DebugValue::Gauge(_) | DebugValue::Histogram(_) => panic!("{series} is no counter"),
    };
    let times = |series: &str| match &seen[series] {
        DebugValue::Histogram(values) => values.iter().map(|value| value.into_inner()).collect::<Vec<_>>(),
        DebugValue::Gauge(_) | DebugValue::Counter(_) => panic!("{series} is no histogram"),
    };
    for (series, value) in &seen {
        match value {
            DebugValue::Gauge(gauge) => assert_eq!(gauge.into_inner(), 0.0, "{series} after the shutdown"),
            DebugValue::Histogram(values) => {
                let plausible = |seconds: &f64| (0.0..60.0).contains(seconds);
                assert!(values.iter().all(|value| plausible(&value.into_inner())), "{series}: {values:?}");
            }
            DebugValue::Counter(_) => {}
        }
    }
    for (operation, calls) in [("run", 2), ("exec", 1), ("pause", 1), ("resume", 1), ("delete", 0)] {
        let series = format!("longshore_runtime_calls_total{{operation={operation},outcome=ok}}");
        assert_eq!(count(&series), calls, "{operation}");
        let series = format!("longshore_runtime_call_duration_seconds{{operation={operation}}}");
        let times = times(&series);
        assert_eq!(times.len() as u64, calls, "{operation}");
        assert!(times.iter().all(|seconds| *seconds > 0.000_5), "{operation}: {times:?}");
    }
    for pool in ["bundles", "releases", "reads"] {
        let waits = times(&format!("longshore_pool_wait_seconds{{pool={pool}}}"));
        assert!(waits.len() >= 2, "{pool}: {waits:?}");
    }
    assert!(times("longshore_pool_wait_seconds{pool=attachments}").is_empty(), "it has no network");
    let prepared = times("longshore_start_duration_seconds{kind=run,step=prepared}");
    let started = times("longshore_start_duration_seconds{kind=run,step=started}");
    assert_eq!((prepared.len(), started.len()), (2, 2));
    assert!(prepared.iter().sum::<f64>() < started.iter().sum(), "{prepared:?}, {started:?}");
    assert_eq!(times("longshore_release_duration_seconds{}").len(), 2);
    assert_eq!(times("longshore_cancel_duration_seconds{process=init}").len(), 1);
    assert_eq!(count("longshore_starts_total{kind=run,outcome=started}"), 2);
    assert_eq!(count("longshore_starts_total{kind=exec,outcome=started}"), 1);
    assert_eq!(count("longshore_exits_total{process=init,reason=normal,success=false}"), 1);
    assert_eq!(count("longshore_exits_total{process=exec,reason=normal,success=true}"), 1);
}
