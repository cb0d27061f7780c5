//! The simulator itself: its clock, its programs, its faults, its seeds, and what it checks.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use executor_core::lifecycle::{
    Cancel, CancelCause, ContainerId, Event, EventKind, Exit, ExitReason, ExitStatus, Leftover, LeftoverKind,
    Signal, StartFailure, StartFailureKind, Usage,
};
use executor_core::{ContainerSpec, Error, ExecSpec, Notice, Resources, Stdio};
use executor_sim::{Fault, Program, Record, Request, Sim, SimRuntime, Simulation, What};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn simulate<T>(program: Program, test: impl AsyncFnOnce(&Sim) -> T) -> T {
    Simulation::new(SimRuntime::new().program("it", program)).run(test)
}

fn it() -> ContainerSpec {
    ContainerSpec::host(["it"])
}

fn shell(script: &str) -> ContainerSpec {
    ContainerSpec::host(["sh", "-c", script])
}

async fn exit_of(sim: &Sim, spec: ContainerSpec) -> Exit {
    sim.executor.run(spec).await.unwrap().wait().await
}

#[test]
fn a_year_is_over_at_once_and_exactly() {
    let limit = secs(400 * 86_400);
    let runtime = SimRuntime::new().program("it", Program::new().runs_for(secs(365 * 86_400)).exits(2));
    Simulation::new(runtime).time_limit(limit).run(async |sim| {
        let exit = exit_of(sim, it()).await;
        assert_eq!(exit.status, ExitStatus::Code(2));
        assert_eq!(exit.exited_at.since_epoch(), secs(365 * 86_400));
    });
}

#[test]
fn programs_do_what_they_say() {
    let deaf = Program::new().ignores(Signal::TERM).runs_forever();
    simulate(deaf, async |sim| {
        let container = sim.executor.run(it()).await.unwrap();
        container.started().await.unwrap();
        let exit = container.cancel(Cancel::with_grace(secs(10))).await;
        assert_eq!(exit.reason, ExitReason::Cancelled { cause: CancelCause::Requested, killed: true });
        assert!((secs(10)..secs(11)).contains(&sim.elapsed()), "{:?}", sim.elapsed());
    });
    let greedy = Program::new().runs_for(secs(1)).runs_out_of_memory();
    simulate(greedy, async |sim| {
        let exit = exit_of(sim, it()).await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Signal(Signal::KILL), ExitReason::OutOfMemory));
        assert_eq!(sim.elapsed(), secs(1));
    });
    let parent = Program::new().runs_for(secs(1)).loses_a_child_to_memory().runs_forever();
    simulate(parent, async |sim| {
        let container = sim.executor.run(it()).await.unwrap();
        let mut events = container.events();
        let kill = loop {
            if let Notice::Event(Event { kind: EventKind::OutOfMemory(kill), .. }) =
                events.next().await.unwrap()
            {
                break kill;
            }
        };
        assert_eq!((kill.process, kill.pid.is_some(), kill.kills), (None, true, 1));
        assert_eq!(sim.elapsed(), secs(1), "it is published when it happens");
        container.signal(Signal::KILL).await.unwrap();
        let exit = container.wait().await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Signal(Signal::KILL), ExitReason::Normal));
    });
    let holder = Program::new().prints("out").prints_to_stderr("err").forks(secs(3600)).exits(0);
    simulate(holder, async |sim| {
        let container = sim.executor.run(shell("sleep 10000")).await.unwrap();
        let exec = container.exec(ExecSpec::new(["it"]).piped()).await.unwrap();
        assert!(exec.wait().await.is_success());
        assert_eq!(sim.elapsed(), secs(0), "an exit does not wait for who holds the pipe");
        assert_eq!(exec.io().take_stdout().unwrap().read_to_end().await, b"out");
        assert_eq!(exec.io().take_stderr().unwrap().read_to_end().await, b"err");
        assert!(sim.elapsed() < secs(2), "nor does the output, for long");
    });
}

#[test]
fn scripts_run_on_virtual_time_or_say_what_they_cannot() {
    simulate(Program::new(), async |sim| {
        let container = sim
            .executor
            .run(shell("for i in 1 2 3; do sleep $i; echo $i; done; exit 4").piped())
            .await
            .unwrap();
        assert_eq!(container.io().take_stdout().unwrap().read_to_end().await, b"1\n2\n3\n");
        assert_eq!(container.wait().await.status, ExitStatus::Code(4));
        assert_eq!(sim.elapsed(), secs(6));
        let ExitReason::StartFailed(failure) = exit_of(sim, shell("sleep 1 | cat")).await.reason else {
            panic!("it started")
        };
        assert_eq!(failure.kind, StartFailureKind::BadConfig);
        assert!(
            failure.message.starts_with("the simulator's shell does not support pipes (`|`); "),
            "{failure}"
        );
        let running = sim.executor.run(shell("sleep 100")).await.unwrap();
        let exec = running.exec(ExecSpec::new(["sh", "-c", "if true; then exit 3; fi"])).await.unwrap();
        assert!(matches!(exec.wait().await.reason, ExitReason::StartFailed(_)));
    });
}

