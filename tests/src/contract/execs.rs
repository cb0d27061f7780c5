//! Processes that are added to a container.

use longshore::{
    Cancel, Chunk, ContainerSpec, Error, ExecId, ExecSpec, Executor, ExitStatus, Refusal, Signal,
    StartFailureKind, Stdio,
};

use super::{KILLED, all, exec, id, ready, refusal, requested, run, start_failure, told};
use crate::{run_recorded, shell, sleeper};

pub(super) async fn execs_have_the_containers_environment_and_their_own(executor: &Executor) {
    let mut spec = sleeper();
    spec.process.env.push(("COLOUR".into(), "red".into()));
    spec.process.env.push(("SHAPE".into(), "round".into()));
    let container = run(executor, spec).await;
    let mut spec = ExecSpec::new(["sh", "-c", "echo $COLOUR $SHAPE"]).piped();
    spec.env.push(("COLOUR".into(), "blue".into()));
    let exec = container.exec(spec).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(all(exec.io().take_stdout()).await, "blue round\n");
    container.cancel(Cancel::now()).await;
}

pub(super) async fn execs_asked_for_early_wait_for_the_container(executor: &Executor) {
    let (container, recorded) = run_recorded(executor, sleeper()).await;
    let early = exec(&container, "echo hello").await;
    assert_eq!(all(early.io().take_stdout()).await, "hello\n");
    assert!(early.wait().await.is_success());
    container.cancel(Cancel::now()).await;
    assert_eq!(recorded.await.map(|story| story.len()).ok(), Some(7));

    // An exec that waits for a container that never runs fails with it.
    let never = run(executor, ContainerSpec::host(["no-such-program"])).await;
    match never.exec(ExecSpec::new(["true"])).await {
        Ok(parked) => assert_eq!(start_failure(parked.wait().await), StartFailureKind::ContainerGone),
        Err(error) => assert!(matches!(refusal::<()>(Err(error)), Refusal::StoppedWithError { .. })),
    }
}

pub(super) async fn execs_end_on_their_own(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    let (one, other) = (exec(&container, "exit 1").await, exec(&container, "exit 2").await);
    assert_eq!(other.wait().await.status, ExitStatus::Code(2));
    assert_eq!(one.wait().await.status, ExitStatus::Code(1));
    assert_eq!(refusal(one.signal(Signal::TERM).await), Refusal::Exited);
    assert_eq!(container.snapshot().exit, None, "the container ended with its execs");
    let pids = container.processes().await.unwrap_or_default();
    assert_eq!(pids, Vec::from_iter(container.snapshot().pid));
    container.cancel(Cancel::now()).await;
}

pub(super) async fn execs_end_with_their_container(executor: &Executor) {
    let (container, recorded) =
        run_recorded(executor, shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done").piped())
            .await;
    let exec = exec(&container, "sleep 1000").await;
    ready(&container).await;
    assert!(exec.started().await.is_ok());
    drop(container.signal(Signal::TERM).await);
    assert_eq!(container.wait().await.status, ExitStatus::Code(5));
    let exit = futures::FutureExt::now_or_never(exec.wait());
    assert_eq!(exit.map(|exit| told(exit.status)), Some(KILLED), "it is known when the container's is");
    assert_eq!(recorded.await.map(|story| story.len()).ok(), Some(7));
}

pub(super) async fn three_exec_errors(executor: &Executor) {
    let unknown = executor.get(&id("unknown")).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })));
    for (script, expected) in
        [("true", Refusal::Stopped), ("exit 3", Refusal::StoppedWithError { how: "exit code 3".into() })]
    {
        let container = run(executor, shell(script)).await;
        container.wait().await;
        assert_eq!(refusal(container.exec(ExecSpec::new(["true"])).await), expected);
    }
}

pub(super) async fn execs_have_ids_and_are_found_again(executor: &Executor) {
    let exec_id = |name: &str| ExecId::new(name).unwrap_or_else(|error| panic!("{error}"));
    let container = run(executor, sleeper()).await;
    let mut spec = ExecSpec::new(["sh", "-c", "echo hello; sleep 1000"]).id(exec_id("build"));
    spec.stdio.stdout = Stdio::Shared { replay: 1 << 10 };
    let build = container.exec(spec.clone()).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(build.id().to_string(), format!("{}/build", container.id()));
    assert_eq!(refusal(container.exec(spec.clone()).await), Refusal::ExecIdTaken);
    let found = container.process(&exec_id("build")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.started().await.ok(), build.started().await.ok());
    let mut output = found.io().attach_stdout().unwrap_or_else(|| panic!("it is not shared"));
    assert_eq!(output.next().await, Some(Chunk::Bytes("hello\n".into())));
    assert_eq!(found.cancel(Cancel::now()).await.reason, requested(true));
    // It is found after its end, too; then the id is free.
    let ended = container.process(&exec_id("build")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ended.wait().await, build.wait().await);
    let mut replay = ended.io().attach_stdout().unwrap_or_else(|| panic!("it is not shared"));
    assert_eq!(replay.next().await, Some(Chunk::Bytes("hello\n".into())));
    let again = container.exec(ExecSpec::new(["sh", "-c", "exit 6"]).id(exec_id("build"))).await;
    let again = again.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.wait().await.status, ExitStatus::Code(6));
    // The id is free when the exit is published.
    for _ in 0..20 {
        let step = container.exec(ExecSpec::new(["true"]).id(exec_id("step"))).await;
        assert!(step.unwrap_or_else(|error| panic!("{error}")).wait().await.is_success());
    }
    // Ours pass over those of the caller's.
    let second = ExecSpec::new(["sleep", "1000"]).id(exec_id("exec-1"));
    assert!(container.exec(second).await.is_ok());
    let ours = exec(&container, "exit 0").await;
    assert!(ours.id().to_string().ends_with("/exec-2"), "{}", ours.id());
    let unknown = container.process(&exec_id("unknown")).await;
    assert!(matches!(unknown, Err(Error::NoProcess { .. })));
    container.cancel(Cancel::now()).await;
}
