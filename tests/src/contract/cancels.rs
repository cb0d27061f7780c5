//! Signals, cancels and handles that are dropped.

use std::time::Duration;

use futures::FutureExt;
use longshore::{
    Cancel, CancelCause, Event, EventKind, ExecSpec, Executor, ExitReason, ExitStatus, KeepExited, Refusal,
    Signal, SignalScope,
};

use super::{GRACE, KILLED, QUIET, chunk, exec, id, ready, refusal, requested, run, started, told};
use crate::{run_recorded, shell, sleeper};

pub(super) async fn signals_come_in_order(executor: &Executor) {
    // Before the trap is set a signal would be ignored by pid 1, so the program says when it is ready.
    let script =
        "trap 'echo usr1' USR1; trap 'echo hup; exit 4' HUP; echo ready; while :; do sleep 0.01; done";
    let container = run(executor, shell(script).piped()).await;
    let mut stdout = ready(&container).await;
    assert!(container.signal(Signal::USR1).await.is_ok());
    assert_eq!(chunk(&mut stdout).await, "usr1\n");
    assert!(container.signal(Signal::HUP).await.is_ok());
    assert_eq!(container.wait().await.status, ExitStatus::Code(4));
    assert_eq!(refusal(container.signal(Signal::HUP).await), Refusal::Exited);
}

pub(super) async fn signals_wait_for_the_start(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    assert!(container.signal(Signal::KILL).await.is_ok());
    let exit = container.wait().await;
    // It was not a cancel.
    assert_eq!((told(exit.status), exit.reason), (KILLED, ExitReason::Normal));
}

pub(super) async fn cancel_with_grace_lets_the_program_end(executor: &Executor) {
    let polite = shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done").piped();
    let container = run(executor, polite).await;
    ready(&container).await;
    let exit = container.cancel(Cancel::with_grace(GRACE)).await;
    assert_eq!((exit.status, exit.reason), (ExitStatus::Code(9), requested(false)));
}

pub(super) async fn cancel_kills_what_does_not_end(executor: &Executor) {
    // Without a handler, pid 1 ignores SIGTERM.
    let container = run(executor, sleeper()).await;
    started(&container).await;
    let exit = container.cancel(Cancel::with_grace(Duration::from_millis(50))).await;
    assert_eq!((told(exit.status), exit.reason), (KILLED, requested(true)));

    let container =
        run(executor, shell("trap '' TERM; echo ready; while :; do sleep 0.01; done").piped()).await;
    ready(&container).await;
    let exit = container.cancel(Cancel::now()).await;
    assert_eq!((told(exit.status), exit.reason), (KILLED, requested(true)));
}

pub(super) async fn cancel_before_the_start(executor: &Executor) {
    for moment in 0..10 {
        let (container, recorded) = run_recorded(executor, sleeper()).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let exit = container.cancel(Cancel::now()).await;
        let ran = exit.started_at.is_some();
        assert_eq!(told(exit.status), if ran { KILLED } else { ExitStatus::Unknown });
        assert_eq!(exit.reason, requested(ran));
        assert_eq!(container.processes().await.unwrap_or_default(), []);
        let story = recorded.await.unwrap_or_default();
        assert_eq!(story.len(), if ran { 4 } else { 3 });
    }
}

pub(super) async fn cancel_while_paused_thaws(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    started(&container).await;
    assert!(container.pause().await.is_ok());
    let exit = container.cancel(Cancel::now()).await;
    assert_eq!((told(exit.status), exit.reason), (KILLED, requested(true)));
}

pub(super) async fn cancel_after_the_end_is_satisfied(executor: &Executor) {
    let container = run(executor, shell("exit 6")).await;
    let exit = container.wait().await;
    assert_eq!(container.cancel(Cancel::now()).await, exit);
    assert!(container.released().await.is_ok());
    assert_eq!(container.cancel(Cancel::now()).await, exit);
}

pub(super) async fn cancel_twice_keeps_the_first_cause_and_the_sooner_end(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    started(&container).await;
    let slow = container.cancel(Cancel::with_grace(GRACE));
    let now = container.cancel(Cancel::now().cause(CancelCause::Shutdown));
    let (one, other) = tokio::join!(slow, now);
    assert_eq!(one, other);
    assert_eq!((told(one.status), one.reason), (KILLED, requested(true)));
}

pub(super) async fn cancel_of_an_exec_leaves_the_container(executor: &Executor) {
    let (container, recorded) = run_recorded(executor, sleeper()).await;
    let running = exec(&container, "sleep 1000").await;
    assert!(running.started().await.is_ok());
    let exit = running.cancel(Cancel::now()).await;
    assert_eq!((told(exit.status), exit.reason), (KILLED, requested(true)));

    // Before it has started, and with a handler for the signal.
    let early = exec(&container, "sleep 1000").await;
    assert!(matches!(early.cancel(Cancel::now()).await.reason, ExitReason::Cancelled { .. }));
    let polite = exec(&container, "trap 'exit 8' TERM; echo ready; while :; do sleep 0.01; done").await;
    let mut stdout = polite.io().take_stdout().unwrap_or_else(|| panic!("there is no pipe"));
    assert_eq!(chunk(&mut stdout).await, "ready\n");
    assert_eq!(polite.cancel(Cancel::with_grace(GRACE)).await.status, ExitStatus::Code(8));

    assert_eq!(container.snapshot().exit, None);
    container.cancel(Cancel::now()).await;
    let recorded = recorded.await.unwrap_or_default();
    let ended = |event: &&Event| matches!(event.kind, EventKind::ExecExited { .. });
    assert_eq!(recorded.iter().filter(ended).count(), 3);
}

