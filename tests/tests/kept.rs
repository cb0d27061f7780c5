//! An executor that is kept: killed, detached and upgraded; what it has left is taken up.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use longshore::{
    Cancel, ContainerId, ContainerSpec, Event, EventKind, EventOrder, ExecSpec, Executor, ExitReason,
    ExitStatus, KeepExited, Survival,
};
use longshore_tests::{HUNG, Stage, amount, on_bare_stage, on_stage};

fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(|error| format!("{error}: ")).collect()
}

fn kept(stage: &Stage) -> Executor {
    let runtime = stage.runtime().build().unwrap();
    Executor::builder(runtime).root(stage.root()).survival(Survival::keep("ci")).build().unwrap()
}

async fn end(executor: Executor) {
    let report = executor.shutdown(Cancel::now(), HUNG).await;
    assert_eq!(report, longshore::ShutdownReport::default());
}

#[test]
fn a_container_outlives_its_executor() {
    on_stage(async |stage| {
        let executor = kept(&stage);
        let spec =
            ContainerSpec::host(["sh", "-c", "read line; echo got $line; exit 3"]).piped().label("job", "7");
        let mut spec = spec;
        spec.process.stdio.stdin = longshore::Stdio::Pipe;
        let container = executor.run(spec.id("c".parse().unwrap())).await.unwrap();
        let pid = container.started().await.unwrap();
        let number = container.snapshot().seq;
        executor.detach().await.unwrap();
        drop((container, executor));

        let executor = kept(&stage);
        let adopted = executor.adopted().await.unwrap();
        let [container] = adopted.as_slice() else { panic!("{adopted:?}") };
        let snapshot = container.snapshot();
        assert_eq!((snapshot.pid, snapshot.seq, &*snapshot.labels["job"]), (Some(pid), number, "7"));
        assert_eq!(container.spec().process.args[0], "sh");
        let exec = container.exec(ExecSpec::new(["sh", "-c", "exit 4"])).await.unwrap();
        assert_eq!(exec.wait().await.status, ExitStatus::Code(4));
        assert!(container.usage().await.unwrap().pids > Some(0));
        let mut stdin = container.io().take_stdin().expect("it was held");
        stdin.write_all(b"it\n").await.unwrap();
        let output = container.io().take_stdout().expect("it was held").read_to_end().await;
        assert_eq!(String::from_utf8_lossy(&output), "got it\n");
        let exit = container.wait().await;
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(3), ExitReason::Normal));
        container.released().await.unwrap();
        end(executor).await;
        drop(adopted);
        forget(&stage);
        stage.check();
    });
}

