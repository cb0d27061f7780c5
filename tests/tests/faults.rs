//! A disk that is full or broken, at every change that an executor makes below its root: opening, preparing, running, executing,
//! pausing, updating, releasing, shutting down, sweeping. The changes fail one after the other, by
//! `executor_disk::faults`. The test is the row `full-disk` of `tests/README.md`.
//!
//! Not below this seam: what the runtime writes (its state and logs), cgroups, the socket of a terminal, CNI plugins. The row
//! has a test on a file system that is really full.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use executor_disk::faults::{Fault, Op, end, inject};
use longshore::{
    Cancel, ContainerHandle, ContainerSpec, Error, ExecSpec, Executor, Exit, ExitReason, Mount, Resources,
    TerminalSize, with_causes,
};
use longshore_tests::{Stage, on_stage, runtime_under_test, sleeper};
use rustix::io::Errno;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What an embedder was told of its disk.
struct Told {
    errors: Vec<String>,
    what: String,
    cause: String,
}

impl Told {
    /// An error says the true cause, and where.
    fn error(&mut self, doing: &str, sentence: String) {
        assert!(
            sentence.contains(&self.cause) && sentence.contains('/'),
            "{}: {doing}: {sentence}",
            self.what
        );
        self.errors.push(format!("{doing}: {sentence}"));
    }

    fn result<T>(&mut self, doing: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(Error::NotStarted { exit, .. }) => {
                self.exit(doing, &exit);
                None
            }
            Err(error) => {
                self.error(doing, with_causes(&error).to_string());
                None
            }
        }
    }

    fn exit(&mut self, doing: &str, exit: &Exit) {
        if let ExitReason::StartFailed(failure) = &exit.reason {
            return self.error(doing, failure.message.clone());
        }
        let is_true = exit.is_success() || matches!(exit.reason, ExitReason::Cancelled { .. });
        assert!(is_true, "{}: {doing}: an exit was invented: {exit:?}", self.what);
    }
}

/// A container with parts of every kind: layers, a secret, files of names, a mount point that is made, one below a volume.
fn rich(stage: &Stage) -> ContainerSpec {
    let mut spec = stage.directory_spec(["true"]);
    spec.remove_stub_parents = true;
    let volume = stage.path("volume");
    std::fs::create_dir_all(volume.join("inside")).unwrap();
    spec.mounts.push(Mount::secret(b"x".to_vec(), "/run/secret", 0o400, (0, 0)));
    spec.mounts.push(Mount::bind(&volume, "/made/volume"));
    spec.mounts.push(Mount::tmpfs("/made/volume/inside"));
    spec.mounts.push(Mount::bind(stage.path("rootfs/etc"), "/made/file").read_only());
    spec
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what}: no end within {LIMIT:?}"))
}

/// Everything that an embedder does.
async fn live(stage: &Stage, told: &mut Told) {
    let runtime = runtime_under_test(longshore::runc()).build().unwrap();
    let built = Executor::builder(runtime).root(stage.root()).build();
    let Some(executor) = told.result("build", built) else { return };
    let what = told.what.clone();
    let ready = executor.prepare(ContainerSpec::host(["true"]).env("READY", "1"), 1);
    told.result("prepare", within(&what, ready).await);
    for (doing, spec) in [("run", rich(stage)), ("terminal", ContainerSpec::host(["tty"]).piped())] {
        let spec = if doing == "terminal" { spec.terminal(TerminalSize::default()) } else { spec };
        if let Some(run) = told.result(doing, within(&what, executor.run(spec)).await) {
            told.exit(doing, &within(&what, run.wait()).await);
            release(told, &run).await;
        }
    }
    if let Some(held) = told.result("hold", within(&what, executor.run(sleeper())).await)
        && told.result("started", within(&what, held.started()).await).is_some()
    {
        inside(told, &held).await;
        told.exit("cancel", &within(&what, held.cancel(Cancel::now())).await);
        release(told, &held).await;
    }
    let report = within(&what, executor.shutdown(Cancel::now(), LIMIT / 2)).await;
    assert!(report.late.is_empty(), "{what}: {report:?}");
    for left in &report.left {
        told.error("shutdown", left.to_string());
    }
}

/// What is left of a container is told.
async fn release(told: &mut Told, container: &ContainerHandle) {
    for left in within(&told.what, container.released()).await.unwrap() {
        told.error("release", left.to_string());
    }
}

async fn inside(told: &mut Told, held: &ContainerHandle) {
    let what = told.what.clone();
    let terminal = ExecSpec::new(["tty"]).piped().terminal(TerminalSize::default());
    for (doing, spec) in [("exec", ExecSpec::new(["true"])), ("terminal exec", terminal)] {
        if let Some(exec) = told.result(doing, within(&what, held.exec(spec)).await) {
            told.exit(doing, &within(&what, exec.wait()).await);
        }
    }
    told.result("pause", within(&what, held.pause()).await);
    told.result("resume", within(&what, held.resume()).await);
    told.result("update", within(&what, held.update(Resources::default().pids(100))).await);
}

