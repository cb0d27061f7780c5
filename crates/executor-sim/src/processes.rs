//! The processes of a simulated runtime, from their creation to their exit.
//!
//! A process is an entry in a table and the tasks that act for it. Neighbours: the runtime creates, begins and signals
//! processes; an exit goes to the queue that the executor reads.
//!
//! | file | holds |
//! |---|---|
//! | `act` | what a process does, step by step |
//! | `signal` | signals, kills and the freezer |
//! | `usage` | the resources that containers have used |

mod act;
mod signal;
mod usage;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor_core::lifecycle::{
    ContainerId, ExitStatus, HostPid, OomEvidence, ProcessId, ProcessRef, RawExit, Signal, Usage,
};
use executor_core::{ChildStdio, Delivery, ExitQueue};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::lock;
use crate::program::{Program, Step, Trap};
use crate::simulation::Dice;
use crate::timeline::{Timeline, What};

/// The least time that a round of a loop takes. Without it, virtual time would stand still in an empty loop.
const ROUND: Duration = Duration::from_millis(1);

/// All processes of one simulated runtime.
pub(crate) struct Processes {
    table: Mutex<Table>,
    /// Where exits go now.
    exits: Mutex<ExitQueue>,
    dice: Arc<Dice>,
    timeline: Timeline,
}

#[derive(Default)]
struct Table {
    alive: BTreeMap<ProcessRef, Alive>,
    /// The children that run in the background, by the process that forked them.
    forks: BTreeMap<ProcessRef, Vec<AbortHandle>>,
    /// Whether a container is frozen. A container that never was has no entry.
    frozen: BTreeMap<ContainerId, watch::Sender<bool>>,
    /// The scripted resources that containers have used.
    usages: BTreeMap<ContainerId, Usage>,
    /// The processes that have ended, with their exits, until their container is released.
    ended: BTreeMap<ProcessRef, (HostPid, RawExit)>,
    last_pid: u32,
}