#[test]
fn what_ended_meanwhile_is_exact() {
    on_stage(async |stage| {
        let executor = kept(&stage);
        let run = async |id: &str, script: &str| {
            let spec = ContainerSpec::host(["sh", "-c", script]).id(id.parse().unwrap());
            let container = executor.run(spec.keep_exited(KeepExited::UntilRemoved)).await.unwrap();
            (container.started().await.unwrap(), container)
        };
        let (victim, _) = run("signal", "sleep 1000").await;
        for (id, script) in [("code", "sleep 0.3; exit 7"), ("ended", "exit 9")] {
            run(id, script).await;
        }
        let (_, execs) = run("execs", "sleep 1000").await;
        let exec = ExecSpec::new(["sh", "-c", "sleep 0.3; exit 5"]).id("e".parse().unwrap());
        execs.exec(exec).await.unwrap().started().await.unwrap();
        let limited = ContainerSpec::host(["sleep", "1000"]).id("limited".parse().unwrap());
        let limited =
            limited.keep_exited(KeepExited::UntilRemoved).time_limit(Duration::from_secs(1), Cancel::now());
        executor.run(limited).await.unwrap().started().await.unwrap();
        executor.get(&"ended".parse().unwrap()).await.unwrap().wait().await;
        executor.detach().await.unwrap();
        drop((execs, executor));
        let victim = rustix::process::Pid::from_raw(victim.get().try_into().unwrap()).unwrap();
        rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;

        let began = Instant::now();
        let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap();
        let executor = kept(&stage);
        let mut events = executor.events_since(0).unwrap();
        let exit_of = async |id: &str| executor.get(&id.parse().unwrap()).await.unwrap().wait().await;
        for (id, status) in [
            ("code", ExitStatus::Code(7)),
            ("signal", ExitStatus::Signal(longshore::Signal::KILL)),
            ("ended", ExitStatus::Code(9)),
        ] {
            let exit = exit_of(id).await;
            assert_eq!((exit.status, &exit.reason), (status, &ExitReason::Normal), "{id}");
            let before = since_epoch.saturating_sub(exit.exited_at.since_epoch());
            assert!(before > Duration::from_millis(200), "{id}: it ended when nobody was there: {before:?}");
            assert!(exit.usage.is_some(), "{id}");
        }
        let limited = exit_of("limited").await;
        assert!(matches!(limited.reason, ExitReason::TimedOut { .. }), "{limited:?}");
        assert!(began.elapsed() < HUNG, "its deadline is on disk");
        let execs = executor.get(&"execs".parse().unwrap()).await.unwrap();
        let exec = loop {
            let longshore::Notice::Event(event) = events.next().await.unwrap() else { continue };
            if let EventKind::ExecExited { exit, .. } = event.kind {
                break exit;
            }
        };
        assert_eq!(exec.status, ExitStatus::Code(5));
        execs.cancel(Cancel::now()).await;
        for id in ["code", "signal", "ended", "execs", "limited"] {
            executor.get(&id.parse().unwrap()).await.unwrap().remove().await.unwrap();
        }
        end(executor).await;
        drop((execs, events));
        forget(&stage);
        stage.check();
    });
}

#[test]
fn a_name_is_used_once() {
    on_stage(async |stage| {
        let executor = kept(&stage);
        let runtime = stage.runtime().build().unwrap();
        let second = Executor::builder(runtime).root(stage.root()).survival(Survival::keep("ci")).build();
        let words = with_causes(&second.map(drop).unwrap_err());
        assert!(words.contains(&format!("process {}", std::process::id())), "{words}");
        let runtime = stage.runtime().build().unwrap();
        let plain = Executor::builder(runtime).root(stage.root()).build().unwrap();
        assert!(plain.detach().await.is_err() && plain.events_since(0).is_err());
        plain.shutdown(Cancel::now(), HUNG).await;
        end(executor).await;
        drop(plain);
        forget(&stage);
        stage.check();
    });
}

/// A file that cannot be read.
#[test]
fn what_cannot_be_read_is_left_alone() {
    on_stage(async |stage| {
        let executor = kept(&stage);
        for id in ["corrupt", "newer", "good"] {
            let spec = ContainerSpec::host(["sleep", "1000"]).id(id.parse().unwrap());
            executor.run(spec).await.unwrap().started().await.unwrap();
        }
        executor.detach().await.unwrap();
        drop(executor);
        let file = |id: &str| stage.root().join("containers").join(id).join("container.json");
        let before = ["corrupt", "newer"].map(|id| fs::read(file(id)).unwrap());
        fs::write(file("corrupt"), &before[0][..before[0].len() / 2]).unwrap();
        fs::write(file("newer"), br#"{"version":2,"spec":"of another kind"}"#).unwrap();

        let executor = kept(&stage);
        let unadopted: Vec<_> = executor.unadopted().iter().map(ToString::to_string).collect();
        assert_eq!(unadopted.len(), 2, "{unadopted:?}");
        assert!(
            unadopted.iter().any(|words| words.starts_with("newer: ") && words.contains("version 2")),
            "{unadopted:?}"
        );
        let adopted = executor.adopted().await.unwrap();
        assert_eq!(adopted.iter().map(|one| one.id().as_str()).collect::<Vec<_>>(), ["good"]);
        executor.detach().await.unwrap();
        drop((adopted, executor));
        // Somebody mends them.
        for (id, text) in ["corrupt", "newer"].iter().zip(before) {
            fs::write(file(id), text).unwrap();
        }
        let executor = kept(&stage);
        assert_eq!((executor.unadopted().len(), executor.list().await.unwrap().len()), (0, 3));
        end(executor).await;
        forget(&stage);
        stage.check();
    });
}

/// Removes the record, which outlives a shutdown.
fn forget(stage: &Stage) {
    assert_eq!(longshore::forget_name(&stage.root(), "ci").unwrap(), []);
}

struct Embedder(Child);

impl Embedder {
    fn new(stage: &Stage, seed: u64, count: usize) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kept"));
        command.arg(stage.root()).arg(stage.path("events")).arg(seed.to_string()).arg(count.to_string());
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        assert!(!self.0.wait().unwrap().success(), "it had ended by itself");
    }

    fn finish(mut self) {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && words.contains("nothing left"), "{words}");
    }
}

