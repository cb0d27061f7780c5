//! The world the checker walks through: the registry, the machines of one container, the messages between them, a
//! runtime and a kernel that may do anything they can do, and a user who may ask for anything.
//!
//! The machines are the real ones; what is modelled is what the actors and the driver do with their
//! effects. Messages between two actors keep their order. Answers of the runtime and ends of processes
//! come in any order, and once more if the budget says so. Time is two moments: now, and late enough
//! for every deadline, which may come whenever one is set.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use executor_lifecycle::container::{
    Container, ContainerEffect, ContainerEvent, ContainerTraits, KeepExited, Phase,
};
use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEffect, ExitRouterEvent};
use executor_lifecycle::process::{
    Asked, Kill, Process, ProcessEffect, ProcessEvent, ProcessTraits, Remains, Terms,
};
use executor_lifecycle::registry::{Registry, RegistryEffect, RegistryEvent, RequestToken, Story, Wanted};
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
}

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
    pub(crate) copies: u8,
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
    asked: Asked,
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
    PauseEnded(bool),
    ResumeEnded(bool),
    RestEnded,
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
    remains: Remains,
    to_end: bool,
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
    /// The user has asked for the program.
    start_asked: bool,
    /// What is kept may go: it was removed, its time is over, or the executor ends.
    may_go: bool,
    /// Something that init has left behind is alive: there is no pid namespace.
    rest_alive: bool,
    frozen: bool,
    kernel_refuses: bool,
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
    KernelRefusesKills,
    RuntimeStarts(ProcessId),
    RuntimeFails(ProcessId),
    /// It started the process, died of it, and took the process along.
    RuntimeDies(ProcessId),
    RuntimeStalls(ProcessId),
    Exits(ProcessId),
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
    RegistryEvent::Run(Wanted { token: RequestToken(token), id: container_id(), pool: None, hold })
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
            remains: Remains::default(),
            to_end: false,
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
            start_asked: false,
            may_go: budget.traits.keep_exited == KeepExited::No,
            rest_alive: false,
            frozen: false,
            kernel_refuses: false,
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

    /// What must happen sooner or later.
    pub(crate) fn due(&self, due: &mut Vec<Action>) {
        let AskedOf { preparing, pausing, resuming, ending_rest, releasing, releasing_lost, .. } = self.asked;
        let arrives = |completion| Action::Arrives(completion);
        if preparing {
            due.extend([true, false].map(|well| arrives(Completion::Prepared(well))));
        }
        if pausing {
            due.extend([true, false].map(|well| arrives(Completion::PauseEnded(well))));
        }
        if resuming {
            due.extend([true, false].map(|well| arrives(Completion::ResumeEnded(well))));
        }
        due.extend(ending_rest.then(|| arrives(Completion::RestEnded)));
        due.extend(releasing.then(|| arrives(Completion::ReleaseEnded)));
        due.extend(releasing_lost.then(|| arrives(Completion::LostReleased)));
        due.extend(self.network.iter().cloned().map(Action::Arrives));
        for (id, member) in &self.members {
            if member.request.is_some_and(|request| !request.stalled || request.abandoned) {
                due.extend(
                    [Action::RuntimeStarts, Action::RuntimeFails, Action::RuntimeDies]
                        .map(|act| act(id.clone())),
                );
            }
            if self.is_lost() {
                continue;
            }
            due.extend((!member.up.is_empty()).then(|| Action::Up(id.clone())));
            due.extend((!member.down.is_empty()).then(|| Action::Down(id.clone())));
            due.extend(member.machine.next_deadline().map(|_| Action::Deadline(id.clone())));
        }
        let deadline = self.container.as_ref().and_then(Container::next_deadline);
        due.extend(deadline.map(|_| Action::ContainerDeadline));
    }

    /// What may happen, or not.
    pub(crate) fn possible(&self, possible: &mut Vec<Action>) {
        let budget = &self.budget;
        let mut add = |allowed: bool, action: Action| {
            if allowed {
                possible.push(action);
            }
        };
        add(self.is_new(), Action::Run);
        let lives = self.container.is_some();
        add(lives && budget.starts > 0, Action::Start);
        add(lives && budget.removes > 0, Action::Remove);
        add(lives && budget.execs > 0, Action::Exec);
        add(lives && budget.cancels > 0, Action::Cancel { graceful: false });
        add(lives && budget.cancels > 0, Action::Cancel { graceful: true });
        add(lives && budget.signals > 0, Action::Signal(Signal::HUP));
        add(lives && budget.signals > 0, Action::Signal(Signal::KILL));
        add(lives && budget.resizes > 0, Action::Resize);
        add(lives && budget.pauses > 0, Action::Pause);
        add(lives && self.frozen, Action::Resume);
        add(budget.drops > 0, Action::DropExecutor);
        add(budget.refused_kills > 0 && !self.kernel_refuses, Action::KernelRefusesKills);
        add(lives && budget.dead_containers > 0 && !self.asked.released, Action::ContainerActorDies);
        for (id, member) in &self.members {
            let id = || id.clone();
            add(lives && budget.exec_cancels > 0 && id() != ProcessId::Init, Action::CancelExec(id()));
            add(lives && budget.dead_actors > 0 && !member.machine.has_exited(), Action::ActorDies(id()));
            let may_stall = member.request.is_some_and(|request| !request.stalled && !request.abandoned);
            add(budget.stalls > 0 && may_stall, Action::RuntimeStalls(id()));
            add(matches!(member.real, Real::Alive | Real::Created) && !self.frozen, Action::Exits(id()));
        }
        if budget.copies > 0 {
            possible.extend(self.arrived.iter().cloned().map(Action::ArrivesAgain));
        }
    }

    /// Whether it is right that nothing happens any more, unless the user wants something.
    pub(crate) fn may_rest(&self) -> bool {
        let settled = |member: &Member| match (member.real, member.request) {
            (Real::Dead(_) | Real::Never, _) => false,
            (_, Some(request)) => request.stalled && !member.to_end,
            (Real::Making, None) => false,
            (Real::Unasked | Real::Created | Real::Alive, None) => !member.to_end,
        };
        let all_settled = || self.members.values().all(|member| member.exit.is_some() || settled(member));
        let has_ended = self.budget.drops == 0 || self.registry.state() != "ending";
        match self.phase() {
            None => self.is_new() && has_ended || self.asked.released,
            Some(Phase::Released) => {
                self.asked.released && has_ended && self.members.values().all(|member| member.exit.is_some())
            }
            Some(Phase::Creating | Phase::Created) => {
                let waits =
                    self.phase() == Some(Phase::Created) || self.members[&ProcessId::Init].request.is_some();
                !self.init_is_over()
                    && all_settled()
                    && waits
                    && !(self.start_asked && self.phase() == Some(Phase::Created))
            }
            Some(Phase::Running | Phase::Paused) => !self.init_is_over() && all_settled(),
            Some(Phase::Exited) => !self.may_go,
        }
    }

    fn phase(&self) -> Option<Phase> {
        Some(match self.container.as_ref()?.state() {
            "new" | "preparing" | "creating" | "starting" => Phase::Creating,
            "created" => Phase::Created,
            "frozen" | "thawing" => Phase::Paused,
            "running" | "freezing" | "exiting" | "ending_rest" => Phase::Running,
            "settling" | "exited" | "releasing" => Phase::Exited,
            _ => Phase::Released,
        })
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
                self.registry(rules, RegistryEvent::Shutdown(Cancel::now()));
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

    fn runtime_starts(&mut self, process: &ProcessId) {
        let member = self.member(process);
        let Some(Request { asked, .. }) = member.request.take() else { return };
        let (real, well) = match (asked, member.real) {
            (Asked::Create, _) => (Real::Created, true),
            (Asked::Launch, _) | (Asked::StartCreated, Real::Created) => (Real::Alive, true),
            (Asked::StartCreated, real) => (real, false),
        };
        member.real = real;
        member.began |= real == Real::Alive && well;
        let answer = if asked == Asked::Create { Answer::Create } else { Answer::Start };
        self.network.insert(Completion::LaunchEnded(process.clone(), answer, well));
        if *process == ProcessId::Init {
            self.rest_alive |= real == Real::Alive && self.budget.traits.shares_pids;
        } else if self.init_is_over() {
            // It may say so of a process that was killed with its init before it could begin.
            self.dies(process, true);
        }
    }

    /// What was created stays so, or dies, as it may have.
    fn runtime_fails(&mut self, process: &ProcessId) -> Completion {
        let member = self.member(process);
        let asked = member.request.take().map_or(Asked::Launch, |request| request.asked);
        if asked != Asked::StartCreated {
            member.real = Real::Never;
        }
        let answer = if asked == Asked::Create { Answer::Create } else { Answer::Start };
        Completion::LaunchEnded(process.clone(), answer, false)
    }

    /// With init end all others, as with a pid namespace.
    fn dies(&mut self, process: &ProcessId, killed: bool) {
        if !matches!(self.member(process).real, Real::Alive | Real::Created) {
            return;
        }
        self.member(process).real = Real::Dead(status(killed));
        self.network.insert(Completion::Ended(process.clone(), killed));
        if *process == ProcessId::Init && !self.budget.traits.shares_pids {
            self.frozen = false;
            let others: Vec<_> = self.members.keys().filter(|other| *other != process).cloned().collect();
            others.iter().for_each(|other| self.dies(other, true));
        }
    }

    fn arrives(&mut self, rules: &Rules, completion: Completion) {
        match completion {
            Completion::Prepared(well) => {
                self.asked.preparing = false;
                let event = if well {
                    ContainerEvent::Prepared
                } else {
                    ContainerEvent::PrepareFailed(failure(false))
                };
                self.container(rules, event);
            }
            Completion::PauseEnded(well) => {
                self.asked.pausing = false;
                let frozen = well && !self.init_is_over();
                self.frozen |= frozen;
                self.container(rules, ContainerEvent::PauseEnded { frozen });
            }
            Completion::ResumeEnded(well) => {
                self.asked.resuming = false;
                let thawed = well || !self.frozen;
                self.frozen &= !thawed;
                self.container(rules, ContainerEvent::ResumeEnded { thawed });
            }
            Completion::RestEnded => {
                self.asked.ending_rest = false;
                self.rest_alive = false;
                self.container(rules, ContainerEvent::RestEnded);
            }
            Completion::ReleaseEnded => {
                self.asked.releasing = false;
                self.container(rules, ContainerEvent::ReleaseEnded { left: Vec::new() });
            }
            Completion::LostReleased => self.lost_released(rules),
            Completion::LaunchEnded(process, answer, well) => {
                if !well {
                    self.member(&process).remains.asked = None;
                }
                let event = match (answer, well) {
                    (Answer::Create, true) => ProcessEvent::Created { pid: pid() },
                    (Answer::Start, true) => ProcessEvent::Started { pid: pid() },
                    (Answer::Create | Answer::Start, false) => {
                        let is_gone = matches!(self.members[&process].real, Real::Dead(_));
                        ProcessEvent::StartFailed(failure(is_gone))
                    }
                };
                self.process(rules, &process, NOW, event);
            }
            Completion::Ended(process, killed) => {
                let raw = RawExit::with(status(killed));
                self.router(rules, ExitRouterEvent::Ended(reference(process), raw));
            }
            Completion::Watch(process) => self.router(rules, ExitRouterEvent::Watch(reference(process))),
        }
    }

    /// Releasing ends every process, whether or not there is an actor for it.
    fn lost_released(&mut self, rules: &Rules) {
        self.asked.releasing_lost = false;
        self.rest_alive = false;
        for member in self.members.values_mut() {
            member.request = None;
            if member.may_run() {
                member.real = Real::Never;
            }
        }
        let Published { seq, started, execs, exit } = self.published.clone();
        let story =
            Story { seq, started_at: started.then_some(NOW), execs: execs.into_iter().collect(), exit };
        self.registry(rules, RegistryEvent::LostReleased(container_id(), story, Vec::new()));
    }

    fn router(&mut self, rules: &Rules, event: ExitRouterEvent) {
        for effect in (rules.router)(&mut self.router, event).into_iter().flatten() {
            let ExitRouterEffect::Deliver(process, raw) = effect;
            // Ends arrive at the reaper whenever they like: another delay would add nothing.
            if !self.is_lost() {
                self.member(&process.process).remains.ended = Some(raw.clone());
            }
            self.process(rules, &process.process, NOW, ProcessEvent::Ended(raw));
        }
    }

    fn process(&mut self, rules: &Rules, id: &ProcessId, now: Timestamp, event: ProcessEvent) {
        if self.is_lost() {
            return;
        }
        let sized = matches!(event, ProcessEvent::Resize(_));
        let member = self.member(id);
        let answer = (rules.process)(&mut member.machine, now, event);
        member.sizes += u8::from(sized && answer.is_ok());
        self.perform_all(rules, id, answer.unwrap_or_else(|_| Effects::none()));
    }

    fn perform_all(&mut self, rules: &Rules, id: &ProcessId, effects: Effects<ProcessEffect>) {
        for effect in effects {
            let reported = self.member(id).exit.is_some();
            match effect {
                ProcessEffect::Create => self.ask(id, Asked::Create),
                ProcessEffect::Launch => self.ask(id, Asked::Launch),
                ProcessEffect::StartCreated => self.ask(id, Asked::StartCreated),
                ProcessEffect::AbandonStart => {
                    if let Some(request) = &mut self.member(id).request {
                        request.abandoned = true;
                    }
                }
                ProcessEffect::Watch => drop(self.network.insert(Completion::Watch(id.clone()))),
                ProcessEffect::Signal(..) | ProcessEffect::Kill(_) if reported => self.breaks(NO_SIGNAL),
                ProcessEffect::Signal(Signal::KILL, _) if !self.frozen => self.dies(id, true),
                ProcessEffect::Signal(..) => {}
                ProcessEffect::Resize(_) => self.member(id).sizes = 0,
                ProcessEffect::Kill(_) if std::mem::replace(&mut self.kernel_refuses, false) => {
                    self.process(rules, id, NOW, ProcessEvent::KillFailed);
                }
                ProcessEffect::Kill(how) => self.kill(id, how),
                // It comes again each second, so one that finds others before it counts for nothing.
                ProcessEffect::ReportStillAlive => {
                    if self.member(id).up.is_empty() {
                        self.container(rules, ContainerEvent::StillAlive(id.clone()));
                    }
                }
                ProcessEffect::ReportCreated { .. } => {
                    let member = self.member(id);
                    (member.remains.asked, member.remains.pid) = (None, Some(pid()));
                    member.up.push_back(Up::Created);
                }
                ProcessEffect::ReportStarted { .. } => {
                    let member = self.member(id);
                    (member.remains.asked, member.remains.pid) = (None, Some(pid()));
                    member.remains.started_at = Some(NOW);
                    member.up.push_back(Up::Started);
                }
                ProcessEffect::ReportExited(exit) => self.report_exited(id, exit),
            }
        }
    }

    fn kill(&mut self, id: &ProcessId, how: Kill) {
        self.frozen &= !how.thaw;
        self.rest_alive &= !how.everything;
        if !self.frozen {
            self.dies(id, true);
        }
    }

    fn ask(&mut self, id: &ProcessId, asked: Asked) {
        let executes = asked != Asked::Create;
        if *id == ProcessId::Init && executes && !self.start_asked {
            self.breaks(HELD);
        }
        if executes && self.member(id).sizes > 0 {
            self.breaks(SIZED);
        }
        if self.asked.releasing || self.asked.released {
            self.breaks(NOTHING_RUNS);
        }
        let member = self.member(id);
        let is_again = match asked {
            Asked::Create | Asked::Launch => member.real != Real::Unasked,
            Asked::StartCreated => member.began || member.request.is_some(),
        };
        member.remains.asked = Some(asked);
        member.request = Some(Request { asked, stalled: false, abandoned: false });
        if asked != Asked::StartCreated {
            member.real = Real::Making;
        }
        if is_again {
            self.breaks(STARTED_ONCE);
        }
    }

    fn report_exited(&mut self, id: &ProcessId, exit: Exit) {
        let member = self.member(id);
        let rule = match member.real {
            _ if member.exit.is_some() => Some(EXITED_ONCE),
            _ if member.began != exit.started_at.is_some() => Some(TRUTHFUL),
            Real::Alive | Real::Created | Real::Making => Some(NOTHING_RUNS),
            Real::Dead(status) => (status != exit.status).then_some(TRUTHFUL),
            Real::Unasked | Real::Never => (exit.status != ExitStatus::Unknown).then_some(TRUTHFUL),
        };
        member.exit = Some(exit.clone());
        member.up.push_back(Up::Exited(exit));
        if let Some(rule) = rule {
            self.breaks(rule);
        }
    }

    fn registry(&mut self, rules: &Rules, event: RegistryEvent) {
        let effects = (rules.registry)(&mut self.registry, NOW, event).unwrap_or_else(|_| Effects::none());
        for effect in effects {
            match effect {
                RegistryEffect::Register { hold, .. } => {
                    let ContainerTraits { has_terminal, shares_pids, .. } = self.budget.traits;
                    let init = Member::new(ProcessTraits { has_terminal, shares_pids });
                    self.members.insert(ProcessId::Init, init);
                    self.container = Some(Container::new(container_id(), self.budget.traits));
                    self.container(rules, ContainerEvent::Create);
                    if !hold {
                        self.container(rules, ContainerEvent::Start(Terms::default()));
                    }
                }
                RegistryEffect::End(_, cancel) => self.container(rules, ContainerEvent::End(cancel)),
                RegistryEffect::ReleaseLost(_) => self.asked.releasing_lost = true,
                RegistryEffect::Publish(event) => self.publish(rules, &event),
                RegistryEffect::Forget(_) => {
                    if std::mem::replace(&mut self.asked.released, true) {
                        self.breaks(RELEASED_ONCE);
                    }
                    self.router = ExitRouter::default();
                    self.network.clear();
                }
                RegistryEffect::Make(_)
                | RegistryEffect::Give(..)
                | RegistryEffect::Answer(..)
                | RegistryEffect::Retry(_)
                | RegistryEffect::PoolChanged(_)
                | RegistryEffect::Drained
                | RegistryEffect::Stop(_) => {}
            }
        }
    }

    fn container(&mut self, rules: &Rules, event: ContainerEvent) {
        self.container_at(rules, NOW, event);
    }

    fn container_at(&mut self, rules: &Rules, now: Timestamp, event: ContainerEvent) {
        let Some(container) = &mut self.container else { return };
        let starts = matches!(event, ContainerEvent::Start(_));
        let answer = (rules.container)(container, now, event);
        self.start_asked |= starts && answer.is_ok();
        for effect in answer.unwrap_or_else(|_| Effects::none()) {
            match effect {
                ContainerEffect::Prepare => self.asked.preparing = true,
                ContainerEffect::AddExec(exec) => {
                    drop(self.members.insert(ProcessId::Exec(exec), Member::new(ProcessTraits::default())))
                }
                ContainerEffect::ArmInit(terms) => self.tell(&ProcessId::Init, Down::Arm(terms)),
                ContainerEffect::CreateInit => self.tell(&ProcessId::Init, Down::Create),
                ContainerEffect::Launch(process) => self.tell(&process, Down::Launch),
                ContainerEffect::Withdraw(process, failure) => self.tell(&process, Down::Withdraw(failure)),
                ContainerEffect::CancelProcess(process, cancel) => {
                    self.member(&process).to_end = true;
                    self.tell(&process, Down::Cancel(cancel));
                }
                // Its end may be on the way to the container; then the runtime finds nothing to kill.
                ContainerEffect::KillAgain(process, how) if self.member(&process).exit.is_none() => {
                    self.kill(&process, how);
                }
                ContainerEffect::KillAgain(..) => {}
                ContainerEffect::SignalInit(signal, scope) => {
                    self.tell(&ProcessId::Init, Down::Signal(signal, scope));
                }
                ContainerEffect::ResizeInit(size) => self.tell(&ProcessId::Init, Down::Resize(size)),
                ContainerEffect::Pause => self.asked.pausing = true,
                ContainerEffect::Resume => self.asked.resuming = true,
                ContainerEffect::Thaw => {
                    self.frozen = false;
                    self.asked.resuming = true;
                }
                ContainerEffect::ListProcesses | ContainerEffect::ReadUsage => {}
                ContainerEffect::Publish(event) => self.publish(rules, &event),
                ContainerEffect::EndRest => self.asked.ending_rest = true,
                ContainerEffect::Release => {
                    if self.asked.preparing || self.asked.releasing || self.asked.released {
                        self.breaks(RELEASED_ONCE);
                    }
                    if !self.may_go {
                        self.breaks(KEPT);
                    }
                    self.asked.releasing = true;
                }
                ContainerEffect::Finished(event) => {
                    let exit = self.published.exit.clone().unwrap_or_else(|| Exit::lost(None, NOW));
                    self.registry(rules, RegistryEvent::Released(event, exit));
                }
            }
        }
    }

    fn tell(&mut self, process: &ProcessId, down: Down) {
        self.member(process).down.push_back(down);
    }

    fn publish(&mut self, rules: &Rules, event: &Event) {
        if self.order.check(event).is_err() {
            self.breaks(ORDER);
        }
        self.published.seq = event.seq;
        let running = match &event.kind {
            EventKind::Exited { exit } => {
                self.published.exit = Some(exit.clone());
                let is_lost = self.is_lost();
                !is_lost && (self.rest_alive || self.members.values().any(Member::may_run))
            }
            EventKind::ExecExited { exec, .. } => {
                self.published.execs.remove(exec);
                let exec = &self.members[&ProcessId::Exec(exec.clone())];
                !self.is_lost() && exec.may_run()
            }
            EventKind::ExecAdded { exec } => {
                self.published.execs.insert(exec.clone(), false);
                false
            }
            EventKind::ExecStarted { exec, .. } => {
                self.published.execs.insert(exec.clone(), true);
                false
            }
            EventKind::Started { .. } => {
                self.published.started = true;
                false
            }
            EventKind::Released { .. } => {
                self.released_is_published(rules);
                self.members.values().any(Member::may_run)
            }
            EventKind::Registered | EventKind::Created { .. } | EventKind::Paused | EventKind::Resumed => {
                false
            }
        };
        if running {
            self.breaks(NOTHING_RUNS);
        }
    }

    /// A subscriber that asks for the id again the moment it hears this is not refused it.
    fn released_is_published(&mut self, rules: &Rules) {
        let again = (rules.registry)(&mut self.registry.clone(), NOW, wanted(2, false));
        if again.is_err_and(|refused| refused.reason == Refusal::IdTaken) {
            self.breaks(ID_FREE);
        }
        if self.registry.exit_of(&container_id()) != self.published.exit.as_ref() {
            self.breaks(REMEMBERED);
        }
    }
}