#[test]
fn usage_is_what_the_script_says_at_that_moment() {
    let used = |cpu, memory| Usage { cpu: Some(secs(cpu)), memory: Some(memory), ..Usage::default() };
    let program = Program::new().uses(used(1, 100)).runs_for(secs(10)).uses(used(9, 50)).runs_for(secs(5));
    simulate(program, async |sim| {
        let id = ContainerId::new("c").unwrap();
        let container = sim.executor.run(it().id(id.clone())).await.unwrap();
        container.started().await.unwrap();
        let mut samples = container.samples(secs(6)).await;
        sim.passes(secs(1)).await;
        let early = container.usage().await.unwrap();
        assert_eq!((early.cpu, early.memory, early.pids), (Some(secs(1)), Some(100), Some(1)));
        sim.passes(secs(10)).await;
        sim.runtime.set_usage(&id, &Usage { pids: Some(40), ..Usage::default() });
        let late = container.usage().await.unwrap();
        assert_eq!((late.cpu, late.memory, late.memory_peak), (Some(secs(9)), Some(50), Some(100)));
        assert_eq!((late.pids, late.oom_kills), (Some(40), 0));
        let exit = container.wait().await;
        assert_eq!(exit.usage.as_deref(), Some(&late));
        let mut all = Vec::new();
        while let Some(sample) = samples.next().await {
            all.push((sample.at.since_epoch(), sample.usage.cpu));
        }
        let [cpu_early, cpu_late] = [Some(secs(1)), Some(secs(9))];
        assert_eq!(
            all,
            [(secs(0), cpu_early), (secs(6), cpu_early), (secs(12), cpu_late), (secs(15), cpu_late)]
        );
        container.released().await.unwrap();
        sim.runtime.set_usage(&id, &late);
        let again = sim.executor.run(shell("sleep 1").id(id)).await.unwrap();
        again.started().await.unwrap();
        let unscripted = again.usage().await.unwrap();
        assert_eq!(
            unscripted,
            Usage { pids: Some(1), ..Usage::default() },
            "a new container has used nothing"
        );
        assert_eq!(again.wait().await.usage, None);
    });
    let greedy = Program::new().uses(used(1, 100)).runs_out_of_memory();
    simulate(greedy, async |sim| {
        let usage = exit_of(sim, it()).await.usage.unwrap();
        assert_eq!((usage.oom_kills, usage.memory_peak), (1, Some(100)));
    });
}

#[test]
fn pipes_carry_every_byte_while_the_clock_stands_still() {
    simulate(Program::new().copies_stdin(), async |sim| {
        let mut spec = it().piped();
        spec.process.stdio.stdin = Stdio::Pipe;
        let container = sim.executor.run(spec).await.unwrap();
        let (mut stdin, stdout) =
            (container.io().take_stdin().unwrap(), container.io().take_stdout().unwrap());
        let writer = actix_rt::spawn(async move {
            for number in 0..64u8 {
                stdin.write_all(vec![number; 40_000]).await.unwrap();
            }
        });
        let all = stdout.read_to_end().await;
        writer.await.unwrap();
        assert_eq!(all.len(), 64 * 40_000);
        assert!(
            all.chunks(40_000).zip(0u8..).all(|(chunk, number)| chunk.iter().all(|byte| *byte == number))
        );
        assert_eq!(sim.elapsed(), Duration::ZERO);
    });
}

#[test]
fn frozen_containers_stand_still() {
    simulate(Program::new(), async |sim| {
        let container = sim.executor.run(shell("sleep 5; echo late").piped()).await.unwrap();
        container.started().await.unwrap();
        container.pause().await.unwrap();
        sim.passes(secs(60)).await;
        container.resume().await.unwrap();
        assert_eq!(container.io().take_stdout().unwrap().read_to_end().await, b"late\n");
        assert_eq!(sim.elapsed(), secs(60));
    });
}

