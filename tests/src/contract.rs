//! The contract of an executor: what is promised to whoever embeds it, on whatever runtime.
//!
//! Each clause is a function of an executor, and asserts the same on the simulator, on runc and on runc
//! kept in the foreground; `tests/contract.rs` runs them there. Programs are what the simulator's
//! shell understands. What is left afterwards is checked by whoever runs a clause.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use actix::{Actor, Recipient, System};
use futures::{FutureExt, StreamExt};
use longshore::{
    Cancel, CancelCause, Chunk, ContainerHandle, ContainerId, ContainerSpec, Error, Event, EventKind, ExecId,
    ExecSpec, Executor, Exit, ExitNotice, ExitReason, ExitStatus, KeepExited, Notice, Output, Phase,
    ProcessHandle, Refusal, Signal, SignalScope, StartFailureKind, Stdio, TerminalSize,
};

use crate::{HUNG, run_told, shell, sleeper};

/// Hands the names of all clauses to a macro.
#[macro_export]
macro_rules! for_each_clause {
    ($macro:ident) => {
        $macro! {
            a_run_is_told_from_created_to_released
            exit_codes_and_signals_are_what_the_kernel_said
            what_cannot_start_says_why
            time_limits_end_programs
            output_is_complete_and_streams_are_apart
            stdin_and_its_end_reach_the_program
            execs_have_the_containers_environment_and_their_own
            execs_asked_for_early_wait_for_the_container
            execs_end_on_their_own
            execs_end_with_their_container
            three_exec_errors
            signals_come_in_order
            signals_wait_for_the_start
            cancel_with_grace_lets_the_program_end
            cancel_kills_what_does_not_end
            cancel_before_the_start
            cancel_while_paused_thaws
            cancel_after_the_end_is_satisfied
            cancel_twice_keeps_the_first_cause_and_the_sooner_end
            cancel_of_an_exec_leaves_the_container
            cancel_need_not_be_awaited
            signals_reach_groups_and_whole_containers
            outputs_are_attached_to_at_any_time
            what_nobody_waits_for_any_more_is_cancelled
            the_last_handle_may_cancel
            without_a_terminal_there_is_no_resize
            pause_stands_still
            kills_reach_what_is_being_paused
            handles_may_be_dropped
            a_container_is_held_at_created
            what_is_held_ends_at_once
            execs_wait_for_what_is_held
            what_has_exited_is_kept
            exits_are_remembered
            execs_have_ids_and_are_found_again
            released_means_that_the_id_is_free
            a_drain_waits_for_what_is_there
            equal_runs_start_what_is_kept_ready
            what_cannot_be_kept_ready_says_why
            ids_are_taken_until_released
            late_subscribers_get_a_snapshot
            actors_can_subscribe
            actors_are_sent_each_exit_once
            success_is_the_programs_own
            shutdown_gives_programs_their_grace
            shutdown_ends_everything
        }
    };
}

macro_rules! publish {
    ($($name:ident)*) => {
        /// One function for each clause.
        pub mod clauses {
            $(
                /// Checks the clause of this name.
                pub async fn $name(executor: &longshore::Executor) {
                    super::$name(executor).await;
                }
            )*
        }
    };
}
for_each_clause!(publish);

const GRACE: Duration = Duration::from_secs(30);
/// Long enough to see that nothing happens.
const QUIET: Duration = Duration::from_millis(200);

async fn run(executor: &Executor, spec: ContainerSpec) -> ContainerHandle {
    match executor.run(spec).await {
        Ok(container) => container,
        Err(error) => panic!("run: {error}"),
    }
}

async fn started(container: &ContainerHandle) {
    if let Err(error) = container.started().await {
        panic!("{error}");
    }
}

async fn exec(container: &ContainerHandle, script: &str) -> ProcessHandle {
    match container.exec(ExecSpec::new(["sh", "-c", script]).piped()).await {
        Ok(process) => process,
        Err(error) => panic!("exec: {error}"),
    }
}

async fn all(output: Option<Output>) -> String {
    let output = output.map(Output::read_to_end);
    let Some(output) = output else { panic!("there is no pipe") };
    String::from_utf8_lossy(&output.await).into_owned()
}

