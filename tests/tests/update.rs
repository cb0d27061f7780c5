//! Changing the limits of containers on the real runtime: what the cgroups have afterwards, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;

use longshore::{
    Cancel, ContainerHandle, ContainerSpec, Error, ExitReason, HostPid, InvalidSpec, Refusal, Resources,
    RuntimeError,
};
use longshore_tests::{cgroup_of, on_stage, sleeper};

const MIB: u64 = 1 << 20;

/// The limits in a container's cgroup files, of v1 or of v2.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limits {
    memory: String,
    swap: String,
    cpu: String,
    shares: String,
    cpuset: String,
    pids: String,
}

impl Limits {
    fn of(pid: HostPid) -> Self {
        let value = |controller: &str, files: [&str; 2]| {
            let dir = cgroup_of(pid, controller);
            let file = files.map(|file| dir.join(file)).into_iter().find(|file| file.exists()).unwrap();
            fs::read_to_string(file).unwrap().trim().to_owned()
        };
        let mut cpu = value("cpu", ["cpu.cfs_quota_us", "cpu.max"]);
        if !cpu.contains(' ') {
            cpu = format!("{cpu} {}", value("cpu", ["cpu.cfs_period_us", "cpu.max"]));
        }
        Self {
            memory: value("memory", ["memory.limit_in_bytes", "memory.max"]),
            swap: value("memory", ["memory.memsw.limit_in_bytes", "memory.swap.max"]),
            cpu,
            shares: value("cpu", ["cpu.shares", "cpu.weight"]),
            cpuset: value("cpuset", ["cpuset.cpus", "cpuset.cpus"]),
            pids: value("pids", ["pids.max", "pids.max"]),
        }
    }
}

fn memory(memory: u64) -> Resources {
    Resources::default().memory(memory)
}

fn memory_and_swap(memory: u64, both: u64) -> Resources {
    Resources::default().memory(memory).memory_swap(both)
}

fn pids(pids: u64) -> Resources {
    Resources::default().pids(pids)
}

fn cpus(cpus: f64) -> Resources {
    Resources::default().cpus(cpus)
}

fn state_of_refusal<'a>(error: &'a Error, reason: &Refusal) -> &'a str {
    let Error::Refused { refused, .. } = error else { panic!("{error:?}") };
    assert_eq!(refused.reason, *reason);
    &refused.state
}

async fn update(container: &ContainerHandle, resources: Resources, pid: HostPid) -> Limits {
    container.update(resources).await.unwrap();
    Limits::of(pid)
}

#[test]
fn only_the_given_limits_of_a_running_container_change() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = sleeper();
        spec.resources = Resources::default().cpu_shares(512);
        let container = executor.run(spec).await.unwrap();
        let pid = container.started().await.unwrap();
        let mut expected = Limits::of(pid);

        expected.memory = (64 * MIB).to_string();
        assert_eq!(update(&container, memory(64 * MIB), pid).await, expected);
        expected.pids = "17".into();
        assert_eq!(update(&container, pids(17), pid).await, expected);
        expected.cpu = "50000 100000".into();
        assert_eq!(update(&container, cpus(0.5), pid).await, expected);
        expected.cpu = "50000 200000".into();
        let period = Resources::default().cpu_period(200_000);
        assert_eq!(update(&container, period, pid).await, expected);
        expected.cpu = "30000 200000".into();
        let quota = Resources::default().cpu_quota(30_000);
        assert_eq!(update(&container, quota, pid).await, expected);
        expected.cpuset = "0".into();
        let cpuset = Resources::default().cpuset_cpus("0");
        assert_eq!(update(&container, cpuset, pid).await, expected);
        assert_eq!(update(&container, Resources::default(), pid).await, expected);

        container.pause().await.unwrap();
        expected.pids = "19".into();
        assert_eq!(update(&container, pids(19), pid).await, expected);
        container.resume().await.unwrap();
        assert_eq!(Limits::of(pid), expected);
        stage.finish(executor).await;
    });
}

fn has_v2_alone() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// On v1, the limit of the memory must never exceed that of memory and swap, in either order of writing.
#[test]
fn memory_and_swap_are_raised_and_lowered() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = sleeper();
        spec.resources = memory_and_swap(64 * MIB, 64 * MIB);
        let container = executor.run(spec).await.unwrap();
        let pid = container.started().await.unwrap();
        for (memory, both) in [(128, 256), (32, 40), (256, 256), (64, 512), (128, 128)] {
            let limits = update(&container, memory_and_swap(memory * MIB, both * MIB), pid).await;
            assert_eq!(limits.memory, (memory * MIB).to_string());
            let swap = [both * MIB, (both - memory) * MIB].map(|bytes| bytes.to_string());
            assert!(swap.contains(&limits.swap), "{limits:?}");
        }
        // More memory than memory and swap together is the caller's contradiction. With v2 the limit of swap stands by itself.
        let before = Limits::of(pid);
        let refused = container.update(memory(256 * MIB)).await;
        if !has_v2_alone() {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Runtime(RuntimeError::Refused { .. })), "{error:?}");
            assert_eq!(Limits::of(pid), before);
        }
        let before = Limits::of(pid);
        // A failed update does not spoil the next.
        assert_eq!(update(&container, pids(9), pid).await, Limits { pids: "9".into(), ..before });
        let unlimited = update(&container, memory_and_swap(256 * MIB, u64::MAX), pid).await;
        assert_eq!(unlimited.memory, (256 * MIB).to_string());
        update(&container, memory(512 * MIB), pid).await;
        stage.finish(executor).await;
    });
}

