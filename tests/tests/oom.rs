//! The OOM killer: which process it has killed, as the reason of an exit and as an event. Each test has the name of its row in
//! `tests/README.md`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore::{
    ContainerHandle, ContainerSpec, Event, EventKind, ExecSpec, Exit, ExitReason, ExitStatus, HostPid,
    Notice, OomKill, ProcessId, Resources, Signal,
};
use longshore_tests::command::{Outcome, longshore};
use longshore_tests::{cgroup_of, on_bare_stage, on_stage, run_recorded, shell, sleeper, until};

const LIMIT: u64 = 32 << 20;

/// `tail` keeps its input, which has no end of line.
const HUNGRY: [&str; 2] = ["tail", "/dev/zero"];

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

fn limited(script: &str) -> ContainerSpec {
    shell(script).memory(LIMIT)
}

fn under_init(script: &str) -> ContainerSpec {
    let mut spec = limited(script);
    spec.init = true;
    spec
}

fn end(exit: &Exit) -> (ExitStatus, &ExitReason) {
    (exit.status, &exit.reason)
}

/// The kills that were published. Each comes before the exit of the process that it names.
fn kills(events: &[Event]) -> Vec<OomKill> {
    let mut ended = Vec::new();
    let mut kills = Vec::new();
    for event in events {
        if let EventKind::OutOfMemory(kill) = &event.kind {
            assert!(kill.process.as_ref().is_none_or(|process| !ended.contains(process)), "{events:#?}");
            kills.push(kill.clone());
        } else if let EventKind::ExecExited { exec, .. } = &event.kind {
            ended.push(ProcessId::Exec(exec.clone()));
        } else if let EventKind::Exited { .. } = &event.kind {
            ended.push(ProcessId::Init);
        }
    }
    assert!(kills.iter().map(|kill| kill.kills).eq(1..=kills.len() as u64), "{kills:?}");
    kills
}

/// Waits until the OOM killer has killed something in a container, which goes on.
async fn killed(container: &ContainerHandle) -> OomKill {
    let mut events = container.events();
    loop {
        let Notice::Event(event) = events.next().await.unwrap() else { continue };
        assert!(!matches!(event.kind, EventKind::Exited { .. }), "{event:?}");
        if let EventKind::OutOfMemory(kill) = event.kind {
            return kill;
        }
    }
}

fn kill_from_outside(pid: HostPid) {
    let pid = nix::unistd::Pid::from_raw(pid.get().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn oom_of_exec() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, events) = run_recorded(&executor, sleeper().memory(LIMIT)).await;
        let bystander = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
        bystander.started().await.unwrap();
        let exec = container.exec(ExecSpec::new(HUNGRY)).await.unwrap();
        let exit = exec.wait().await;
        assert_eq!(end(&exit), (KILLED, &ExitReason::OutOfMemory));
        kill_from_outside(bystander.started().await.unwrap());
        assert_eq!(end(&bystander.wait().await), (KILLED, &ExitReason::Normal));
        container.signal(Signal::KILL).await.unwrap();
        assert_eq!(end(&container.wait().await), (KILLED, &ExitReason::Normal));
        let kills = kills(&events.await.unwrap());
        let named: Vec<_> = kills.iter().map(|kill| (kill.process.clone(), kill.pid.is_some())).collect();
        assert_eq!(named, [(Some(exec.id().process.clone()), true)]);
        stage.finish(executor).await;
    });
}

/// Until then the program has been seen: one that is killed within milliseconds, before its container is known to run, is told by the
/// counters.
const KNOWN: &str = "sleep 0.3";

#[test]
fn oom_of_the_program_under_init() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (code, of_memory) = (ExitStatus::Code(137), &ExitReason::OutOfMemory);
        let (container, events) =
            run_recorded(&executor, under_init(&format!("{KNOWN}; exec tail /dev/zero"))).await;
        assert_eq!(end(&container.wait().await), (code, of_memory));
        let kills = kills(&events.await.unwrap());
        assert_eq!(kills.len(), 1);
        assert_eq!((&kills[0].process, kills[0].pid.is_some()), (&Some(ProcessId::Init), true));

        let held = executor.create(under_init(&format!("{KNOWN}; exec tail /dev/zero"))).await.unwrap();
        held.created().await.unwrap();
        held.start().await.unwrap();
        assert_eq!(end(&held.wait().await), (code, of_memory));

        // The program's own code, of which the same is true.
        let own = executor
            .run(under_init(&format!("{KNOWN}; tail /dev/zero; exit 137")))
            .await
            .unwrap()
            .wait()
            .await;
        assert_eq!(end(&own), (code, &ExitReason::Normal));
        stage.finish(executor).await;
    });
}

