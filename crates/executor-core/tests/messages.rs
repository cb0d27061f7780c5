//! The actors by their messages, on the simulated runtime: no root, no runc, no time.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use executor_core::lifecycle::{
    Cancel, CancelCause, EventKind, Exit, ExitReason, ExitStatus, ProcessRef, Refusal, Refused, Signal,
    StartFailure, StartFailureKind,
};
use executor_core::{ContainerSpec, Error, ExecSpec, Executor, Notice, Stdio};
use executor_sim::{Fault, Program, Request, Sim, SimRuntime, Simulation};
use futures::executor::block_on;

const SOON: Duration = Duration::from_secs(10);

fn sim() -> SimRuntime {
    SimRuntime::new()
        .program("forever", Program::new().exits_on(Signal::TERM, 15).runs_forever())
        .program("deaf", Program::forever())
        .program("ok", Program::new())
        .program("bad", Program::new().exits(3))
}

/// Runs a test in a simulation, which checks the promises at its end, and then again with everything
/// permuted that is open.
fn with(runtime: impl Fn() -> SimRuntime, test: impl AsyncFn(&Sim)) {
    Simulation::new(runtime()).run(async |sim| test(sim).await);
    Simulation::explore(0..50, || Simulation::new(runtime()), test);
}

fn spec(program: &str) -> ContainerSpec {
    ContainerSpec::host([program])
}

fn cancelled(killed: bool) -> ExitReason {
    ExitReason::Cancelled { cause: CancelCause::Requested, killed }
}

/// The order itself is checked at the end of every simulation.
#[test]
fn events_of_all_containers_are_told() {
    with(sim, async |sim| {
        let mut events = sim.executor.events();
        let container = sim.executor.run(spec("forever")).await.unwrap();
        let execs =
            ["ok", "bad", "forever", "unknown"].map(|program| container.exec(ExecSpec::new([program])));
        for exec in futures::future::join_all(execs).await {
            drop(exec.unwrap().started().await);
        }
        container.cancel(Cancel::now()).await;
        let mut count = 0;
        while let Some(Notice::Event(event)) = events.next().await {
            count += 1;
            if matches!(event.kind, EventKind::Released { .. }) {
                break;
            }
        }
        // Registered, Started, Exited, Released; three execs that were added, ran and exited; one that was never found.
        assert_eq!(count, 4 + 3 * 3 + 2);
    });
}

#[test]
fn a_late_subscriber_gets_a_snapshot_and_then_what_follows() {
    with(sim, async |Sim { executor, .. }| {
        let container = executor.run(spec("forever")).await.unwrap();
        let pid = container.started().await.unwrap();
        let mut events = container.events();
        let Some(Notice::Snapshot(snapshot)) = events.next().await else { panic!("no snapshot") };
        assert_eq!((snapshot.seq, snapshot.pid), (2, Some(pid)));
        container.cancel(Cancel::now()).await;
        let Some(Notice::Event(event)) = events.next().await else { panic!("no event") };
        assert_eq!(event.seq, 3);
        assert!(matches!(event.kind, EventKind::Exited { .. }));
        assert!(matches!(events.next().await, Some(Notice::Event(_))), "Released");
        assert_eq!(events.next().await, None);
    });
}

/// An actor of the embedder's, in a `System` of the embedder's.
struct Probe(futures::channel::mpsc::UnboundedSender<Notice>);

impl actix::Actor for Probe {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Notice> for Probe {
    type Result = ();

