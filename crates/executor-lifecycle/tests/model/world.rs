//! The world the checker walks through: the registry, the machines of one container, the messages between them, a
//! runtime and a kernel that may do anything they can do, and a user who may ask for anything.
//!
//! The machines are the real ones; what is modelled is what the actors and the driver do with their
//! effects. Messages between two actors keep their order. Answers of the runtime and ends of processes
//! come in any order, and once more if the budget says so. Time is two moments: now, and late enough
//! for every deadline, which may come whenever one is set.

mod choices;
mod crash;
mod machines;
mod runtime;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use executor_lifecycle::container::{
    Container, ContainerEffect, ContainerEvent, ContainerTraits, Inheritance, KeepExited, Phase,
};
use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEffect, ExitRouterEvent};
use executor_lifecycle::process::{
    Inherited, Kill, LaunchStep, OrphanState, Process, ProcessEffect, ProcessEvent, ProcessNote,
    ProcessTraits, Terms,
};
use executor_lifecycle::registry::{
    PublishedState, Registry, RegistryEffect, RegistryEvent, RequestToken, RunRequest,
};
use executor_lifecycle::*;
use std::time::Duration;

/// The `step` functions, so that a test can put a wrong one in.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) registry:
        fn(&mut Registry, Timestamp, RegistryEvent) -> Result<Effects<RegistryEffect>, Refused>,
    pub(crate) container:
        fn(&mut Container, Timestamp, ContainerEvent) -> Result<Effects<ContainerEffect>, Refused>,
    pub(crate) process: fn(&mut Process, Timestamp, ProcessEvent) -> Result<Effects<ProcessEffect>, Refused>,
    pub(crate) router: fn(&mut ExitRouter, ExitRouterEvent) -> Result<Effects<ExitRouterEffect>, Refused>,
    pub(crate) adopt: Adopt,
    pub(crate) adopt_process:
        fn(Timestamp, ProcessTraits, ProcessNote, Inherited) -> (Process, Effects<ProcessEffect>),
}

type Adopt = fn(
    Timestamp,
    ContainerId,
    ContainerTraits,
    &Inheritance,
) -> (Container, Vec<ContainerEffect>, Vec<(ProcessId, Inherited)>);

/// How often the user and the world may do what they may do, and what the container is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) traits: ContainerTraits,
    /// It is held at created.
    pub(crate) hold: bool,
    pub(crate) starts: u8,
    pub(crate) removes: u8,
    pub(crate) execs: u8,
    pub(crate) cancels: u8,
    pub(crate) exec_cancels: u8,
    pub(crate) signals: u8,
    pub(crate) resizes: u8,
    pub(crate) pauses: u8,
    pub(crate) drops: u8,
    pub(crate) stalls: u8,
    pub(crate) refused_kills: u8,
    pub(crate) dead_actors: u8,
    pub(crate) dead_containers: u8,
    /// How often the executor's process is killed.
    pub(crate) crashes: u8,
    /// Whether its keeper is killed as well.
    pub(crate) keeper_dies: bool,
    pub(crate) copies: u8,
    pub(crate) oom_kills: u8,
    /// Kills from outside.
    pub(crate) foreign_kills: u8,
}

/// What the kernel knows of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Real {
    /// The runtime has not been asked to make it.
    Unasked,
    /// The runtime is making it, or hangs; there is nothing yet.
    Making,
    /// It waits for its program to be executed.
    Created,
    Alive,
    Dead(ExitStatus),
    /// The runtime could not make it.
    Never,
}

/// What the runtime has been asked for and has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Request {
    asked: LaunchStep,
    stalled: bool,
    abandoned: bool,
}

/// An answer or an end that is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Completion {
    Prepared(bool),
    LaunchEnded(ProcessId, Answer, bool),
    /// From the kernel to the reaper.
    Ended(ProcessId, bool),
    /// From the kernel's log: the process, or a child, and how many there were.
    OomKill(Option<ProcessId>, u64),
    PauseEnded(bool),
    ResumeEnded(bool),
    RemainingEnded,
    ReleaseEnded,
    LostReleased,
    /// From a process to the reaper.
    Watch(ProcessId),
}

/// What an answer of the runtime is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    Create,
    Start,
}

/// From a process to its container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Up {
    Created,
    Started,
    Exited(Exit),
}

