//! Ids: when they are taken, when they are free, and what is remembered of them.

use longshore::{
    Cancel, Chunk, ContainerSpec, Error, EventKind, Executor, ExitStatus, KeepExited, Notice, Phase, Refusal,
    Signal, Stdio,
};

use super::{QUIET, id, refusal, run, started};
use crate::{shell, sleeper};

pub(super) async fn what_has_exited_is_kept(executor: &Executor) {
    let mut spec = shell("echo hello; exit 5").id(id("kept-after")).keep_exited(KeepExited::UntilRemoved);
    spec.process.stdio.stdout = Stdio::Shared { replay: 1 << 10 };
    let container = run(executor, spec.clone()).await;
    let exit = container.wait().await;
    assert_eq!(exit.status, ExitStatus::Code(5));
    tokio::time::sleep(QUIET).await;
    // Its id, its exit with the usage, and what its output replays can be read.
    assert!(matches!(executor.run(spec.clone()).await, Err(Error::IdTaken { .. })));
    let found = executor.get(&id("kept-after")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((found.wait().await, found.snapshot().phase), (exit.clone(), Phase::Exited));
    assert_eq!(executor.exit_of(&id("kept-after")).await.ok().flatten(), Some(exit.clone()));
    assert_eq!(refusal(found.usage().await), Refusal::Exited);
    let mut output = found.io().attach_stdout().unwrap_or_else(|| panic!("it is not shared"));
    assert_eq!(output.next().await, Some(Chunk::Bytes("hello\n".into())));
    assert_eq!(refusal(found.signal(Signal::TERM).await), Refusal::Exited);
    // A cancel is satisfied, and removes nothing.
    assert_eq!(found.cancel(Cancel::now()).await, exit);
    assert!(found.snapshot().left.is_none());
    assert!(found.remove().await.is_ok());
    assert_eq!(container.released().await.ok(), Some(Vec::new()));
    assert!(found.remove().await.is_ok(), "it is removed");
    assert!(matches!(executor.get(&id("kept-after")).await, Err(Error::NotFound { .. })));

    let brief = run(executor, spec.clone().keep_exited(KeepExited::For(QUIET))).await;
    let exit = brief.wait().await;
    assert!(brief.snapshot().left.is_none());
    assert_eq!(brief.released().await.ok(), Some(Vec::new()));
    assert_eq!(executor.exit_of(&id("kept-after")).await.ok().flatten(), Some(exit));
    // One that could not start is kept as well, and a shutdown keeps nothing.
    let missing = ContainerSpec::host(["no-such-program"]).keep_exited(KeepExited::UntilRemoved);
    assert!(run(executor, missing).await.wait().await.started_at.is_none());
}

pub(super) async fn exits_are_remembered(executor: &Executor) {
    for code in [3, 4] {
        let container = run(executor, shell(&format!("exit {code}")).id(id("again"))).await;
        assert!(container.released().await.is_ok());
        let exit = executor.exit_of(&id("again")).await.ok().flatten();
        assert_eq!(exit, Some(container.wait().await), "the last of this id");
    }
    let running = run(executor, sleeper().id(id("again"))).await;
    assert_eq!(executor.exit_of(&id("again")).await.ok(), Some(None), "it has not exited");
    running.cancel(Cancel::now()).await;
    assert!(matches!(executor.exit_of(&id("unknown")).await, Err(Error::NotFound { .. })));
}

pub(super) async fn released_means_that_the_id_is_free(executor: &Executor) {
    for _ in 0..20 {
        let container = run(executor, ContainerSpec::host(["true"]).id(id("at-once"))).await;
        let mut events = container.events();
        while let Some(notice) = events.next().await {
            if matches!(&notice, Notice::Event(event) if matches!(event.kind, EventKind::Released { .. })) {
                break;
            }
        }
        run(executor, ContainerSpec::host(["true"]).id(id("at-once"))).await.released().await.ok();
    }
}

pub(super) async fn ids_are_taken_until_released(executor: &Executor) {
    let one = run(executor, sleeper().id(id("the-one"))).await;
    started(&one).await;
    let taken = executor.run(sleeper().id(id("the-one"))).await;
    assert!(matches!(taken, Err(Error::IdTaken { .. })), "{taken:?}");
    assert_eq!(executor.get(&id("the-one")).await.map(|found| found.snapshot()).ok(), Some(one.snapshot()));
    one.cancel(Cancel::now()).await;
    assert!(one.released().await.is_ok());
    assert!(matches!(executor.get(&id("the-one")).await, Err(Error::NotFound { .. })));
    assert!(run(executor, ContainerSpec::host(["true"]).id(id("the-one"))).await.wait().await.is_success());
}