/// Embedders are killed at any moment, one after the other.
#[test]
fn embedders_that_are_killed() {
    let figures = kill_one_after_the_other("embedders", amount(12), |_, _| {});
    assert_eq!(figures.lost, 0, "{figures:?}");
}

/// Their keepers as well: before them, or with them.
#[test]
fn keepers_that_are_killed() {
    kill_one_after_the_other("keepers", amount(8), |stage, rng| {
        let Some(keeper) = find_keeper(stage) else { return };
        rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
        // When it is killed is what varies here.
        std::thread::sleep(Duration::from_millis(rng.u64(0..2) * rng.u64(0..600)));
    });
}

fn kill_one_after_the_other(name: &str, kills: u64, before: impl Fn(&Stage, &mut Rng)) -> Figures {
    let mut figures = Figures::default();
    on_bare_stage(|stage| {
        let mut rng = Rng::with_seed(1);
        for round in 0..kills {
            let embedder = Embedder::new(&stage, round, size());
            // When it is killed is what varies here.
            std::thread::sleep(
                Duration::from_millis(rng.u64(200..1200)) * u32::try_from(size() / 50 + 1).unwrap(),
            );
            before(&stage, &mut rng);
            embedder.kill();
            if rng.u8(0..3) == 0 {
                std::thread::sleep(Duration::from_millis(rng.u64(0..1000)));
            }
        }
        let last = Embedder::new(&stage, 1000, size());
        std::thread::sleep(Duration::from_millis(500));
        last.finish();
        figures = judge(&stage.path("events"));
        println!("{name}: {kills} kills, {figures:?}");
        assert!(figures.exact > kills && figures.events > 0, "{figures:?}");
        assert_eq!(longshore::forget_name(&stage.root(), "tests").unwrap(), []);
        stage.check();
    });
    figures
}

/// How many containers are up at once. Set it to 200 to see more.
fn size() -> usize {
    std::env::var("LONGSHORE_KEPT_SIZE").ok().and_then(|size| size.parse().ok()).unwrap_or(8)
}

#[derive(Debug, Default)]
struct Figures {
    events: usize,
    /// Exits that are as the id says.
    exact: u64,
    /// Starts that were interrupted, and execs that ended with their container.
    interrupted: u64,
    /// Exits that nobody has seen.
    lost: u64,
}

