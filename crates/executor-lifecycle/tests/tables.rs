//! Every state × every event of the process and container machines, against the tables beside this
//! file. A table is written anew with `LONGSHORE_WRITE_TABLES=1`; then its diff is what is reviewed.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::time::Duration;

use executor_lifecycle::container::{
    Container, ContainerEffect, ContainerEvent, ContainerTraits, KeepExited,
};
use executor_lifecycle::process::{Process, ProcessEffect, ProcessEvent, ProcessTraits, Terms, TimeLimit};
use executor_lifecycle::registry::{
    PoolId, PublishedState, Registry, RegistryEffect, RegistryEvent, RequestToken, RunRequest, StartOutcome,
};
use executor_lifecycle::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(seconds))
}

fn pid() -> HostPid {
    HostPid::new(42).unwrap()
}

fn gone() -> StartFailure {
    StartFailure::new(StartFailureKind::ContainerGone, "it has ended")
}

fn failure() -> StartFailure {
    StartFailure::new(StartFailureKind::NotFound, "no such program")
}

fn exit(code: u8) -> Exit {
    Exit::new(ExitStatus::Code(code), ExitReason::Normal, &BTreeSet::new(), Some(at(1)), at(2))
}

/// Ended by SIGKILL.
fn killed(oom: Option<OomEvidence>) -> RawExit {
    RawExit { oom, ..RawExit::with(ExitStatus::Signal(Signal::KILL)) }
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
fn row(event: &str, answer: Result<Vec<String>, Refused>, then: &str) -> String {
    let answer = match answer {
        Ok(effects) if effects.is_empty() => "-".to_owned(),
        Ok(effects) => effects.join(", "),
        Err(refused) => format!("refused: {:?} ({})", refused.reason, refused.state),
    };
    format!("  {:<34} {answer:<72} {then}\n", event).trim_end().to_owned() + "\n"
}

#[test]
fn process_table() {
    let graceful = Cancel::with_grace(Duration::from_secs(10));
    let time_limit = Some(TimeLimit { after: Duration::from_secs(99), cancel: graceful });
    let arm = || ProcessEvent::Arm(Terms { time_limit, ..Terms::default() });
    let created = || ProcessEvent::Created { pid: pid() };
    let held = |more: Vec<ProcessEvent>| [vec![ProcessEvent::Create, created()], more].concat();
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
        ("creating", vec![ProcessEvent::Create]),
        ("creating, end came early", vec![ProcessEvent::Create, ended()]),
        (
            "creating, signals parked",
            vec![
                ProcessEvent::Create,
                ProcessEvent::Signal(Signal::HUP, SignalScope::Process),
                ProcessEvent::Signal(Signal::KILL, SignalScope::Process),
            ],
        ),
        ("creating, cancelled with grace", vec![ProcessEvent::Create, cancel(graceful)]),
        ("created", held(vec![])),
        ("created, signal parked", held(vec![ProcessEvent::Signal(Signal::HUP, SignalScope::Process)])),
        ("created, cancelled with grace", held(vec![cancel(graceful)])),
        ("starting what was created", held(vec![ProcessEvent::Launch])),
        (
            "starting what was created, cancelled with grace",
            held(vec![ProcessEvent::Launch, cancel(graceful)]),
        ),
        (
            "starting what was created, cancelled at once",
            held(vec![ProcessEvent::Launch, cancel(Cancel::now())]),
        ),
        ("starting what was created, end came early", held(vec![ProcessEvent::Launch, ended()])),
        ("undoing", held(vec![ProcessEvent::Launch, ProcessEvent::StartFailed(failure())])),
        ("undoing what is gone", held(vec![ProcessEvent::Launch, ProcessEvent::StartFailed(gone())])),
        ("exited", vec![ProcessEvent::Launch, started(), ended()]),
    ];
    let mut events = vec![
        ("", 1, arm()),
        ("", 1, ProcessEvent::Create),
        ("", 1, created()),
        ("", 1, ProcessEvent::Launch),
        ("", 1, ProcessEvent::Withdraw(failure())),
        ("", 1, started()),
        ("", 1, ProcessEvent::StartFailed(failure())),
        (" because it is gone", 1, ProcessEvent::StartFailed(gone())),
        ("", 1, ended()),
        (" Signal(KILL) with OOM", 1, {
            let usage = Some(Box::new(Usage { oom_kills: 1, ..Usage::default() }));
            ProcessEvent::Ended(RawExit { usage, ..killed(None) })
        }),
        (" Signal(KILL), the log has it", 1, ProcessEvent::Ended(killed(Some(OomEvidence::Killed)))),
        (" Signal(KILL), a child's kill", 1, {
            let usage = Some(Box::new(Usage { oom_kills: 1, ..Usage::default() }));
            ProcessEvent::Ended(RawExit { usage, ..killed(Some(OomEvidence::NotKilled)) })
        }),
        (" Signal(KILL), counted", 1, ProcessEvent::Ended(killed(Some(OomEvidence::Counted(1))))),
        (" 137, the log has it", 1, {
            let oom = Some(OomEvidence::Killed);
            ProcessEvent::Ended(RawExit { oom, ..RawExit::with(ExitStatus::Code(137)) })
        }),
        (" 137, counted", 1, {
            let oom = Some(OomEvidence::Counted(1));
            ProcessEvent::Ended(RawExit { oom, ..RawExit::with(ExitStatus::Code(137)) })
        }),
        (" Unknown", 1, ProcessEvent::Ended(RawExit::with(ExitStatus::Unknown))),
        (" now", 1, cancel(Cancel::now())),
        (" with less grace", 1, cancel(Cancel::with_grace(Duration::from_secs(3)))),
        ("", 1, ProcessEvent::Signal(Signal::USR1, SignalScope::Process)),
        (" KILL", 1, ProcessEvent::Signal(Signal::KILL, SignalScope::Process)),
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
            let mut process = Process::new(ProcessTraits { has_terminal: true, shares_pids: false });
            let _ = process.step(at(1), arm()).unwrap();
            for step in path {
                let _ = process.step(at(1), step.clone()).unwrap();
            }
            let answer = process.step(at(*seconds), event.clone());
            let answer =
                answer.map(|effects| effects.into_iter().map(|effect| process_effect(&effect)).collect());
            let seconds = |moment: Timestamp| format!("deadline {:.6}s", moment.since_epoch().as_secs_f64());
            let then = process.next_deadline().map_or("no deadline".to_owned(), seconds);
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
        ProcessEffect::Kill(_) => "Kill".to_owned(),
        ProcessEffect::ReportStillAlive => name(effect),
        ProcessEffect::Signal(signal, scope) => format!("Signal({signal} to {scope:?})"),
        ProcessEffect::Create
        | ProcessEffect::Launch
        | ProcessEffect::StartCreated
        | ProcessEffect::AbandonStart
        | ProcessEffect::Watch
        | ProcessEffect::ReportCreated { .. }
        | ProcessEffect::ReportStarted { .. }
        | ProcessEffect::Resize(_) => name(effect),
    }
}