/// From the container to a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Down {
    Arm(Terms),
    Create,
    Launch,
    Withdraw(StartFailure),
    Cancel(Cancel),
    Signal(Signal, SignalScope),
    Resize(TerminalSize),
}

/// A process: its machine, its mailbox, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    machine: Process,
    traits: ProcessTraits,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    real: Real,
    request: Option<Request>,
    /// Its program was executed.
    began: bool,
    /// Sizes that its machine has accepted and not handed on.
    sizes: u8,
    /// What the actor that would take its place is told.
    remains: OrphanState,
    to_end: bool,
    /// The OOM killer has killed it.
    was_oom_killed: bool,
    exit: Option<Exit>,
}

/// What the container asked of the runtime beside its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct AskedOf {
    preparing: bool,
    pausing: bool,
    resuming: bool,
    ending_rest: bool,
    releasing: bool,
    /// It is released without its actor.
    releasing_lost: bool,
    released: bool,
}

/// What was published, as a subscriber's snapshot has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Published {
    seq: u64,
    started: bool,
    execs: BTreeMap<ExecId, bool>,
    exit: Option<Exit>,
    oom_kills: u64,
}

/// One state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    registry: Registry,
    /// Absent before the run and once its actor is gone.
    container: Option<Container>,
    members: BTreeMap<ProcessId, Member>,
    router: ExitRouter,
    network: BTreeSet<Completion>,
    /// Completions that have arrived and may arrive again.
    arrived: BTreeSet<Completion>,
    asked: AskedOf,
    published: Published,
    /// The events, if somebody may have to go on with them.
    events: Vec<Event>,
    /// The user has asked for the program.
    start_asked: bool,
    /// What is kept may go: it was removed, its time is over, or the executor ends.
    may_go: bool,
    /// Something that init has left behind is alive: there is no pid namespace.
    rest_alive: bool,
    frozen: bool,
    kernel_refuses: bool,
    /// What the OOM killer has killed.
    oom_kills: u64,
    order: EventOrder,
    budget: Budget,
    /// The rule that was broken on the way here.
    pub(crate) broken: Option<&'static str>,
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Run,
    Start,
    Remove,
    Exec,
    Cancel {
        graceful: bool,
    },
    CancelExec(ProcessId),
    Signal(Signal),
    Resize,
    Pause,
    Resume,
    DropExecutor,
    ActorDies(ProcessId),
    ContainerActorDies,
    Crash {
        with_keeper: bool,
    },
    KernelRefusesKills,
    RuntimeStarts(ProcessId),
    RuntimeFails(ProcessId),
    /// It started the process, died of it, and took the process along.
    RuntimeDies(ProcessId),
    RuntimeStalls(ProcessId),
    Exits(ProcessId),
    /// A process, or a child of init.
    OomKills(Option<ProcessId>),
    KilledFromOutside(ProcessId),
    Arrives(Completion),
    ArrivesAgain(Completion),
    Up(ProcessId),
    Down(ProcessId),
    Deadline(ProcessId),
    ContainerDeadline,
}

pub(crate) const EXITED_ONCE: &str = "every process has exactly one exit";
pub(crate) const ORDER: &str = "events come in order, each once";
pub(crate) const TRUTHFUL: &str = "an exit says what the kernel said, and whether the program ran";
pub(crate) const NOTHING_RUNS: &str = "nothing runs, or starts, after its exit was reported";
pub(crate) const NO_SIGNAL: &str = "nothing is signalled after its exit was reported";
pub(crate) const STARTED_ONCE: &str = "no process is started twice";
pub(crate) const RELEASED_ONCE: &str = "everything is released once, and not while it is being made";
pub(crate) const HELD: &str = "no program is executed before it is to be";
pub(crate) const SIZED: &str = "a program finds the size that was accepted before its start";
pub(crate) const KEPT: &str = "what is kept is not released before it may go";
pub(crate) const ID_FREE: &str = "an id is free when Released is published";
pub(crate) const REMEMBERED: &str = "an exit is known after the release";
pub(crate) const KILLS: &str = "every kill of the OOM killer is published once, before the exit";
pub(crate) const NO_STUCK: &str = "what was asked for comes about";

const NOW: Timestamp = Timestamp::from_epoch(Duration::ZERO);
const LATE: Timestamp = Timestamp::from_epoch(Duration::MAX);

fn container_id() -> ContainerId {
    ContainerId::new("c").expect("an id")
}

