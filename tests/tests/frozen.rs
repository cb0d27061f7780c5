//! Freezers above a container: a container that is given the hierarchies of the host freezes its executor's directory, or that
//! of all executors. And somebody else freezes the parent that the executor was given, which is a pause from outside.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use longshore::{Cancel, CgroupParent, ContainerHandle, Executor, ExitStatus, Mount, Security, Signal};
use longshore_tests::command::{call, longshore};
use longshore_tests::{Stage, on_bare_stage, on_stage, shell, until};

/// How long what is frozen may keep its container from ending. It was for ever.
const THAWED_WITHIN: Duration = Duration::from_secs(20);

/// The directories of ours above a container, as it sees them below the parent.
const OURS: [&str; 2] = ["longshore/*/", "longshore/"];

const POINT: &str = "/mnt";

/// A hierarchy that freezes, and a parent of cgroups in it that is the test's own.
struct Freezer {
    top: PathBuf,
    file: &'static str,
    frozen: &'static str,
    parent: String,
}

impl Freezer {
    fn new() -> Self {
        let parent = format!("longshore-test-frozen-{}", std::process::id());
        let top = PathBuf::from("/sys/fs/cgroup");
        if top.join("freezer").is_dir() {
            return Self { top: top.join("freezer"), file: "freezer.state", frozen: "FROZEN", parent };
        }
        Self { top, file: "cgroup.freeze", frozen: "1", parent }
    }

    /// Whether it is v1's, below which nothing dies before it is thawed.
    fn keeps_what_is_killed(&self) -> bool {
        self.file == "freezer.state"
    }

    /// A script that freezes `dir`, with a part of the container in it, and then does `rest`. Its init has left the freezer.
    fn script(&self, dir: &str, rest: &str) -> String {
        let Self { file, frozen, parent, .. } = self;
        format!(
            "set -e; sleep 1000 & echo $$ > {POINT}/cgroup.procs
            for dir in {POINT}/{parent}/{dir}; do
                until echo {frozen} > $dir/{file}
                    grep -qE '^(FROZEN|frozen 1)$' $dir/freezer.state $dir/cgroup.events 2>/dev/null
                do sleep 0.01; done
            done; {rest}"
        )
    }

    async fn run(&self, executor: &Executor, script: &str) -> ContainerHandle {
        let mut spec = shell(script);
        spec.security = Security::Insecure;
        spec.cgroup_parent = Some(CgroupParent::Path(format!("/{}", self.parent)));
        spec.mounts.push(Mount::bind(&self.top, POINT));
        executor.run(spec).await.unwrap()
    }

    /// The frozen directories at and below the parent.
    fn frozen(&self) -> Vec<PathBuf> {
        let mut dirs = vec![self.top.join(&self.parent)];
        let mut frozen = Vec::new();
        while let Some(dir) = dirs.pop() {
            let below = fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().path());
            dirs.extend(below.filter(|path| path.is_dir()));
            let says = |file, text: &str| {
                fs::read_to_string(dir.join(file)).is_ok_and(|said| said.lines().any(|line| line == text))
            };
            if says("freezer.state", "FROZEN") || says("cgroup.events", "frozen 1") {
                frozen.push(dir);
            }
        }
        frozen
    }

    /// Freezes the parent, or thaws it, as somebody else would.
    fn set_parent(&self, is_frozen: bool) {
        let thawed = if self.keeps_what_is_killed() { "THAWED" } else { "0" };
        let text = if is_frozen { self.frozen } else { thawed };
        fs::write(self.top.join(&self.parent).join(self.file), text).unwrap();
    }
}

fn killed() -> ExitStatus {
    ExitStatus::Signal(Signal::KILL)
}

/// Init has ended, and what it leaves behind is frozen by a directory above the container.
#[test]
fn frozen_above_and_exits() {
    for dir in OURS {
        on_stage(async |stage| {
            let (executor, freezer) = (stage.executor(), Freezer::new());
            let begun = Instant::now();
            let container = freezer.run(&executor, &freezer.script(dir, "exit 3")).await;
            assert_eq!(container.wait().await.status, ExitStatus::Code(3));
            assert_eq!(container.released().await.unwrap(), []);
            assert!(begun.elapsed() < THAWED_WITHIN, "{dir}: {:?}", begun.elapsed());
            drop(container);
            stage.finish(executor).await;
        });
    }
}