    fn handle(&mut self, notice: Notice, _: &mut actix::Context<Self>) {
        self.0.unbounded_send(notice).unwrap();
    }
}

#[test]
fn an_actor_elsewhere_is_told_by_messages() {
    actix::System::new().block_on(async {
        let executor = Executor::builder(sim()).build().unwrap();
        let container = executor.run(spec("forever")).await.unwrap();
        let (sender, told) = futures::channel::mpsc::unbounded();
        container.subscribe(actix::Actor::start(Probe(sender)).recipient()).await.unwrap();
        container.cancel(Cancel::now()).await;
        let told: Vec<_> = futures::StreamExt::collect(told).await;
        assert!(matches!(told.first(), Some(Notice::Snapshot(_))), "{told:?}");
        let last = told.last().cloned();
        let Some(Notice::Event(last)) = last else { panic!("{last:?}") };
        assert!(matches!(last.kind, EventKind::Released { .. }));
        executor.shutdown(Cancel::now(), SOON).await;
    });
}

#[test]
fn cancel_before_the_start_is_kept_and_fires_when_the_pid_is_known() {
    let slow = || Program::forever().fault(Fault::StartSlow(Duration::from_secs(2)));
    with(
        || sim().program("slow", slow()),
        async |Sim { executor, runtime, .. }| {
            let container = executor.run(spec("slow")).await.unwrap();
            let exit = container.cancel(Cancel::now()).await;
            assert!(matches!(exit.reason, ExitReason::Cancelled { .. }), "{exit:?}");
            assert_eq!(runtime.alive(), []);
        },
    );
}

#[test]
fn a_start_that_hangs_is_given_up_when_it_is_cancelled() {
    with(
        || sim().program("hang", Program::forever().fault(Fault::StartHangs)),
        async |Sim { executor, runtime, .. }| {
            let container = executor.run(spec("hang")).await.unwrap();
            let init = ProcessRef::init(container.id().clone());
            assert_eq!(container.cancel(Cancel::now()).await.reason, cancelled(false));
            // It may have been cancelled before the runtime was asked; then there is nothing to give up.
            let asked = runtime.asked();
            let started = asked.contains(&Request::Start(init.clone()));
            assert_eq!(asked.contains(&Request::Abandon(init)), started);
        },
    );
}

#[test]
fn an_exit_that_overtakes_its_start_is_kept() {
    let first = || Program::new().exits(7).fault(Fault::EndsBeforeStarted);
    with(
        || sim().program("first", first()),
        async |Sim { executor, .. }| {
            let exit = executor.run(spec("first")).await.unwrap().wait().await;
            assert_eq!((exit.status, exit.reason), (ExitStatus::Code(7), ExitReason::Normal));
            assert!(exit.started_at.is_some());
        },
    );
}

#[test]
fn a_kill_that_is_refused_is_repeated() {
    let stubborn = || Program::forever().fault(Fault::KillRefused(2));
    with(
        || sim().program("stubborn", stubborn()),
        async |Sim { executor, runtime, .. }| {
            let container = executor.run(spec("stubborn")).await.unwrap();
            container.started().await.unwrap();
            container.cancel(Cancel::now()).await;
            let kills = runtime.asked().iter().filter(|asked| matches!(asked, Request::Kill(_))).count();
            assert_eq!(kills, 3);
        },
    );
}

#[test]
fn the_grace_ends_with_sigkill() {
    with(sim, async |Sim { executor, .. }| {
        for (program, killed) in [("deaf", true), ("forever", false)] {
            let container = executor.run(spec(program)).await.unwrap();
            container.started().await.unwrap();
            let exit = container.cancel(Cancel::with_grace(Duration::from_millis(20))).await;
            assert_eq!(exit.reason, cancelled(killed), "{program}");
        }
    });
}

#[test]
fn after_exited_nothing_is_signalled() {
    with(sim, async |Sim { executor, runtime, .. }| {
        let container = executor.run(spec("ok")).await.unwrap();
        container.wait().await;
        assert!(matches!(
            container.signal(Signal::HUP).await,
            Err(Error::Refused { refused: Refused { reason: Refusal::Exited, .. }, .. })
        ));
        container.cancel(Cancel::now()).await;
        container.released().await.unwrap();
        assert!(!runtime.asked().iter().any(|asked| matches!(asked, Request::Signal(..) | Request::Kill(_))));
    });
}

#[test]
fn execs_end_before_their_container_does() {
    with(sim, async |Sim { executor, runtime, .. }| {
        let container = executor.run(spec("forever")).await.unwrap();
        let exec = container.exec(ExecSpec::new(["forever"])).await.unwrap();
        exec.started().await.unwrap();
        runtime.end(&ProcessRef::init(container.id().clone()), ExitStatus::Code(0));
        assert!(container.wait().await.is_success());
        // The container's exit is told, so the exec's is known without waiting.
        let exit = futures::FutureExt::now_or_never(exec.wait()).unwrap();
        assert_eq!(exit.status, ExitStatus::Signal(Signal::KILL));
    });
}

#[test]
fn pauses_are_between_execs() {
    with(sim, async |Sim { executor, runtime, .. }| {
        let container = executor.run(spec("forever")).await.unwrap();
        container.started().await.unwrap();
        container.pause().await.unwrap();
        assert!(matches!(
            container.exec(ExecSpec::new(["ok"])).await,
            Err(Error::Refused { refused: Refused { reason: Refusal::Paused, .. }, .. })
        ));
        container.resume().await.unwrap();
        container.pause().await.unwrap();
        container.cancel(Cancel::now()).await;
        let resumed = runtime.asked().iter().filter(|asked| matches!(asked, Request::Resume(_))).count();
        assert_eq!(resumed, 2, "a cancel thaws");
    });
}

#[test]
fn what_makes_no_sense_or_cannot_start_is_told_apart() {
    let failure = || StartFailure::new(StartFailureKind::NoResources, "the disk is full");
    let failing = || Program::new().fault(Fault::StartFails(failure()));
    with(
        || sim().program("failing", failing()),
        async |Sim { executor, runtime, .. }| {
            assert!(matches!(executor.run(ContainerSpec::host([""])).await, Err(Error::InvalidSpec(_))));
            assert_eq!(runtime.asked(), [], "something was made");
            let container = executor.run(spec("failing")).await.unwrap();
            let parked = container.exec(ExecSpec::new(["ok"])).await;
            let kind = |exit: Exit| {
                let ExitReason::StartFailed(failure) = exit.reason else { return None };
                Some(failure.kind)
            };
            assert_eq!(kind(container.wait().await), Some(StartFailureKind::NoResources));
            if let Ok(parked) = parked {
                assert_eq!(kind(parked.wait().await), Some(StartFailureKind::ContainerGone));
            }
        },
    );
}

#[test]
fn streams_of_what_never_ran_end() {
    with(sim, async |Sim { executor, .. }| {
        let mut unknown = spec("unknown").piped();
        unknown.process.stdio.stdin = Stdio::Pipe;
        let container = executor.run(unknown).await.unwrap();
        let mut stdin = container.io().take_stdin().unwrap();
        assert_eq!(container.io().take_stdout().unwrap().read_to_end().await, b"");
        assert!(stdin.write_all("x").await.is_err());
        assert!(container.io().take_stdout().is_none(), "a stream is taken once");
    });
}

/// The owner of an actor that panicked ends what it was in charge of, and the caller is told.
#[test]
fn a_panic_in_a_process_actor_ends_its_process_only() {
    let buggy = || sim().panicking(|asked| matches!(asked, Request::Signal(_, Signal::USR1, _)));
    with(buggy, async |Sim { executor, runtime, .. }| {
        let container = executor.run(spec("forever")).await.unwrap();
        let exec = container.exec(ExecSpec::new(["forever"])).await.unwrap();
        exec.started().await.unwrap();
        assert!(exec.signal(Signal::USR1).await.is_err());
        let abandoned = ExitReason::Cancelled { cause: CancelCause::Abandoned, killed: true };
        assert_eq!(exec.wait().await.reason, abandoned);
        assert_eq!(runtime.alive(), [ProcessRef::init(container.id().clone())]);

        assert!(container.signal(Signal::USR1).await.is_ok(), "the container hands it on");
        assert_eq!(container.wait().await.reason, abandoned);
        assert_eq!(container.released().await.unwrap(), []);
        assert!(executor.run(spec("ok")).await.unwrap().wait().await.is_success());
    });
}

/// Nobody will say that a start has ended that was never under way.
#[test]
fn a_panic_before_the_runtime_was_asked_to_start_ends_the_process() {
    let buggy = || sim().panicking(|asked| matches!(asked, Request::Start(_)));
    with(buggy, async |Sim { executor, runtime, .. }| {
        let container = executor.run(spec("forever")).await.unwrap();
        let exit = container.wait().await;
        assert_eq!(exit.reason, ExitReason::Cancelled { cause: CancelCause::Abandoned, killed: false });
        container.released().await.unwrap();
        assert_eq!(runtime.alive(), []);
    });
}

#[test]
fn a_panic_in_a_container_actor_ends_its_container_only() {
    let buggy = || sim().panicking(|asked| matches!(asked, Request::Pause(_)));
    with(buggy, async |Sim { executor, runtime, .. }| {
        let (container, other) =
            (executor.run(spec("forever")).await.unwrap(), executor.run(spec("forever")).await.unwrap());
        let exec = container.exec(ExecSpec::new(["forever"])).await.unwrap();
        exec.started().await.unwrap();
        other.started().await.unwrap();
        assert!(container.pause().await.is_err());
        assert_eq!(container.wait().await.reason, ExitReason::Lost);
        assert_eq!(exec.wait().await.reason, ExitReason::Lost);
        container.released().await.unwrap();
        assert_eq!(runtime.alive(), [ProcessRef::init(other.id().clone())]);
        assert!(matches!(executor.get(container.id()).await, Err(Error::NotFound { .. })));
    });
}

/// Whoever hears that a container is released finds its id free, whether or not its actor came to release it.
#[test]
fn an_id_is_free_when_released_is_published() {
    let buggy = || sim().panicking(|asked| matches!(asked, Request::Pause(_)));
    with(buggy, async |Sim { executor, .. }| {
        let again = || spec("forever").id("again".parse().unwrap());
        let mut container = executor.run(again()).await.unwrap();
        for number in 0..6 {
            container.started().await.unwrap();
            let mut events = executor.events();
            match number % 2 {
                0 => assert!(container.pause().await.is_err(), "its actor is lost"),
                _ => drop(container.cancel(Cancel::now())),
            }
            loop {
                let Some(Notice::Event(event)) = events.next().await else { panic!("no event") };
                if matches!(event.kind, EventKind::Released { .. }) {
                    break;
                }
            }
            container = executor.run(again()).await.unwrap();
        }
    });
}

/// One that is kept ready and dies unseen is not what a run gets: it gets another, or one of its own.
#[test]
fn a_run_does_not_notice_that_what_was_kept_ready_is_dead() {
    with(sim, async |Sim { executor, runtime, .. }| {
        executor.prepare(spec("ok"), 2).await.unwrap();
        assert_eq!(executor.list().await.unwrap(), []);
        let ready = runtime.alive();
        assert_eq!(ready.len(), 2);
        let mut events = executor.events();
        // Their ends are not seen yet when the run is asked for.
        for process in &ready {
            runtime.end(process, ExitStatus::Signal(Signal::KILL));
        }
        let container = executor.run(spec("ok")).await.unwrap();
        assert!(!ready.iter().any(|process| process.container == *container.id()), "it was given a dead one");
        assert!(container.wait().await.is_success());
        container.released().await.unwrap();
        loop {
            let Some(Notice::Event(event)) = events.next().await else { panic!("no event") };
            assert_eq!(
                event.container,
                *container.id(),
                "nothing is published of those that nobody was given"
            );
            if matches!(event.kind, EventKind::Released { .. }) {
                break;
            }
        }
    });
}

/// When the deadline of a shutdown is over, everything that waits is answered all the same.
#[test]
fn nobody_waits_for_ever() {
    let undead = Program::forever().fault(Fault::KillRefused(u32::MAX));
    let executor = Executor::builder(sim().program("undead", undead)).build().unwrap();
    block_on(async {
        let container = executor.run(spec("undead")).await.unwrap();
        let mut all = executor.events();
        let mut own = container.events();
        container.started().await.unwrap();
        let report = executor.shutdown(Cancel::now(), Duration::from_millis(20)).await;
        assert_eq!(report.late, [container.id().clone()]);
        assert_eq!(container.wait().await.reason, ExitReason::Lost);
        assert!(matches!(container.released().await, Err(Error::Stopped)));
        while own.next().await.is_some() {}
        while all.next().await.is_some() {}
        assert!(matches!(executor.run(spec("ok")).await, Err(Error::Stopped)));
        assert!(matches!(executor.list().await, Err(Error::Stopped)));
    });
}

/// The same on the embedder's own system, which is not held up by it.
#[test]
fn an_executor_without_a_thread_of_its_own() {
    actix::System::new().block_on(async {
        let undead = Program::forever().fault(Fault::KillRefused(u32::MAX));
        let runtime = sim().program("undead", undead);
        let executor = Executor::builder(runtime.clone()).build_here().unwrap();
        let container = executor.run(spec("undead")).await.unwrap();
        container.started().await.unwrap();
        let report = executor.shutdown(Cancel::now(), Duration::ZERO).await;
        assert_eq!(report.late, [container.id().clone()]);
        assert_eq!(container.wait().await.reason, ExitReason::Lost);
        assert!(matches!(executor.run(spec("ok")).await, Err(Error::Stopped)));
        assert_eq!(runtime.alive(), [], "closing the runtime ends what is left");
    });
    // A system that ends takes its executor's containers with it.
    let runtime = sim();
    let system = actix::System::new();
    system.block_on(async {
        let executor = Executor::builder(runtime.clone()).build_here().unwrap();
        executor.run(spec("forever")).await.unwrap().started().await.unwrap();
        std::mem::forget(executor);
    });
    assert_eq!(runtime.alive().len(), 1);
    drop(system);
    assert_eq!(runtime.alive(), []);
}

/// Under tokio alone there is no system. The other way to build needs none.
#[test]
fn build_here_says_what_it_needs() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for in_tokio in [true, false] {
        let build = || drop(Executor::builder(sim()).build_here());
        let built = || if in_tokio { tokio.block_on(async { build() }) } else { build() };
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(built)).unwrap_err();
        let said = panic.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(said.contains("call `build` instead"), "{said}");
    }
    tokio.block_on(async {
        let executor = Executor::builder(sim()).build().unwrap();
        assert!(executor.run(spec("ok")).await.unwrap().wait().await.is_success());
        executor.shutdown(Cancel::now(), Duration::from_secs(5)).await;
    });
}