fn reference(process: ProcessId) -> ProcessRef {
    ProcessRef { container: container_id(), process }
}

fn pid() -> HostPid {
    HostPid::new(1).expect("a pid")
}

fn failure(is_gone: bool) -> StartFailure {
    let kind = if is_gone { StartFailureKind::ContainerGone } else { StartFailureKind::RuntimeBroken };
    StartFailure::new(kind, "")
}

fn status(killed: bool) -> ExitStatus {
    if killed { ExitStatus::Signal(Signal::KILL) } else { ExitStatus::Code(0) }
}

fn wanted(token: u64, hold: bool) -> RegistryEvent {
    RegistryEvent::Run(RunRequest { token: RequestToken(token), id: container_id(), pool: None, hold })
}

impl Member {
    fn new(traits: ProcessTraits) -> Self {
        Self {
            machine: Process::new(traits),
            traits,
            up: VecDeque::new(),
            down: VecDeque::new(),
            real: Real::Unasked,
            request: None,
            began: false,
            sizes: 0,
            remains: OrphanState::default(),
            to_end: false,
            was_oom_killed: false,
            exit: None,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.real, Real::Dead(_) | Real::Never)
    }

    fn may_run(&self) -> bool {
        matches!(self.real, Real::Making | Real::Created | Real::Alive)
    }
}