/// Has the change fail with this number, and if the fault lasts all that follow. Returns what failed first, if it came to that.
async fn fail_at(stage: &Stage, first: usize, error: Errno, lasts: bool) -> Option<(Op, String)> {
    drop(rich(stage));
    let before = all_below(&stage.path(""));
    let cause = std::io::Error::from(error).to_string();
    let what = format!("{} {} change {first}", error, if lasts { "from" } else { "at" });
    let mut told = Told { errors: Vec::new(), what, cause };
    let removals = [Errno::IO, Errno::ROFS].contains(&error);
    inject(Fault { error, first, lasts, removals });
    live(stage, &mut told).await;
    let changes = end();
    let failed = changes.get(first - 1).map(|(op, path)| (*op, path.display().to_string()));
    told.what = format!("{} ({failed:?})", told.what);
    // Without the fault, a sweep removes what could not be removed.
    sweep_all(stage, &before, &told.what);
    failed
}

/// Sweeps, and checks that nothing is left then: below the root, and of mount points in the root file system and the volume.
fn sweep_all(stage: &Stage, before: &BTreeSet<String>, what: &str) {
    let swept = longshore::sweep(&stage.root()).unwrap();
    let left: Vec<_> = swept.iter().filter(|swept| !swept.left.is_empty()).collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    let mut after = all_below(&stage.path(""));
    after.remove(&stage.root().display().to_string());
    let new: Vec<_> = after.difference(before).collect();
    assert!(new.is_empty(), "{what}: {new:?} are left");
}

fn all_below(dir: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(all_below(&entry.path()));
        }
        all.insert(entry.path().display().to_string());
    }
    all
}

/// Ends an executor that can remove nothing of a container of its.
async fn leave_everything(stage: &Stage) {
    let runtime = runtime_under_test(longshore::runc()).build().unwrap();
    let executor = Executor::builder(runtime).root(stage.root()).build().unwrap();
    let mut spec = rich(stage);
    spec.process.args = ["sleep", "1000"].map(str::to_owned).into();
    executor.run(spec).await.unwrap().started().await.unwrap();
    inject(Fault { error: Errno::IO, first: 1, lasts: true, removals: true });
    let report = within("shutdown", executor.shutdown(Cancel::now(), LIMIT / 2)).await;
    end();
    assert!(report.late.is_empty() && !report.left.is_empty(), "{report:?}");
}

/// What one sweep could not remove is told, and removed by the next.
#[test]
fn a_sweep_of_a_broken_disk_at_every_change() {
    on_stage(async |stage| {
        drop(rich(&stage));
        let before = all_below(&stage.path(""));
        for first in 1.. {
            assert!(first < 500, "it does not end");
            leave_everything(&stage).await;
            inject(Fault { error: Errno::IO, first, lasts: false, removals: true });
            let swept = longshore::sweep(&stage.root());
            let changes = end();
            if let Err(error) = swept {
                let sentence = with_causes(&error).to_string();
                assert!(
                    sentence.contains("Input/output error") && sentence.contains('/'),
                    "{first}: {sentence}"
                );
            }
            sweep_all(&stage, &before, &format!("change {first}, {:?}", changes.get(first - 1)));
            if changes.len() < first {
                assert!(first > 10, "{first}");
                break;
            }
        }
        stage.check();
    });
}

/// Walks the changes with this step. Returns what failed.
async fn walk(stage: &Stage, lasts: bool, step: usize, errors: &[Errno]) -> Vec<(Op, String)> {
    let mut failed = Vec::new();
    for (first, error) in (1..).step_by(step).zip(errors.iter().cycle()) {
        assert!(first < 500, "it does not end");
        match fail_at(stage, first, *error, lasts).await {
            Some(one) => failed.push(one),
            None => break,
        }
    }
    failed
}

#[test]
fn full_disk_at_every_change() {
    on_stage(async |stage| {
        let failed = walk(&stage, false, 1, &[Errno::NOSPC]).await;
        for op in [Op::MakeDir, Op::MakeFile, Op::Write, Op::Rename, Op::Set, Op::Mount] {
            assert!(failed.iter().any(|(failed, _)| *failed == op), "{op:?} never failed: {failed:?}");
        }
        stage.check();
    });
}

#[test]
fn broken_disk_from_a_change_on() {
    on_stage(async |stage| {
        walk(&stage, true, 3, &[Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO]).await;
        stage.check();
    });
}
