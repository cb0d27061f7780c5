//! The embedding API on the real runtime: what an engineer does with it on a good day, and what it
//! answers on a bad one.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test may fail")]

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use longshore::{
    Cancel, CancelCause, ContainerId, ContainerSpec, Error, ExecSpec, ExitReason, ExitStatus, Happening,
    Refused, Signal, StartFailureKind, Stdio,
};
use longshore_tests::{on_bare_stage, on_stage, run_told, shell, sleeper};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_container_from_start_to_released() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, told) = run_told(&executor, shell("echo out; echo err >&2; exit 3").piped()).await;
        let (stdout, stderr) = (container.take_stdout().unwrap(), container.take_stderr().unwrap());
        let pid = container.started().await.unwrap();
        let exit = container.wait().await;
        assert_eq!((exit.status, &exit.reason), (ExitStatus::Code(3), &ExitReason::Normal));
        assert!(exit.usage.unwrap().cpu.unwrap() > Duration::ZERO);
        assert_eq!(text(stdout.read_to_end().await), "out\n");
        assert_eq!(text(stderr.read_to_end().await), "err\n");
        assert_eq!(container.released().await.unwrap(), Vec::<String>::new());

        let story: Vec<_> = told.await.unwrap().into_iter().map(|event| event.happening).collect();
        assert_eq!(
            story,
            [
                Happening::Created,
                Happening::Started { pid },
                Happening::Exited { exit },
                Happening::Released { left: vec![] }
            ]
        );
        stage.finish(executor).await;
    });
}

#[test]
fn execs_share_the_container_and_end_on_their_own() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = sleeper();
        spec.process.env.push(("COLOUR".into(), "red".into()));
        spec.process.cwd = "/tmp".into();
        spec.id = ContainerId::new("private").ok();
        // Asked for before the container runs: parked, and started by the event.
        let (container, told) = run_told(&executor, spec).await;
        let early = container.exec(ExecSpec::new(["sh", "-c", "echo $COLOUR $PWD"]).piped()).await.unwrap();
        assert_eq!(text(early.take_stdout().unwrap().read_to_end().await), "red /tmp\n");
        assert!(early.wait().await.is_success());

        let mut spec = ExecSpec::new(["sh", "-c", "echo $COLOUR $PWD; id -u; exit 255"]).piped();
        spec.env.push(("COLOUR".into(), "blue".into()));
        spec.cwd = Some("/usr".into());
        spec.user = Some("nobody".into());
        let exec = container.exec(spec).await.unwrap();
        assert_eq!(text(exec.take_stdout().unwrap().read_to_end().await), "blue /usr\n65534\n");
        let exit = exec.wait().await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(255), ExitReason::Normal));

        let config = std::fs::metadata(stage.root().join("containers/private/config.json")).unwrap();
        assert_eq!(config.mode() & 0o077, 0, "others can read the environment");

        let running = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
        let pid = running.started().await.unwrap();
        assert!(container.processes().await.unwrap().contains(&pid));
        assert_eq!(running.cancel(Cancel::now()).await.status, ExitStatus::Signal(Signal::KILL));
        assert_eq!(container.snapshot().exit, None, "the container ended with its exec");

        container.cancel(Cancel::now()).await;
        let story = told.await.unwrap();
        let execs = story.iter().filter(|event| matches!(event.happening, Happening::ExecExited { .. }));
        assert_eq!(execs.count(), 3);
        stage.finish(executor).await;
    });
}

#[test]
fn stdin_reaches_the_program_and_its_end_does_too() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = ContainerSpec::host(["wc", "-c"]).piped();
        spec.process.stdio.stdin = Stdio::Pipe;
        let container = executor.run(spec).await.unwrap();
        let (stdin, stdout) = (container.take_stdin().unwrap(), container.take_stdout().unwrap());
        for _ in 0..100 {
            stdin.write(vec![b'x'; 10_000]).await.unwrap();
        }
        drop(stdin);
        assert_eq!(text(stdout.read_to_end().await), "1000000\n");
        assert!(container.wait().await.is_success());
        stage.finish(executor).await;
    });
}

