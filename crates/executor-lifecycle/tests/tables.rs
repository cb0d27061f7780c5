//! Every state × every event of the process and container machines, against the tables beside this
//! file. A table is written anew with `LONGSHORE_WRITE_TABLES=1`; then its diff is what is reviewed.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fmt::{Debug, Write};
use std::time::Duration;

use executor_lifecycle::container::{Container, ContainerEffect, ContainerEvent};
use executor_lifecycle::process::{Process, ProcessEffect, ProcessEvent, Timeout};
use executor_lifecycle::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(seconds))
}

fn pid() -> HostPid {
    HostPid::new(42).unwrap()
}

fn failure() -> StartFailure {
    StartFailure::new(StartFailureKind::NotFound, "no such program")
}

fn exit(code: u8) -> Exit {
    let status = ExitStatus::Code(code);
    let success = code == 0;
    Exit {
        status,
        reason: ExitReason::Normal,
        success,
        started_at: Some(at(1)),
        exited_at: at(2),
        usage: None,
    }
}

fn compare(name: &str, table: &str) {
    let path = format!("{}/tests/{name}.table", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("LONGSHORE_WRITE_TABLES").is_some() {
        std::fs::write(&path, table).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (ours, theirs) in table.lines().zip(expected.lines()) {
        assert_eq!(ours, theirs, "a row of {path} differs");
    }
    assert_eq!(table.lines().count(), expected.lines().count(), "rows are missing in {path}");
}

/// A row: what was asked, what came of it, and whether a deadline is set then.
fn row<E: Debug>(event: &str, answer: Result<Vec<String>, E>, then: &str) -> String {
    let answer = match answer {
        Ok(effects) if effects.is_empty() => "-".to_owned(),
        Ok(effects) => effects.join(", "),
        Err(refused) => format!("refused: {refused:?}"),
    };
    format!("  {:<34} {answer:<72} {then}\n", event).trim_end().to_owned() + "\n"
}

#[test]
fn process_table() {
    let graceful = Cancel::with_grace(Duration::from_secs(10));
    let timeout = Timeout { at: at(100), cancel: graceful };
    let started = || ProcessEvent::Started { pid: pid() };
    let ended = || ProcessEvent::Ended(RawExit::with(ExitStatus::Code(3)));
    let cancel = ProcessEvent::Cancel;
    let states: Vec<(&str, Vec<ProcessEvent>)> = vec![
        ("waiting", vec![]),
        ("waiting, signal parked", vec![ProcessEvent::Signal(Signal::HUP, SignalScope::Group)]),
        ("starting", vec![ProcessEvent::Launch]),
        (
            "starting, signal parked",
            vec![ProcessEvent::Launch, ProcessEvent::Signal(Signal::HUP, SignalScope::Group)],
        ),
        (
            "starting, resize parked",
            vec![ProcessEvent::Launch, ProcessEvent::Resize(TerminalSize::default())],
        ),
        ("starting, end came early", vec![ProcessEvent::Launch, ended()]),
        ("starting, cancelled with grace", vec![ProcessEvent::Launch, cancel(graceful)]),
        ("starting, cancelled at once", vec![ProcessEvent::Launch, cancel(Cancel::now())]),
        ("running", vec![ProcessEvent::Launch, started()]),
        ("running, cancelled with grace", vec![ProcessEvent::Launch, started(), cancel(graceful)]),
        ("running, cancelled at once", vec![ProcessEvent::Launch, started(), cancel(Cancel::now())]),
        ("exited", vec![ProcessEvent::Launch, started(), ended()]),
    ];
    let mut events = vec![
        ("", 1, ProcessEvent::Launch),
        ("", 1, ProcessEvent::Withdraw(failure())),
        ("", 1, started()),
        ("", 1, ProcessEvent::StartFailed(failure())),
        ("", 1, ended()),
        (" Signal(KILL) with OOM", 1, {
            let usage = Some(Box::new(Usage { oom_kills: 1, ..Usage::default() }));
            ProcessEvent::Ended(RawExit { status: ExitStatus::Signal(Signal::KILL), usage })
        }),
        (" Unknown", 1, ProcessEvent::Ended(RawExit::with(ExitStatus::Unknown))),
        (" now", 1, cancel(Cancel::now())),
        (" with less grace", 1, cancel(Cancel::with_grace(Duration::from_secs(3)))),
        ("", 1, ProcessEvent::Signal(Signal::USR1, SignalScope::Process)),
        ("", 1, ProcessEvent::Resize(TerminalSize::default())),
        ("", 1, ProcessEvent::KillFailed),
    ];
    for (what, seconds) in
        [(" too early", 1), (" after the patience", 7), (" after the grace", 12), (" after the timeout", 101)]
    {
        events.push((what, seconds, ProcessEvent::Tick));
    }

    let mut table = String::new();
    for (state, path) in &states {
        writeln!(table, "{state}").unwrap();
        for (what, seconds, event) in &events {
            let mut process = Process::new(Some(timeout));
            for step in path {
                let _ = process.step(at(1), step.clone()).unwrap();
            }
            let answer = process.step(at(*seconds), event.clone());
            let answer =
                answer.map(|effects| effects.into_iter().map(|effect| process_effect(&effect)).collect());
            let then = process.next_deadline().map_or("no deadline".to_owned(), |d| format!("deadline {d}"));
            let name = format!("{}{what}", name(event));
            table.push_str(&row(&name, answer, &then));
        }
    }
    compare("process", &table);
}

fn name(event: &impl Debug) -> String {
    let text = format!("{event:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

fn process_effect(effect: &ProcessEffect) -> String {
    match effect {
        ProcessEffect::ReportExited(exit) => format!("ReportExited({exit}; {:?})", exit.reason),
        ProcessEffect::ReportStarted { .. } => "ReportStarted".to_owned(),
        ProcessEffect::Signal(signal, scope) => format!("Signal({signal} to {scope:?})"),
        ProcessEffect::Launch
        | ProcessEffect::AbandonStart
        | ProcessEffect::Kill
        | ProcessEffect::Resize(_) => name(effect),
    }
}

#[test]
fn container_table() {
    use ContainerEvent as E;
    let exec = ProcessId::Exec(ExecId(1));
    let created = || vec![E::Create];
    let with = |mut path: Vec<E>, more: Vec<E>| {
        path.extend(more);
        path
    };
    let init_started = || E::ProcessStarted { process: ProcessId::Init, pid: pid() };
    let init_exited = |code| E::ProcessExited { process: ProcessId::Init, exit: exit(code) };
    let exec_started = || E::ProcessStarted { process: exec, pid: pid() };
    let exec_exited = || E::ProcessExited { process: exec, exit: exit(5) };
    let cancel = || E::Cancel(Cancel::now());
    let frozen = |frozen| E::PauseEnded { frozen };
    let running = || with(created(), vec![E::Prepared, init_started()]);
    let states: Vec<(&str, Vec<E>)> = vec![
        ("new", vec![]),
        ("preparing", created()),
        ("preparing, exec parked", with(created(), vec![E::Exec])),
        ("preparing, cancelled", with(created(), vec![cancel()])),
        ("settling: exited while preparing", with(created(), vec![cancel(), init_exited(0)])),
        ("starting", with(created(), vec![E::Prepared])),
        ("starting, exec parked", with(created(), vec![E::Exec, E::Prepared])),
        ("running", running()),
        ("running, exec launched", with(running(), vec![E::Exec])),
        ("running, exec running", with(running(), vec![E::Exec, exec_started()])),
        ("running, cancelled", with(running(), vec![cancel()])),
        ("pause awaits an exec's start", with(running(), vec![E::Exec, E::Pause])),
        ("freezing", with(running(), vec![E::Pause])),
        ("freezing, cancelled", with(running(), vec![E::Pause, cancel()])),
        ("frozen", with(running(), vec![E::Pause, frozen(true)])),
        ("thawing", with(running(), vec![E::Pause, frozen(true), E::Resume])),
        ("exiting, exec launched", with(running(), vec![E::Exec, init_exited(0)])),
        ("exiting, exec running", with(running(), vec![E::Exec, exec_started(), init_exited(1)])),
        ("releasing", with(running(), vec![init_exited(0)])),
        ("released", with(running(), vec![init_exited(1), E::ReleaseEnded { left: vec![] }])),
    ];
    let events = [
        ("", E::Create),
        ("", E::Prepared),
        ("", E::PrepareFailed(failure())),
        (" init", init_started()),
        (" init", init_exited(0)),
        (" exec", exec_started()),
        (" exec", exec_exited()),
        ("", E::Exec),
        ("", cancel()),
        ("", E::Signal(Signal::USR1, SignalScope::Container)),
        ("", E::Resize(TerminalSize::default())),
        ("", E::Pause),
        ("", E::Resume),
        (" frozen", frozen(true)),
        (" failed", frozen(false)),
        (" thawed", E::ResumeEnded { thawed: true }),
        (" failed", E::ResumeEnded { thawed: false }),
        ("", E::ReleaseEnded { left: vec![] }),
    ];

    let mut table = String::new();
    for (state, path) in &states {
        writeln!(table, "{state}").unwrap();
        for (what, event) in &events {
            let mut container = Container::new(ContainerId::new("c").unwrap());
            for step in path {
                let _ = container.step(at(1), step.clone()).unwrap();
            }
            let answer = container.step(at(2), event.clone());
            let answer =
                answer.map(|effects| effects.into_iter().map(|effect| container_effect(&effect)).collect());
            let name = format!("{}{what}", name(event));
            table.push_str(&row(&name, answer, &format!("{:?}", container.phase())));
        }
    }
    compare("container", &table);
}

fn container_effect(effect: &ContainerEffect) -> String {
    match effect {
        ContainerEffect::Publish(event) => format!("Publish({} {})", event.seq, name(&event.kind)),
        ContainerEffect::CancelProcess(process, _) => format!("Cancel({process})"),
        ContainerEffect::Withdraw(process, _) => format!("Withdraw({process})"),
        ContainerEffect::Launch(process) => format!("Launch({process})"),
        ContainerEffect::SignalInit(signal, scope) => format!("SignalInit({signal} to {scope:?})"),
        ContainerEffect::AddExec(exec) => format!("AddExec({exec})"),
        ContainerEffect::Prepare
        | ContainerEffect::Pause
        | ContainerEffect::Resume
        | ContainerEffect::Release
        | ContainerEffect::ResizeInit(_)
        | ContainerEffect::Finished => name(effect),
    }
}
