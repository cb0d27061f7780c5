//! How executors on top of runc fail, provoked on the real runtime. Each test has the name of its row
//! in the list of failure modes; `tests/README.md` says which rows are elsewhere or still to come.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test may fail")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use longshore::{
    Cancel, CancelCause, ContainerSpec, Error, ExecSpec, Exit, ExitReason, ExitStatus, ProcessMode, Security,
    Signal, StartFailureKind, Stdio,
};
use longshore_tests::{amount, on_stage, patience, run_recorded, shell, sleeper, until};

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

fn start_failure(exit: &Exit) -> (StartFailureKind, &str) {
    match &exit.reason {
        ExitReason::StartFailed(failure) => (failure.kind, &failure.message),
        _ => panic!("it started: {exit:?}"),
    }
}

#[test]
fn exit_before_watch() {
    on_stage(async |stage| {
        let executor = stage.executor();
        for _ in 0..amount(50) {
            let runs = (0..20_u8).map(|code| {
                let executor = executor.clone();
                async move {
                    let container = executor.run(shell(&format!("exit {code}"))).await.unwrap();
                    assert_eq!(container.wait().await.status, ExitStatus::Code(code));
                }
            });
            join_all(runs).await;
        }
        stage.finish(executor).await;
    });
}

#[test]
fn foreign_wait() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let ours = (0..amount(30).max(4)).map(|_| async {
            let container = executor.run(shell("exit 7")).await.unwrap();
            let exit = container.wait().await;
            assert_eq!(exit.status, ExitStatus::Code(7), "{exit:?}");
        });
        let theirs = (0..amount(200).max(20)).map(|number| async move {
            let code = i32::try_from(number % 200).unwrap();
            let status = tokio::process::Command::new("sh").args(["-c", &format!("exit {code}")]).status();
            assert_eq!(status.await.unwrap().code(), Some(code));
        });
        tokio::join!(join_all(ours), join_all(theirs));
        stage.finish(executor).await;
    });
}

#[test]
fn cancel_before_start() {
    on_stage(async |stage| {
        let executor = stage.executor();
        for delay in (0..60).step_by(2) {
            let marker = stage.path(&format!("ran-{delay}"));
            let mut spec = shell("sleep 0.2; touch /out/$MARKER; sleep 1000");
            spec.process.env.push(("MARKER".into(), marker.file_name().unwrap().to_string_lossy().into()));
            spec.mounts.push(longshore::Mount::bind(marker.parent().unwrap(), "/out"));
            let (container, recorded) = run_recorded(&executor, spec).await;
            // The delay is what varies here, not a wait for something to happen.
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let exit = container.cancel(Cancel::now()).await;
            let killed = exit.started_at.is_some();
            let reason = ExitReason::Cancelled { cause: CancelCause::Requested, killed };
            assert_eq!(exit.reason, reason, "after {delay} ms");
            assert_eq!(exit.status, if killed { KILLED } else { ExitStatus::Unknown });
            recorded.await.unwrap();
            assert!(!marker.exists(), "it ran on after its cancel was answered");
        }
        stage.finish(executor).await;
    });
}

