//! The actors by their messages, on the scripted runtime: no root, no runc, no sleeping.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use executor_core::lifecycle::{
    Cancel, CancelCause, EventOrder, Exit, ExitReason, ExitStatus, Happening, ProcessRef, Refused, Signal,
    StartFailure, StartFailureKind,
};
use executor_core::messages::Event;
use executor_core::{ContainerSpec, Error, ExecSpec, Executor, Notice, Stdio};
use executor_sim::{Asked, Program, SimRuntime, Start};
use futures::executor::block_on;

const SOON: Duration = Duration::from_secs(10);

fn sim() -> SimRuntime {
    SimRuntime::new()
        .program("forever", Program::default())
        .program("deaf", Program::default().ignoring(Signal::TERM))
        .program("ok", Program::exits(0))
        .program("bad", Program::exits(3))
}

/// Runs a test on an executor, and checks that nothing is alive after its shutdown.
fn with<F: Future<Output = ()>>(runtime: SimRuntime, test: impl FnOnce(Executor, SimRuntime) -> F) {
    let executor = Executor::builder(runtime.clone()).build().unwrap();
    block_on(async {
        test(executor.clone(), runtime.clone()).await;
        let report = executor.shutdown(SOON).await;
        assert_eq!((report.late, report.left), (vec![], vec![]));
    });
    assert_eq!(runtime.alive(), []);
}

fn spec(program: &str) -> ContainerSpec {
    ContainerSpec::host([program])
}

fn cancelled(killed: bool) -> ExitReason {
    ExitReason::Cancelled { cause: CancelCause::Requested, killed }
}

#[test]
fn events_of_all_containers_come_in_order() {
    with(sim(), |executor, _| async move {
        let mut events = executor.events();
        let container = executor.run(spec("forever")).await.unwrap();
        let execs =
            ["ok", "bad", "forever", "unknown"].map(|program| container.exec(ExecSpec::new([program])));
        for exec in futures::future::join_all(execs).await {
            drop(exec.unwrap().started().await);
        }
        container.cancel(Cancel::now()).await;
        let mut order = EventOrder::default();
        let mut count = 0;
        while !order.is_complete() {
            if let Some(Notice::Event(event)) = events.next().await {
                order.check(&event).unwrap();
                count += 1;
            }
        }
        // Created, Started, Exited, Released; three that ran; one that was never found.
        assert_eq!(count, 4 + 3 * 2 + 1);
    });
}

#[test]
fn a_late_subscriber_gets_a_snapshot_and_then_what_follows() {
    with(sim(), |executor, _| async move {
        let container = executor.run(spec("forever")).await.unwrap();
        let pid = container.started().await.unwrap();
        let mut events = container.events();
        let Some(Notice::Snapshot(snapshot)) = events.next().await else { panic!("no snapshot") };
        assert_eq!((snapshot.seq, snapshot.pid), (2, Some(pid)));
        container.cancel(Cancel::now()).await;
        let Some(Notice::Event(event)) = events.next().await else { panic!("no event") };
        assert_eq!(event.seq, 3);
        assert!(matches!(event.happening, Happening::Exited { .. }));
        assert!(matches!(events.next().await, Some(Notice::Event(_))), "Released");
        assert_eq!(events.next().await, None);
    });
}

/// An actor of the embedder's, in a `System` of the embedder's.
struct Probe(futures::channel::mpsc::UnboundedSender<Notice>);

impl actix::Actor for Probe {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Event> for Probe {
    type Result = ();

    fn handle(&mut self, Event(notice): Event, _: &mut actix::Context<Self>) {
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
        assert!(matches!(last.happening, Happening::Released { .. }));
        executor.shutdown(SOON).await;
    });
}

#[test]
fn cancel_before_the_start_is_kept_and_fires_when_the_pid_is_known() {
    let slow = Program::starts(Start::Slow(Duration::from_millis(20)));
    with(sim().program("slow", slow), |executor, runtime| async move {
        let container = executor.run(spec("slow")).await.unwrap();
        let exit = container.cancel(Cancel::now()).await;
        assert!(matches!(exit.reason, ExitReason::Cancelled { .. }), "{exit:?}");
        assert_eq!(runtime.alive(), []);
    });
}

#[test]
fn a_start_that_hangs_is_given_up_when_it_is_cancelled() {
    with(sim().program("hang", Program::starts(Start::Hangs)), |executor, runtime| async move {
        let container = executor.run(spec("hang")).await.unwrap();
        let init = ProcessRef::init(container.id().clone());
        assert_eq!(container.cancel(Cancel::now()).await.reason, cancelled(false));
        // It may have been cancelled before the runtime was asked; then there is nothing to give up.
        let asked = runtime.asked();
        let started = asked.contains(&Asked::Start(init.clone()));
        assert_eq!(asked.contains(&Asked::Abandon(init)), started);
    });
}

#[test]
fn an_exit_that_overtakes_its_start_is_kept() {
    let first = Program::starts(Start::EndsFirst(ExitStatus::Code(7)));
    with(sim().program("first", first), |executor, _| async move {
        let exit = executor.run(spec("first")).await.unwrap().wait().await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(7), ExitReason::Normal));
        assert!(exit.started_at.is_some());
    });
}