/// Each event once, in order, and each exit as the id says.
fn judge(file: &Path) -> Figures {
    let text = fs::read_to_string(file).unwrap();
    let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "an event is missing, or comes twice");
    let mut orders: BTreeMap<ContainerId, EventOrder> = BTreeMap::new();
    let mut figures = Figures { events: events.len(), ..Figures::default() };
    for event in &events {
        let order = orders.entry(event.container.clone()).or_default();
        if order.is_complete() {
            // Its id was free.
            *order = EventOrder::default();
        }
        order.check(event).unwrap();
        let (id, exit) = match &event.kind {
            EventKind::Exited { exit } => (event.container.as_str(), exit),
            EventKind::ExecExited { exec, exit } => (exec.as_str(), exit),
            EventKind::Registered | EventKind::Started { .. } | EventKind::Released { .. } | _ => continue,
        };
        let is_exec = matches!(event.kind, EventKind::ExecExited { .. });
        let code: u8 = id.rsplit('-').next().unwrap().parse().unwrap();
        match &exit.reason {
            // An exec ends with its container: also before that is known.
            ExitReason::Normal if is_exec && exit.status == ExitStatus::Signal(longshore::Signal::KILL) => {
                figures.interrupted += 1;
            }
            ExitReason::Normal => {
                assert_eq!(exit.status, ExitStatus::Code(code), "{id}");
                figures.exact += 1;
            }
            ExitReason::StartFailed(_) | ExitReason::Cancelled { .. } if exit.started_at.is_none() => {
                figures.interrupted += 1
            }
            // An exec ends with its container.
            ExitReason::Cancelled { .. } if matches!(event.kind, EventKind::ExecExited { .. }) => {
                figures.interrupted += 1
            }
            ExitReason::Lost => figures.lost += 1,
            other @ (ExitReason::StartFailed(_) | ExitReason::Cancelled { .. } | _) => {
                panic!("{id}: {other:?}")
            }
        }
    }
    let open: Vec<_> = orders.iter().filter(|(_, order)| !order.is_complete()).map(|(id, _)| id).collect();
    assert!(open.is_empty(), "never released: {open:?}");
    figures
}

/// The keeper of the only executor of a stage.
fn keeper_of(stage: &Stage) -> rustix::process::Pid {
    find_keeper(stage).expect("a keeper in a cgroup of its own")
}

fn find_keeper(stage: &Stage) -> Option<rustix::process::Pid> {
    let executor = fs::read_dir(stage.root().join("executors")).ok()?.next()?.ok()?.file_name();
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let dirs = hierarchies.chain(["/sys/fs/cgroup".into()]);
    let find = |dir: std::path::PathBuf| {
        let procs = dir.join("longshore").join(&executor).join(".keeper/cgroup.procs");
        fs::read_to_string(procs).ok()?.lines().next()?.parse().ok()
    };
    rustix::process::Pid::from_raw(dirs.filter_map(find).next()?)
}

/// The executor goes on with another keeper.
#[test]
fn the_keeper_is_killed() {
    on_stage(async |stage| {
        let executor = kept(&stage);
        let spec = ContainerSpec::host(["sh", "-c", "sleep 1; exit 7"]).id("a".parse().unwrap());
        let container = executor.run(spec).await.unwrap();
        container.started().await.unwrap();
        let first = keeper_of(&stage);
        rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
        assert_eq!(container.wait().await.status, status_of_a_strangers_child(7));
        let after = async {
            loop {
                let exit =
                    executor.run(ContainerSpec::host(["sh", "-c", "exit 3"])).await.unwrap().wait().await;
                if exit.started_at.is_some() {
                    return exit;
                }
            }
        };
        assert_eq!(tokio::time::timeout(HUNG, after).await.unwrap().status, ExitStatus::Code(3));
        assert_ne!(keeper_of(&stage), first);
        end(executor).await;
        drop(container);
        forget(&stage);
        stage.check();
    });
}

/// Both are killed: what lives is exact where the kernel tells the status of another's child, and what has ended is unknown.
#[test]
fn the_keeper_and_the_embedder_are_killed() {
    on_stage(async |stage| {
        let executor = kept(&stage);
        for (id, script) in [("ends", "sleep 0.3; exit 7"), ("lives", "sleep 3; exit 8")] {
            let spec = ContainerSpec::host(["sh", "-c", script]).id(id.parse().unwrap());
            executor.run(spec.keep_exited(KeepExited::UntilRemoved)).await.unwrap().started().await.unwrap();
        }
        let keeper = keeper_of(&stage);
        executor.detach().await.unwrap();
        drop(executor);
        rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;

        let executor = kept(&stage);
        let exit_of = async |id: &str| executor.get(&id.parse().unwrap()).await.unwrap().wait().await;
        let ended = exit_of("ends").await;
        assert_eq!((ended.status, ended.reason), (ExitStatus::Unknown, ExitReason::Lost));
        assert_eq!(exit_of("lives").await.status, status_of_a_strangers_child(8));
        end(executor).await;
        forget(&stage);
        stage.check();
    });
}

