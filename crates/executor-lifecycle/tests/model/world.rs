//! The world the checker walks through: the machines of one container, the messages between them, a
//! runtime and a kernel that may do anything they can do, and a user who may ask for anything.
//!
//! The machines are the real ones; what is modelled is what the actors and the driver do with their
//! effects. Messages between two actors keep their order. Answers of the runtime and ends of processes
//! come in any order, and once more if the budget says so. Time is two moments: now, and late enough
//! for every deadline, which may come whenever one is set.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use executor_lifecycle::container::{Container, ContainerEffect, ContainerEvent, Phase};
use executor_lifecycle::exit_router::{ExitRouter, ExitRouterEffect, ExitRouterEvent};
use executor_lifecycle::process::{Process, ProcessEffect, ProcessEvent};
use executor_lifecycle::*;
use std::time::Duration;

/// The `step` functions, so that a test can put a wrong one in.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) container:
        fn(&mut Container, Timestamp, ContainerEvent) -> Result<Effects<ContainerEffect>, Refused>,
    pub(crate) process: fn(&mut Process, Timestamp, ProcessEvent) -> Result<Effects<ProcessEffect>, Refused>,
    pub(crate) reaper: fn(&mut ExitRouter, ExitRouterEvent) -> Result<Effects<ExitRouterEffect>, Refused>,
}

/// How often the user and the world may do what they may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) execs: u8,
    pub(crate) cancels: u8,
    pub(crate) exec_cancels: u8,
    pub(crate) signals: u8,
    pub(crate) pauses: u8,
    pub(crate) drops: u8,
    pub(crate) stalls: u8,
    pub(crate) refused_kills: u8,
    pub(crate) dead_actors: u8,
    pub(crate) copies: u8,
}

/// What the kernel and the runtime know of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Real {
    /// The runtime has not been asked to start it.
    Unasked,
    /// The runtime is starting it, or hangs.
    Starting {
        stalled: bool,
        abandoned: bool,
    },
    Alive,
    Dead(ExitStatus),
    /// The runtime could not start it.
    Never,
}

/// An answer or an end that is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Completion {
    Prepared(bool),
    LaunchEnded(ProcessId, bool),
    /// From the kernel to the reaper.
    Ended(ProcessId, bool),
    PauseEnded(bool),
    ResumeEnded(bool),
    ReleaseEnded,
    /// From a process to the reaper.
    Watch(ProcessId),
}

/// From a process to its container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Up {
    Started,
    Exited(Exit),
}

/// From the container to a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Down {
    Start,
    Withdraw(StartFailure),
    Cancel(Cancel),
    Signal(Signal, SignalScope),
    Resize(TerminalSize),
}

/// A process: its machine, its mailbox, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    machine: Process,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    real: Real,
    /// What the actor that would take its place is told.
    asked: bool,
    running: bool,
    to_end: bool,
    exit: Option<Exit>,
}

/// What the container asked of the runtime beside its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Asked {
    preparing: bool,
    pausing: bool,
    resuming: bool,
    releasing: bool,
    released: bool,
}

/// One state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    container: Container,
    members: BTreeMap<ProcessId, Member>,
    reaper: ExitRouter,
    network: BTreeSet<Completion>,
    /// Completions that have arrived and may arrive again.
    arrived: BTreeSet<Completion>,
    asked: Asked,
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
    Start,
    Exec,
    Cancel {
        graceful: bool,
    },
    CancelExec(ProcessId),
    Signal,
    Pause,
    Resume,
    DropExecutor,
    ActorDies(ProcessId),
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
}

pub(crate) const EXITED_ONCE: &str = "every process has exactly one exit";
pub(crate) const ORDER: &str = "events come in order, each once";
pub(crate) const TRUTHFUL: &str = "an exit says what the kernel said";
pub(crate) const NOTHING_RUNS: &str = "nothing runs, or starts, after its exit was told";
pub(crate) const NO_SIGNAL: &str = "nothing is signalled after its exit was told";
pub(crate) const STARTED_ONCE: &str = "no process is started twice";
pub(crate) const RELEASED_ONCE: &str = "everything is released once, and not while it is being made";
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

fn failure() -> StartFailure {
    StartFailure::new(StartFailureKind::RuntimeBroken, "")
}