/// Waits for a program that says when it is ready.
async fn ready(container: &ContainerHandle) -> Output {
    let Some(mut stdout) = container.io().take_stdout() else { panic!("there is no pipe") };
    assert_eq!(chunk(&mut stdout).await, "ready\n");
    stdout
}

async fn chunk(output: &mut Output) -> String {
    String::from_utf8_lossy(&output.next_chunk().await.unwrap_or_default()).into_owned()
}

fn id(name: &str) -> ContainerId {
    match ContainerId::new(name) {
        Ok(id) => id,
        Err(error) => panic!("{error}"),
    }
}

fn requested(killed: bool) -> ExitReason {
    ExitReason::Cancelled { cause: CancelCause::Requested, killed }
}

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

fn start_failure(exit: Exit) -> StartFailureKind {
    let ExitReason::StartFailed(failure) = exit.reason else { panic!("{exit:?}") };
    failure.kind
}

fn refusal<T>(answer: Result<T, Error>) -> Refusal {
    let Err(Error::Refused { refused, .. }) = answer else { panic!("it was not refused") };
    refused.reason
}

async fn a_run_is_told_from_created_to_released(executor: &Executor) {
    let (container, told) = run_told(executor, shell("sleep 0.01; exit 3")).await;
    let pid = container.started().await.ok();
    let exit = container.wait().await;
    assert_eq!(container.released().await.ok(), Some(Vec::new()));
    let story: Vec<_> = told.await.unwrap_or_default().into_iter().map(|event| event.kind).collect();
    let Some(pid) = pid else { panic!("no pid") };
    assert!(exit.started_at <= Some(exit.exited_at));
    let released = EventKind::Released { left: vec![] };
    assert_eq!(
        story,
        [EventKind::Registered, EventKind::Started { pid }, EventKind::Exited { exit }, released]
    );
}

async fn exit_codes_and_signals_are_what_the_kernel_said(executor: &Executor) {
    for code in [0, 1, 42, 127, 137, 255] {
        let exit = run(executor, shell(&format!("exit {code}"))).await.wait().await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(code), ExitReason::Normal));
    }
    let container = run(executor, sleeper()).await;
    // A runtime kept in the foreground is no witness for what ends before its pid file is read.
    let killed = exec(&container, "sleep 0.2; kill -USR1 $$; sleep 1000").await.wait().await;
    assert_eq!((killed.status, killed.reason), (ExitStatus::Signal(Signal::USR1), ExitReason::Normal));
    container.cancel(Cancel::now()).await;
}

async fn what_cannot_start_says_why(executor: &Executor) {
    let (container, told) = run_told(executor, ContainerSpec::host(["no-such-program"])).await;
    assert!(matches!(container.started().await, Err(Error::NotStarted { .. })));
    assert_eq!(start_failure(container.wait().await), StartFailureKind::NotFound);
    assert_eq!(told.await.map(|story| story.len()).ok(), Some(3), "created, exited, released");

    let container = run(executor, sleeper()).await;
    let exec = container.exec(ExecSpec::new(["no-such-program"])).await;
    let exec = exec.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(start_failure(exec.wait().await), StartFailureKind::NotFound);
    assert_eq!(container.snapshot().exit, None, "the container runs on");
    container.cancel(Cancel::now()).await;

    let nonsense = executor.run(ContainerSpec::host(["a\0b"])).await;
    assert!(matches!(nonsense, Err(Error::InvalidSpec(_))), "{nonsense:?}");
}

async fn time_limits_end_programs(executor: &Executor) {
    let limited = |limit| sleeper().time_limit(limit, Cancel::now());
    let exit = run(executor, limited(QUIET)).await.wait().await;
    assert_eq!((exit.status, exit.reason), (KILLED, ExitReason::TimedOut { killed: true }));
    let exit =
        run(executor, ContainerSpec::host(["true"]).time_limit(HUNG, Cancel::now())).await.wait().await;
    assert_eq!(exit.reason, ExitReason::Normal);
}