impl World {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            registry: Registry::default(),
            container: None,
            members: BTreeMap::new(),
            router: ExitRouter::default(),
            network: BTreeSet::new(),
            arrived: BTreeSet::new(),
            asked: AskedOf::default(),
            published: Published::default(),
            events: Vec::new(),
            start_asked: false,
            may_go: budget.traits.keep_exited == KeepExited::No,
            rest_alive: false,
            frozen: false,
            kernel_refuses: false,
            oom_kills: 0,
            order: EventOrder::default(),
            budget,
            broken: None,
        }
    }

    pub(crate) fn is_released(&self) -> bool {
        self.asked.released
    }

    /// Nothing was run yet.
    fn is_new(&self) -> bool {
        self.members.is_empty()
    }

    /// Its actor is gone, and those of its processes with it.
    fn is_lost(&self) -> bool {
        !self.is_new() && self.container.is_none()
    }

    fn init_is_over(&self) -> bool {
        self.members.get(&ProcessId::Init).is_some_and(Member::is_over)
    }

    fn member(&mut self, id: &ProcessId) -> &mut Member {
        self.members.get_mut(id).expect("a process that exists")
    }

    fn breaks(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    /// Does what happens next.
    pub(crate) fn act(&mut self, rules: &Rules, action: &Action) {
        match action {
            Action::Run => self.registry(rules, wanted(1, self.budget.hold)),
            Action::Start => {
                self.budget.starts -= 1;
                self.container(rules, ContainerEvent::Start(Terms::default()));
            }
            Action::Remove => {
                self.budget.removes -= 1;
                self.may_go |= self.phase() == Some(Phase::Exited);
                self.container(rules, ContainerEvent::Remove);
            }
            Action::Exec => {
                self.budget.execs -= 1;
                self.container(rules, ContainerEvent::Exec(None));
            }
            Action::Cancel { graceful } => {
                self.budget.cancels -= 1;
                let cancel =
                    if *graceful { Cancel::with_grace(Duration::from_secs(1)) } else { Cancel::now() };
                self.members.values_mut().for_each(|member| member.to_end = true);
                self.container(rules, ContainerEvent::Cancel(cancel));
            }
            Action::DropExecutor => {
                let Budget { traits, hold, stalls, copies, .. } = self.budget;
                self.budget = Budget { traits, hold, stalls, copies, ..Budget::default() };
                self.members.values_mut().for_each(|member| member.to_end = true);
                self.may_go = true;
                self.registry(
                    rules,
                    RegistryEvent::Shutdown(Cancel::now(), std::time::Duration::from_secs(1)),
                );
            }
            Action::CancelExec(process) => {
                self.budget.exec_cancels -= 1;
                self.member(process).to_end = true;
                self.process(rules, process, NOW, ProcessEvent::Cancel(Cancel::now()));
            }
            Action::Signal(signal) => {
                self.budget.signals -= 1;
                self.container(rules, ContainerEvent::Signal(*signal, SignalScope::Process));
            }
            Action::Resize => {
                self.budget.resizes -= 1;
                self.container(rules, ContainerEvent::Resize(TerminalSize::default()));
            }
            Action::Pause => {
                self.budget.pauses -= 1;
                self.container(rules, ContainerEvent::Pause);
            }
            Action::Resume => self.container(rules, ContainerEvent::Resume),
            Action::ActorDies(process) => self.actor_dies(rules, process),
            Action::ContainerActorDies => {
                self.budget.dead_containers -= 1;
                self.container = None;
                self.asked = AskedOf { released: self.asked.released, ..AskedOf::default() };
                self.registry(rules, RegistryEvent::Lost(container_id()));
            }
            Action::Crash { with_keeper } => self.crash(rules, *with_keeper),
            Action::KernelRefusesKills => {
                self.budget.refused_kills -= 1;
                self.kernel_refuses = true;
            }
            Action::RuntimeStarts(process) => self.runtime_starts(process),
            Action::RuntimeFails(process) => {
                let answer = self.runtime_fails(process);
                self.act(rules, &Action::Arrives(answer));
            }
            Action::RuntimeDies(process) => {
                let was_created = self.member(process).real == Real::Created;
                self.dies(process, true);
                let answer = self.runtime_fails(process);
                self.network.insert(answer);
                if !was_created {
                    self.network.insert(Completion::Ended(process.clone(), true));
                }
            }
            Action::RuntimeStalls(process) => {
                self.budget.stalls -= 1;
                if let Some(request) = &mut self.member(process).request {
                    request.stalled = true;
                }
            }
            Action::Exits(process) => {
                let killed = self.member(process).real == Real::Created;
                self.dies(process, killed);
            }
            Action::OomKills(process) => self.oom_kills(process.as_ref()),
            Action::KilledFromOutside(process) => {
                self.budget.foreign_kills -= 1;
                self.dies(process, true);
            }
            Action::Arrives(completion) => {
                if self.budget.copies > 0 && !matches!(completion, Completion::Watch(_)) {
                    self.arrived.insert(completion.clone());
                }
                self.network.remove(completion);
                self.arrives(rules, completion.clone());
            }
            Action::ArrivesAgain(completion) => {
                self.budget.copies -= 1;
                self.arrived.remove(completion);
                self.arrives(rules, completion.clone());
            }
            Action::Up(process) => self.up(rules, process),
            Action::Down(process) => self.down(rules, process),
            Action::Deadline(process) => self.process(rules, process, LATE, ProcessEvent::Tick),
            Action::ContainerDeadline => {
                self.may_go = true;
                self.container_at(rules, LATE, ContainerEvent::Tick);
            }
        }
        if self.budget.copies == 0 {
            self.arrived.clear();
        }
    }

    fn up(&mut self, rules: &Rules, process: &ProcessId) {
        if let Some(up) = self.member(process).up.pop_front() {
            let process = process.clone();
            let event = match up {
                Up::Created => ContainerEvent::InitCreated { pid: pid() },
                Up::Started => ContainerEvent::ProcessStarted { process, pid: pid() },
                Up::Exited(exit) => ContainerEvent::ProcessExited { process, exit },
            };
            self.container(rules, event);
        }
    }

    fn down(&mut self, rules: &Rules, process: &ProcessId) {
        if let Some(down) = self.member(process).down.pop_front() {
            let event = match down {
                Down::Arm(terms) => ProcessEvent::Arm(terms),
                Down::Create => ProcessEvent::Create,
                Down::Launch => ProcessEvent::Launch,
                Down::Withdraw(failure) => ProcessEvent::Withdraw(failure),
                Down::Cancel(cancel) => ProcessEvent::Cancel(cancel),
                Down::Signal(signal, scope) => ProcessEvent::Signal(signal, scope),
                Down::Resize(size) => ProcessEvent::Resize(size),
            };
            self.process(rules, process, NOW, event);
        }
    }

    /// The container puts another actor in its place; what was in the mailbox is lost.
    fn actor_dies(&mut self, rules: &Rules, process: &ProcessId) {
        self.budget.dead_actors -= 1;
        let member = self.member(process);
        member.down.clear();
        member.to_end = true;
        member.sizes = 0;
        let (machine, effects) = Process::orphaned(NOW, member.traits, member.remains.clone());
        member.machine = machine;
        self.perform_all(rules, process, effects);
    }
}
