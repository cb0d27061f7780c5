//! The end of an executor.

use longshore::{Cancel, CancelCause, Error, Executor, ExitReason, ExitStatus};

use super::{KILLED, QUIET, exec, kept_ready, ready, run, told};
use crate::{HUNG, patience, shell, sleeper};

pub(super) async fn a_drain_waits_for_what_is_there(executor: &Executor) {
    let container = run(executor, shell("sleep 0.2; exit 2")).await;
    let _or_not = kept_ready(executor, &sleeper(), 1).await;
    let drained = executor.drain();
    let refused = async {
        tokio::time::sleep(QUIET / 4).await;
        executor.run(sleeper()).await
    };
    let (drained, refused) = tokio::join!(drained, refused);
    assert!(drained.is_ok());
    assert!(matches!(refused, Err(Error::ShuttingDown)), "{refused:?}");
    assert_eq!(container.wait().await.status, ExitStatus::Code(2), "it ended by itself");
    assert!(container.snapshot().left.is_some());
    assert!(matches!(executor.prepare(sleeper(), 1).await, Err(Error::ShuttingDown)));
}

/// `shutdown-kills` of the promises.
pub(super) async fn shutdown_gives_programs_their_grace(executor: &Executor) {
    let polite =
        run(executor, shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done").piped()).await;
    let _stdout = ready(&polite).await;
    let deaf = run(executor, sleeper()).await;
    assert!(deaf.started().await.is_ok());
    let report = executor.shutdown(Cancel::with_grace(patience(QUIET)), HUNG).await;
    assert_eq!(report, longshore::ShutdownReport::default());
    let cancelled = |killed| ExitReason::Cancelled { cause: CancelCause::Shutdown, killed };
    let exit = polite.wait().await;
    assert_eq!((exit.status, exit.reason), (ExitStatus::Code(7), cancelled(false)));
    let exit = deaf.wait().await;
    assert_eq!((told(exit.status), exit.reason), (KILLED, cancelled(true)));
}

/// A grace that is longer than the deadline: every exit is known when it has passed.
pub(super) async fn shutdown_kills_before_its_deadline(executor: &Executor) {
    let deaf = run(executor, sleeper()).await;
    assert!(deaf.started().await.is_ok());
    let exec = exec(&deaf, "sleep 1000").await;
    assert!(exec.started().await.is_ok());
    let report = executor.shutdown(Cancel::with_grace(HUNG), patience(4 * QUIET)).await;
    assert_eq!(report, longshore::ShutdownReport::default());
    let killed = ExitReason::Cancelled { cause: CancelCause::Shutdown, killed: true };
    let exit = deaf.wait().await;
    assert_eq!((told(exit.status), exit.reason), (KILLED, killed));
    assert_ne!(exec.wait().await.status, ExitStatus::Unknown);
}

pub(super) async fn shutdown_ends_everything(executor: &Executor) {
    let mut containers = Vec::new();
    for _ in 0..5 {
        let container = run(executor, sleeper()).await;
        let exec = exec(&container, "sleep 1000").await;
        containers.push((container, exec));
    }
    assert!(containers[0].1.started().await.is_ok());
    assert_eq!(executor.shutdown(Cancel::now(), HUNG).await, longshore::ShutdownReport::default());
    for (container, exec) in &containers {
        for exit in [container.wait().await, exec.wait().await] {
            let ExitReason::Cancelled { cause, .. } = exit.reason else { panic!("{exit:?}") };
            assert_eq!(cause, CancelCause::Shutdown);
        }
    }
    assert!(matches!(executor.run(sleeper()).await, Err(Error::Stopped)));
    assert!(matches!(executor.list().await, Err(Error::Stopped)));
}
