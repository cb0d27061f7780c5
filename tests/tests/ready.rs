//! Containers that are kept ready, on the real runtime: that runs start them, and what can go wrong with them.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use longshore::{Cancel, ContainerSpec, Error, Executor, ExitStatus, StartFailureKind, Stdio, TerminalSize};
use longshore_tests::{HUNG, on_stage, shell, sleeper, text};

/// The containers that there are on disk.
fn on_disk(root: &Path) -> BTreeSet<String> {
    let dirs = std::fs::read_dir(root.join("containers")).into_iter().flatten().flatten();
    dirs.map(|dir| dir.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

async fn eventually(mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + HUNG;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it never comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The pid of a container's init, as its journal has it.
fn init_of(root: &Path, id: &str) -> u32 {
    let journal = std::fs::read_to_string(root.join("containers").join(id).join("journal")).unwrap();
    journal.split(' ').next().unwrap().parse().unwrap()
}

async fn says(executor: &Executor, spec: ContainerSpec) -> (String, String) {
    let container = executor.run(spec).await.unwrap();
    let output = text(container.io().take_stdout().unwrap().read_to_end().await);
    assert!(container.wait().await.is_success());
    container.released().await.unwrap();
    (container.id().to_string(), output)
}

#[test]
fn a_run_starts_one_and_another_takes_its_place() {
    on_stage(async |stage| {
        let (root, executor) = (stage.root(), stage.executor());
        let spec = stage.directory_spec(["sh", "-c", "cat /proc/1/comm; echo $$"]).piped();
        executor.prepare(spec.clone(), 3).await.unwrap();
        let mut ready = on_disk(&root);
        assert_eq!(ready.len(), 3);
        for _ in 0..4 {
            let (id, output) = says(&executor, spec.clone()).await;
            assert_eq!(output, "sh\n1\n");
            assert!(ready.contains(&id), "{id} was made for it: {ready:?}");
            eventually(|| on_disk(&root).len() == 3 && !on_disk(&root).contains(&id)).await;
            executor.prepare(spec.clone(), 3).await.unwrap();
            ready = on_disk(&root);
        }
        // All at once, and more than there are.
        let runs = (0..8).map(|_| says(&executor, spec.clone()));
        let ids: BTreeSet<_> = futures::future::join_all(runs).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 8);
        assert!(ready.is_subset(&ids), "{ready:?} {ids:?}");
        executor.prepare(spec.clone(), 1).await.unwrap();
        eventually(|| on_disk(&root).len() == 1).await;
        executor.prepare(spec, 0).await.unwrap();
        eventually(|| on_disk(&root).is_empty()).await;
        stage.finish(executor).await;
    });
}

#[test]
fn what_differs_is_made_anew() {
    on_stage(async |stage| {
        let (root, executor) = (stage.root(), stage.executor());
        let spec = shell("echo $WHO").piped();
        executor.prepare(spec.clone(), 1).await.unwrap();
        let ready = on_disk(&root);
        let mut other = spec.clone();
        other.process.env.push(("WHO".into(), "other".into()));
        let (id, output) = says(&executor, other).await;
        assert_eq!((ready.contains(&id), output.as_str()), (false, "other\n"));
        let mut terminal = spec;
        terminal.process.terminal = Some(TerminalSize { rows: 24, columns: 80 });
        terminal.process.stdio.stderr = Stdio::Null;
        terminal.process.args = ["sh", "-c", "stty size"].map(str::to_owned).into();
        executor.prepare(terminal.clone(), 1).await.unwrap();
        assert_eq!(says(&executor, terminal).await.1, "24 80\r\n");
        stage.finish(executor).await;
    });
}

#[test]
fn one_that_has_died_is_not_given_away() {
    on_stage(async |stage| {
        let (root, executor) = (stage.root(), stage.executor());
        let spec = shell("echo alive").piped();
        executor.prepare(spec.clone(), 2).await.unwrap();
        let dead = on_disk(&root);
        // Read before any is killed: a dead one is released, and its journal goes with it.
        let inits: Vec<u32> = dead.iter().map(|id| init_of(&root, id)).collect();
        for &init in &inits {
            let init = rustix::process::Pid::from_raw(i32::try_from(init).unwrap()).unwrap();
            rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
        }
        eventually(|| inits.iter().all(|init| !Path::new(&format!("/proc/{init}/exe")).exists())).await;
        let (id, output) = says(&executor, spec.clone()).await;
        assert_eq!((dead.contains(&id), output.as_str()), (false, "alive\n"));
        executor.prepare(spec, 2).await.unwrap();
        eventually(|| on_disk(&root).is_disjoint(&dead)).await;
        stage.finish(executor).await;
    });
}

#[test]
fn what_cannot_be_made_is_told_and_runs_go_on() {
    on_stage(async |stage| {
        // A runtime that can create nothing ahead, and one whose containers have no gate that we know.
        let fails =
            stage.wrapper(r#"[[ " $* " == *" create "* ]] && { echo no >&2; exit 1; }; exec $RUNC "$@""#);
        let executor = stage.executor_on(longshore::runc().runtime(fails.to_string_lossy()));
        let spec = shell("echo all the same").piped();
        let refused = executor.prepare(spec.clone(), 1).await;
        assert!(
            matches!(&refused, Err(Error::NotReady(failure)) if failure.kind == StartFailureKind::RuntimeBroken),
            "{refused:?}"
        );
        assert_eq!(says(&executor, spec.clone()).await.1, "all the same\n");
        executor.shutdown(Cancel::now(), HUNG).await;
        drop(executor);

        let started = stage.path("started");
        let script = format!(
            r#"[[ " $* " == *" create "* ]] && {{ $RUNC "$@"; code=$?; mv {0}/runtime/*/exec.fifo {1}.fifo; exit $code; }}
            [[ " $* " == *" start "* ]] && {{ mv {1}.fifo $(echo {0}/runtime/*/)exec.fifo; touch {1}; }}
            exec $RUNC "$@""#,
            stage.root().display(),
            started.display()
        );
        let other = stage.wrapper(&script);
        let executor = stage.executor_on(longshore::runc().runtime(other.to_string_lossy()));
        executor.prepare(spec.clone(), 1).await.unwrap();
        let container = executor.run(spec.clone()).await.unwrap();
        assert_eq!(text(container.io().take_stdout().unwrap().read_to_end().await), "all the same\n");
        assert_eq!(container.wait().await.status, ExitStatus::Code(0));
        assert!(started.exists(), "the runtime was not asked to start it");
        executor.prepare(spec, 0).await.unwrap();
        stage.finish(executor).await;
    });
}

#[test]
fn a_shutdown_takes_along_what_is_ready_or_about_to_be() {
    on_stage(async |stage| {
        let executor = stage.executor();
        executor.prepare(sleeper(), 3).await.unwrap();
        let more = executor.clone();
        let prepared = tokio::spawn(async move { more.prepare(shell("true"), 20).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let running = executor.run(sleeper()).await.unwrap();
        running.started().await.unwrap();
        let report = executor.shutdown(Cancel::now(), HUNG).await;
        assert_eq!((report.late, report.left), (Vec::new(), Vec::<longshore::Leftover>::new()));
        let refused = prepared.await.unwrap();
        assert!(matches!(refused, Err(Error::ShuttingDown | Error::NotReady(_))), "{refused:?}");
        assert!(matches!(executor.prepare(sleeper(), 1).await, Err(Error::Stopped | Error::ShuttingDown)));
        drop(running.cancel(Cancel::now()));
        stage.finish(executor).await;
    });
}

/// Dropped without a shutdown, in the middle of it.
#[test]
fn a_dropped_executor_leaves_none() {
    on_stage(async |stage| {
        let executor = stage.executor();
        executor.prepare(sleeper(), 2).await.unwrap();
        let unready = executor.prepare(shell("true"), 4);
        assert!(futures::FutureExt::now_or_never(unready).is_none());
        tokio::task::spawn_blocking(move || drop(executor)).await.unwrap();
        stage.check();
    });
}