#[test]
fn signals_wait_for_the_start_and_come_in_order() {
    on_stage(async |stage| {
        let executor = stage.executor();
        // Before the trap is set a signal would be ignored by pid 1, so the program says when it is ready.
        let script =
            "trap 'echo usr1' USR1; trap 'echo hup; exit 4' HUP; echo ready; while :; do sleep 0.01; done";
        let container = executor.run(shell(script).piped()).await.unwrap();
        let mut stdout = container.take_stdout().unwrap();
        assert_eq!(text(stdout.next_chunk().await.unwrap()), "ready\n");
        container.signal(Signal::USR1).await.unwrap();
        assert_eq!(text(stdout.next_chunk().await.unwrap()), "usr1\n");
        container.signal(Signal::HUP).await.unwrap();
        assert_eq!(container.wait().await.status, ExitStatus::Code(4));
        let late = container.signal(Signal::HUP).await.unwrap_err();
        assert!(matches!(late, Error::Refused { refused: Refused::Exited, .. }), "{late}");

        // SIGKILL asked for at once waits for the start, and then ends it.
        let killed = executor.run(sleeper()).await.unwrap();
        killed.signal(Signal::KILL).await.unwrap();
        let exit = killed.wait().await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Signal(Signal::KILL), ExitReason::Normal));
        stage.finish(executor).await;
    });
}

#[test]
fn cancel_with_grace_lets_the_program_end_and_kills_it_otherwise() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let polite = executor
            .run(shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done").piped())
            .await
            .unwrap();
        let mut ready = polite.take_stdout().unwrap();
        ready.next_chunk().await.unwrap();
        let exit = polite.cancel(Cancel::with_grace(Duration::from_secs(30))).await;
        let reason = ExitReason::Cancelled { cause: CancelCause::Requested, killed: false };
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(9), reason));

        // Without a handler, pid 1 ignores SIGTERM.
        let deaf = executor.run(sleeper()).await.unwrap();
        deaf.started().await.unwrap();
        let exit = deaf.cancel(Cancel::with_grace(Duration::from_millis(50))).await;
        let reason = ExitReason::Cancelled { cause: CancelCause::Requested, killed: true };
        assert_eq!((exit.status, exit.reason), (ExitStatus::Signal(Signal::KILL), reason));
        // Cancelling the dead is satisfied already.
        assert_eq!(deaf.cancel(Cancel::now()).await.status, ExitStatus::Signal(Signal::KILL));
        stage.finish(executor).await;
    });
}

#[test]
fn a_time_limit_ends_the_program_and_says_so() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper().time_limit(Duration::from_millis(200))).await.unwrap();
        assert_eq!(container.wait().await.reason, ExitReason::TimedOut { killed: true });
        stage.finish(executor).await;
    });
}

#[test]
fn pause_stands_still_and_cancel_thaws() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(shell("while :; do echo tick; sleep 0.01; done").piped()).await.unwrap();
        let mut ticks = container.take_stdout().unwrap();
        ticks.next_chunk().await.unwrap();
        assert!(matches!(container.resume().await, Err(Error::Refused { refused: Refused::NotPaused, .. })));
        container.pause().await.unwrap();
        // paused-exec: refused from our own state instead of hanging.
        let exec = container.exec(ExecSpec::new(["true"])).await;
        assert!(matches!(exec, Err(Error::Refused { refused: Refused::Paused, .. })));
        // What was written before is read; then nothing comes any more.
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(200), ticks.next_chunk()).await {}
        container.resume().await.unwrap();
        assert_eq!(ticks.next_chunk().await.map(text).map(|text| text.starts_with("tick")), Some(true));

        container.pause().await.unwrap();
        let exit = container.cancel(Cancel::now()).await;
        assert_eq!(exit.status, ExitStatus::Signal(Signal::KILL));
        stage.finish(executor).await;
    });
}

#[test]
fn what_cannot_start_says_why() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let kind = |exit: longshore::Exit| match exit.reason {
            ExitReason::StartFailed(failure) => failure.kind,
            reason => panic!("{reason:?}"),
        };
        let (container, told) = run_told(&executor, ContainerSpec::host(["no-such-program"])).await;
        assert!(matches!(container.started().await, Err(Error::NotStarted { .. })));
        assert_eq!(kind(container.wait().await), StartFailureKind::NotFound);
        assert_eq!(told.await.unwrap().len(), 3, "created, exited, released");

        let container = executor.run(sleeper()).await.unwrap();
        let exec = container.exec(ExecSpec::new(["/etc/passwd"])).await.unwrap();
        assert_eq!(kind(exec.wait().await), StartFailureKind::NotExecutable);
        let mut unknown = ExecSpec::new(["true"]);
        unknown.user = Some("no-such-user".into());
        let exec = container.exec(unknown).await.unwrap();
        assert_eq!(kind(exec.wait().await), StartFailureKind::BadConfig);
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