/// A child is killed, and init goes on, which the event says. Then somebody else kills init.
#[test]
fn oom_false() {
    on_stage(async |stage| {
        let executor = stage.executor();
        for spec in
            [limited("tail /dev/zero; exec sleep 1000"), under_init("tail /dev/zero; exec sleep 1000")]
        {
            let container = executor.run(spec).await.unwrap();
            let kill = killed(&container).await;
            assert_eq!((kill.process, kill.kills), (None, 1));
            kill_from_outside(container.started().await.unwrap());
            let exit = container.wait().await;
            assert_eq!(end(&exit), (KILLED, &ExitReason::Normal));
            assert_eq!(exit.usage.map(|usage| usage.oom_kills), Some(1));
        }
        stage.finish(executor).await;
    });
}

#[test]
fn oom_of_an_execs_child() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, events) = run_recorded(&executor, sleeper().memory(LIMIT)).await;
        let script = ExecSpec::new(["sh", "-c", "tail /dev/zero; exit 5"]);
        let exec = container.exec(script).await.unwrap();
        assert_eq!(end(&exec.wait().await), (ExitStatus::Code(5), &ExitReason::Normal));
        container.signal(Signal::KILL).await.unwrap();
        assert_eq!(container.wait().await.reason, ExitReason::Normal);
        // Its pid is not known if the kernel has written ten records in the last five seconds.
        let kills = kills(&events.await.unwrap());
        assert_eq!(kills.into_iter().map(|kill| kill.process).collect::<Vec<_>>(), [None]);
        stage.finish(executor).await;
    });
}

/// The kernel writes ten whole records in five seconds, for the whole host: here are more.
#[test]
fn oom_of_two_containers_at_once() {
    on_stage(async |stage| {
        let executor = stage.executor();
        for _ in 0..4 {
            let runs = [0, 1, 2].map(|number| {
                let script =
                    if number < 2 { "exec tail /dev/zero" } else { "tail /dev/zero; exec sleep 1000" };
                run_recorded(&executor, limited(script))
            });
            let [(one, ones), (two, twos), (three, threes)] =
                futures::future::join_all(runs).await.try_into().unwrap();
            for container in [&one, &two] {
                assert_eq!(end(&container.wait().await), (KILLED, &ExitReason::OutOfMemory));
            }
            three.started().await.unwrap();
            while three.usage().await.unwrap().oom_kills == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            three.signal(Signal::KILL).await.unwrap();
            assert_eq!(end(&three.wait().await), (KILLED, &ExitReason::Normal));
            for events in [ones, twos] {
                let kills = kills(&events.await.unwrap());
                let processes: Vec<_> = kills.iter().map(|kill| &kill.process).collect();
                // A kill that is only counted has no process.
                assert!(matches!(*processes, [None | Some(ProcessId::Init)]), "{processes:?}");
            }
            assert_eq!(kills(&threes.await.unwrap()).len(), 1);
        }
        stage.finish(executor).await;
    });
}

/// More kills than the kernel writes whole records of. The others have no cgroup, but the pid still says which process it was.
#[test]
fn oom_false_among_many_kills() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, events) = run_recorded(&executor, sleeper().memory(LIMIT / 2)).await;
        let bystander = container.exec(ExecSpec::new(["sleep", "1000"])).await.unwrap();
        let pid = bystander.started().await.unwrap();
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do tail /dev/zero; done; exit 5";
        let many = container.exec(ExecSpec::new(["sh", "-c", script])).await.unwrap();
        assert_eq!(end(&many.wait().await), (ExitStatus::Code(5), &ExitReason::Normal));
        kill_from_outside(pid);
        assert_eq!(end(&bystander.wait().await), (KILLED, &ExitReason::Normal));
        // One that is killed in such a time.
        let hungry = container.exec(ExecSpec::new(HUNGRY)).await.unwrap();
        assert_eq!(end(&hungry.wait().await), (KILLED, &ExitReason::OutOfMemory));
        kill_from_outside(container.started().await.unwrap());
        assert_eq!(end(&container.wait().await), (KILLED, &ExitReason::Normal));
        // Kills that are only counted may be one event for several.
        let named = |event: Event| {
            let EventKind::OutOfMemory(kill) = event.kind else { return None };
            kill.process
        };
        let named: Vec<_> = events.await.unwrap().into_iter().filter_map(named).collect();
        assert_eq!(named, [hungry.id().process.clone()]);
        stage.finish(executor).await;
    });
}