#[test]
fn container_table() {
    use ContainerEvent as E;
    let exec = || ProcessId::Exec(ExecId::numbered(1));
    let created = || vec![E::Create, E::Start(Terms::default())];
    let held = || vec![E::Create, E::Prepared, E::InitCreated { pid: pid() }];
    let with = |mut path: Vec<E>, more: Vec<E>| {
        path.extend(more);
        path
    };
    let init_started = || E::ProcessStarted { process: ProcessId::Init, pid: pid() };
    let init_exited = |code| E::ProcessExited { process: ProcessId::Init, exit: exit(code) };
    let exec_started = || E::ProcessStarted { process: exec(), pid: pid() };
    let exec_exited = || E::ProcessExited { process: exec(), exit: exit(5) };
    let killed = |process: ProcessId| {
        let (status, reason) = (ExitStatus::Signal(Signal::KILL), ExitReason::OutOfMemory);
        let exit = Exit::new(status, reason, &BTreeSet::new(), Some(at(1)), at(2));
        E::ProcessExited { process, exit }
    };
    let kill = |process: Option<ProcessId>, kills| E::OomKilled(OomKill::new(kills).of(process));
    let cancel = || E::Cancel(Cancel::now());
    let frozen = |frozen| E::PauseEnded { frozen };
    let running = || with(created(), vec![E::Prepared, init_started()]);
    let states: Vec<(&str, Vec<E>)> = vec![
        ("new", vec![]),
        ("preparing", created()),
        ("preparing, exec parked", with(created(), vec![E::Exec(None)])),
        ("preparing, cancelled", with(created(), vec![cancel()])),
        ("settling: exited while preparing", with(created(), vec![cancel(), init_exited(0)])),
        ("starting", with(created(), vec![E::Prepared])),
        ("starting, exec parked", with(created(), vec![E::Exec(None), E::Prepared])),
        ("running", running()),
        ("running, exec launched", with(running(), vec![E::Exec(None)])),
        ("running, exec running", with(running(), vec![E::Exec(None), exec_started()])),
        ("running, OOM kill of a child", with(running(), vec![kill(None, 1)])),
        ("running, OOM kill of init", with(running(), vec![kill(Some(ProcessId::Init), 1)])),
        (
            "running, OOM kill of an exec",
            with(running(), vec![E::Exec(None), exec_started(), kill(Some(exec()), 1)]),
        ),
        ("running, cancelled", with(running(), vec![cancel()])),
        ("pause awaits an exec's start", with(running(), vec![E::Exec(None), E::Pause])),
        ("freezing", with(running(), vec![E::Pause])),
        ("freezing, cancelled", with(running(), vec![E::Pause, cancel()])),
        ("frozen", with(running(), vec![E::Pause, frozen(true)])),
        ("thawing", with(running(), vec![E::Pause, frozen(true), E::Resume])),
        ("exiting, exec launched", with(running(), vec![E::Exec(None), init_exited(0)])),
        ("exiting, exec running", with(running(), vec![E::Exec(None), exec_started(), init_exited(1)])),
        ("held: preparing", vec![E::Create]),
        ("held: creating", vec![E::Create, E::Prepared]),
        ("held: creating, start asked for", vec![E::Create, E::Prepared, E::Start(Terms::default())]),
        ("held: created", held()),
        ("held: created, exec parked", with(held(), vec![E::Exec(None)])),
        ("held: created, cancelled", with(held(), vec![cancel()])),
        ("held: starting", with(held(), vec![E::Start(Terms::default())])),
        ("releasing", with(running(), vec![init_exited(0)])),
        ("released", with(running(), vec![init_exited(1), E::ReleaseEnded { left: vec![] }])),
    ];
    let events = [
        ("", E::Create),
        ("", E::Start(Terms::default())),
        ("", E::InitCreated { pid: pid() }),
        ("", E::Prepared),
        ("", E::PrepareFailed(failure())),
        (" init", init_started()),
        (" init", init_exited(0)),
        (" exec", exec_started()),
        (" exec", exec_exited()),
        (" init, OOM-killed", killed(ProcessId::Init)),
        (" exec, OOM-killed", killed(exec())),
        (" init", kill(Some(ProcessId::Init), 1)),
        (" exec", kill(Some(exec()), 1)),
        (" child, the second", kill(None, 2)),
        (" init", E::StillAlive(ProcessId::Init)),
        (" exec", E::StillAlive(exec())),
        ("", E::Exec(None)),
        (" under an id", E::Exec(Some(ExecId::numbered(1)))),
        ("", cancel()),
        ("", E::End(Cancel::now())),
        ("", E::Remove),
        (" KILL", E::Signal(Signal::KILL, SignalScope::Process)),
        ("", E::Signal(Signal::USR1, SignalScope::Container)),
        ("", E::Resize(TerminalSize::default())),
        ("", E::Pause),
        ("", E::Resume),
        (" frozen", frozen(true)),
        (" failed", frozen(false)),
        (" thawed", E::ResumeEnded { thawed: true }),
        (" failed", E::ResumeEnded { thawed: false }),
        ("", E::ListProcesses),
        ("", E::ReadUsage),
        ("", E::Update),
        ("", E::RemainingEnded),
        ("", E::ReleaseEnded { left: vec![] }),
        ("", E::Tick),
    ];
    let plain = ContainerTraits { has_terminal: true, ..ContainerTraits::default() };
    let with_traits = |traits: ContainerTraits, states: Vec<(&'static str, Vec<E>)>| {
        states.into_iter().map(move |(name, path)| (traits, name, path))
    };
    let no_terminal = ContainerTraits::default();
    let kept = ContainerTraits { keep_exited: KeepExited::UntilRemoved, ..plain };
    let shared = ContainerTraits { shares_pids: true, keep_exited: KeepExited::For(Duration::ZERO), ..plain };
    let special = |path: Vec<E>| with(vec![E::Create, E::Start(Terms::default())], path);
    let to_exit = || vec![E::Prepared, E::InitCreated { pid: pid() }, init_started(), init_exited(0)];
    let states = with_traits(no_terminal, states)
        .chain(with_traits(
            plain,
            vec![
                ("a terminal: preparing", created()),
                ("a terminal: creating", with(created(), vec![E::Prepared])),
            ],
        ))
        .chain(with_traits(
            kept,
            vec![
                ("kept until removed: exited", special(to_exit())),
                ("kept until removed: exited while preparing", special(vec![cancel(), init_exited(0)])),
            ],
        ))
        .chain(with_traits(
            shared,
            vec![
                ("shared pids: ending the rest", special(to_exit())),
                ("shared pids, kept for a time: exited", special(with(to_exit(), vec![E::RemainingEnded]))),
            ],
        ));
    let states: Vec<_> = states.collect();

    let mut table = String::new();
    for (traits, state, path) in &states {
        writeln!(table, "{state}").unwrap();
        for (what, event) in &events {
            let mut container = Container::new(ContainerId::new("c").unwrap(), *traits);
            for step in path {
                let _ = container.step(at(1), step.clone()).unwrap();
            }
            let answer = container.step(at(2), event.clone());
            let answer =
                answer.map(|effects| effects.into_iter().map(|effect| container_effect(&effect)).collect());
            let name = format!("{}{what}", name(event));
            table.push_str(&row(&name, answer, container.state()));
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
        ContainerEffect::KillAgain(process, how) => {
            format!("KillAgain({process}{})", if how.everything { ", everything" } else { "" })
        }
        ContainerEffect::AddExec(exec) => format!("AddExec({exec})"),
        ContainerEffect::Prepare
        | ContainerEffect::Pause
        | ContainerEffect::Resume
        | ContainerEffect::Release
        | ContainerEffect::ResizeInit(_)
        | ContainerEffect::ArmInit(_)
        | ContainerEffect::CreateInit
        | ContainerEffect::Thaw
        | ContainerEffect::ListProcesses
        | ContainerEffect::ReadUsage
        | ContainerEffect::Update
        | ContainerEffect::KillRemaining => name(effect),
        ContainerEffect::Finished(event) => format!("Finished({} {})", event.seq, name(&event.kind)),
    }
}

#[test]
fn registry_table() {
    use RegistryEvent as E;
    let id = |name: &str| ContainerId::new(name).unwrap();
    let (mine, ready) = (|| id("mine"), || id("ready"));
    let run = |token, id, pool| E::Run(RunRequest { token: RequestToken(token), id, pool, hold: false });
    let last = |id| Event::new(4, id, at(2), EventKind::Released { left: vec![] });
    let released = |id| E::Released(last(id), exit(0));
    let never_began = |id| E::Released(last(id), Exit::lost(None, at(2)));
    let story = PublishedState {
        seq: 3,
        started_at: Some(at(1)),
        execs: vec![(ExecId::numbered(1), true), (ExecId::numbered(2), false)],
        exit: None,
    };
    let pool = PoolId(1);
    let kept = |more: Vec<E>| [vec![E::KeepReady(pool, 1), E::Made(pool, ready())], more].concat();
    let given =
        |more: Vec<E>| kept([vec![E::ReadyCreated(ready()), run(1, mine(), Some(pool))], more].concat());
    let states: Vec<(&str, Vec<E>)> = vec![
        ("open, empty", vec![]),
        ("open, one", vec![run(1, mine(), None)]),
        ("open, one whose actor is lost", vec![run(1, mine(), None), E::Lost(mine())]),
        (
            "open, one, and nothing could be made ready",
            vec![run(1, mine(), None), E::KeepReady(pool, 1), E::MakeFailed(pool)],
        ),
        ("one is being made ready", kept(vec![])),
        ("one is ready", kept(vec![E::ReadyCreated(ready())])),
        ("one was given", given(vec![])),
        ("one was given, and the run is unclaimed", given(vec![E::Unclaimed(RequestToken(1))])),
        ("one was given and began", given(vec![E::GivenStarted(ready(), StartOutcome::Started)])),
        ("draining, one", vec![run(1, mine(), None), E::Drain]),
        ("ending, one", vec![run(1, mine(), None), E::Shutdown(Cancel::now(), Duration::from_secs(1))]),
        ("ending, one that was given", given(vec![E::Shutdown(Cancel::now(), Duration::from_secs(1))])),
        ("stopped", vec![E::Shutdown(Cancel::now(), Duration::from_secs(1))]),
        (
            "stopped, one that was given is left",
            given(vec![E::Shutdown(Cancel::now(), Duration::from_secs(1)), E::DeadlinePassed]),
        ),
    ];
    let events = [
        ("", run(2, mine(), None)),
        (" of the same id with a pool", run(2, mine(), Some(pool))),
        (" with a pool", run(2, id("other"), Some(pool))),
        (" of 1", E::Unclaimed(RequestToken(1))),
        (" 1", E::KeepReady(pool, 1)),
        (" 0", E::KeepReady(pool, 0)),
        ("", E::Made(pool, id("another"))),
        ("", E::MakeFailed(pool)),
        (" ready", E::ReadyCreated(ready())),
        (" ready", E::ReadyDied(ready())),
        (" ready: began", E::GivenStarted(ready(), StartOutcome::Started)),
        (" ready: cancelled", E::GivenStarted(ready(), StartOutcome::Cancelled)),
        (" ready: never began", E::GivenStarted(ready(), StartOutcome::NeverStarted)),
        (" of ready", E::FirstMomentsOver(ready())),
        (" mine", released(mine())),
        (" ready", released(ready())),
        (" ready, which never began", never_began(ready())),
        (" mine", E::Lost(mine())),
        (" ready", E::Lost(ready())),
        (" mine", E::LostReleased(mine(), story, vec![])),
        ("", E::Drain),
        ("", E::Shutdown(Cancel::now(), Duration::from_secs(1))),
        ("", E::DeadlinePassed),
    ];
    let mut table = String::new();
    for (state, path) in &states {
        writeln!(table, "{state}").unwrap();
        for (what, event) in &events {
            let mut registry = Registry::default();
            for step in path {
                let _ = registry.step(at(1), step.clone()).unwrap();
            }
            let answer = registry.step(at(2), event.clone());
            let answer =
                answer.map(|effects| effects.into_iter().map(|effect| registry_effect(&effect)).collect());
            let name = format!("{}{what}", name(event));
            table.push_str(&row(&name, answer, registry.state()));
        }
    }
    compare("registry", &table);
}

fn registry_effect(effect: &RegistryEffect) -> String {
    match effect {
        RegistryEffect::Register { id, .. } => format!("Register({id})"),
        RegistryEffect::Give(id, token) => format!("Give({id} to {})", token.0),
        RegistryEffect::Answer(id, token) => format!("Answer({} with {id})", token.0),
        RegistryEffect::Retry(token) => format!("Retry({})", token.0),
        RegistryEffect::End(id, _) => format!("End({id})"),
        RegistryEffect::ReleaseLost(id) => format!("ReleaseLost({id})"),
        RegistryEffect::Publish(event) => format!("Publish({} {})", event.seq, name(&event.kind)),
        RegistryEffect::Forget(id) => format!("Forget({id})"),
        RegistryEffect::Stop(late) => format!("Stop({} late)", late.len()),
        RegistryEffect::Make(_) | RegistryEffect::PoolChanged(_) | RegistryEffect::Drained => name(effect),
    }
}

/// A bounded number of exits is remembered, the last of each id.
#[test]
fn exits_are_remembered() {
    let mut registry = Registry::default();
    let id = |number: usize| ContainerId::new(format!("c{number}")).unwrap();
    let mut end = |number: usize, code: u8| {
        let token = RequestToken(number as u64);
        let wanted = RunRequest { token, id: id(number), pool: None, hold: false };
        let _ = registry.step(at(1), RegistryEvent::Run(wanted)).unwrap();
        let kind = EventKind::Released { left: vec![] };
        let event = Event::new(1, id(number), at(2), kind);
        let _ = registry.step(at(2), RegistryEvent::Released(event, exit(code))).unwrap();
        (registry.exit_of(&id(0)).cloned(), registry.exit_of(&id(number)).cloned())
    };
    assert_eq!(end(0, 1).1, Some(exit(1)));
    assert_eq!(end(0, 2).1, Some(exit(2)), "the last");
    for number in 1..executor_lifecycle::registry::REMEMBERED {
        assert_eq!(end(number, 3), (Some(exit(2)), Some(exit(3))));
    }
    assert_eq!(end(executor_lifecycle::registry::REMEMBERED, 4).0, None, "the oldest is forgotten");
}