#[test]
fn a_taken_id_is_refused_and_a_released_one_is_free() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let id = ContainerId::new("the-one").unwrap();
        let first = executor.run(sleeper().id(id.clone())).await.unwrap();
        first.started().await.unwrap();
        assert!(matches!(executor.run(sleeper().id(id.clone())).await, Err(Error::IdTaken { .. })));

        // Another executor on the same root finds it taken too, and touches nothing.
        let other = stage.executor();
        let refused = other.run(sleeper().id(id.clone())).await.unwrap().wait().await;
        assert!(
            matches!(&refused.reason, ExitReason::StartFailed(failure) if failure.kind == StartFailureKind::IdTaken)
        );
        other.shutdown(longshore_tests::HUNG).await;
        drop(other);

        assert_eq!(executor.get(&id).await.unwrap().snapshot(), first.snapshot());
        assert_eq!(executor.list().await.unwrap().len(), 1);
        first.cancel(Cancel::now()).await;
        first.released().await.unwrap();
        // `Released` is told first; the registry follows before anything else can be asked of it.
        assert!(matches!(executor.get(&id).await, Err(Error::NotFound { .. })));
        assert!(executor.run(ContainerSpec::host(["true"]).id(id)).await.unwrap().wait().await.is_success());
        stage.finish(executor).await;
    });
}

#[test]
fn three_exec_errors() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let unknown = ContainerId::new("unknown").unwrap();
        assert!(matches!(executor.get(&unknown).await, Err(Error::NotFound { .. })));
        for (script, stopped) in [("true", true), ("exit 3", false)] {
            let container = executor.run(shell(script)).await.unwrap();
            container.wait().await;
            let Err(Error::Refused { refused, .. }) = container.exec(ExecSpec::new(["true"])).await else {
                panic!("exec in a container that has ended");
            };
            let expected = match stopped {
                true => Refused::Stopped,
                false => Refused::StoppedWithError { how: "exit code 3".into() },
            };
            assert_eq!(refused, expected);
        }
        stage.finish(executor).await;
    });
}

#[test]
fn shutdown_ends_everything() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut containers = Vec::new();
        for _ in 0..10 {
            let container = executor.run(sleeper()).await.unwrap();
            let exec = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
            containers.push((container, exec));
        }
        containers[0].1.started().await.unwrap();
        let report = executor.shutdown(longshore_tests::HUNG).await;
        assert_eq!(report, longshore::ShutdownReport::default());
        for (container, exec) in &containers {
            let cause = |exit: longshore::Exit| match exit.reason {
                ExitReason::Cancelled { cause, .. } => cause,
                other => panic!("{other:?}"),
            };
            assert_eq!(cause(container.wait().await), CancelCause::Shutdown);
            assert_eq!(cause(exec.wait().await), CancelCause::Shutdown);
        }
        assert!(matches!(executor.run(sleeper()).await, Err(Error::Stopped)));
        drop(executor);
        stage.check();
    });
}

#[test]
fn dropping_the_executor_is_a_shutdown() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let container = executor.run(sleeper()).await.unwrap();
        container.started().await.unwrap();
        tokio::task::spawn_blocking(move || drop(executor)).await.unwrap();
        assert_eq!(container.wait().await.status, ExitStatus::Signal(Signal::KILL));
        stage.check();
    });
}

#[test]
fn handles_work_without_any_runtime() {
    on_bare_stage(|stage| {
        let executor = stage.executor();
        let output = futures::executor::block_on(async {
            let container = executor.run(ContainerSpec::host(["echo", "hi"]).piped()).await.unwrap();
            let output = container.take_stdout().unwrap().read_to_end().await;
            container.wait().await;
            output
        });
        assert_eq!(text(output), "hi\n");
        futures::executor::block_on(stage.finish(executor));
    });
}

