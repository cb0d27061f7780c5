//! Micro-benchmarks of what needs no runtime: the machines, a configuration, words that are read.
//! `cargo bench --package longshore-bench --bench pure`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use executor_lifecycle::container::{Container, ContainerEvent, ContainerTraits};
use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEvent};
use executor_lifecycle::process::{Process, ProcessEvent, ProcessTraits, Terms};
use executor_lifecycle::ready::{Pool, PoolEvent};
use executor_lifecycle::registry::RequestToken;
use executor_lifecycle::{
    ContainerId, Exit, ExitStatus, HostPid, NetworkUsage, ProcessId, ProcessRef, RawExit, Timestamp,
};
use longshore::{ContainerSpec, Mount, Sandbox, Seccomp};

const NOW: Timestamp = Timestamp::from_epoch(std::time::Duration::ZERO);

#[expect(clippy::expect_used, reason = "an id by its looks")]
fn id() -> ContainerId {
    ContainerId::new("a-container").expect("an id")
}

#[expect(clippy::expect_used, reason = "a pid by its looks")]
fn pid() -> HostPid {
    HostPid::new(7).expect("a pid")
}

/// A container's whole life, from its creation to its release.
fn container() -> Container {
    let mut container = Container::new(id(), ContainerTraits::default());
    let process = || ProcessId::Init;
    let events = [
        ContainerEvent::Create,
        ContainerEvent::Start(Terms::default()),
        ContainerEvent::Prepared,
        ContainerEvent::ProcessStarted { process: process(), pid: pid() },
        ContainerEvent::ProcessExited { process: process(), exit: Exit::lost(None, NOW) },
        ContainerEvent::ReleaseEnded { left: Vec::new() },
    ];
    for event in events {
        let _effects = black_box(container.step(NOW, event));
    }
    container
}

fn process() -> Process {
    let mut process = Process::new(ProcessTraits::default());
    let ending = RawExit::with(ExitStatus::Code(0));
    for event in [ProcessEvent::Launch, ProcessEvent::Started { pid: pid() }, ProcessEvent::Ended(ending)] {
        let _effects = black_box(process.step(NOW, event));
    }
    process
}

fn reaper(reaper: &mut ExitRouter) {
    let process = ProcessRef::init(id());
    let ending = RawExit::with(ExitStatus::Code(0));
    let _watched = black_box(reaper.step(ExitRouterEvent::Watch(process.clone())));
    let _delivered = black_box(reaper.step(ExitRouterEvent::Ended(process, ending)));
}

fn pool() -> Pool {
    let mut pool = Pool::default();
    let take = PoolEvent::Take(RequestToken(1));
    for event in [PoolEvent::Want(1), PoolEvent::Created(id()), take, PoolEvent::Begun] {
        let _effects = black_box(pool.step(event));
    }
    pool
}

fn machines(criterion: &mut Criterion) {
    criterion.bench_function("a container's life", |bench| bench.iter(container));
    criterion.bench_function("a process's life", |bench| bench.iter(process));
    criterion.bench_function("an end watched and delivered", |bench| {
        bench.iter_batched_ref(ExitRouter::default, reaper, BatchSize::SmallInput);
    });
    criterion.bench_function("one kept ready, given, made anew", |bench| bench.iter(pool));
}

/// What is looked at on this machine, as users and devices, included.
fn configuration(criterion: &mut Criterion) {
    let filtered = ContainerSpec::host(["true"]);
    let mut minimal = filtered.clone();
    minimal.seccomp = Some(Seccomp::Unconfined);
    for (name, spec) in
        [("config.json, for people", filtered), ("config.json without a filter, for people", minimal)]
    {
        criterion.bench_function(name, |bench| bench.iter(|| Sandbox::preview(&id(), black_box(&spec))));
    }
}

fn words(criterion: &mut Criterion) {
    let interfaces = "Inter-|\n face |bytes\n    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n  eth0: 10 2 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n";
    criterion.bench_function("an id", |bench| bench.iter(|| ContainerId::new(black_box("a-container"))));
    criterion.bench_function("a mount", |bench| {
        bench.iter(|| black_box("/home/ann/project:/src:ro").parse::<Mount>());
    });
    criterion.bench_function("the usage of a network", |bench| {
        bench.iter(|| NetworkUsage::of_interfaces(black_box(interfaces)));
    });
}

criterion_group!(pure, machines, configuration, words);
criterion_main!(pure);
