//! Cancels at every moment and in great numbers, and the embedder's death with much under way: nothing
//! escapes, nothing is left.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use longshore::{
    Cancel, CancelCause, ContainerHandle, ExecSpec, Executor, Exit, ExitReason, ExitStatus, Signal,
    TerminalSize,
};
use longshore_tests::command::{call, longshore};
use longshore_tests::{on_bare_stage, on_stage, run_recorded, sleeper};

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

/// Attempts that are under way at once: the moments between them shift as the machine is shared.
const AT_ONCE: usize = 8;

/// From when on the delay is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    Request,
    Started,
}

/// Every delay from 0 to 60 ms in steps of 4, twenty times each.
fn moments() -> impl Iterator<Item = (From, Duration)> {
    let delays = (0..=60).step_by(4).map(Duration::from_millis);
    let moments = delays.flat_map(|delay| [(From::Request, delay), (From::Started, delay)]);
    moments.flat_map(|moment| std::iter::repeat_n(moment, 20))
}

/// An end that says of a cancelled sleeper what is true: killed if it ran, and never run otherwise.
fn assert_truthful(exit: &Exit, moment: (From, Duration)) {
    let killed = exit.started_at.is_some();
    let reason = ExitReason::Cancelled { cause: CancelCause::Requested, killed };
    let status = if killed { KILLED } else { ExitStatus::Unknown };
    assert_eq!((&exit.reason, exit.status), (&reason, status), "{moment:?}");
    assert!(killed || moment.0 == From::Request, "{moment:?}: it was running: {exit:?}");
}

#[test]
fn cancel_of_a_run_at_every_moment() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let attempts = stream::iter(moments()).map(async |moment| {
            let (container, recorded) = run_recorded(&executor, sleeper()).await;
            if moment.0 == From::Started {
                container.started().await.unwrap();
            }
            // The delay is what varies here, not a wait for something to happen.
            tokio::time::sleep(moment.1).await;
            assert_truthful(&container.cancel(Cancel::now()).await, moment);
            recorded.await.unwrap();
        });
        attempts.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        stage.finish(executor).await;
    });
}

#[test]
fn cancel_of_an_exec_at_every_moment() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, recorded) = run_recorded(&executor, sleeper()).await;
        let attempts = stream::iter(moments()).map(async |moment| {
            let exec = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
            if moment.0 == From::Started {
                exec.started().await.unwrap();
            }
            tokio::time::sleep(moment.1).await;
            assert_truthful(&exec.cancel(Cancel::now()).await, moment);
        });
        attempts.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        let init = container.started().await.unwrap();
        assert_eq!(container.processes().await.unwrap(), [init], "an exec is left");
        container.cancel(Cancel::now()).await;
        recorded.await.unwrap();
        stage.finish(executor).await;
    });
}

async fn crowd(executor: &Executor, size: usize) -> Vec<ContainerHandle> {
    let containers = join_all((0..size).map(|_| executor.run(sleeper()))).await;
    let containers: Vec<_> = containers.into_iter().map(Result::unwrap).collect();
    for container in &containers {
        container.started().await.unwrap();
    }
    containers
}

/// The row 1000-at-once, with as many as a test has time for.
#[test]
fn three_hundred_containers_at_once() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let containers = crowd(&executor, 300).await;
        let exits = join_all(containers.iter().map(|container| container.cancel(Cancel::now()))).await;
        assert!(exits.iter().all(|exit| exit.status == KILLED));
        for container in &containers {
            assert_eq!(container.released().await.unwrap(), Vec::<longshore::Leftover>::new());
        }
        stage.finish(executor).await;
    });
}

/// What the guide for agents and README.md say of file descriptors.
#[test]
fn descriptors_of_a_container() {
    const EACH: usize = 10;
    on_stage(async |stage| {
        let executor = stage.executor();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let shared = || longshore::Stdio::Shared { replay: 1024 };
        let terminal = sleeper().piped().stdin(longshore::Stdio::Pipe).terminal(TerminalSize::default());
        // The first of a kind opens what others share.
        for (spec, cost) in [
            (sleeper(), 1),
            (sleeper(), 1),
            (sleeper().memory(64 << 20), 1),
            (sleeper().piped(), 3),
            (sleeper().stdout(shared()).stderr(shared()), 3),
            (sleeper().piped().stdin(longshore::Stdio::Pipe), 4),
            (terminal, 6),
        ] {
            let before = open();
            let all = join_all((0..EACH).map(|_| executor.run(spec.clone()))).await;
            for container in &all {
                container.as_ref().unwrap().started().await.unwrap();
            }
            let costs = || open().saturating_sub(before);
            let deadline = std::time::Instant::now() + longshore_tests::HUNG;
            // A start may still be closing its own.
            while costs() > EACH * cost + 5 && std::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(
                (EACH * cost - 3..=EACH * cost + 5).contains(&costs()),
                "{} for {cost}: {spec:?}",
                costs()
            );
            for container in &all {
                container.as_ref().unwrap().cancel(Cancel::now()).await;
                container.as_ref().unwrap().released().await.unwrap();
            }
        }
        stage.finish(executor).await;
    });
}

#[test]
fn three_hundred_execs_at_once() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = crowd(&executor, 1).await.remove(0);
        let execs = join_all((0..300).map(|_| container.exec(ExecSpec::new(["sleep", "1000"])))).await;
        let execs: Vec<_> = execs.into_iter().map(Result::unwrap).collect();
        for exec in &execs {
            exec.started().await.unwrap();
        }
        let exits = join_all(execs.iter().map(|exec| exec.cancel(Cancel::now()))).await;
        assert!(exits.iter().all(|exit| exit.status == KILLED));
        let init = container.started().await.unwrap();
        assert_eq!(container.processes().await.unwrap(), [init], "an exec is left");
        stage.finish(executor).await;
    });
}

/// An embedder with fifty containers, an exec in each and five that are ready, and what it says.
fn embedder(root: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut crowd = Command::new(env!("CARGO_BIN_EXE_crowd"));
    let mut crowd = crowd.arg(root).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(crowd.stdout.take().unwrap());
    (crowd, stdout)
}

/// The row driver-killed, with a crowd; a container of another root lives on.
#[test]
fn driver_killed_with_a_crowd() {
    on_bare_stage(|stage| {
        let other = stage.path("other-root");
        let mut survivor = longshore(&other);
        survivor.args(["run", "-i", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut survivor = survivor.spawn().unwrap();
        for round in 0..20 {
            let (mut embedder, mut stdout) = embedder(&stage.root());
            // In half of the rounds it dies while it starts them, in the others with all of them up.
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(fastrand::u64(0..1500)));
            } else {
                let mut line = String::new();
                stdout.read_line(&mut line).unwrap();
                assert_eq!(line, "50 containers and 50 execs are up, 5 are ready\n");
            }
            embedder.kill().unwrap();
            embedder.wait().unwrap();
            let swept = call(&stage.root(), &["sweep"]);
            assert_eq!((swept.code, swept.stderr.as_str()), (Some(0), ""), "{}", swept.stdout);
            let count = swept.stdout.lines().count();
            assert!(round % 2 == 0 || count == 55, "{count} were swept: {}", swept.stdout);
        }
        let mut stdin = survivor.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"alive\n").unwrap();
        drop(stdin);
        let outcome = survivor.wait_with_output().unwrap();
        assert_eq!((outcome.status.code(), outcome.stdout.as_slice()), (Some(0), &b"alive\n"[..]));
        stage.check();
    });
}
