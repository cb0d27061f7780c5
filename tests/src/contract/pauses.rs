//! Requests to a live container: pause, resume, resize.

use std::time::Duration;

use longshore::{Cancel, Error, ExecSpec, Executor, Phase, Refusal, Signal, Stdio, TerminalSize};

use super::{KILLED, QUIET, chunk, exec, refusal, requested, run, started, told};
use crate::{shell, sleeper};

pub(super) async fn without_a_terminal_there_is_no_resize(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    assert_eq!(refusal(container.resize(TerminalSize::default()).await), Refusal::NoTerminal);
    let mut nonsense = sleeper();
    nonsense.process.terminal = Some(TerminalSize::default());
    nonsense.process.stdio.stdout = Stdio::Inherit;
    assert!(matches!(executor.run(nonsense).await, Err(Error::InvalidSpec(_))));
    container.cancel(Cancel::now()).await;
}

pub(super) async fn pause_stands_still(executor: &Executor) {
    let container = run(executor, shell("while :; do echo tick; sleep 0.01; done").piped()).await;
    let Some(mut ticks) = container.io().take_stdout() else { panic!("there is no pipe") };
    assert!(chunk(&mut ticks).await.starts_with("tick"));
    assert_eq!(refusal(container.resume().await), Refusal::NotPaused);
    assert!(container.pause().await.is_ok());
    assert_eq!(refusal(container.pause().await), Refusal::Paused);
    assert_eq!(refusal(container.exec(ExecSpec::new(["true"])).await), Refusal::Paused);
    // What was written before is read; then nothing comes any more.
    while let Ok(Some(_)) = tokio::time::timeout(QUIET, ticks.next_chunk()).await {}
    assert!(container.resume().await.is_ok());
    assert!(chunk(&mut ticks).await.starts_with("tick"));
    container.cancel(Cancel::now()).await;
    assert_eq!(refusal(container.pause().await), Refusal::Exited);
}

/// SIGKILL, and a cancel of a process in it, at every moment of a pause.
pub(super) async fn kills_reach_what_is_being_paused(executor: &Executor) {
    for moment in 0..6 {
        let container = run(executor, sleeper()).await;
        started(&container).await;
        let killed = async {
            tokio::time::sleep(Duration::from_millis(moment * 3)).await;
            assert!(container.signal(Signal::KILL).await.is_ok());
        };
        let (_paused_or_over, ()) = futures::join!(container.pause(), killed);
        assert_eq!(told(container.wait().await.status), KILLED);
    }
    let container = run(executor, sleeper()).await;
    started(&container).await;
    let exec = exec(&container, "sleep 1000").await;
    assert!(exec.started().await.is_ok());
    assert!(container.pause().await.is_ok());
    assert_eq!(exec.cancel(Cancel::now()).await.reason, requested(true));
    // Where a frozen process does not die the container is thawed, and says so.
    while container.snapshot().phase == Phase::Paused {
        let _thawed_already = container.resume().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(refusal(container.resume().await), Refusal::NotPaused);
    assert!(container.exec(ExecSpec::new(["true"])).await.is_ok(), "nothing is frozen");
    container.cancel(Cancel::now()).await;
}
