//! The diagram of each machine, drawn by walking it, against those in `docs/message-semantics.md`. They are
//! written anew with `LONGSHORE_WRITE_TABLES=1`; then their diff is what is reviewed.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{Debug, Write};
use std::hash::Hash;
use std::time::Duration;

use executor_lifecycle::container::{Container, ContainerEvent, ContainerTraits, KeepExited};
use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEvent};
use executor_lifecycle::process::{Process, ProcessEvent, ProcessTraits, Terms, TimeLimit};
use executor_lifecycle::registry::{PublishedState, Registry, RegistryEvent, RequestToken, RunRequest};
use executor_lifecycle::*;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/message-semantics.md");

/// Walks every state that can be reached, and draws the steps that lead from one name to another.
fn draw<M: Clone + Eq + Hash, E: Clone + Debug>(
    first: M,
    events: &[(Timestamp, E)],
    step: impl Fn(&mut M, Timestamp, E) -> bool,
    name: impl Fn(&M) -> &'static str,
) -> String {
    let mut edges: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    let mut order = vec![name(&first)];
    let mut seen = HashSet::from([first.clone()]);
    let mut open = std::collections::VecDeque::from([first]);
    while let Some(state) = open.pop_front() {
        for (now, event) in events {
            let mut next = state.clone();
            if !step(&mut next, *now, event.clone()) {
                continue;
            }
            let (from, to) = (name(&state), name(&next));
            if from != to {
                edges.entry((from, to)).or_default().insert(label(event));
            }
            if !order.contains(&to) {
                order.push(to);
            }
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    let mut diagram = format!("```mermaid\nstateDiagram-v2\n    [*] --> {}\n", order[0]);
    let place = |name: &str| order.iter().position(|other| *other == name);
    let mut edges: Vec<_> = edges.into_iter().collect();
    edges.sort_by_key(|((from, to), _)| (place(from), place(to)));
    let mut ends = order.clone();
    for ((from, to), labels) in edges {
        let labels: Vec<_> = labels.into_iter().collect();
        writeln!(diagram, "    {from} --> {to}: {}", labels.join(", ")).unwrap();
        ends.retain(|name| *name != from);
    }
    for end in ends {
        writeln!(diagram, "    {end} --> [*]").unwrap();
    }
    diagram + "```\n"
}

/// An event's name, and what tells it from others of the name.
fn label(event: &impl Debug) -> String {
    let text = format!("{event:?}");
    let name = text.split([' ', '(', '{']).next().unwrap_or_default();
    let of = match () {
        () if !name.starts_with("Process") && !text.contains("false") => "",
        () if text.contains("process: Init") => " of init",
        () if text.contains("process: Exec") => " of an exec",
        () if text.contains("frozen: false") || text.contains("thawed: false") => " in failure",
        () => "",
    };
    format!("{name}{of}")
}

fn compare(machine: &str, diagram: &str) {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (begin, end) = (format!("<!-- {machine}: drawn from the code -->\n"), "<!-- end -->");
    let (before, rest) =
        document.split_once(&begin).unwrap_or_else(|| panic!("{DOCUMENT} has no place for {machine}"));
    let (drawn, after) = rest.split_once(end).unwrap();
    if std::env::var_os("LONGSHORE_WRITE_TABLES").is_some() {
        std::fs::write(DOCUMENT, format!("{before}{begin}{diagram}{end}{after}")).unwrap();
    } else {
        assert_eq!(drawn, diagram, "the diagram of {machine} in {DOCUMENT} is not what the code does");
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_epoch(Duration::from_secs(seconds))
}

fn pid() -> HostPid {
    HostPid::new(1).unwrap()
}

fn failure() -> StartFailure {
    StartFailure::new(StartFailureKind::NotFound, "")
}

fn process_diagram() -> String {
    use ProcessEvent as E;
    // Ticks come so late that every deadline is over; the walk stays finite, for nothing comes later.
    let late = Timestamp::from_epoch(Duration::MAX);
    let ended = E::Ended(RawExit::with(ExitStatus::Code(0)));
    let time_limit =
        Some(TimeLimit { after: Duration::from_secs(1), cancel: Cancel::with_grace(Duration::from_secs(1)) });
    let now = [
        E::Arm(Terms { time_limit, ..Terms::default() }),
        E::Create,
        E::Launch,
        E::Created { pid: pid() },
        E::Withdraw(failure()),
        E::Started { pid: pid() },
        E::StartFailed(failure()),
        ended,
        E::Cancel(Cancel::now()),
        E::Cancel(Cancel::with_grace(Duration::from_secs(1))),
        E::KillFailed,
    ];
    let mut events: Vec<_> = now.into_iter().map(|event| (at(0), event)).collect();
    events.push((late, E::Tick));
    let step = |process: &mut Process, now, event| process.step(now, event).is_ok();
    draw(Process::new(ProcessTraits::default()), &events, step, Process::state)
}

fn container_diagram() -> String {
    use ContainerEvent as E;
    let exit = || Exit::lost(Some(at(0)), at(0));
    let exec = ProcessId::Exec(ExecId::numbered(1));
    let events = [
        E::Create,
        E::Start(Terms::default()),
        E::Prepared,
        E::PrepareFailed(failure()),
        E::InitCreated { pid: pid() },
        E::ProcessStarted { process: ProcessId::Init, pid: pid() },
        E::ProcessStarted { process: exec.clone(), pid: pid() },
        E::ProcessExited { process: ProcessId::Init, exit: exit() },
        E::ProcessExited { process: exec, exit: exit() },
        E::Exec(None),
        E::Cancel(Cancel::now()),
        E::End(Cancel::now()),
        E::Remove,
        E::Pause,
        E::Resume,
        E::PauseEnded { frozen: true },
        E::PauseEnded { frozen: false },
        E::ResumeEnded { thawed: true },
        E::ResumeEnded { thawed: false },
        E::RemainingEnded,
        E::ReleaseEnded { left: Vec::new() },
    ];
    let mut events: Vec<_> = events.into_iter().map(|event| (at(0), event)).collect();
    events.push((Timestamp::from_epoch(Duration::MAX), E::Tick));
    // One exec, frozen once: more of both go through the same states.
    let step = |walked: &mut (Container, u8, u8), now, event: E| {
        let (container, execs, pauses) = walked;
        *execs += u8::from(event == E::Exec(None));
        *pauses += u8::from(event == E::Pause);
        *execs <= 1 && *pauses <= 1 && container.step(now, event).is_ok()
    };
    // With all that a container can be like.
    let keep_exited = KeepExited::For(Duration::from_secs(1));
    let traits = ContainerTraits { shares_pids: true, keep_exited, ..ContainerTraits::default() };
    let container = Container::new(ContainerId::new("c").unwrap(), traits);
    draw((container, 0, 0), &events, step, |(container, ..)| container.state())
}

fn reaper_diagram() -> String {
    let process = ProcessRef::init(ContainerId::new("c").unwrap());
    let ended = ExitRouterEvent::Ended(process.clone(), RawExit::with(ExitStatus::Code(0)));
    let forget = ExitRouterEvent::Forget(process.container.clone());
    let events = [ExitRouterEvent::Watch(process), ended, forget].map(|event| (at(0), event));
    let step = |reaper: &mut ExitRouter, _, event| reaper.step(event).is_ok();
    draw(ExitRouter::default(), &events, step, |reaper| match reaper.sizes() {
        (0, 0) => "unknown",
        (1, 0) => "watched",
        (0, 1) => "kept",
        sizes => panic!("{sizes:?}"),
    })
}

fn registry_diagram() -> String {
    use RegistryEvent as E;
    let id = || ContainerId::new("c").unwrap();
    let event = Event::new(1, id(), at(0), EventKind::Released { left: Vec::new() });
    let story = PublishedState { seq: 0, started_at: None, execs: Vec::new(), exit: None };
    let wanted = RunRequest { token: RequestToken(1), id: id(), pool: None, hold: false };
    let events = [
        E::Run(wanted),
        E::Released(event, Exit::lost(None, at(0))),
        E::Lost(id()),
        E::LostReleased(id(), story, Vec::new()),
        E::Drain,
        E::Shutdown(Cancel::now(), Duration::from_secs(1)),
        E::DeadlinePassed,
    ];
    let events = events.map(|event| (at(0), event));
    let step = |registry: &mut Registry, now, event| registry.step(now, event).is_ok();
    draw(Registry::default(), &events, step, Registry::state)
}

/// In one test: they are written to one file.
#[test]
fn the_diagrams_are_what_the_code_does() {
    compare("process", &process_diagram());
    compare("container", &container_diagram());
    compare("reaper", &reaper_diagram());
    compare("registry", &registry_diagram());
}