#[test]
fn a_kill_that_is_refused_is_repeated() {
    let stubborn = Program { kill_refused: 2, ..Program::default() };
    with(sim().program("stubborn", stubborn), |executor, runtime| async move {
        let container = executor.run(spec("stubborn")).await.unwrap();
        container.started().await.unwrap();
        container.cancel(Cancel::now()).await;
        let kills = runtime.asked().iter().filter(|asked| matches!(asked, Asked::Kill(_))).count();
        assert_eq!(kills, 3);
    });
}

#[test]
fn the_grace_ends_with_sigkill() {
    with(sim(), |executor, _| async move {
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
    with(sim(), |executor, runtime| async move {
        let container = executor.run(spec("ok")).await.unwrap();
        container.wait().await;
        assert!(matches!(
            container.signal(Signal::HUP).await,
            Err(Error::Refused { refused: Refused::Exited, .. })
        ));
        container.cancel(Cancel::now()).await;
        container.released().await.unwrap();
        assert!(!runtime.asked().iter().any(|asked| matches!(asked, Asked::Signal(..) | Asked::Kill(_))));
    });
}

#[test]
fn execs_end_before_their_container_does() {
    with(sim(), |executor, runtime| async move {
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
    with(sim(), |executor, runtime| async move {
        let container = executor.run(spec("forever")).await.unwrap();
        container.started().await.unwrap();
        container.pause().await.unwrap();
        assert!(matches!(
            container.exec(ExecSpec::new(["ok"])).await,
            Err(Error::Refused { refused: Refused::Paused, .. })
        ));
        container.resume().await.unwrap();
        container.pause().await.unwrap();
        container.cancel(Cancel::now()).await;
        let resumed = runtime.asked().iter().filter(|asked| matches!(asked, Asked::Resume(_))).count();
        assert_eq!(resumed, 2, "a cancel thaws");
    });
}

#[test]
fn what_makes_no_sense_or_cannot_start_is_told_apart() {
    let failing = StartFailure::new(StartFailureKind::NoResources, "the disk is full");
    let failing = Program::starts(Start::Fails(failing));
    with(sim().program("failing", failing), |executor, runtime| async move {
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
    });
}

#[test]
fn streams_of_what_never_ran_end() {
    with(sim(), |executor, _| async move {
        let mut unknown = spec("unknown").piped();
        unknown.process.stdio.stdin = Stdio::Pipe;
        let container = executor.run(unknown).await.unwrap();
        let stdin = container.take_stdin().unwrap();
        assert_eq!(container.take_stdout().unwrap().read_to_end().await, b"");
        assert!(stdin.write("x").await.is_err());
        assert!(container.take_stdout().is_none(), "a stream is taken once");
    });
}

/// The owner of an actor that panicked ends what it was in charge of, and the caller is told.
#[test]
fn a_panic_in_a_process_actor_ends_its_process_only() {
    let buggy = sim().panicking(|asked| matches!(asked, Asked::Signal(_, Signal::USR1)));
    with(buggy, |executor, runtime| async move {
        let container = executor.run(spec("forever")).await.unwrap();
        let exec = container.exec(ExecSpec::new(["forever"])).await.unwrap();
        exec.started().await.unwrap();
        assert!(exec.signal(Signal::USR1).await.is_err());
        let abandoned = ExitReason::Cancelled { cause: CancelCause::Abandoned, killed: true };
        assert_eq!(exec.wait().await.reason, abandoned);
        assert_eq!(runtime.alive(), [ProcessRef::init(container.id().clone())]);

        assert!(container.signal(Signal::USR1).await.is_ok(), "the container hands it on");
        assert_eq!(container.wait().await.reason, abandoned);
        assert_eq!(container.released().await.unwrap(), Vec::<String>::new());
        assert!(executor.run(spec("ok")).await.unwrap().wait().await.is_success());
    });
}

#[test]
fn a_panic_in_a_container_actor_ends_its_container_only() {
    let buggy = sim().panicking(|asked| matches!(asked, Asked::Pause(_)));
    with(buggy, |executor, runtime| async move {
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

/// When the deadline of a shutdown is over, everything that waits is answered all the same.
#[test]
fn nobody_waits_for_ever() {
    let undead = Program { kill_refused: u32::MAX, ..Program::default() };
    let executor = Executor::builder(sim().program("undead", undead)).build().unwrap();
    block_on(async {
        let container = executor.run(spec("undead")).await.unwrap();
        let mut all = executor.events();
        let mut own = container.events();
        container.started().await.unwrap();
        let report = executor.shutdown(Duration::from_millis(20)).await;
        assert_eq!(report.late, [container.id().clone()]);
        assert_eq!(container.wait().await.reason, ExitReason::Lost);
        assert!(matches!(container.released().await, Err(Error::Stopped)));
        while own.next().await.is_some() {}
        while all.next().await.is_some() {}
        assert!(matches!(executor.run(spec("ok")).await, Err(Error::Stopped)));
        assert!(matches!(executor.list().await, Err(Error::Stopped)));
    });
}

#[test]
fn a_thousand_containers() {
    with(sim(), |executor, runtime| async move {
        let runs = (0..1000).map(|number| executor.run(spec(["ok", "bad", "forever"][number % 3])));
        let containers = futures::future::join_all(runs).await;
        for container in &containers {
            container.as_ref().unwrap().cancel(Cancel::now()).await;
        }
        assert_eq!(runtime.alive(), []);
    });
}
