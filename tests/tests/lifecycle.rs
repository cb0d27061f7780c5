//! The embedding API on the real runtime, beyond the contract: what only a real runtime has, as root
//! file systems, users, usage and a host.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test may fail")]

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use longshore::{
    Cancel, ContainerId, ContainerSpec, ExecSpec, ExitReason, ExitStatus, Signal, StartFailureKind,
};
use longshore_tests::{amount, on_bare_stage, on_stage, shell, sleeper, text};

#[test]
fn usage_is_told_with_the_exit() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let exit = executor
            .run(shell("i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done"))
            .await
            .unwrap()
            .wait()
            .await;
        let usage = exit.usage.unwrap();
        assert!(usage.cpu.unwrap() > Duration::ZERO && usage.memory_peak.unwrap() > 0, "{usage:?}");
        stage.finish(executor).await;
    });
}

#[test]
fn execs_share_the_containers_directory_and_have_a_user_of_their_own() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = sleeper();
        spec.process.cwd = "/tmp".into();
        spec.id = ContainerId::new("private").ok();
        let container = executor.run(spec).await.unwrap();
        let script = ["sh", "-c", "echo $PWD; id -u"];
        let exec = container.exec(ExecSpec::new(script).piped()).await.unwrap();
        assert_eq!(text(exec.io().take_stdout().unwrap().read_to_end().await), "/tmp\n0\n");

        let mut spec = ExecSpec::new(script).piped();
        spec.cwd = Some("/usr".into());
        spec.user = Some("nobody".into());
        let exec = container.exec(spec).await.unwrap();
        assert_eq!(text(exec.io().take_stdout().unwrap().read_to_end().await), "/usr\n65534\n");

        let config = std::fs::metadata(stage.root().join("containers/private/config.json")).unwrap();
        assert_eq!(config.mode() & 0o077, 0, "others can read the environment");
        container.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

#[test]
fn what_cannot_be_executed_says_why() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let kind = |exit: longshore::Exit| match exit.reason {
            ExitReason::StartFailed(failure) => failure.kind,
            reason => panic!("{reason:?}"),
        };
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

/// Their containers are children of one process. Where only v1 hierarchies are left to ask, nobody can tell whose one is
/// that ends before its runtime has said that it runs.
#[test]
fn executors_in_one_process_do_not_take_each_others_ends() {
    on_stage(async |stage| {
        let (one, other) = (stage.executor(), stage.executor());
        // At once, and each within the time that a start has.
        let runs = (0..amount(40).max(8)).map(async |number| {
            let executor = if number.is_multiple_of(2) { &one } else { &other };
            executor.run(shell("exit 3")).await.unwrap().wait().await
        });
        for exit in futures::future::join_all(runs).await {
            assert_eq!(exit.status, ExitStatus::Code(3), "{:?}", exit.reason);
        }
        one.shutdown(Cancel::now(), longshore_tests::HUNG).await;
        drop(one);
        stage.finish(other).await;
    });
}

#[test]
fn an_id_is_taken_for_other_executors_on_the_same_root_too() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let id = ContainerId::new("the-one").unwrap();
        let first = executor.run(sleeper().id(id.clone())).await.unwrap();
        first.started().await.unwrap();
        let other = stage.executor();
        let refused = other.run(sleeper().id(id)).await.unwrap().wait().await;
        assert!(
            matches!(&refused.reason, ExitReason::StartFailed(failure) if failure.kind == StartFailureKind::IdTaken)
        );
        other.shutdown(Cancel::now(), longshore_tests::HUNG).await;
        drop(other);
        assert_eq!(first.snapshot().exit, None, "it was touched");
        first.cancel(Cancel::now()).await;
        stage.finish(executor).await;
    });
}

#[test]
fn handles_work_without_any_runtime() {
    on_bare_stage(|stage| {
        let executor = stage.executor();
        let output = futures::executor::block_on(async {
            let container = executor.run(ContainerSpec::host(["echo", "hi"]).piped()).await.unwrap();
            let output = container.io().take_stdout().unwrap().read_to_end().await;
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
        let stdout = container.io().take_stdout().unwrap();
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
        let runc = longshore_tests::runtime_under_test(longshore::runc()).build().unwrap();
        let executor = longshore::Executor::builder(runc.clone()).root(stage.root()).build().unwrap();
        let runtime = runc.command_line();
        let version = runtime.version().await.unwrap();
        assert!(version.contains(" version "), "{version}");
        // crun knows the command from 1.8.6 on.
        match runtime.features().await {
            Ok(features) => assert!(!features.oci_version_max.is_empty()),
            Err(error) => assert!(!longshore_tests::on_runc(), "{error}"),
        }

        let container = executor.run(sleeper()).await.unwrap();
        let pid = container.started().await.unwrap();
        let state = runtime.state(container.id()).await.unwrap();
        assert_eq!((state.status.as_str(), state.pid), ("running", Some(pid)));
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
        assert!(
            error.contains(container.id().as_str())
                && ["does not exist", "No such file"].iter().any(|words| error.contains(words)),
            "{error}"
        );
        runtime.delete(container.id()).await.unwrap();
        drop((runtime, runc));
        stage.finish(executor).await;
    });
}