async fn output_is_complete_and_streams_are_apart(executor: &Executor) {
    let container = run(executor, shell("echo out; echo err >&2; echo more").piped()).await;
    let (stdout, stderr) = (container.io().take_stdout(), container.io().take_stderr());
    assert!(container.wait().await.is_success());
    assert_eq!(all(stdout).await, "out\nmore\n");
    assert_eq!(all(stderr).await, "err\n");
    assert!(container.io().take_stdout().is_none(), "a stream is taken once");
}

async fn stdin_and_its_end_reach_the_program(executor: &Executor) {
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

async fn execs_have_the_containers_environment_and_their_own(executor: &Executor) {
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

async fn execs_asked_for_early_wait_for_the_container(executor: &Executor) {
    let (container, told) = run_told(executor, sleeper()).await;
    let early = exec(&container, "echo hello").await;
    assert_eq!(all(early.io().take_stdout()).await, "hello\n");
    assert!(early.wait().await.is_success());
    container.cancel(Cancel::now()).await;
    assert_eq!(told.await.map(|story| story.len()).ok(), Some(7));

    // One that waits for a container that never runs is told so.
    let never = run(executor, ContainerSpec::host(["no-such-program"])).await;
    match never.exec(ExecSpec::new(["true"])).await {
        Ok(parked) => assert_eq!(start_failure(parked.wait().await), StartFailureKind::ContainerGone),
        Err(error) => assert!(matches!(refusal::<()>(Err(error)), Refusal::StoppedWithError { .. })),
    }
}

async fn execs_end_on_their_own(executor: &Executor) {
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

async fn execs_end_with_their_container(executor: &Executor) {
    let (container, told) =
        run_told(executor, shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done").piped())
            .await;
    let exec = exec(&container, "sleep 1000").await;
    ready(&container).await;
    assert!(exec.started().await.is_ok());
    drop(container.signal(Signal::TERM).await);
    assert_eq!(container.wait().await.status, ExitStatus::Code(5));
    let exit = futures::FutureExt::now_or_never(exec.wait());
    assert_eq!(exit.map(|exit| exit.status), Some(KILLED), "it is known when the container's is");
    assert_eq!(told.await.map(|story| story.len()).ok(), Some(7));
}

async fn three_exec_errors(executor: &Executor) {
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

async fn signals_come_in_order(executor: &Executor) {
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

async fn signals_wait_for_the_start(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    assert!(container.signal(Signal::KILL).await.is_ok());
    let exit = container.wait().await;
    // It was not a cancel.
    assert_eq!((exit.status, exit.reason), (KILLED, ExitReason::Normal));
}

async fn cancel_with_grace_lets_the_program_end(executor: &Executor) {
    let polite = shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done").piped();
    let container = run(executor, polite).await;
    ready(&container).await;
    let exit = container.cancel(Cancel::with_grace(GRACE)).await;
    assert_eq!((exit.status, exit.reason), (ExitStatus::Code(9), requested(false)));
}

async fn cancel_kills_what_does_not_end(executor: &Executor) {
    // Without a handler, pid 1 ignores SIGTERM.
    let container = run(executor, sleeper()).await;
    started(&container).await;
    let exit = container.cancel(Cancel::with_grace(Duration::from_millis(50))).await;
    assert_eq!((exit.status, exit.reason), (KILLED, requested(true)));

    let container =
        run(executor, shell("trap '' TERM; echo ready; while :; do sleep 0.01; done").piped()).await;
    ready(&container).await;
    let exit = container.cancel(Cancel::now()).await;
    assert_eq!((exit.status, exit.reason), (KILLED, requested(true)));
}

async fn cancel_before_the_start(executor: &Executor) {
    for moment in 0..10 {
        let (container, told) = run_told(executor, sleeper()).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let exit = container.cancel(Cancel::now()).await;
        let ran = exit.started_at.is_some();
        assert_eq!(exit.status, if ran { KILLED } else { ExitStatus::Unknown });
        assert_eq!(exit.reason, requested(ran));
        assert_eq!(container.processes().await.unwrap_or_default(), []);
        let story = told.await.unwrap_or_default();
        assert_eq!(story.len(), if ran { 4 } else { 3 });
    }
}

async fn cancel_while_paused_thaws(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    started(&container).await;
    assert!(container.pause().await.is_ok());
    let exit = container.cancel(Cancel::now()).await;
    assert_eq!((exit.status, exit.reason), (KILLED, requested(true)));
}

async fn cancel_after_the_end_is_satisfied(executor: &Executor) {
    let container = run(executor, shell("exit 6")).await;
    let exit = container.wait().await;
    assert_eq!(container.cancel(Cancel::now()).await, exit);
    assert!(container.released().await.is_ok());
    assert_eq!(container.cancel(Cancel::now()).await, exit);
}

async fn cancel_twice_keeps_the_first_cause_and_the_sooner_end(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    started(&container).await;
    let slow = container.cancel(Cancel::with_grace(GRACE));
    let now = container.cancel(Cancel::now().cause(CancelCause::Shutdown));
    let (one, other) = tokio::join!(slow, now);
    assert_eq!(one, other);
    assert_eq!((one.status, one.reason), (KILLED, requested(true)));
}

async fn cancel_of_an_exec_leaves_the_container(executor: &Executor) {
    let (container, told) = run_told(executor, sleeper()).await;
    let running = exec(&container, "sleep 1000").await;
    assert!(running.started().await.is_ok());
    let exit = running.cancel(Cancel::now()).await;
    assert_eq!((exit.status, exit.reason), (KILLED, requested(true)));

    // Before it has started, and with a handler for the signal.
    let early = exec(&container, "sleep 1000").await;
    assert!(matches!(early.cancel(Cancel::now()).await.reason, ExitReason::Cancelled { .. }));
    let polite = exec(&container, "trap 'exit 8' TERM; echo ready; while :; do sleep 0.01; done").await;
    let mut stdout = polite.io().take_stdout().unwrap_or_else(|| panic!("there is no pipe"));
    assert_eq!(chunk(&mut stdout).await, "ready\n");
    assert_eq!(polite.cancel(Cancel::with_grace(GRACE)).await.status, ExitStatus::Code(8));

    assert_eq!(container.snapshot().exit, None);
    container.cancel(Cancel::now()).await;
    let told = told.await.unwrap_or_default();
    let ended = |event: &&Event| matches!(event.kind, EventKind::ExecExited { .. });
    assert_eq!(told.iter().filter(ended).count(), 3);
}

async fn cancel_need_not_be_awaited(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    drop(container.cancel(Cancel::now()));
    assert!(matches!(container.wait().await.reason, ExitReason::Cancelled { .. }));
}

async fn signals_reach_groups_and_whole_containers(executor: &Executor) {
    let container =
        run(executor, shell("trap 'exit 6' USR1; echo ready; while :; do sleep 0.01; done").piped()).await;
    ready(&container).await;
    let exec = exec(&container, "trap 'exit 7' USR1; echo ready; while :; do sleep 0.01; done").await;
    let mut stdout = exec.io().take_stdout().unwrap_or_else(|| panic!("there is no pipe"));
    assert_eq!(chunk(&mut stdout).await, "ready\n");
    assert!(container.signal_to(Signal::USR1, SignalScope::Container).await.is_ok());
    assert_eq!(container.wait().await.status, ExitStatus::Code(6));
    // Init may have ended, and the exec with it, before the exec's trap was run.
    let status = exec.wait().await.status;
    assert!([ExitStatus::Code(7), KILLED].contains(&status), "{status:?}");

    // A child that a shell has left behind holds its output; the group's signal reaches it too.
    let container = run(executor, sleeper()).await;
    let holder = self::exec(&container, "sleep 1000 & echo ready; while :; do sleep 0.01; done").await;
    let mut stdout = holder.io().take_stdout().unwrap_or_else(|| panic!("there is no pipe"));
    assert_eq!(chunk(&mut stdout).await, "ready\n");
    assert!(holder.signal_to(Signal::TERM, SignalScope::Group).await.is_ok());
    assert_eq!(holder.wait().await.status, ExitStatus::Signal(Signal::TERM));
    assert_eq!(chunk(&mut stdout).await, "", "nobody holds the pipe");
    container.cancel(Cancel::now()).await;
}

async fn outputs_are_attached_to_at_any_time(executor: &Executor) {
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

async fn what_nobody_waits_for_any_more_is_cancelled(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    started(&container).await;
    for _ in 0..20 {
        // Request for, and dropped before it is answered. What is answered at once is somebody's.
        let asked = container.exec(ExecSpec::new(["sleep", "1000"]));
        if let Some(Ok(exec)) = asked.now_or_never() {
            drop(exec.cancel(Cancel::now()));
        }
        if let Some(Ok(other)) = executor.run(sleeper()).now_or_never() {
            drop(other.cancel(Cancel::now()));
        }
        // Nobody has the handle by which what is kept of it could be removed.
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
    assert_eq!(container.processes().await.map(|pids| pids.len()).ok(), Some(1));
    container.cancel(Cancel::now()).await;
}

async fn the_last_handle_may_cancel(executor: &Executor) {
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

async fn without_a_terminal_there_is_no_resize(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    assert_eq!(refusal(container.resize(TerminalSize::default()).await), Refusal::NoTerminal);
    let mut nonsense = sleeper();
    nonsense.process.terminal = Some(TerminalSize::default());
    nonsense.process.stdio.stdout = Stdio::Inherit;
    assert!(matches!(executor.run(nonsense).await, Err(Error::InvalidSpec(_))));
    container.cancel(Cancel::now()).await;
}

async fn pause_stands_still(executor: &Executor) {
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
async fn kills_reach_what_is_being_paused(executor: &Executor) {
    for moment in 0..6 {
        let container = run(executor, sleeper()).await;
        started(&container).await;
        let killed = async {
            tokio::time::sleep(Duration::from_millis(moment * 3)).await;
            assert!(container.signal(Signal::KILL).await.is_ok());
        };
        let (_paused_or_over, ()) = futures::join!(container.pause(), killed);
        assert_eq!(container.wait().await.status, KILLED);
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

async fn handles_may_be_dropped(executor: &Executor) {
    drop(run(executor, sleeper().id(id("detached"))).await);
    let found = executor.get(&id("detached")).await.unwrap_or_else(|error| panic!("{error}"));
    started(&found).await;
    drop(exec(&found, "sleep 1000").await);
    assert_eq!(executor.list().await.map(|all| all.len()).ok(), Some(1));
    found.cancel(Cancel::now()).await;
}

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

async fn a_container_is_held_at_created(executor: &Executor) {
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

async fn what_is_held_ends_at_once(executor: &Executor) {
    let Some(cancelled) = held(executor, sleeper()).await else { return };
    // There is no program that could do something with a grace.
    let exit = cancelled.cancel(Cancel::with_grace(GRACE)).await;
    assert_eq!((exit.status, exit.reason, exit.started_at), (KILLED, requested(true), None));
    assert!(!exit.success);
    let Some(killed) = held(executor, sleeper()).await else { return };
    assert!(killed.signal(Signal::KILL).await.is_ok());
    let exit = killed.wait().await;
    assert_eq!((exit.status, exit.reason, exit.started_at), (KILLED, ExitReason::Normal, None));
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
        assert_eq!((exit.status, exit.reason), (KILLED, ExitReason::Normal));
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

async fn execs_wait_for_what_is_held(executor: &Executor) {
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

async fn what_has_exited_is_kept(executor: &Executor) {
    let mut spec = shell("echo hello; exit 5").id(id("kept-after")).keep_exited(KeepExited::UntilRemoved);
    spec.process.stdio.stdout = Stdio::Shared { replay: 1 << 10 };
    let container = run(executor, spec.clone()).await;
    let exit = container.wait().await;
    assert_eq!(exit.status, ExitStatus::Code(5));
    tokio::time::sleep(QUIET).await;
    // Its id, its exit with the usage, and what its output replays are there for whoever asks for them.
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

async fn exits_are_remembered(executor: &Executor) {
    for code in [3, 4] {
        let container = run(executor, shell(&format!("exit {code}")).id(id("again"))).await;
        assert!(container.released().await.is_ok());
        let exit = executor.exit_of(&id("again")).await.ok().flatten();
        assert_eq!(exit, Some(container.wait().await), "the last of this id");
    }
    assert_eq!(executor.exit_of(&id("unknown")).await.ok(), Some(None));
}

async fn execs_have_ids_and_are_found_again(executor: &Executor) {
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
    // It is free when its end is told.
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

async fn released_means_that_the_id_is_free(executor: &Executor) {
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

async fn a_drain_waits_for_what_is_there(executor: &Executor) {
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

/// In the foreground nothing can be kept ready, and is said to be so; runs go on as ever.
async fn kept_ready(executor: &Executor, spec: &ContainerSpec, count: usize) -> bool {
    match executor.prepare(spec.clone(), count).await {
        Ok(()) => true,
        Err(Error::NotReady(failure)) if failure.message.contains("foreground") => false,
        Err(error) => panic!("prepare: {error}"),
    }
}

async fn equal_runs_start_what_is_kept_ready(executor: &Executor) {
    let spec = shell("echo ready; exit 3").piped();
    let _or_not = kept_ready(executor, &spec, 2).await;
    assert_eq!(executor.list().await.ok(), Some(Vec::new()), "they are nobody's yet");
    for _ in 0..5 {
        let (container, told) = run_told(executor, spec.clone().time_limit(GRACE, Cancel::now())).await;
        assert_eq!(all(container.io().take_stdout()).await, "ready\n");
        assert_eq!(container.wait().await.status, ExitStatus::Code(3));
        assert!(told.await.is_ok());
    }
    // Of its own, and counted from the start: the limit of one and the cancel of the other.
    let spec = sleeper();
    let _or_not = kept_ready(executor, &spec, 2).await;
    let limited = run(executor, spec.clone().time_limit(QUIET, Cancel::now())).await;
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

async fn what_cannot_be_kept_ready_says_why(executor: &Executor) {
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

async fn ids_are_taken_until_released(executor: &Executor) {
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

async fn late_subscribers_get_a_snapshot(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    let pid = container.started().await.ok();
    let mut events = container.events();
    let Some(Notice::Snapshot(snapshot)) = events.next().await else { panic!("no snapshot") };
    assert_eq!((snapshot.seq, snapshot.pid), (2, pid));
    let exit = container.cancel(Cancel::now()).await;
    let Some(Notice::Event(event)) = events.next().await else { panic!("no event") };
    assert_eq!((event.seq, event.kind), (3, EventKind::Exited { exit: exit.clone() }));
    assert!(matches!(events.next().await, Some(Notice::Event(_))), "Released");
    assert_eq!(events.next().await, None);

    let mut later = container.events();
    let Some(Notice::Snapshot(snapshot)) = later.next().await else { panic!("no snapshot") };
    assert_eq!((snapshot.seq, snapshot.exit), (4, Some(exit)));
    assert_eq!(later.next().await, None);
}

/// An actor of the embedder's, which hands on the messages that it receives.
struct Subscriber<M>(futures::channel::mpsc::UnboundedSender<M>);

/// A message that subscribers receive.
trait Received: actix::Message<Result = ()> + Send + Unpin + 'static {}

impl Received for Notice {}
impl Received for ExitNotice {}

impl<M: Received> Actor for Subscriber<M> {
    type Context = actix::Context<Self>;
}

impl<M: Received> actix::Handler<M> for Subscriber<M> {
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        drop(self.0.unbounded_send(message));
    }
}

type Elsewhere = Option<(System, thread::JoinHandle<()>)>;

/// Starts it on the system of this thread, or on one of its own, which [`stop_subscriber`] ends.
fn start_subscriber<M: Received>(subscriber: Subscriber<M>) -> (Recipient<M>, Elsewhere) {
    if System::is_registered() {
        return (subscriber.start().recipient(), None);
    }
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let system = System::new();
        let address = system.block_on(async { subscriber.start() });
        drop(sender.send((address.recipient(), System::current())));
        drop(system.run());
    });
    let Ok((recipient, system)) = receiver.recv() else { panic!("no system") };
    (recipient, Some((system, thread)))
}

fn stop_subscriber(elsewhere: Elsewhere) {
    if let Some((system, thread)) = elsewhere {
        system.stop();
        assert!(thread.join().is_ok());
    }
}

async fn actors_can_subscribe(executor: &Executor) {
    let container = run(executor, sleeper()).await;
    let (sender, told) = futures::channel::mpsc::unbounded();
    let (recipient, elsewhere) = start_subscriber(Subscriber(sender));
    assert!(container.subscribe(recipient).await.is_ok());
    container.cancel(Cancel::now()).await;
    let told: Vec<_> = futures::StreamExt::collect(told).await;
    stop_subscriber(elsewhere);
    assert!(matches!(told.first(), Some(Notice::Snapshot(_))), "{told:?}");
    let Some(Notice::Event(last)) = told.last() else { panic!("{told:?}") };
    assert!(matches!(last.kind, EventKind::Released { .. }), "{told:?}");
}

/// Request for before the end, after it, and after the release; of a container, of an exec, and of all containers.
async fn actors_are_sent_each_exit_once(executor: &Executor) {
    let (sender, mut received) = futures::channel::mpsc::unbounded();
    let (recipient, elsewhere) = start_subscriber(Subscriber(sender));
    let (all_sender, mut all_received) = futures::channel::mpsc::unbounded();
    let (all, all_elsewhere) = start_subscriber(Subscriber(all_sender));
    assert!(executor.notify_exits(all).is_ok());
    let container = run(executor, ContainerSpec::host(["cat"]).stdin(Stdio::Pipe)).await;
    container.notify_exit(recipient.clone());
    let exec = exec(&container, "exit 5").await;
    exec.notify_exit(recipient.clone());
    let first = received.next().await;
    assert_eq!(
        first.map(|notice| (notice.process, notice.exit)),
        Some((exec.id().clone(), exec.wait().await))
    );
    drop(container.io().take_stdin());
    let exit = container.wait().await;
    container.notify_exit(recipient.clone());
    assert!(container.released().await.is_ok());
    container.notify_exit(recipient.clone());
    exec.notify_exit(recipient);
    for expected in [container.id(), container.id(), container.id()] {
        let Some(notice) = received.next().await else { panic!("no exit") };
        assert_eq!((&notice.process.container, &notice.exit), (expected, &exit));
    }
    assert_eq!(received.next().await.map(|notice| notice.process), Some(exec.id().clone()));
    // The recipients are gone with what they waited for: nothing comes twice.
    stop_subscriber(elsewhere);
    let once = all_received.next().await;
    assert_eq!(
        once.map(|notice| (notice.process.container, notice.exit)),
        Some((container.id().clone(), exit))
    );
    let failed = run(executor, ContainerSpec::host(["no-such-program"])).await.wait().await;
    assert_eq!(all_received.next().await.map(|notice| notice.exit), Some(failed));
    assert!(all_received.try_recv().is_err(), "an exit came twice");
    stop_subscriber(all_elsewhere);
}

/// `success` of the promises: a code of 0 after SIGTERM is a valid code, and no success.
async fn success_is_the_programs_own(executor: &Executor) {
    let polite = || shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done").piped();
    let container = run(executor, polite()).await;
    let _stdout = ready(&container).await;
    let exit = container.cancel(Cancel::with_grace(HUNG)).await;
    assert_eq!(
        (exit.status, exit.is_success(), exit.valid_code),
        (ExitStatus::Code(0), false, true),
        "{exit:?}"
    );
    let limited = run(executor, polite().time_limit(QUIET, Cancel::with_grace(HUNG))).await;
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

/// `shutdown-kills` of the promises.
async fn shutdown_gives_programs_their_grace(executor: &Executor) {
    let polite =
        run(executor, shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done").piped()).await;
    let _stdout = ready(&polite).await;
    let deaf = run(executor, sleeper()).await;
    assert!(deaf.started().await.is_ok());
    let report = executor.shutdown(Cancel::with_grace(QUIET), HUNG).await;
    assert_eq!(report, longshore::ShutdownReport::default());
    let cancelled = |killed| ExitReason::Cancelled { cause: CancelCause::Shutdown, killed };
    let exit = polite.wait().await;
    assert_eq!((exit.status, exit.reason), (ExitStatus::Code(7), cancelled(false)));
    let exit = deaf.wait().await;
    assert_eq!((exit.status, exit.reason), (KILLED, cancelled(true)));
}

async fn shutdown_ends_everything(executor: &Executor) {
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