#[test]
fn handles_work_under_another_actix_system() {
    on_bare_stage(|stage| {
        let executor = stage.executor();
        actix_rt::System::new().block_on(async {
            let container = executor.run(sleeper()).await.unwrap();
            container.started().await.unwrap();
            assert_eq!(container.cancel(Cancel::now()).await.status, ExitStatus::Signal(Signal::KILL));
        });
        futures::executor::block_on(stage.finish(executor));
    });
}

#[test]
fn a_directory_as_rootfs() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = stage
            .directory_spec(["sh", "-c", "echo kept > /kept; ls /usr/bin/env; cat /proc/1/comm"])
            .piped();
        spec.hostname = Some("elsewhere".into());
        let container = executor.run(spec).await.unwrap();
        let stdout = container.take_stdout().unwrap();
        assert_eq!(text(stdout.read_to_end().await), "/usr/bin/env\nsh\n");
        assert!(container.wait().await.is_success());
        assert_eq!(std::fs::read_to_string(stage.path("rootfs/kept")).unwrap(), "kept\n");
        stage.finish(executor).await;
    });
}

#[test]
fn nothing_written_to_the_hosts_overlay_reaches_the_host() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let path = "/usr/longshore-was-here";
        let container = executor
            .run(shell(&format!("echo x > {path} && rm -rf /etc/passwd && ls {path}")))
            .await
            .unwrap();
        assert!(container.wait().await.is_success());
        assert!(!std::path::Path::new(path).exists() && std::path::Path::new("/etc/passwd").exists());
        stage.finish(executor).await;
    });
}

/// What the runtime itself says of a container, beside what we know of it.
#[test]
fn the_runtimes_command_line() {
    on_stage(async |stage| {
        let runc = longshore::runc().build().unwrap();
        let executor = longshore::Executor::builder(runc.clone()).root(stage.root()).build().unwrap();
        let runtime = runc.command_line();
        let version = runtime.version().await.unwrap();
        assert!(version.contains(" version "), "{version}");
        assert!(!runtime.features().await.unwrap().oci_version_max.is_empty());

        let container = executor.run(sleeper()).await.unwrap();
        let pid = container.started().await.unwrap();
        let state = runtime.state(container.id()).await.unwrap();
        assert_eq!((state.status.as_str(), state.pid), ("running", pid.get()));
        assert_eq!(runtime.ps(container.id()).await.unwrap(), [pid]);
        runtime.pause(container.id()).await.unwrap();
        assert_eq!(runtime.state(container.id()).await.unwrap().status, "paused");
        runtime.resume(container.id()).await.unwrap();
        runtime.kill(container.id(), Signal::KILL).await.unwrap();
        // A signal that was not ours: the reason is the kernel's business, not a cancel.
        let exit = container.wait().await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Signal(Signal::KILL), ExitReason::Normal));
        container.released().await.unwrap();

        let error = runtime.state(container.id()).await.unwrap_err().to_string();
        assert!(error.contains(container.id().as_str()) && error.contains("does not exist"), "{error}");
        runtime.delete(container.id()).await.unwrap();
        drop((runtime, runc));
        stage.finish(executor).await;
    });
}

/// The embedder refuses to be a subreaper: same ports, same answers.
#[test]
fn foreground_mode() {
    on_stage(async |stage| {
        let executor = stage.foreground_executor();
        for (script, status) in [("exit 0", ExitStatus::Code(0)), ("exit 137", ExitStatus::Code(137))] {
            let (container, told) = run_told(&executor, shell(script)).await;
            let exit = container.wait().await;
            assert_eq!(exit.status, status, "{exit:?}");
            assert_eq!(told.await.unwrap().len(), 4);
        }
        let container = executor.run(sleeper()).await.unwrap();
        let exec = container.exec(ExecSpec::new(["sh", "-c", "echo in; exit 5"]).piped()).await.unwrap();
        assert_eq!(text(exec.take_stdout().unwrap().read_to_end().await), "in\n");
        assert_eq!(exec.wait().await.status, ExitStatus::Code(5));
        let exec = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
        exec.started().await.unwrap();
        // From Linux 6.15 on the kernel tells the status of the container's own process.
        assert_eq!(exec.cancel(Cancel::now()).await.status, ExitStatus::Signal(Signal::KILL));
        assert_eq!(container.cancel(Cancel::now()).await.status, ExitStatus::Signal(Signal::KILL));
        stage.finish(executor).await;
    });
}