pub(super) async fn cancel_need_not_be_awaited(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    drop(container.cancel(Cancel::now()));
    assert!(matches!(container.wait().await.reason, ExitReason::Cancelled { .. }));
}

pub(super) async fn signals_reach_groups_and_whole_containers(executor: &Executor) {
    let container =
        run(executor, shell("trap 'exit 6' USR1; echo ready; while :; do sleep 0.01; done").piped()).await;
    ready(&container).await;
    let exec = exec(&container, "trap 'exit 7' USR1; echo ready; while :; do sleep 0.01; done").await;
    let mut stdout = exec.io().take_stdout().unwrap_or_else(|| panic!("there is no pipe"));
    assert_eq!(chunk(&mut stdout).await, "ready\n");
    assert!(container.signal_to(Signal::USR1, SignalScope::Container).await.is_ok());
    assert_eq!(container.wait().await.status, ExitStatus::Code(6));
    // Init may have ended, and the exec with it, before the exec's trap was run.
    let status = told(exec.wait().await.status);
    assert!([ExitStatus::Code(7), KILLED].contains(&status), "{status:?}");

    // A child that a shell has left behind holds its output; the group's signal reaches it too.
    let container = run(executor, sleeper()).await;
    let holder = self::exec(&container, "sleep 1000 & echo ready; while :; do sleep 0.01; done").await;
    let mut stdout = holder.io().take_stdout().unwrap_or_else(|| panic!("there is no pipe"));
    assert_eq!(chunk(&mut stdout).await, "ready\n");
    assert!(holder.signal_to(Signal::TERM, SignalScope::Group).await.is_ok());
    assert_eq!(told(holder.wait().await.status), ExitStatus::Signal(Signal::TERM));
    assert_eq!(chunk(&mut stdout).await, "", "no process holds the pipe");
    container.cancel(Cancel::now()).await;
}

pub(super) async fn what_nobody_waits_for_any_more_is_cancelled(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    started(&container).await;
    for _ in 0..20 {
        // The request is dropped before its answer. If the answer comes at once, there is a handle.
        let asked = container.exec(ExecSpec::new(["sleep", "1000"]));
        if let Some(Ok(exec)) = asked.now_or_never() {
            drop(exec.cancel(Cancel::now()));
        }
        if let Some(Ok(other)) = executor.run(sleeper()).now_or_never() {
            drop(other.cancel(Cancel::now()));
        }
        // No handle is left that could remove a container that is kept.
        let kept = sleeper().keep_exited(KeepExited::UntilRemoved);
        if let Some(Ok(kept)) = executor.create(kept).now_or_never() {
            kept.cancel(Cancel::now()).await;
            assert!(kept.remove().await.is_ok());
        }
    }
    // No list has those that are only being started; a freeze waits for them, whether or not it comes to one.
    let _settled = container.pause().await;
    let _thawed = container.resume().await;
    while executor.list().await.is_ok_and(|all| all.len() > 1 || !all[0].execs.is_empty()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Those that were killed while they were started end in their own time.
    let since = std::time::Instant::now();
    while container.processes().await.map(|pids| pids.len()).ok() != Some(1) {
        assert!(since.elapsed() < crate::HUNG, "{:?}", container.processes().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    container.cancel(Cancel::now()).await;
}

pub(super) async fn the_last_handle_may_cancel(executor: &Executor) {
    let mut spec = sleeper().id(id("kept"));
    spec.cancel_on_drop = true;
    let container = run(executor, spec).await;
    let found = executor.get(&id("kept")).await.unwrap_or_else(|error| panic!("{error}"));
    let mut spec = ExecSpec::new(["sleep", "1000"]);
    spec.cancel_on_drop = true;
    let exec = container.exec(spec).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(exec.started().await.is_ok());
    while found.snapshot().execs.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(exec.clone());
    tokio::time::sleep(QUIET).await;
    assert_eq!(found.snapshot().execs.len(), 1);
    drop(exec);
    while !found.snapshot().execs.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(container.clone());
    assert_eq!(found.snapshot().exit, None);
    drop(container);
    assert_eq!(found.wait().await.reason, requested(true));
}

pub(super) async fn handles_may_be_dropped(executor: &Executor) {
    drop(run(executor, sleeper().id(id("detached"))).await);
    let found = executor.get(&id("detached")).await.unwrap_or_else(|error| panic!("{error}"));
    started(&found).await;
    drop(exec(&found, "sleep 1000").await);
    assert_eq!(executor.list().await.map(|all| all.len()).ok(), Some(1));
    found.cancel(Cancel::now()).await;
}
