//! Containers that are held at created, and containers that are kept ready.

use std::time::Duration;

use longshore::{
    Cancel, CancelCause, ContainerHandle, ContainerSpec, Error, EventKind, Executor, ExitReason, ExitStatus,
    Notice, Phase, Refusal, Signal, StartFailureKind,
};

use super::{GRACE, KILLED, QUIET, all, chunk, exec, id, kept_ready, refusal, requested, run, started, told};
use crate::{patience, run_recorded, shell, sleeper};

/// A container that is held at created. In the foreground none can be, and its start says so.
async fn held(executor: &Executor, spec: ContainerSpec) -> Option<ContainerHandle> {
    let container = match executor.create(spec).await {
        Ok(container) => container,
        Err(error) => panic!("create: {error}"),
    };
    match container.created().await {
        Ok(_) => Some(container),
        Err(Error::NotStarted { exit, .. }) => {
            let ExitReason::StartFailed(failure) = exit.reason else { panic!("{:?}", exit.reason) };
            assert!(failure.message.contains("foreground"), "{failure:?}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(super) async fn a_container_is_held_at_created(executor: &Executor) {
    let Some(container) = held(executor, shell("echo hello; exit 3").piped().id(id("held"))).await else {
        return;
    };
    let mut stdout = container.io().take_stdout().unwrap_or_else(|| panic!("there is no pipe"));
    let mut events = container.events();
    let Some(Notice::Snapshot(now)) = events.next().await else { panic!("no snapshot") };
    assert_eq!((now.seq, now.phase, now.started_at), (2, Phase::Created, None));
    // It is an ordinary container: in the list, found by its id, which is taken.
    let found = executor.get(&id("held")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(executor.list().await.map(|all| all.len()).ok(), Some(1));
    assert!(matches!(executor.create(sleeper().id(id("held"))).await, Err(Error::IdTaken { .. })));
    assert_eq!(container.processes().await.map(|pids| pids.len()).ok(), Some(1));
    assert_eq!(refusal(container.pause().await), Refusal::NotRunning);
    assert_eq!(refusal(container.remove().await), Refusal::NotExited);
    assert!(tokio::time::timeout(QUIET, stdout.next_chunk()).await.is_err(), "the program runs");

    assert!(found.start().await.is_ok(), "any handle may start it");
    assert_eq!(refusal(container.start().await), Refusal::Started);
    assert_eq!(container.started().await.ok(), now.pid, "it is the same process");
    assert_eq!(chunk(&mut stdout).await, "hello\n");
    assert_eq!(container.wait().await.status, ExitStatus::Code(3));
    assert!(matches!(refusal(container.start().await), Refusal::StoppedWithError { .. }));
    let kinds = [events.next().await, events.next().await, events.next().await].map(|notice| match notice {
        Some(Notice::Event(event)) => event.kind,
        notice => panic!("{notice:?}"),
    });
    assert!(matches!(
        kinds,
        [EventKind::Started { .. }, EventKind::Exited { .. }, EventKind::Released { .. }]
    ));
}

pub(super) async fn what_is_held_ends_at_once(executor: &Executor) {
    let Some(cancelled) = held(executor, sleeper()).await else { return };
    // There is no program that could do something with a grace.
    let exit = cancelled.cancel(Cancel::with_grace(GRACE)).await;
    assert_eq!((told(exit.status), exit.reason, exit.started_at), (KILLED, requested(true), None));
    assert!(!exit.success);
    let Some(killed) = held(executor, sleeper()).await else { return };
    assert!(killed.signal(Signal::KILL).await.is_ok());
    let exit = killed.wait().await;
    assert_eq!((told(exit.status), exit.reason, exit.started_at), (KILLED, ExitReason::Normal, None));
    assert!(matches!(killed.started().await, Err(Error::NotStarted { .. })));
    // The time limit counts from the start.
    let Some(limited) = held(executor, sleeper().time_limit(QUIET / 4, Cancel::now())).await else { return };
    tokio::time::sleep(QUIET).await;
    assert_eq!(limited.snapshot().exit, None);
    let found = executor.get(limited.id()).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(found.start().await.is_ok(), "on its own terms, by any handle");
    assert_eq!(limited.wait().await.reason, ExitReason::TimedOut { killed: true });
    // A SIGKILL that comes with the start is what the kernel says, and no fault of the runtime's.
    for _ in 0..5 {
        let Some(container) = held(executor, sleeper()).await else { return };
        assert!(container.start().await.is_ok());
        assert!(container.signal(Signal::KILL).await.is_ok());
        let exit = container.wait().await;
        assert_eq!((told(exit.status), exit.reason), (KILLED, ExitReason::Normal));
    }
    // At every moment of its creation, and of its start.
    for moment in 0..10 {
        let container = executor.create(sleeper()).await.unwrap_or_else(|error| panic!("{error}"));
        tokio::time::sleep(Duration::from_millis(moment * 4)).await;
        if moment % 2 == 0 {
            let _too_late_or_not = container.start().await;
        }
        assert!(matches!(container.cancel(Cancel::now()).await.reason, ExitReason::Cancelled { .. }));
    }
}

pub(super) async fn execs_wait_for_what_is_held(executor: &Executor) {
    let Some(container) = held(executor, sleeper()).await else { return };
    let parked = exec(&container, "echo hello").await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(
        container.snapshot().execs.values().copied().collect::<Vec<_>>(),
        [None],
        "it is added, and waits"
    );
    assert!(container.start().await.is_ok());
    assert_eq!(all(parked.io().take_stdout()).await, "hello\n");
    assert!(parked.wait().await.is_success());
    container.cancel(Cancel::now()).await;

    let Some(never) = held(executor, sleeper()).await else { return };
    let parked = exec(&never, "echo never").await;
    never.cancel(Cancel::now()).await;
    assert_eq!(parked.wait().await.started_at, None);
    assert_eq!(all(parked.io().take_stdout()).await, "");
}

pub(super) async fn equal_runs_start_what_is_kept_ready(executor: &Executor) {
    let spec = shell("echo ready; exit 3").piped();
    let _or_not = kept_ready(executor, &spec, 2).await;
    assert_eq!(executor.list().await.ok(), Some(Vec::new()), "they are not containers of the executor yet");
    for _ in 0..5 {
        let (container, recorded) =
            run_recorded(executor, spec.clone().time_limit(GRACE, Cancel::now())).await;
        assert_eq!(all(container.io().take_stdout()).await, "ready\n");
        assert_eq!(container.wait().await.status, ExitStatus::Code(3));
        assert!(recorded.await.is_ok());
    }
    // Of its own, and counted from the start: the limit of one and the cancel of the other.
    let spec = sleeper();
    let _or_not = kept_ready(executor, &spec, 2).await;
    let limited = run(executor, spec.clone().time_limit(patience(QUIET), Cancel::now())).await;
    let cancelled = run(executor, spec.clone()).await;
    assert_eq!(limited.wait().await.reason, ExitReason::TimedOut { killed: true });
    started(&cancelled).await;
    assert!(exec(&cancelled, "exit 0").await.wait().await.is_success());
    let exit = cancelled.cancel(Cancel::now()).await;
    assert_eq!(exit.reason, ExitReason::Cancelled { cause: CancelCause::Requested, killed: true });
    // At once, and with an id of its own.
    let at_once = run(executor, spec.clone()).await;
    assert!(matches!(at_once.cancel(Cancel::now()).await.reason, ExitReason::Cancelled { .. }));
    let named = run(executor, spec.clone().id(id("of-its-own"))).await;
    assert_eq!(named.id(), &id("of-its-own"));
    named.cancel(Cancel::now()).await;
    assert!(executor.prepare(spec.id(id("of-its-own")), 1).await.is_err());
}

pub(super) async fn what_cannot_be_kept_ready_says_why(executor: &Executor) {
    let missing = ContainerSpec::host(["no-such-program"]);
    let Err(Error::NotReady(failure)) = executor.prepare(missing.clone(), 2).await else {
        panic!("it is ready")
    };
    let foreground = failure.message.contains("foreground");
    assert!(failure.kind == StartFailureKind::NotFound || foreground, "{failure:?}");
    let exit = run(executor, missing.clone()).await.wait().await;
    assert!(matches!(exit.reason, ExitReason::StartFailed(_)), "{exit:?}");
    assert!(executor.prepare(missing, 0).await.is_ok(), "none are wanted");
}