/// The kernel tells it from 6.15 on.
fn status_of_a_strangers_child(code: u8) -> ExitStatus {
    if longshore::runtime::KernelRelease::running() >= longshore::runtime::KernelRelease::new(6, 15) {
        ExitStatus::Code(code)
    } else {
        ExitStatus::Unknown
    }
}

/// A shell in a terminal, its size, and its input, before and after.
#[test]
fn a_terminal_goes_on() {
    on_stage(async |stage| {
        let executor = kept(&stage);
        let mut spec = ContainerSpec::host(["sh"]).id("t".parse().unwrap());
        spec.process.terminal = Some(longshore::TerminalSize { rows: 33, columns: 99 });
        spec.process.stdio = longshore::StdioSpec {
            stdin: longshore::Stdio::Pipe,
            stdout: longshore::Stdio::Pipe,
            ..Default::default()
        };
        let container = executor.run(spec).await.unwrap();
        container.started().await.unwrap();
        let mut stdin = container.io().take_stdin().unwrap();
        stdin.write_all(b"stty -echo; X=kept; echo ready\n").await.unwrap();
        let mut stdout = container.io().take_stdout().unwrap();
        read_until(&mut stdout, "ready\r").await;
        executor.detach().await.unwrap();
        drop((stdin, stdout, container, executor));

        let executor = kept(&stage);
        let container = executor.get(&"t".parse().unwrap()).await.unwrap();
        let adopted = executor.adopted().await.unwrap();
        let mut stdin = adopted[0].io().take_stdin().unwrap();
        let mut stdout = adopted[0].io().take_stdout().unwrap();
        stdin.write_all(b"echo $X $(stty size)\n").await.unwrap();
        read_until(&mut stdout, "kept 33 99\r").await;
        container.resize(longshore::TerminalSize { rows: 44, columns: 88 }).await.unwrap();
        stdin.write_all(b"echo $(stty size); exit 5\n").await.unwrap();
        read_until(&mut stdout, "44 88\r").await;
        assert_eq!(container.wait().await.status, ExitStatus::Code(5));
        container.released().await.unwrap();
        end(executor).await;
        drop((stdin, stdout, adopted, container));
        forget(&stage);
        stage.check();
    });
}

async fn read_until(output: &mut longshore::Output, text: &str) {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(text) {
            let Some(chunk) = output.next_chunk().await else { break };
            seen.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    assert!(tokio::time::timeout(HUNG, reading).await.is_ok() && seen.contains(text), "{text:?}: {seen:?}");
}

/// Execs with one name, one after the other, read and not read.
#[test]
fn the_keeper_holds_nothing_of_what_is_over() {
    on_stage(async |stage| {
        let executor = kept(&stage);
        let container = executor.run(ContainerSpec::host(["sleep", "1000"])).await.unwrap();
        container.started().await.unwrap();
        let keeper = keeper_of(&stage);
        let held = || fs::read_dir(format!("/proc/{}/fd", keeper.as_raw_nonzero())).unwrap().count();
        let before = held();
        for round in 0..amount(20) {
            let mut exec = ExecSpec::new(["sh", "-c", "echo some"]).id("e".parse().unwrap());
            exec.stdio = longshore::StdioSpec {
                stdin: longshore::Stdio::Pipe,
                stdout: longshore::Stdio::Pipe,
                stderr: longshore::Stdio::Shared { replay: 100 },
            };
            let exec = container.exec(exec).await.unwrap();
            exec.started().await.unwrap();
            assert!(held() > before, "they are held while it runs");
            if round % 2 == 0 {
                let output = exec.io().take_stdout().unwrap().read_to_end().await;
                assert_eq!(output, b"some\n");
            }
            assert!(exec.wait().await.is_success());
        }
        let deadline = Instant::now() + HUNG;
        while held() > before && Instant::now() < deadline {
            // A second after the end of each, what is not read is not held any more.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(held(), before);
        container.cancel(Cancel::now()).await;
        end(executor).await;
        drop(container);
        forget(&stage);
        stage.check();
    });
}