/// On v2, a cgroup whose controllers are given to those below it has no processes of its own.
fn nested_memory_cgroup(cgroup: &Path, limit: u64) -> PathBuf {
    let nested = cgroup.join("nested");
    if cgroup.join("memory.events").exists() {
        let others = cgroup.join("others");
        fs::create_dir(&others).unwrap();
        for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().lines() {
            fs::write(others.join("cgroup.procs"), pid).unwrap();
        }
        fs::write(cgroup.join("cgroup.subtree_control"), "+memory").unwrap();
    }
    fs::create_dir(&nested).unwrap();
    let files = ["memory.limit_in_bytes", "memory.max"].map(|file| nested.join(file));
    fs::write(files.iter().find(|file| file.exists()).unwrap(), limit.to_string()).unwrap();
    nested
}

#[test]
fn oom_in_a_nested_memory_cgroup() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, events) = run_recorded(&executor, sleeper().memory(8 * LIMIT)).await;
        let cgroup = cgroup_of(container.started().await.unwrap(), "memory");
        let waiting = ExecSpec::new(["sh", "-c", "read go; exec tail /dev/zero"]).piped();
        let exec = container.exec(waiting.stdin(longshore::Stdio::Pipe)).await.unwrap();
        let pid = exec.started().await.unwrap();
        let nested = nested_memory_cgroup(&cgroup, LIMIT / 2);
        fs::write(nested.join("cgroup.procs"), pid.to_string()).unwrap();
        exec.io().take_stdin().unwrap().write_all(b"go\n").await.unwrap();
        assert_eq!(end(&exec.wait().await), (KILLED, &ExitReason::OutOfMemory));
        // Its counter goes with it, and nobody has read that.
        until("the nested cgroup is empty", || fs::remove_dir(&nested).is_ok()).await;
        assert_eq!(container.usage().await.unwrap().oom_kills, 1);
        container.signal(Signal::KILL).await.unwrap();
        let exit = container.wait().await;
        assert_eq!((&exit.reason, exit.usage.map(|usage| usage.oom_kills)), (&ExitReason::Normal, Some(1)));
        let kills = kills(&events.await.unwrap());
        assert_eq!(
            kills.iter().map(|kill| (kill.process.clone(), kill.pid)).collect::<Vec<_>>(),
            [(Some(exec.id().process.clone()), Some(pid))]
        );
        stage.finish(executor).await;
    });
}

/// Only v2 has `memory.oom.group`. The records of a real kernel are in the tests of `executor-host`.
#[test]
fn oom_group() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, events) = run_recorded(&executor, sleeper().memory(LIMIT)).await;
        let group = cgroup_of(container.started().await.unwrap(), "memory").join("memory.oom.group");
        if group.exists() {
            fs::write(group, "1").unwrap();
            let exec = container.exec(ExecSpec::new(HUNGRY)).await.unwrap();
            let (exec, init) = futures::join!(exec.wait(), container.wait());
            assert_eq!((exec.reason, init.reason), (ExitReason::OutOfMemory, ExitReason::OutOfMemory));
            assert_eq!(kills(&events.await.unwrap()).len(), 2);
        } else {
            println!("skipped: this host has no memory.oom.group, which is of cgroup v2");
        }
        stage.finish(executor).await;
    });
}

#[test]
fn oom_of_a_limit_that_came_later() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let (container, events) = run_recorded(&executor, sleeper()).await;
        let early = ExecSpec::new(["sh", "-c", "read go; exec tail /dev/zero"]).piped();
        let early = container.exec(early.stdin(longshore::Stdio::Pipe)).await.unwrap();
        early.started().await.unwrap();
        container.update(Resources::default().memory(LIMIT)).await.unwrap();
        early.io().take_stdin().unwrap().write_all(b"go\n").await.unwrap();
        assert_eq!(end(&early.wait().await), (KILLED, &ExitReason::OutOfMemory));
        let late = container.exec(ExecSpec::new(HUNGRY)).await.unwrap();
        assert_eq!(end(&late.wait().await), (KILLED, &ExitReason::OutOfMemory));
        container.signal(Signal::KILL).await.unwrap();
        container.wait().await;
        let kills = kills(&events.await.unwrap());
        let named: Vec<_> = kills.into_iter().map(|kill| kill.process).collect();
        assert_eq!(named, [&early, &late].map(|exec| Some(exec.id().process.clone())));
        stage.finish(executor).await;
    });
}