/// A refusal names what was asked for: an exec, if its id was given.
#[test]
fn a_refused_exec_is_named() {
    Simulation::new(sim()).run(async |sim| {
        let container = sim.executor.run(spec("forever").id("life".parse().unwrap())).await.unwrap();
        let exec = || ExecSpec::new(["forever"]).id("a".parse().unwrap());
        let _first = container.exec(exec()).await.unwrap();
        let said = |refused: Result<_, Error>| refused.err().unwrap().to_string();
        assert!(said(container.exec(exec()).await).starts_with("life/a: the exec id is taken"));
        container.pause().await.unwrap();
        assert!(said(container.exec(exec().id("b".parse().unwrap())).await).starts_with("life/b: "));
        assert!(said(container.exec(ExecSpec::new(["ok"])).await).starts_with("life/init: "));
        container.cancel(Cancel::now()).await;
        assert!(said(container.exec(exec()).await).starts_with("life/a: "));
    });
}

#[test]
fn a_thousand_containers() {
    let run = async |Sim { executor, runtime, .. }: &Sim| {
        let runs = (0..1000).map(|number| executor.run(spec(["ok", "bad", "forever"][number % 3])));
        let containers = futures::future::join_all(runs).await;
        for container in &containers {
            container.as_ref().unwrap().cancel(Cancel::now()).await;
        }
        assert_eq!(runtime.alive(), []);
    };
    Simulation::new(sim()).run(run);
    Simulation::explore(0..2, || Simulation::new(sim()), run);
}