/// The same for execs, which have no namespaces of their own to take them along.
#[test]
fn cancel_before_start_of_an_exec() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        for delay in (0..40).step_by(2) {
            let exec = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let exit = exec.cancel(Cancel::now()).await;
            assert!(matches!(exit.reason, ExitReason::Cancelled { .. }), "{exit:?}");
        }
        let init = container.started().await.unwrap();
        assert_eq!(container.processes().await.unwrap(), [init], "an exec is left");
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// runc executes itself from a read-only mount of its program, which it makes and takes away in the container's state.
/// Killed in between, it leaves it there: cancelled starts have shown it, one in some hundred thousand.
#[test]
fn a_mount_of_its_own_that_a_killed_runtime_has_left() {
    on_stage(async |stage| {
        let script = format!(
            r#"$RUNC "$@"; code=$?
            [[ " $* " == *" run "* ]] && for state in {}/runtime/*/; do touch $state/runc.x && mount --bind /bin/true $state/runc.x; done
            exit $code"#,
            stage.root().display()
        );
        let wrapper = stage.wrapper(&script);
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_string_lossy()));
        let container = executor.run(sleeper()).await.unwrap();
        container.started().await.unwrap();
        container.cancel(Cancel::now()).await;
        container.released().await.unwrap();
        assert_eq!(container.snapshot().left, Some(Vec::new()));
        assert!(std::path::Path::new("/bin/true").exists());
        stage.finish(executor).await;
    });
}

/// The runtime hangs half way through a start that is cancelled: it is given up, and what it left
/// is removed.
#[test]
fn cancel_mid_start() {
    on_stage(async |stage| {
        let script =
            r#"[[ " $* " == *" run "* ]] && { mkdir -p "$2/half-made"; sleep 1000; }; exec $RUNC "$@""#;
        let wrapper = stage.wrapper(script);
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        let (container, recorded) = run_recorded(&executor, sleeper()).await;
        let half_made = stage.root().join("runtime/half-made");
        until("the runtime is half way", || half_made.exists()).await;
        let asked = Instant::now();
        let exit = container.cancel(Cancel::now()).await;
        assert_eq!(exit.reason, ExitReason::Cancelled { cause: CancelCause::Requested, killed: false });
        assert!(asked.elapsed() < Duration::from_secs(30), "the cancel waited for the runtime");
        recorded.await.unwrap();
        executor.shutdown(Cancel::now(), longshore_tests::HUNG).await;
        std::fs::remove_dir(half_made).unwrap();
        stage.finish(executor).await;
    });
}

#[test]
fn helper_hangs() {
    on_stage(async |stage| {
        let wrapper = stage.wrapper(r#"[[ " $* " == *" exec "* ]] && sleep 1000; exec $RUNC "$@""#);
        let deadline = patience(Duration::from_secs(1));
        let runtime = longshore::runc().runtime(wrapper.to_str().unwrap()).start_deadline(deadline);
        let executor = stage.executor_on(runtime);
        let container = executor.run(sleeper()).await.unwrap();
        container.started().await.unwrap();
        let exec = container.exec(ExecSpec::new(["true"])).await.unwrap();
        // blocked-actor: a runtime that hangs delays nobody else.
        let asked = Instant::now();
        let other = executor.run(shell("exit 4")).await.unwrap();
        assert_eq!(other.wait().await.status, ExitStatus::Code(4));
        assert!(asked.elapsed() < patience(Duration::from_millis(900)), "another container waited for it");
        let exit = exec.wait().await;
        let (kind, message) = start_failure(&exit);
        assert_eq!(kind, StartFailureKind::RuntimeTimedOut);
        assert!(message.contains(&format!("wrapper exec gave no answer within {deadline:?}")), "{message}");
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// A runtime in the foreground is killed after it has started an exec, and before it has reported that. The exec would become
/// a child of the system's init, and live as long as its container.
#[test]
fn killed_before_it_reports() {
    on_stage(async |stage| {
        let script = r#"
            if [[ " $* " == *" exec "* ]]; then
                for arg; do
                    [[ ${last:-} == --pid-file ]] && arg=$arg.unread
                    args+=("$arg")
                    last=$arg
                done
                "$RUNC" "${args[@]}" & wait
            fi
            exec $RUNC "$@""#;
        let wrapper = stage.wrapper(script);
        let runtime =
            longshore::runc().runtime(wrapper.to_str().unwrap()).mode(longshore::runtime::Mode::Foreground);
        let executor = stage.executor_on(runtime);
        let container = executor.run(sleeper()).await.unwrap();
        let init = container.started().await.unwrap();
        let exec = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
        let programs = async || {
            let pids = container.processes().await.unwrap();
            let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            pids.into_iter().filter(|pid| *pid != init).map(name).collect::<Vec<_>>()
        };
        while programs().await != ["sleep\n"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        exec.cancel(Cancel::now()).await;
        let since = Instant::now();
        while !programs().await.is_empty() {
            assert!(since.elapsed() < longshore_tests::HUNG, "{:?}", programs().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// A runtime that fails is not a program that fails, whatever its code; and its text is not the
/// program's: runtime-noise.
#[test]
fn ambiguous_code() {
    on_stage(async |stage| {
        let script = r#"
            if [[ " $* " == *" run "* ]]; then
                echo "noise on stdout"; echo "noise on stderr" >&2
                echo '{"level":"error","msg":"the disk is on fire"}' > "$4"
                exit 1
            fi
            exec $RUNC "$@""#;
        let wrapper = stage.wrapper(script);
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        let container = executor.run(shell("exit 1").piped()).await.unwrap();
        let (stdout, stderr) = (container.io().take_stdout().unwrap(), container.io().take_stderr().unwrap());
        let exit = container.wait().await;
        assert_eq!(start_failure(&exit), (StartFailureKind::RuntimeBroken, "the disk is on fire"));
        assert_eq!((exit.status, exit.started_at), (ExitStatus::Unknown, None));
        assert_eq!((stdout.read_to_end().await, stderr.read_to_end().await), (vec![], vec![]));
        stage.finish(executor).await;
    });
}

#[test]
fn minus_one() {
    on_stage(async |stage| {
        let wrapper = stage.wrapper(r#"[[ " $* " == *" run "* ]] && kill -SEGV $$; exec $RUNC "$@""#);
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        let exit = executor.run(sleeper()).await.unwrap().wait().await;
        let message = "wrapper run failed with killed by SIGSEGV and did not say why";
        assert_eq!(start_failure(&exit), (StartFailureKind::RuntimeBroken, message));
        stage.finish(executor).await;
    });
}

#[test]
fn not_found_and_not_executable() {
    on_stage(async |stage| {
        let executor = stage.executor();
        std::fs::write("/tmp/longshore-garbage", [0; 8]).unwrap();
        std::process::Command::new("chmod").args(["+x", "/tmp/longshore-garbage"]).status().unwrap();
        for (program, kind) in [
            ("/no/such/program", StartFailureKind::NotFound),
            ("no-such-program", StartFailureKind::NotFound),
            ("/tmp/longshore-garbage", StartFailureKind::NotExecutable),
            ("/etc", StartFailureKind::NotExecutable),
            ("/etc/passwd", StartFailureKind::NotExecutable),
        ] {
            let exit = executor.run(ContainerSpec::host([program])).await.unwrap().wait().await;
            let (found, message) = start_failure(&exit);
            assert_eq!(found, kind, "{program}");
            assert!(message.starts_with(&format!("{program}: ")), "{message}");
        }
        // In a container with a mount the runtime is the judge.
        let mut spec = ContainerSpec::host(["/no/such/program"]);
        spec.mounts.push(longshore::Mount::bind("/usr", "/mnt").read_only());
        let exit = executor.run(spec).await.unwrap().wait().await;
        assert_eq!(start_failure(&exit).0, StartFailureKind::NotFound);
        std::fs::remove_file("/tmp/longshore-garbage").unwrap();
        stage.finish(executor).await;
    });
}

#[test]
fn exec_leader_only() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        let exec =
            container.exec(ExecSpec::new(["sh", "-c", "sleep 1000 & echo up; wait"]).piped()).await.unwrap();
        let mut stdout = exec.io().take_stdout().unwrap();
        stdout.next_chunk().await.unwrap();
        assert_eq!(exec.cancel(Cancel::now()).await.status, KILLED);
        // Its child held the pipe; the end of the output shows that it is gone.
        assert_eq!(stdout.next_chunk().await, None);
        let init = container.started().await.unwrap();
        assert_eq!(container.processes().await.unwrap(), [init]);
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// The kernel holds init until the exec'd processes killed with it are reaped, which is ours to do.
#[test]
fn zombie_exec_wedge() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, recorded) = run_recorded(&executor, sleeper()).await;
        let execs = join_all((0..10).map(|_| container.exec(ExecSpec::new(["sleep", "1000"])))).await;
        let execs: Vec<_> = execs.into_iter().map(Result::unwrap).collect();
        for exec in &execs {
            exec.started().await.unwrap();
        }
        container.signal(Signal::KILL).await.unwrap();
        assert_eq!(container.wait().await.status, KILLED);
        for exec in execs {
            assert_eq!(exec.wait().await.status, KILLED);
        }
        recorded.await.unwrap();
        stage.finish(executor).await;
    });
}

/// The runtime says that it failed, and has started the process all the same: nobody knows of it, and
/// when it is killed with its container nobody waits for it.
#[test]
fn zombie_exec_wedge_by_a_stray() {
    on_stage(async |stage| {
        let script = r#"[[ " $* " == *" exec "* ]] || exec $RUNC "$@"; $RUNC "$@"; exit 1"#;
        let wrapper = stage.wrapper(script);
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        let container = executor.run(sleeper()).await.unwrap();
        let exec = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
        assert_eq!(start_failure(&exec.wait().await).0, StartFailureKind::RuntimeBroken);
        let init = container.started().await.unwrap();
        assert_eq!(container.processes().await.unwrap(), [init], "what was said not to run does");
        let asked = Instant::now();
        assert_eq!(container.cancel(Cancel::now()).await.status, KILLED);
        assert!(asked.elapsed() < patience(Duration::from_secs(5)), "init waited for a zombie");
        stage.finish(executor).await;
    });
}

#[test]
fn exec_after_init() {
    on_stage(async |stage| {
        let executor = stage.executor();
        for delay in (0..30).step_by(3) {
            let (container, recorded) = run_recorded(&executor, shell(&format!("sleep 0.0{delay:02}"))).await;
            let mut execs = Vec::new();
            while let Ok(exec) = container.exec(ExecSpec::new(["sleep", "1000"])).await {
                execs.push(exec);
                if execs.len() == 5 {
                    break;
                }
            }
            assert!(container.wait().await.is_success());
            for exec in execs {
                let exit = exec.wait().await;
                let truthful = match &exit.reason {
                    ExitReason::StartFailed(failure) => failure.kind == StartFailureKind::ContainerGone,
                    ExitReason::Cancelled { cause, .. } => *cause == CancelCause::ContainerExited,
                    ExitReason::Normal => exit.status == KILLED,
                    _ => false,
                };
                assert!(truthful, "{exit:?}");
            }
            recorded.await.unwrap();
        }
        stage.finish(executor).await;
    });
}

#[test]
fn exec_before_running() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(ContainerSpec::host(["no-such-program"])).await.unwrap();
        // Parked, and told the truth when the container never runs; or refused, when it is known already.
        match container.exec(ExecSpec::new(["true"])).await {
            Ok(exec) => assert_eq!(start_failure(&exec.wait().await).0, StartFailureKind::ContainerGone),
            Err(Error::Refused { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        stage.finish(executor).await;
    });
}

#[test]
fn oom_missed_oom_false() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let limited = |script: &str| shell(script).memory(32 << 20);
        // `tail` keeps its input, which has no end of line.
        let itself = executor.run(limited("exec tail /dev/zero")).await.unwrap().wait().await;
        assert_eq!((itself.status, &itself.reason), (KILLED, &ExitReason::OutOfMemory));
        let child = executor.run(limited("tail /dev/zero; exit 3")).await.unwrap().wait().await;
        assert_eq!((child.status, &child.reason), (ExitStatus::Code(3), &ExitReason::Normal));
        assert_eq!(child.usage.map(|usage| usage.oom_kills), Some(1));
        stage.finish(executor).await;
    });
}

#[test]
fn pipe_holders_and_stalled_reader() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        // The exec ends; its child lives on in the container with the pipe in its hands.
        let exec =
            container.exec(ExecSpec::new(["sh", "-c", "sleep 1000 & echo done"]).piped()).await.unwrap();
        assert!(exec.wait().await.is_success());
        let output = exec.io().take_stdout().unwrap().read_to_end().await;
        assert_eq!(output, b"done\n", "the drain had no bound");

        // Nobody reads: the pipe is full, and the kill is seen all the same.
        let stalled = executor.run(ContainerSpec::host(["yes"]).piped()).await.unwrap();
        let unread = stalled.io().take_stdout();
        stalled.started().await.unwrap();
        assert_eq!(stalled.cancel(Cancel::now()).await.status, KILLED);
        drop(unread);
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

#[test]
fn stdin_backpressure() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = shell("exec sleep 1000");
        spec.process.stdio.stdin = Stdio::Pipe;
        let container = executor.run(spec).await.unwrap();
        let mut stdin = container.io().take_stdin().unwrap();
        let writer = tokio::spawn(async move { while stdin.write_all(vec![0; 1 << 20]).await.is_ok() {} });
        container.started().await.unwrap();
        // stdin-blocks-wait: a writer that is stuck holds up neither the cancel nor the end.
        assert_eq!(container.cancel(Cancel::now()).await.status, KILLED);
        writer.await.unwrap();
        stage.finish(executor).await;
    });
}

#[test]
fn inherited_fds_and_notify_socket() {
    on_stage(async |stage| {
        let script = r#"
            [[ -n $NOTIFY_SOCKET$LISTEN_FDS$CARGO ]] && { echo '{"level":"error","msg":"leaky"}' > "$4"; exit 1; }
            exec $RUNC "$@""#;
        let wrapper = stage.wrapper(script);
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        let secret = Arc::new(OwnedFd::from(std::fs::File::open("/etc/passwd").unwrap()));
        assert!(std::env::var_os("CARGO").is_some(), "cargo sets this one, to stand for the others");
        let container = executor.run(shell("echo /proc/self/fd/*").piped()).await.unwrap();
        let output = container.io().take_stdout().unwrap().read_to_end().await;
        let exit = container.wait().await;
        assert!(exit.is_success(), "{exit:?}");
        let fds = String::from_utf8(output).unwrap();
        // 0, 1, 2 and the directory that is being listed.
        assert_eq!(fds.split_whitespace().count(), 4, "{fds}");
        drop(secret);
        stage.finish(executor).await;
    });
}

#[test]
fn error_path_leak() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        for round in 0..40 {
            let bad = executor
                .run(ContainerSpec::host([["no-such-program", "/etc"][round % 2]]).piped())
                .await
                .unwrap();
            let exec = container
                .exec(ExecSpec::new([["true", "no-such-program"][round % 2]]).piped())
                .await
                .unwrap();
            bad.wait().await;
            exec.wait().await;
        }
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// Frozen by someone else, behind our back: SIGKILL waits until it is thawed.
#[test]
fn frozen() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        container.started().await.unwrap();
        let runtime = longshore_tests::runtime_program();
        let mut pause = std::process::Command::new(runtime);
        pause.arg("--root").arg(stage.root().join("runtime")).args(["pause", container.id().as_str()]);
        assert!(pause.status().unwrap().success());
        let asked = Instant::now();
        assert_eq!(container.cancel(Cancel::now()).await.status, KILLED);
        assert!(asked.elapsed() < Duration::from_secs(10), "the kill was not repeated");
        stage.finish(executor).await;
    });
}

/// The runtime says that all is well, and has told nobody which process it started, if any.
#[test]
fn pidfile_never() {
    on_stage(async |stage| {
        let wrapper = stage.wrapper(r#"[[ " $* " == *" exec "* ]] && exit 0; exec $RUNC "$@""#);
        let executor = stage.executor_on(longshore::runc().runtime(wrapper.to_str().unwrap()));
        let container = executor.run(sleeper()).await.unwrap();
        container.started().await.unwrap();
        let exit = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap().wait().await;
        let (kind, message) = start_failure(&exit);
        assert_eq!(kind, StartFailureKind::RuntimeBroken);
        assert!(message.contains("named none: it is no OCI runtime"), "{message}");
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

/// A cgroup below the container's, with a process in it that no namespace takes along.
#[test]
fn cgroup_busy() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        let init = container.started().await.unwrap();
        let mut outsider = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let cgroup = longshore_tests::cgroup_of(init, "pids");
        let below = cgroup.join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("cgroup.procs"), outsider.id().to_string()).unwrap();
        assert_eq!(container.cancel(Cancel::now()).await.status, KILLED);
        assert_eq!(container.released().await.unwrap(), Vec::<longshore::Leftover>::new());
        assert!(!cgroup.exists(), "{} is left", cgroup.display());
        assert!(!outsider.wait().unwrap().success(), "what was in it lives on");
        stage.finish(executor).await;
    });
}

/// Without a pid namespace, the kernel takes nothing along with init.
#[test]
fn host_pid_ns() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let open = |script: &str| {
            let mut spec = shell(script).piped();
            spec.process_mode = ProcessMode::NoSandbox;
            spec.security = Security::Insecure;
            spec
        };
        // It sees the host's processes under their own numbers.
        let container = executor.run(open("cat /proc/1/comm; echo $$")).await.unwrap();
        let said = container.io().take_stdout().unwrap().read_to_end().await;
        let pid = container.started().await.unwrap();
        let hosts_init = std::fs::read_to_string("/proc/1/comm").unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), format!("{hosts_init}{pid}\n"));
        assert!(container.wait().await.is_success());

        for cancelled in [false, true] {
            let script = "setsid sleep 1000 & sleep 1000 & echo up; ";
            let rest = if cancelled { "wait" } else { "exit 3" };
            let container = executor.run(open(&format!("{script}{rest}"))).await.unwrap();
            let mut stdout = container.io().take_stdout().unwrap();
            stdout.next_chunk().await.unwrap();
            let exec = container.exec(ExecSpec::new(["sleep", "1000"])).await;
            let status = match cancelled {
                true => container.cancel(Cancel::now()).await.status,
                false => container.wait().await.status,
            };
            assert_eq!(status, if cancelled { KILLED } else { ExitStatus::Code(3) });
            if let Ok(exec) = exec {
                assert_ne!(exec.wait().await.status, ExitStatus::Code(0));
            }
            assert_eq!(container.released().await.unwrap(), Vec::<longshore::Leftover>::new());
            // The children held the pipe.
            assert_eq!(stdout.next_chunk().await, None);
        }
        stage.finish(executor).await;
    });
}