/// The program of an init is found also if the limit comes while it runs.
#[test]
fn oom_under_init_of_a_limit_that_came_later() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let mut spec = shell("read go; exec tail /dev/zero").stdin(longshore::Stdio::Pipe);
        spec.init = true;
        let (container, events) = run_recorded(&executor, spec).await;
        container.started().await.unwrap();
        container.update(Resources::default().memory(LIMIT)).await.unwrap();
        container.io().take_stdin().unwrap().write_all(b"go\n").await.unwrap();
        assert_eq!(end(&container.wait().await), (ExitStatus::Code(137), &ExitReason::OutOfMemory));
        let kills = kills(&events.await.unwrap());
        let named: Vec<_> = kills.into_iter().map(|kill| (kill.process, kill.pid.is_some())).collect();
        assert_eq!(named, [(Some(ProcessId::Init), true)]);
        stage.finish(executor).await;
    });
}

/// One descriptor for the log, however many containers have a limit.
#[test]
fn oom_descriptors() {
    on_stage(async |stage| {
        let executor = stage.executor();
        let open = || {
            let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
            links.filter_map(|link| fs::read_link(link.path()).ok()).filter(|to| to.ends_with("kmsg")).count()
        };
        let plain = executor.run(sleeper()).await.unwrap();
        plain.started().await.unwrap();
        assert_eq!(open(), 0, "a container without a limit");
        let mut containers = Vec::new();
        for _ in 0..5 {
            let container = executor.run(sleeper().memory(LIMIT)).await.unwrap();
            container.started().await.unwrap();
            containers.push(container);
            assert_eq!(open(), 1);
        }
        for container in &containers {
            container.cancel(longshore::Cancel::now()).await;
            container.released().await.unwrap();
        }
        until("the log is closed", || open() == 0).await;
        stage.finish(executor).await;
    });
}

/// Without CAP_SYSLOG the log cannot be read. The cgroup says that something was killed, when it happens, and the counters
/// decide.
#[test]
fn oom_without_the_kernels_log() {
    on_bare_stage(|stage| {
        let blind = || {
            let mut command = Command::new("setpriv");
            command.arg("--bounding-set=-syslog");
            command
        };
        let is_readable = blind().args(["sh", "-c", "exec < /dev/kmsg"]).output().unwrap().status.success();
        if is_readable {
            println!("skipped: everybody can read the log of this host");
            return stage.check();
        }
        let run = |init: &[&str], script: &str| -> Outcome {
            let longshore = longshore(&stage.root());
            let mut command = blind();
            command.arg(longshore.get_program()).args(longshore.get_args());
            command.args(["run", "--events", "-", "--memory", "32M"]).args(init);
            command.args(["--", "sh", "-c", script]).output().unwrap().into()
        };
        let events = |outcome: &Outcome| -> Vec<serde_json::Value> {
            let lines = outcome.stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
            lines.collect()
        };
        for (init, code) in [(&["--no-init"], 137), (&["--init"], 137)] {
            let outcome = run(init, "exec tail /dev/zero");
            assert_eq!(outcome.code, Some(code), "{outcome:?}");
            assert!(outcome.stderr.contains(r#""reason":"out_of_memory""#), "{outcome:?}");
            assert_eq!(outcome.stderr.matches(r#""event":"out_of_memory""#).count(), 1, "{outcome:?}");
        }
        // The program waits for a moment, in which the event comes.
        let outcome = run(&[], "tail /dev/zero; sleep 0.5; exit 3");
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        let events = events(&outcome);
        let at = |name: &str| {
            let event = events.iter().find(|event| event["event"] == name);
            event.unwrap_or_else(|| panic!("{outcome:?}"))["at"]
                .as_str()
                .unwrap()
                .parse::<longshore::Timestamp>()
                .unwrap()
        };
        let kill = events.iter().find(|event| event["event"] == "out_of_memory").unwrap();
        assert_eq!((kill["kills"].as_u64(), kill.get("pid"), kill.get("process")), (Some(1), None, None));
        assert!(at("exited").since(at("out_of_memory")).as_millis() > 300, "{events:?}");
        stage.check();
    });
}