/// The runtime reads and writes its own state for each update: overlapping ones would undo each other.
#[test]
fn updates_at_the_same_time_do_not_undo_each_other() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        let pid = container.started().await.unwrap();
        let updates = [memory(64 * MIB), pids(17), cpus(0.5), memory(32 * MIB), pids(18)];
        for updated in futures::future::join_all(updates.map(|limits| container.update(limits))).await {
            updated.unwrap();
        }
        let limits = Limits::of(pid);
        let found = [limits.memory.as_str(), limits.pids.as_str(), limits.cpu.as_str()];
        assert_eq!(found, [(32 * MIB).to_string().as_str(), "18", "50000 100000"]);
        stage.finish(executor).await;
    });
}

#[test]
fn a_container_that_is_created_is_updated_before_its_start() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.create(ContainerSpec::host(["sleep", "1000"])).await.unwrap();
        let pid = container.created().await.unwrap();
        container.update(pids(7).memory(64 * MIB)).await.unwrap();
        let created = Limits::of(pid);
        assert_eq!((created.memory, created.pids), ((64 * MIB).to_string(), "7".into()));
        container.start().await.unwrap();
        let started = Limits::of(container.started().await.unwrap());
        assert_eq!((started.memory, started.pids), ((64 * MIB).to_string(), "7".into()));
        stage.finish(executor).await;
    });
}

#[test]
fn updates_are_refused_for_nonsense_and_after_the_exit() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        let pid = container.started().await.unwrap();
        let before = Limits::of(pid);
        for (nonsense, field) in [
            (memory(MIB), "memory"),
            (memory_and_swap(64 * MIB, 32 * MIB), "memory and swap"),
            (Resources::default().memory_swap(64 * MIB), "memory and swap"),
            (cpus(0.0), "cpus"),
            (cpus(0.5).cpu_quota(50_000), "cpus"),
            (Resources::default().cpu_period(1), "cpu period"),
            (Resources::default().cpuset_cpus("all"), "cpuset cpus"),
            (pids(0), "pids"),
        ] {
            let error = container.update(nonsense).await.unwrap_err();
            let Error::InvalidSpec(InvalidSpec { field: found, .. }) = error else { panic!("{error:?}") };
            assert_eq!(found, field);
        }
        // The kernel knows how many CPUs there are.
        let cpuset = Resources::default().cpuset_cpus("0-9999");
        let error = container.update(cpuset).await.unwrap_err();
        assert!(matches!(error, Error::Runtime(RuntimeError::Refused { .. })), "{error:?}");
        assert_eq!(Limits::of(pid), before);

        let exit = container.cancel(Cancel::now()).await;
        assert!(matches!(exit.reason, ExitReason::Cancelled { .. }), "{exit}");
        let error = container.update(pids(7)).await.unwrap_err();
        let state = state_of_refusal(&error, &Refusal::Exited);
        assert!(["exiting", "releasing", "released"].contains(&state), "{state}");
        container.released().await.unwrap();
        let error = container.update(pids(7)).await.unwrap_err();
        assert_eq!(state_of_refusal(&error, &Refusal::Exited), "released");
        stage.finish(executor).await;
    });
}

/// A runtime that still works on an update would make the state again that a release has removed.
#[test]
fn updates_in_progress_leave_nothing_behind() {
    on_stage(async |stage| {
        let executor = stage.executor();
        for round in 0..6 {
            let container = executor.run(sleeper()).await.unwrap();
            container.started().await.unwrap();
            let updates: Vec<_> =
                (0..4).map(|number| Box::pin(container.update(pids(10 + number)))).collect();
            let updates = futures::future::join_all(updates);
            let cancel = async {
                for _ in 0..round * 200 {
                    tokio::task::yield_now().await;
                }
                container.cancel(Cancel::now()).await
            };
            let (updated, _) = tokio::join!(updates, cancel);
            for error in updated.into_iter().filter_map(Result::err) {
                let is_expected =
                    matches!(error, Error::Refused { .. } | Error::Runtime(RuntimeError::NotRunning { .. }));
                assert!(is_expected, "{error:?}");
            }
            container.released().await.unwrap();
        }
        stage.finish(executor).await;
    });
}
