//! How a run begins and ends: statuses, reasons, streams and limits.

use longshore::{
    Cancel, Chunk, ContainerSpec, Error, EventKind, ExecSpec, Executor, ExitReason, ExitStatus, Signal,
    StartFailureKind, Stdio,
};

use super::{KILLED, QUIET, all, exec, id, ready, run, start_failure, told};
use crate::{HUNG, patience, run_recorded, shell, sleeper};

pub(super) async fn a_run_is_told_from_created_to_released(executor: &Executor) {
    let (container, recorded) = run_recorded(executor, shell("sleep 0.01; exit 3")).await;
    let pid = container.started().await.ok();
    let exit = container.wait().await;
    assert_eq!(container.released().await.ok(), Some(Vec::new()));
    let story: Vec<_> = recorded.await.unwrap_or_default().into_iter().map(|event| event.kind).collect();
    let Some(pid) = pid else { panic!("no pid") };
    assert!(exit.started_at <= Some(exit.exited_at));
    let released = EventKind::Released { left: vec![] };
    assert_eq!(
        story,
        [EventKind::Registered, EventKind::Started { pid }, EventKind::Exited { exit }, released]
    );
}

pub(super) async fn exit_codes_and_signals_are_what_the_kernel_said(executor: &Executor) {
    for code in [0, 1, 42, 127, 137, 255] {
        let exit = run(executor, shell(&format!("exit {code}"))).await.wait().await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(code), ExitReason::Normal));
    }
    let container = run(executor, sleeper()).await;
    // A runtime kept in the foreground is no witness for what ends before its pid file is read.
    let killed = exec(&container, "sleep 0.2; kill -USR1 $$; sleep 1000").await.wait().await;
    assert_eq!((told(killed.status), killed.reason), (ExitStatus::Signal(Signal::USR1), ExitReason::Normal));
    container.cancel(Cancel::now()).await;
}

pub(super) async fn what_cannot_start_says_why(executor: &Executor) {
    let (container, recorded) = run_recorded(executor, ContainerSpec::host(["no-such-program"])).await;
    assert!(matches!(container.started().await, Err(Error::NotStarted { .. })));
    assert_eq!(start_failure(container.wait().await), StartFailureKind::NotFound);
    assert_eq!(recorded.await.map(|story| story.len()).ok(), Some(3), "created, exited, released");

    let container = run(executor, sleeper()).await;
    let exec = container.exec(ExecSpec::new(["no-such-program"])).await;
    let exec = exec.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(start_failure(exec.wait().await), StartFailureKind::NotFound);
    assert_eq!(container.snapshot().exit, None, "the container runs on");
    container.cancel(Cancel::now()).await;

    let nonsense = executor.run(ContainerSpec::host(["a\0b"])).await;
    assert!(matches!(nonsense, Err(Error::InvalidSpec(_))), "{nonsense:?}");
}

pub(super) async fn time_limits_end_programs(executor: &Executor) {
    let limited = |limit| sleeper().time_limit(patience(limit), Cancel::now());
    let exit = run(executor, limited(QUIET)).await.wait().await;
    assert_eq!((told(exit.status), exit.reason), (KILLED, ExitReason::TimedOut { killed: true }));
    let exit =
        run(executor, ContainerSpec::host(["true"]).time_limit(HUNG, Cancel::now())).await.wait().await;
    assert_eq!(exit.reason, ExitReason::Normal);
}

pub(super) async fn output_is_complete_and_streams_are_apart(executor: &Executor) {
    let container = run(executor, shell("echo out; echo err >&2; echo more").piped()).await;
    let (stdout, stderr) = (container.io().take_stdout(), container.io().take_stderr());
    assert!(container.wait().await.is_success());
    assert_eq!(all(stdout).await, "out\nmore\n");
    assert_eq!(all(stderr).await, "err\n");
    assert!(container.io().take_stdout().is_none(), "a stream is taken once");
}

pub(super) async fn stdin_and_its_end_reach_the_program(executor: &Executor) {
    let mut spec = ContainerSpec::host(["cat"]).piped();
    spec.process.stdio.stdin = Stdio::Pipe;
    let container = run(executor, spec).await;
    let (stdin, stdout) = (container.io().take_stdin(), container.io().take_stdout());
    let write = async {
        let Some(mut stdin) = stdin else { panic!("there is no pipe") };
        for _ in 0..100 {
            if let Err(error) = stdin.write_all([b'x'; 10_000]).await {
                panic!("{error}");
            }
        }
    };
    let ((), text) = tokio::join!(write, all(stdout));
    assert_eq!(text.len(), 1_000_000);
    assert!(container.wait().await.is_success());
}

pub(super) async fn outputs_are_attached_to_at_any_time(executor: &Executor) {
    let mut spec = shell("echo one; sleep 0.2; echo two; sleep 0.2; echo three").id(id("shared"));
    spec.process.stdio.stdout = Stdio::Shared { replay: 1 << 16 };
    let container = run(executor, spec).await;
    let attach = || container.io().attach_stdout().unwrap_or_else(|| panic!("it is not shared"));
    let mut one = attach();
    assert_eq!(one.next().await, Some(Chunk::Bytes("one\n".into())));
    let found = executor.get(&id("shared")).await.unwrap_or_else(|error| panic!("{error}"));
    let Some(mut other) = found.io().attach_stdout() else {
        panic!("it cannot be attached to from elsewhere")
    };
    drop(one);
    let mut all = Vec::new();
    while let Some(chunk) = other.next().await {
        let Chunk::Bytes(bytes) = chunk else { panic!("{chunk:?}") };
        all.extend(bytes);
    }
    assert_eq!(String::from_utf8_lossy(&all), "one\ntwo\nthree\n");
    assert!(container.wait().await.is_success());
    assert_eq!(attach().next().await, Some(Chunk::Bytes("one\n".into())), "after the end as well");
    assert!(container.io().take_stdout().is_none());
}

/// `success` of the promises: a code of 0 after SIGTERM is a valid code, and no success.
pub(super) async fn success_is_the_programs_own(executor: &Executor) {
    let polite = || shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done").piped();
    let container = run(executor, polite()).await;
    let _stdout = ready(&container).await;
    let exit = container.cancel(Cancel::with_grace(HUNG)).await;
    assert_eq!(
        (exit.status, exit.is_success(), exit.valid_code),
        (ExitStatus::Code(0), false, true),
        "{exit:?}"
    );
    let limited = run(executor, polite().time_limit(patience(QUIET), Cancel::with_grace(HUNG))).await;
    let _stdout = ready(&limited).await;
    let exit = limited.wait().await;
    assert_eq!(exit.reason, ExitReason::TimedOut { killed: false });
    assert_eq!(
        (exit.status, exit.is_success(), exit.valid_code),
        (ExitStatus::Code(0), false, true),
        "{exit:?}"
    );
    let mut spec = shell("exit 3");
    spec.process.valid_exit_codes.insert(3);
    let exit = run(executor, spec).await.wait().await;
    assert_eq!((exit.is_success(), exit.valid_code), (true, true));
}