fn status(killed: bool) -> ExitStatus {
    if killed { ExitStatus::Signal(Signal::KILL) } else { ExitStatus::Code(0) }
}

impl Member {
    fn new() -> Self {
        Self {
            machine: Process::new(None),
            up: VecDeque::new(),
            down: VecDeque::new(),
            real: Real::Unasked,
            asked: false,
            running: false,
            to_end: false,
            exit: None,
        }
    }
}

impl World {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            container: Container::new(container_id()),
            members: BTreeMap::from([(ProcessId::Init, Member::new())]),
            reaper: ExitRouter::default(),
            network: BTreeSet::new(),
            arrived: BTreeSet::new(),
            asked: Asked::default(),
            frozen: false,
            kernel_refuses: false,
            order: EventOrder::default(),
            budget,
            broken: None,
        }
    }

    pub(crate) fn is_released(&self) -> bool {
        self.container.phase() == Phase::Released
    }

    fn init_is_dead(&self) -> bool {
        matches!(self.members[&ProcessId::Init].real, Real::Dead(_) | Real::Never)
    }

    /// What must happen sooner or later.
    pub(crate) fn due(&self, due: &mut Vec<Action>) {
        let Asked { preparing, pausing, resuming, releasing, .. } = self.asked;
        if preparing {
            due.extend([true, false].map(|well| Action::Arrives(Completion::Prepared(well))));
        }
        if pausing {
            due.extend([true, false].map(|well| Action::Arrives(Completion::PauseEnded(well))));
        }
        if resuming {
            due.extend([true, false].map(|well| Action::Arrives(Completion::ResumeEnded(well))));
        }
        if releasing {
            due.push(Action::Arrives(Completion::ReleaseEnded));
        }
        due.extend(self.network.iter().cloned().map(Action::Arrives));
        for (id, member) in &self.members {
            let answers = matches!(
                member.real,
                Real::Starting { stalled: false, .. } | Real::Starting { abandoned: true, .. }
            );
            if answers {
                due.extend([Action::RuntimeStarts(*id), Action::RuntimeFails(*id), Action::RuntimeDies(*id)]);
            }
            if !member.up.is_empty() {
                due.push(Action::Up(*id));
            }
            if !member.down.is_empty() {
                due.push(Action::Down(*id));
            }
            if member.machine.next_deadline().is_some() {
                due.push(Action::Deadline(*id));
            }
        }
    }

    /// What may happen, or not.
    pub(crate) fn possible(&self, possible: &mut Vec<Action>) {
        let budget = &self.budget;
        let mut add = |allowed: bool, action: Action| {
            if allowed {
                possible.push(action);
            }
        };
        add(self.container == Container::new(container_id()), Action::Start);
        add(budget.execs > 0, Action::Exec);
        add(budget.cancels > 0, Action::Cancel { graceful: false });
        add(budget.cancels > 0, Action::Cancel { graceful: true });
        add(budget.signals > 0, Action::Signal);
        add(budget.pauses > 0, Action::Pause);
        add(self.frozen, Action::Resume);
        add(budget.drops > 0, Action::DropExecutor);
        add(budget.refused_kills > 0 && !self.kernel_refuses, Action::KernelRefusesKills);
        for (id, member) in &self.members {
            add(budget.exec_cancels > 0 && *id != ProcessId::Init, Action::CancelExec(*id));
            add(budget.dead_actors > 0 && !member.machine.has_exited(), Action::ActorDies(*id));
            let may_stall = matches!(member.real, Real::Starting { stalled: false, abandoned: false });
            add(budget.stalls > 0 && may_stall, Action::RuntimeStalls(*id));
            add(member.real == Real::Alive && !self.frozen, Action::Exits(*id));
        }
        if budget.copies > 0 {
            possible.extend(self.arrived.iter().cloned().map(Action::ArrivesAgain));
        }
    }

    /// Whether it is right that nothing happens any more, unless somebody wants it to.
    pub(crate) fn may_rest(&self) -> bool {
        let settled = |member: &Member| match member.real {
            Real::Unasked | Real::Starting { stalled: true, .. } | Real::Alive => !member.to_end,
            Real::Starting { stalled: false, .. } => false,
            Real::Dead(_) | Real::Never => member.exit.is_some(),
        };
        let all_over = || self.members.values().all(|member| member.exit.is_some());
        match self.container.phase() {
            Phase::Released => all_over(),
            Phase::Creating | Phase::Running | Phase::Paused => {
                !self.init_is_dead()
                    && self.members.values().all(|member| member.exit.is_some() || settled(member))
            }
            Phase::Exited => false,
        }
    }

    fn member(&mut self, id: ProcessId) -> &mut Member {
        self.members.get_mut(&id).expect("a process that exists")
    }

    fn breaks(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    /// Does what happens next.
    pub(crate) fn act(&mut self, rules: &Rules, action: &Action) {
        match action {
            Action::Start => self.container(rules, ContainerEvent::Create),
            Action::Exec => {
                self.budget.execs -= 1;
                self.container(rules, ContainerEvent::Exec);
            }
            Action::Cancel { graceful } => {
                self.budget.cancels -= 1;
                let cancel =
                    if *graceful { Cancel::with_grace(Duration::from_secs(1)) } else { Cancel::now() };
                self.cancel_all(rules, cancel);
            }
            Action::DropExecutor => {
                self.budget =
                    Budget { stalls: self.budget.stalls, copies: self.budget.copies, ..Budget::default() };
                self.cancel_all(rules, Cancel::now().cause(CancelCause::Shutdown));
            }
            Action::CancelExec(process) => {
                self.budget.exec_cancels -= 1;
                self.member(*process).to_end = true;
                self.process(rules, *process, NOW, ProcessEvent::Cancel(Cancel::now()));
            }
            Action::Signal => {
                self.budget.signals -= 1;
                self.container(rules, ContainerEvent::Signal(Signal::HUP, SignalScope::Process));
            }
            Action::Pause => {
                self.budget.pauses -= 1;
                self.container(rules, ContainerEvent::Pause);
            }
            Action::Resume => self.container(rules, ContainerEvent::Resume),
            Action::ActorDies(process) => self.actor_dies(rules, *process),
            Action::KernelRefusesKills => {
                self.budget.refused_kills -= 1;
                self.kernel_refuses = true;
            }
            Action::RuntimeStarts(process) => self.runtime_starts(*process),
            Action::RuntimeFails(process) => {
                self.member(*process).real = Real::Never;
                self.act(rules, &Action::Arrives(Completion::LaunchEnded(*process, false)));
            }
            Action::RuntimeDies(process) => {
                self.member(*process).real = Real::Never;
                self.network.insert(Completion::LaunchEnded(*process, false));
                self.network.insert(Completion::Ended(*process, true));
            }
            Action::RuntimeStalls(process) => {
                self.budget.stalls -= 1;
                self.member(*process).real = Real::Starting { stalled: true, abandoned: false };
            }
            Action::Exits(process) => self.dies(*process, false),
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
            Action::Up(process) => {
                if let Some(up) = self.member(*process).up.pop_front() {
                    let event = match up {
                        Up::Started => ContainerEvent::ProcessStarted { process: *process, pid: pid() },
                        Up::Exited(exit) => ContainerEvent::ProcessExited { process: *process, exit },
                    };
                    self.container(rules, event);
                }
            }
            Action::Down(process) => {
                if let Some(down) = self.member(*process).down.pop_front() {
                    let event = match down {
                        Down::Start => ProcessEvent::Launch,
                        Down::Withdraw(failure) => ProcessEvent::Withdraw(failure),
                        Down::Cancel(cancel) => ProcessEvent::Cancel(cancel),
                        Down::Signal(signal, scope) => ProcessEvent::Signal(signal, scope),
                        Down::Resize(size) => ProcessEvent::Resize(size),
                    };
                    self.process(rules, *process, NOW, event);
                }
            }
            Action::Deadline(process) => self.process(rules, *process, LATE, ProcessEvent::Tick),
        }
        if self.budget.copies == 0 {
            self.arrived.clear();
        }
    }

    fn cancel_all(&mut self, rules: &Rules, cancel: Cancel) {
        if self.container != Container::new(container_id()) {
            self.members.values_mut().for_each(|member| member.to_end = true);
        }
        self.container(rules, ContainerEvent::Cancel(cancel));
    }

    /// The container puts another actor in its place; what was in the mailbox is lost.
    fn actor_dies(&mut self, rules: &Rules, process: ProcessId) {
        self.budget.dead_actors -= 1;
        let member = self.member(process);
        member.down.clear();
        member.to_end = true;
        let (machine, effects) = Process::orphaned(NOW, member.asked, member.running.then_some((pid(), NOW)));
        member.machine = machine;
        if member.running {
            self.network.insert(Completion::Watch(process));
        }
        self.perform_all(rules, process, effects);
    }

    fn runtime_starts(&mut self, process: ProcessId) {
        self.network.insert(Completion::LaunchEnded(process, true));
        self.member(process).real = Real::Alive;
        // It may say so of a process that was killed with its init before it could begin.
        if process != ProcessId::Init && self.init_is_dead() {
            self.dies(process, true);
        }
    }

    /// With init end all others, as with a pid namespace.
    fn dies(&mut self, process: ProcessId, killed: bool) {
        if self.member(process).real != Real::Alive {
            return;
        }
        self.member(process).real = Real::Dead(status(killed));
        self.network.insert(Completion::Ended(process, killed));
        if process == ProcessId::Init {
            self.frozen = false;
            let others: Vec<_> = self.members.keys().copied().filter(|other| *other != process).collect();
            others.into_iter().for_each(|other| self.dies(other, true));
        }
    }

    fn arrives(&mut self, rules: &Rules, completion: Completion) {
        match completion {
            Completion::Prepared(well) => {
                self.asked.preparing = false;
                let event =
                    if well { ContainerEvent::Prepared } else { ContainerEvent::PrepareFailed(failure()) };
                self.container(rules, event);
            }
            Completion::PauseEnded(well) => {
                self.asked.pausing = false;
                let frozen = well && !self.init_is_dead();
                self.frozen |= frozen;
                self.container(rules, ContainerEvent::PauseEnded { frozen });
            }
            Completion::ResumeEnded(well) => {
                self.asked.resuming = false;
                let thawed = well || !self.frozen;
                self.frozen &= !thawed;
                self.container(rules, ContainerEvent::ResumeEnded { thawed });
            }
            Completion::ReleaseEnded => {
                self.asked.releasing = false;
                self.container(rules, ContainerEvent::ReleaseEnded { left: Vec::new() });
            }
            Completion::LaunchEnded(process, well) => {
                let event = if well {
                    ProcessEvent::Started { pid: pid() }
                } else {
                    ProcessEvent::StartFailed(failure())
                };
                self.process(rules, process, NOW, event);
            }
            Completion::Ended(process, killed) => {
                self.reaper(rules, ExitRouterEvent::Ended(reference(process), RawExit::with(status(killed))));
            }
            Completion::Watch(process) => self.reaper(rules, ExitRouterEvent::Watch(reference(process))),
        }
    }

    fn reaper(&mut self, rules: &Rules, event: ExitRouterEvent) {
        for effect in (rules.reaper)(&mut self.reaper, event).into_iter().flatten() {
            let ExitRouterEffect::Deliver(process, ending) = effect;
            // Ends arrive at the reaper whenever they like: another delay would add nothing.
            self.process(rules, process.process, NOW, ProcessEvent::Ended(ending));
        }
    }

    fn process(&mut self, rules: &Rules, id: ProcessId, now: Timestamp, event: ProcessEvent) {
        let machine = &mut self.member(id).machine;
        let effects = (rules.process)(machine, now, event).unwrap_or_else(|_| Effects::none());
        self.perform_all(rules, id, effects);
    }

    fn perform_all(&mut self, rules: &Rules, id: ProcessId, effects: Effects<ProcessEffect>) {
        for effect in effects {
            let told = self.member(id).exit.is_some();
            match effect {
                ProcessEffect::Launch => {
                    let member = self.member(id);
                    if std::mem::replace(&mut member.asked, true) {
                        self.breaks(STARTED_ONCE);
                    }
                    self.member(id).real = Real::Starting { stalled: false, abandoned: false };
                    if self.asked.releasing || self.asked.released {
                        self.breaks(NOTHING_RUNS);
                    }
                }
                ProcessEffect::AbandonStart => {
                    if let Real::Starting { abandoned, .. } = &mut self.member(id).real {
                        *abandoned = true;
                    }
                }
                ProcessEffect::Signal(..) if told => self.breaks(NO_SIGNAL),
                ProcessEffect::Signal(..) | ProcessEffect::Resize(_) => {}
                ProcessEffect::Kill if told => self.breaks(NO_SIGNAL),
                ProcessEffect::Kill if std::mem::replace(&mut self.kernel_refuses, false) => {
                    self.process(rules, id, NOW, ProcessEvent::KillFailed);
                }
                ProcessEffect::Kill => {
                    self.frozen = false;
                    self.dies(id, true);
                }
                ProcessEffect::ReportStarted { .. } => {
                    let member = self.member(id);
                    member.running = true;
                    member.up.push_back(Up::Started);
                    self.network.insert(Completion::Watch(id));
                }
                ProcessEffect::ReportExited(exit) => self.report_exited(id, exit),
            }
        }
    }

    fn report_exited(&mut self, id: ProcessId, exit: Exit) {
        let member = self.member(id);
        let rule = match (member.real, exit.started_at.is_some()) {
            _ if member.exit.is_some() => Some(EXITED_ONCE),
            (Real::Alive | Real::Starting { .. }, _) => Some(NOTHING_RUNS),
            (Real::Dead(status), true) => (status != exit.status).then_some(TRUTHFUL),
            (Real::Dead(_), false) | (Real::Unasked | Real::Never, true) => Some(TRUTHFUL),
            (Real::Unasked | Real::Never, false) => (exit.status != ExitStatus::Unknown).then_some(TRUTHFUL),
        };
        member.exit = Some(exit.clone());
        member.up.push_back(Up::Exited(exit));
        if let Some(rule) = rule {
            self.breaks(rule);
        }
    }

    fn container(&mut self, rules: &Rules, event: ContainerEvent) {
        let effects = (rules.container)(&mut self.container, NOW, event).unwrap_or_else(|_| Effects::none());
        for effect in effects {
            match effect {
                ContainerEffect::Prepare => self.asked.preparing = true,
                ContainerEffect::AddExec(exec) => {
                    drop(self.members.insert(ProcessId::Exec(exec), Member::new()))
                }
                ContainerEffect::Launch(process) => self.tell(process, Down::Start),
                ContainerEffect::Withdraw(process, failure) => self.tell(process, Down::Withdraw(failure)),
                ContainerEffect::CancelProcess(process, cancel) => {
                    self.member(process).to_end = true;
                    self.tell(process, Down::Cancel(cancel));
                }
                ContainerEffect::SignalInit(signal, scope) => {
                    self.tell(ProcessId::Init, Down::Signal(signal, scope));
                }
                ContainerEffect::ResizeInit(size) => self.tell(ProcessId::Init, Down::Resize(size)),
                ContainerEffect::Pause => self.asked.pausing = true,
                ContainerEffect::Resume => self.asked.resuming = true,
                ContainerEffect::Publish(event) => self.publish(&event),
                ContainerEffect::Release => {
                    if self.asked.preparing || self.asked.releasing || self.asked.released {
                        self.breaks(RELEASED_ONCE);
                    }
                    self.asked.releasing = true;
                }
                ContainerEffect::Finished => {
                    if std::mem::replace(&mut self.asked.released, true) {
                        self.breaks(RELEASED_ONCE);
                    }
                    self.reaper = ExitRouter::default();
                }
            }
        }
    }

    fn tell(&mut self, process: ProcessId, down: Down) {
        self.member(process).down.push_back(down);
    }

    fn publish(&mut self, event: &Event) {
        if self.order.check(event).is_err() {
            self.breaks(ORDER);
        }
        let runs = |member: &Member| matches!(member.real, Real::Alive | Real::Starting { .. });
        let running = match &event.kind {
            EventKind::Exited { .. } => self.members.values().any(runs),
            EventKind::ExecExited { exec, .. } => runs(&self.members[&ProcessId::Exec(*exec)]),
            EventKind::Created
            | EventKind::Started { .. }
            | EventKind::ExecStarted { .. }
            | EventKind::Paused
            | EventKind::Resumed
            | EventKind::Released { .. } => false,
        };
        if running {
            self.breaks(NOTHING_RUNS);
        }
    }
}
