//! The ways an executor ends, on the real runtime: all of them come to the same, nothing is left. SIGTERM to
//! the command is in `command.rs`, SIGKILL of the embedder in `scale.rs` and `chaos.rs`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use actix_rt::System;
use longshore::observe::{ContainerEvent, Observed, ObservedMessage, Observer, ProcessEvent};
use longshore::{
    Cancel, CancelCause, ContainerHandle, EventKind, ExecSpec, Executor, ExitReason, ExitStatus, Notice,
    Signal,
};
use longshore_tests::{HUNG, Stage, on_bare_stage, on_stage, run_recorded, sleeper};

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

/// A container with three processes beside its init, and starts of two more under way.
async fn busy(executor: &Executor) -> ContainerHandle {
    let container = executor.run(sleeper()).await.unwrap();
    for _ in 0..3 {
        container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap().started().await.unwrap();
    }
    container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
    executor.run(sleeper()).await.unwrap();
    container
}

#[test]
fn a_shutdown_drains_and_tells_why() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, recorded) = run_recorded(&executor, sleeper()).await;
        busy(&executor).await;
        container.started().await.unwrap();
        assert_eq!(executor.shutdown(Cancel::now(), HUNG).await, longshore::ShutdownReport::default());
        let exit = container.wait().await;
        let reason = ExitReason::Cancelled { cause: CancelCause::Shutdown, killed: true };
        assert_eq!((exit.status, exit.reason), (KILLED, reason));
        recorded.await.unwrap();
        stage.finish(executor).await;
    });
}

#[test]
fn dropping_the_executor_is_a_shutdown() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = busy(&executor).await;
        tokio::task::spawn_blocking(move || drop(executor)).await.unwrap();
        assert_eq!(container.wait().await.status, KILLED);
        stage.check();
    });
}

/// The embedder's runtime goes with everything that waits in it; the executor does not live there.
#[test]
fn dropping_the_embedders_runtime_drops_no_container() {
    on_bare_stage(|stage| {
        let executor = stage.executor();
        let runtime = longshore_tests::runtime();
        let container = runtime.block_on(busy(&executor));
        let waiting = container.clone();
        runtime.spawn(async move { waiting.wait().await });
        runtime.shutdown_background();
        assert_eq!(container.snapshot().exit, None, "it ended with somebody else's runtime");
        assert_eq!(futures::executor::block_on(container.cancel(Cancel::now())).status, KILLED);
        futures::executor::block_on(stage.finish(executor));
    });
}

fn build_here(stage: &Stage) -> Executor {
    let runtime = longshore_tests::runtime_under_test(longshore::runc()).build().unwrap();
    Executor::builder(runtime).root(stage.root()).build_here().unwrap()
}

/// Stopping the actix System drops every future of the actors at once.
#[test]
fn system_stop() {
    on_bare_stage(|stage| {
        let runner = System::new();
        let executor = runner.block_on(async {
            let executor = build_here(&stage);
            busy(&executor).await;
            System::current().stop();
            executor
        });
        runner.run().unwrap();
        drop(executor);
        stage.check();
    });
}

#[test]
fn dropping_the_system() {
    on_bare_stage(|stage| {
        let runner = System::new();
        let executor = runner.block_on(async {
            let executor = build_here(&stage);
            busy(&executor).await;
            executor
        });
        drop(runner);
        drop(executor);
        stage.check();
    });
}

/// Makes the actor panic that takes a certain message.
struct Bomb(fn(&ObservedMessage) -> bool);

impl Observer for Bomb {
    fn took(&self, observed: Observed) {
        assert!(!(self.0)(&observed.message), "the bomb goes off");
    }
}

fn with_bomb(stage: &Stage, bomb: fn(&ObservedMessage) -> bool) -> Executor {
    let runtime = longshore_tests::runtime_under_test(longshore::runc()).build().unwrap();
    Executor::builder(runtime).root(stage.root()).observer(Bomb(bomb)).build().unwrap()
}

#[test]
fn a_panic_in_a_process_actor_ends_its_process() {
    on_stage(async |stage| {
        let hit = |taken: &ObservedMessage| matches!(taken, ObservedMessage::Process(_, ProcessEvent::Signal(signal, _)) if *signal == Signal::USR1);
        let executor = with_bomb(&stage, hit);
        let container = busy(&executor).await;
        let exec = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
        exec.started().await.unwrap();
        assert!(exec.signal(Signal::USR1).await.is_err());
        let abandoned = ExitReason::Cancelled { cause: CancelCause::Abandoned, killed: true };
        let exit = tokio::time::timeout(HUNG, exec.wait()).await.unwrap();
        assert_eq!((exit.status, exit.reason), (KILLED, abandoned));
        assert_eq!(container.snapshot().exit, None, "its container went with it");
        stage.finish(executor).await;
    });
}

#[test]
fn a_panic_in_a_container_actor_ends_its_container() {
    on_stage(async |stage| {
        let hit =
            |taken: &ObservedMessage| matches!(taken, ObservedMessage::Container(_, ContainerEvent::Pause));
        let executor = with_bomb(&stage, hit);
        let (container, other) = (busy(&executor).await, executor.run(sleeper()).await.unwrap());
        other.started().await.unwrap();
        assert!(container.pause().await.is_err());
        assert_eq!(container.wait().await.reason, ExitReason::Lost);
        tokio::time::timeout(HUNG, container.released()).await.unwrap().unwrap();
        assert_eq!(other.snapshot().exit, None, "another container went with it");
        stage.finish(executor).await;
    });
}

/// The id of a container whose actor is lost is free when its `Released` is published: 20 subscribers that run it again the
/// moment they hear it are never refused it.
#[test]
fn released_early() {
    on_stage(async |stage| {
        let hit =
            |taken: &ObservedMessage| matches!(taken, ObservedMessage::Container(_, ContainerEvent::Pause));
        let executor = with_bomb(&stage, hit);
        let again = || sleeper().id("again".parse().unwrap());
        let mut container = executor.run(again()).await.unwrap();
        for _ in 0..20 {
            container.started().await.unwrap();
            let (hears, mut events) = (executor.clone(), executor.events());
            // On a thread of its own, which is not behind the executor's.
            let rerun = std::thread::spawn(move || {
                futures::executor::block_on(async {
                    loop {
                        let Some(Notice::Event(event)) = events.next().await else { continue };
                        if matches!(event.kind, EventKind::Released { .. }) {
                            return hears.run(again()).await;
                        }
                    }
                })
            });
            assert!(container.pause().await.is_err());
            assert_eq!(container.wait().await.reason, ExitReason::Lost);
            container = tokio::task::spawn_blocking(|| rerun.join().unwrap()).await.unwrap().unwrap();
        }
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// A runtime that hangs holds no shutdown up for longer than its deadline and the time to kill it.
#[test]
fn a_shutdown_ends_a_runtime_that_hangs() {
    on_stage(async |stage| {
        let wrapper = stage.wrapper(r#"[[ " $* " == *" exec "* ]] && sleep 1000; exec $RUNC "$@""#);
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        let container = executor.run(sleeper()).await.unwrap();
        container.started().await.unwrap();
        let exec = container.exec(ExecSpec::new(["true"])).await.unwrap();
        let report = tokio::time::timeout(HUNG, executor.shutdown(Cancel::now(), Duration::from_secs(2)))
            .await
            .unwrap();
        assert_eq!(report.left, Vec::<longshore::Leftover>::new());
        assert_eq!(exec.wait().await.status, ExitStatus::Unknown);
        stage.finish(executor).await;
    });
}