/// A process that has not ended.
struct Alive {
    pid: HostPid,
    stdio: ChildStdio,
    traps: BTreeMap<Signal, Trap>,
    /// How many more times SIGKILL cannot be delivered.
    kill_refused: u32,
    /// Its program. Taken when the program is executed.
    program: Option<Vec<Step>>,
    /// It was killed while it was frozen, and ends once it is thawed.
    is_doomed: bool,
    tasks: Vec<AbortHandle>,
    /// Dropped with the process: then the receiver resolves.
    _ended: oneshot::Sender<()>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Processes {
    pub(crate) fn new(exits: ExitQueue, dice: Arc<Dice>, timeline: Timeline) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), exits: Mutex::new(exits), dice, timeline })
    }

    /// Creates a process and executes its program. Returns its pid, and a receiver that resolves when it has ended.
    pub(crate) fn start(
        self: &Arc<Self>,
        process: &ProcessRef,
        program: Program,
        stdio: ChildStdio,
    ) -> (HostPid, oneshot::Receiver<()>) {
        let started = self.create(process, program, stdio);
        self.begin(process);
        started
    }

    /// Creates a process, without executing its program.
    pub(crate) fn create(
        &self,
        process: &ProcessRef,
        program: Program,
        stdio: ChildStdio,
    ) -> (HostPid, oneshot::Receiver<()>) {
        let (ended, until_ended) = oneshot::channel();
        let mut table = lock(&self.table);
        #[expect(clippy::expect_used, reason = "pids count from 1")]
        let pid = table.next_pid().expect("a pid");
        let alive = Alive {
            pid,
            stdio,
            traps: BTreeMap::new(),
            kill_refused: program.troubles.kill_refused + self.dice.kills_refused(),
            program: Some(program.steps),
            is_doomed: false,
            tasks: Vec::new(),
            _ended: ended,
        };
        table.alive.insert(process.clone(), alive);
        (pid, until_ended)
    }

    /// Executes the program of a process. `false` if the process has ended.
    pub(crate) fn begin(self: &Arc<Self>, process: &ProcessRef) -> bool {
        let mut table = lock(&self.table);
        let Some(alive) = table.alive.get_mut(process) else { return false };
        let Some(mut steps) = alive.program.take() else { return false };
        // The traps at the beginning of a program are set at once, before any signal can come.
        let arranged = steps.iter().take_while(|step| matches!(step, Step::Trap(..))).count();
        let rest = steps.split_off(arranged);
        for step in steps {
            if let Step::Trap(signal, trap) = step {
                alive.traps.insert(signal, trap);
            }
        }
        let stdio = alive.stdio.clone();
        drop(table);
        if !matches!(rest.first(), Some(Step::Forever)) {
            self.run(process, stdio, rest, Some(RawExit::with(ExitStatus::Code(0))));
        }
        true
    }

    /// Ends the children that the processes of a container have left in the background.
    pub(crate) fn kill_remaining(&self, container: &ContainerId) {
        lock(&self.table).end_forks(container);
    }

    /// Ends a process. With init, all processes of its container end, as with a pid namespace. The exit of init says what
    /// the container has used, if that is scripted.
    pub(crate) fn end(&self, process: &ProcessRef, mut ending: RawExit) -> Delivery {
        let mut table = lock(&self.table);
        let Some(alive) = table.alive.remove(process) else { return Delivery::Gone };
        let mut pids = vec![alive.pid];
        drop(alive);
        ending.oom.get_or_insert(OomEvidence::NotKilled);
        let mut ended = Vec::new();
        if process.process == ProcessId::Init {
            let others = table.alive.range(ProcessRef::all_of(&process.container));
            ended.extend(
                others.map(|(other, _)| (other.clone(), RawExit::with(ExitStatus::Signal(Signal::KILL)))),
            );
            let others = ended.iter().filter_map(|(other, _)| table.alive.remove(other));
            let others: Vec<_> = others.map(|alive| alive.pid).collect();
            pids.splice(0..0, others);
            table.end_forks(&process.container);
            let usage = table.usages.get(&process.container);
            ending.usage = ending.usage.or_else(|| usage.map(|usage| Box::new(*usage)));
        }
        ended.push((process.clone(), ending));
        for ((process, ending), pid) in ended.iter().zip(pids) {
            table.ended.insert(process.clone(), (pid, ending.clone()));
        }
        drop(table);
        ended.into_iter().for_each(|(process, ending)| self.report(process, ending));
        Delivery::Sent
    }

    fn report(&self, process: ProcessRef, ending: RawExit) {
        self.timeline.push(What::Ended(process.clone(), ending.clone()));
        let exits = self.exits();
        match self.dice.delay() {
            None => exits.send(process, ending),
            Some(delay) => drop(tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                exits.send(process, ending);
            })),
        }
    }

    /// Ends everything in a container that is being released. No exits are reported.
    pub(crate) fn remove(&self, container: &ContainerId) {
        let mut table = lock(&self.table);
        let alive: Vec<_> =
            table.alive.range(ProcessRef::all_of(container)).map(|(id, _)| id.clone()).collect();
        alive.iter().for_each(|process| drop(table.alive.remove(process)));
        table.end_forks(container);
        table.frozen.remove(container);
        table.usages.remove(container);
        table.ended.retain(|process, _| process.container != *container);
    }

    /// The queue where exits go now.
    pub(crate) fn exits(&self) -> ExitQueue {
        lock(&self.exits).clone()
    }

    /// Exits go to another queue, whose receiver nobody has taken yet.
    pub(crate) fn renew_exits(&self) {
        *lock(&self.exits) = ExitQueue::default();
    }

    /// The processes of a container that have executed their program, with their pids. They may have ended.
    pub(crate) fn executed(&self, container: &ContainerId) -> BTreeMap<ProcessId, HostPid> {
        let table = lock(&self.table);
        let alive = table.alive.range(ProcessRef::all_of(container));
        let alive = alive.filter(|(_, alive)| alive.program.is_none()).map(|(of, alive)| (of, alive.pid));
        let ended = table.ended.range(ProcessRef::all_of(container)).map(|(of, (pid, _))| (of, *pid));
        ended.chain(alive).map(|(of, pid)| (of.process.clone(), pid)).collect()
    }

    pub(crate) fn is_container_frozen(&self, container: &ContainerId) -> bool {
        lock(&self.table).frozen.get(container).is_some_and(|frozen| *frozen.borrow())
    }

    /// Reports the exit of a process once more, to another executor.
    pub(crate) fn report_again(&self, process: &ProcessRef) {
        let table = lock(&self.table);
        if table.alive.contains_key(process) {
            return;
        }
        if let Some((_, ending)) = table.ended.get(process) {
            self.exits().send(process.clone(), ending.clone());
        }
    }

    /// Ends the processes of a container but for these. No exits are reported.
    pub(crate) fn remove_others(&self, container: &ContainerId, kept: &[ProcessRef]) {
        let mut table = lock(&self.table);
        let others = table.alive.range(ProcessRef::all_of(container)).map(|(of, _)| of.clone());
        let others: Vec<_> = others.filter(|of| !kept.contains(of)).collect();
        others.iter().for_each(|of| drop(table.alive.remove(of)));
    }

    pub(crate) fn remove_all(&self) {
        let mut table = lock(&self.table);
        table.alive.clear();
        std::mem::take(&mut table.forks).into_values().flatten().for_each(|fork| fork.abort());
    }

    pub(crate) fn alive(&self) -> Vec<ProcessRef> {
        lock(&self.table).alive.keys().cloned().collect()
    }

    pub(crate) fn pids(&self, container: &ContainerId) -> Vec<HostPid> {
        lock(&self.table).alive.range(ProcessRef::all_of(container)).map(|(_, alive)| alive.pid).collect()
    }
}

impl Table {
    fn next_pid(&mut self) -> Option<HostPid> {
        self.last_pid += 1;
        HostPid::new(self.last_pid)
    }

    /// Changes what a container has used to the values that are present in `change`. Returns the result.
    fn change_usage(&mut self, container: &ContainerId, change: &Usage) -> Usage {
        let usage = self.usages.entry(container.clone()).or_default();
        *usage = usage::changed(usage, change);
        *usage
    }

    fn end_forks(&mut self, container: &ContainerId) {
        let parents: Vec<_> =
            self.forks.range(ProcessRef::all_of(container)).map(|(id, _)| id.clone()).collect();
        let forks = parents.iter().filter_map(|parent| self.forks.remove(parent)).flatten();
        forks.for_each(|fork| fork.abort());
    }
}