/// A container is frozen with its neighbours, and each is cancelled. One that is paused stays paused while others are ended.
#[test]
fn frozen_above_and_cancelled() {
    for (dir, grace) in OURS.into_iter().zip([Duration::ZERO, Duration::from_secs(1)]) {
        on_stage(async |stage| {
            let (executor, freezer) = (stage.executor(), Freezer::new());
            let paused = freezer.run(&executor, "sleep 1000").await;
            paused.started().await.unwrap();
            paused.pause().await.unwrap();
            // Init is in the freezer here.
            let script = freezer.script(dir, "").replace("echo $$ >", "true");
            let container = freezer.run(&executor, &script).await;
            let own = format!("{}/longshore", freezer.parent);
            until("frozen", || {
                freezer.frozen().contains(&freezer.top.join(&own)) || freezer.frozen().len() > 2
            })
            .await;
            let begun = Instant::now();
            assert_eq!(container.cancel(Cancel::with_grace(grace)).await.status, killed());
            assert_eq!(container.released().await.unwrap(), []);
            assert!(begun.elapsed() < THAWED_WITHIN, "{dir}: {:?}", begun.elapsed());
            let frozen = freezer.frozen();
            assert!(frozen.len() == 1 && frozen[0].ends_with(paused.id().as_str()), "{dir}: {frozen:?}");
            assert_eq!(paused.cancel(Cancel::now()).await.status, killed());
            drop((container, paused));
            stage.finish(executor).await;
        });
    }
}

/// Runs the command with a container that freezes `dir`, or nothing, kills it, and leaves the container to a sweep.
fn leave_to_a_sweep(stage: &Stage, freezer: &Freezer, script: &str) {
    let mut command = longshore(&stage.root());
    command.args(["run", "--security", "insecure", "--cgroup-parent"]).arg(format!("/{}", freezer.parent));
    command.arg("-v").arg(format!("{}:{POINT}", freezer.top.display())).args(["--", "sh", "-c", script]);
    let mut command = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(command.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    command.kill().unwrap();
    command.wait().unwrap();
}

/// The embedder is killed: the next sweep thaws what is above its container.
#[test]
fn frozen_above_and_swept() {
    for dir in OURS {
        on_bare_stage(|stage| {
            let freezer = Freezer::new();
            leave_to_a_sweep(&stage, &freezer, &freezer.script(dir, "echo ready; sleep 1000"));
            let begun = Instant::now();
            let swept = call(&stage.root(), &["sweep"]);
            assert_eq!(swept.code, Some(0), "{swept:?}");
            assert!(begun.elapsed() < THAWED_WITHIN, "{dir}: {:?}", begun.elapsed());
            stage.check();
        });
    }
}

/// Somebody else has frozen the parent that the executor was given. It is not ours to thaw: the sweep says what it is.
#[test]
fn frozen_from_outside() {
    on_bare_stage(|stage| {
        let freezer = Freezer::new();
        let parent = freezer.top.join(&freezer.parent);
        leave_to_a_sweep(&stage, &freezer, "echo ready; sleep 1000");
        freezer.set_parent(true);
        let swept = call(&stage.root(), &["sweep"]);
        if freezer.keeps_what_is_killed() {
            assert_ne!(swept.code, Some(0), "{swept:?}");
            let said = format!("{} above it is frozen by somebody else", parent.display());
            assert!(swept.stderr.contains(&said), "{swept:?}");
            assert!(freezer.frozen().contains(&parent), "what is not ours was thawed");
            freezer.set_parent(false);
            assert_eq!(call(&stage.root(), &["sweep"]).code, Some(0));
        } else {
            assert_eq!(swept.code, Some(0), "a frozen process of v2 can be killed: {swept:?}");
        }
        stage.check();
    });
}