#[test]
fn updates_of_limits_are_recorded() {
    let runtime = SimRuntime::new().program("it", Program::forever());
    Simulation::new(runtime.clone()).run(async |sim| {
        let mut spec = it();
        spec.resources = Resources::default().memory(64 << 20).cpus(0.5);
        let container = sim.executor.run(spec).await.unwrap();
        container.started().await.unwrap();
        let limits = || runtime.limits(container.id()).unwrap();
        container.update(Resources::default().pids(7)).await.unwrap();
        assert_eq!((limits().memory, limits().cpus, limits().pids), (Some(64 << 20), Some(0.5), Some(7)));
        container.update(Resources::default().cpu_quota(20_000)).await.unwrap();
        assert_eq!(
            (limits().cpus, limits().cpu_quota, limits().cpu_period),
            (None, Some(20_000), Some(100_000))
        );
        container.update(Resources::default().cpus(2.0)).await.unwrap();
        assert_eq!((limits().cpus, limits().cpu_quota, limits().cpu_period), (Some(2.0), None, None));
        let nonsense = Resources::default().pids(0);
        assert!(matches!(container.update(nonsense).await, Err(Error::InvalidSpec(_))));
        container.cancel(Cancel::now()).await;
        container.released().await.unwrap();
        let error = container.update(Resources::default()).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert_eq!(runtime.limits(container.id()), None);
        let asked = runtime.asked().into_iter().filter(|asked| matches!(asked, Request::Update(_)));
        assert_eq!(asked.count(), 3);
    });
}

#[test]
fn faults_come_as_they_are_scripted() {
    let failed = |exit: Exit| {
        let ExitReason::StartFailed(failure) = exit.reason else { return None };
        Some(failure.kind)
    };
    let run = |program: Program| simulate(program, async |sim| (exit_of(sim, it()).await, sim.elapsed()));
    assert_eq!(
        failed(run(Program::new().fault(Fault::out_of_disk())).0),
        Some(StartFailureKind::NoResources)
    );
    assert_eq!(failed(run(Program::new().fault(Fault::NoPid)).0), Some(StartFailureKind::RuntimeBroken));
    let denied = StartFailure::new(StartFailureKind::PermissionDenied, "no");
    let (exit, _) = run(Program::new().fault(Fault::StartFails(denied)));
    assert_eq!(failed(exit), Some(StartFailureKind::PermissionDenied));
    let (exit, took) = run(Program::new().exits(4).fault(Fault::StartSlow(secs(30))));
    assert_eq!((exit.status, took), (ExitStatus::Code(4), secs(30)));
    let (exit, _) = run(Program::new().exits(7).fault(Fault::EndsBeforeStarted));
    assert_eq!((exit.status, exit.started_at.is_some()), (ExitStatus::Code(7), true));

    let busy = || std::io::Error::other("busy");
    let leftover = || Leftover::new(LeftoverKind::Cgroup, "/sys/fs/cgroup/x", &busy());
    let left = || Fault::ReleaseLeaves(leftover());
    simulate(Program::new().fault(Fault::ReleaseBusy(secs(2))).fault(left()), async |sim| {
        let container = sim.executor.run(it()).await.unwrap();
        container.wait().await;
        assert_eq!(sim.elapsed(), secs(0), "an exit does not wait for the release");
        assert_eq!(container.released().await.unwrap(), [leftover()]);
        assert_eq!(sim.elapsed(), secs(2));
    });
    simulate(Program::forever().fault(Fault::PauseFails), async |sim| {
        let container = sim.executor.run(it()).await.unwrap();
        container.started().await.unwrap();
        assert!(container.pause().await.is_err());
        container.cancel(Cancel::now()).await;
    });
    simulate(Program::forever().fault(Fault::KillRefused(3)), async |sim| {
        let container = sim.executor.run(it()).await.unwrap();
        container.started().await.unwrap();
        container.cancel(Cancel::now()).await;
        assert!(sim.elapsed() >= Duration::from_millis(300), "it is tried again every 100 ms");
    });
}

/// Containers and execs that start, print, fail, are signalled and cancelled, all at once.
async fn workload(sim: &Sim) {
    let scripts = ["sleep 3; echo a", "exit 3", "trap 'exit 4' TERM; sleep 100", "kill -KILL $$", "nonsense"];
    let one = async |number: usize| {
        let id = ContainerId::new(format!("c{number}")).unwrap();
        let container =
            sim.executor.run(shell(scripts[number % scripts.len()]).piped().id(id)).await.unwrap();
        let exec = container.exec(ExecSpec::new(["sh", "-c", "sleep 1; echo b"]).piped()).await;
        drop(container.signal(Signal::HUP).await);
        if let Ok(exec) = exec {
            drop(exec.started().await);
            exec.cancel(Cancel::with_grace(Duration::from_millis(500))).await;
        }
        container.cancel(Cancel::with_grace(secs(1))).await
    };
    futures::future::join_all((0..20).map(one)).await;
}

#[test]
fn a_seed_decides_everything_that_is_open() {
    let story = |seed| {
        let simulation = Simulation::new(SimRuntime::new()).seed(seed).faults(0.1);
        simulation.run(async |sim| {
            workload(sim).await;
            sim.records()
        })
    };
    let mut stories = BTreeSet::new();
    for seed in 0..20 {
        let (first, second) = (story(seed), story(seed));
        let differs = first.iter().zip(&second).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
        stories.insert(first.iter().map(Record::to_string).collect::<Vec<_>>());
    }
    assert_eq!(stories.len(), 20, "seeds that differ tell different stories");
}

#[test]
fn promises_are_kept_whatever_goes_wrong() {
    Simulation::explore(0..300, || Simulation::new(SimRuntime::new()).faults(0.2), workload);
}

#[test]
#[should_panic(expected = "something that does not happen")]
fn a_test_that_waits_for_nothing_is_told() {
    simulate(Program::forever(), async |sim| exit_of(sim, it()).await);
}

#[test]
fn inside_an_async_runtime_it_says_what_to_do() {
    let message = |run: &dyn Fn()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
        panic.downcast_ref::<&str>().copied().expect("a sentence").to_owned()
    };
    let run = || message(&|| simulate(Program::new(), async |_| ()));
    let explore =
        || message(&|| Simulation::explore(0..2, || Simulation::new(SimRuntime::new()), async |_| ()));
    // What `#[actix::test]` and `#[tokio::test]` do.
    let in_actix = actix_rt::System::new().block_on(async { run() });
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let in_tokio = tokio.block_on(async { [run(), explore()] });
    for message in [&in_actix, &in_tokio[0], &in_tokio[1]] {
        assert!(
            message.contains("cannot run inside an async runtime") && message.contains("#[actix::test]"),
            "{message}"
        );
        assert!(message.contains("make the test a plain #[test] function"), "{message}");
    }
    simulate(Program::new(), async |sim| drop(exit_of(sim, it()).await));
}

/// Fails for the seeds in which the second of two equal programs ends first.
#[test]
#[ignore = "it fails on purpose, for the test below"]
fn wrong_about_an_order() {
    Simulation::explore(
        0..100,
        || Simulation::new(SimRuntime::new()),
        async |sim| {
            let (one, other) = futures::join!(exit_of(sim, shell("sleep 1")), exit_of(sim, shell("sleep 1")));
            assert!(one.exited_at <= other.exited_at, "the first ends first");
        },
    );
}

#[test]
fn a_seed_that_fails_is_printed_with_the_line_that_repeats_it() {
    let run = |seed: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "wrong_about_an_order", "--nocapture"]);
        command.env_remove("LONGSHORE_SIM_SEED").env_remove("LONGSHORE_SIM_TRACE");
        if let Some(seed) = seed {
            command.env("LONGSHORE_SIM_SEED", seed).env("LONGSHORE_SIM_TRACE", "1");
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let told = run(None);
    let line = told.lines().find(|line| line.contains("to see it again")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.ends_with("cargo test wrong_about_an_order"), "{line}");
    let seed = line.split("LONGSHORE_SIM_SEED=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let again = run(Some(seed));
    assert!(again.contains(line), "{again}");
    assert!(
        again.contains("ended      ") && again.contains("handled    Process("),
        "the timeline is shown: {again}"
    );
}

#[test]
fn what_the_actors_take_is_recorded() {
    simulate(Program::new(), async |sim| {
        let container = sim.executor.run(it().id(ContainerId::new("c").unwrap())).await.unwrap();
        container.released().await.unwrap();
        let story: Vec<_> = sim.records().into_iter().map(|record| record.what).collect();
        let took = story.iter().filter(|what| matches!(what, What::Handled { .. })).count();
        // Run; Create, Start, Prepared, ProcessStarted, ProcessExited, ReleaseEnded; Arm, Launch, Started, Ended; Watch,
        // Ended; Released (its Forget may still be under way).
        assert!((14..=15).contains(&took), "{story:#?}");
        assert!(matches!(story.first(), Some(What::Handled { .. })), "the first is Run");
    });
}

#[test]
fn a_hundred_thousand_lifecycles() {
    let began = std::time::Instant::now();
    let runtime = SimRuntime::new().program("it", Program::new().runs_for(secs(1)));
    Simulation::new(runtime).quiet().run(async |sim| {
        for _ in 0..100 {
            let exits = futures::future::join_all((0..1000).map(|_| exit_of(sim, it()))).await;
            assert!(exits.iter().all(Exit::is_success));
        }
        assert_eq!(sim.elapsed(), secs(100));
    });
    println!("100000 lifecycles in {:.1} s", began.elapsed().as_secs_f64());
}
