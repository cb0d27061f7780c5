//! The processes that run: what they do as time goes by, what signals do to them, and their ends.

mod act;
mod signal;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessId, ProcessRef, RawExit, Signal};
use executor_core::{ChildStdio, Delivery, ExitQueue};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::lock;
use crate::program::{Program, Step, Trap};
use crate::simulation::Dice;
use crate::timeline::{Timeline, What};

/// What a round of a program's loop takes at least: time must go on.
const ROUND: Duration = Duration::from_millis(1);

/// All processes of one simulated runtime.
pub(crate) struct Processes {
    table: Mutex<Table>,
    exits: ExitQueue,
    dice: Arc<Dice>,
    timeline: Timeline,
}

#[derive(Default)]
struct Table {
    alive: BTreeMap<ProcessRef, Alive>,
    /// Children that were left behind, by the process that forked them.
    forks: BTreeMap<ProcessRef, Vec<AbortHandle>>,
    frozen: BTreeMap<ContainerId, watch::Sender<bool>>,
    last_pid: u32,
}

struct Alive {
    pid: HostPid,
    stdio: ChildStdio,
    traps: BTreeMap<Signal, Trap>,
    kill_refused: u32,
    /// What it is to do, until it is begun.
    program: Option<Vec<Step>>,
    /// It was killed while it was frozen, and ends when it is thawed.
    is_doomed: bool,
    tasks: Vec<AbortHandle>,
    /// Dropped with the process.
    _ended: oneshot::Sender<()>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Processes {
    pub(crate) fn new(exits: ExitQueue, dice: Arc<Dice>, timeline: Timeline) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), exits, dice, timeline })
    }

    /// Starts a process; what comes back beside its pid resolves when it has ended.
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

    /// The same, with the program still to be executed.
    pub(crate) fn create(
        &self,
        process: &ProcessRef,
        program: Program,
        stdio: ChildStdio,
    ) -> (HostPid, oneshot::Receiver<()>) {
        let (ended, until_ended) = oneshot::channel();
        let mut table = lock(&self.table);
        table.last_pid += 1;
        #[expect(clippy::expect_used, reason = "they count from 1")]
        let pid = HostPid::new(table.last_pid).expect("a pid");
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

    /// Executes the program of a process; `false` when the process has ended.
    pub(crate) fn begin(self: &Arc<Self>, process: &ProcessRef) -> bool {
        let mut table = lock(&self.table);
        let Some(alive) = table.alive.get_mut(process) else { return false };
        let Some(mut steps) = alive.program.take() else { return false };
        // What a program arranges first is arranged before anything can signal it.
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

    /// Ends what processes of a container have left behind.
    pub(crate) fn end_rest(&self, container: &ContainerId) {
        lock(&self.table).end_forks(container);
    }

    /// Ends a process, and with init all of its container.
    pub(crate) fn end(&self, process: &ProcessRef, ending: RawExit) -> Delivery {
        let mut table = lock(&self.table);
        if table.alive.remove(process).is_none() {
            return Delivery::Gone;
        }
        let mut ended = Vec::new();
        if process.process == ProcessId::Init {
            let others = table.alive.range(ProcessRef::all_of(&process.container));
            ended.extend(
                others.map(|(other, _)| (other.clone(), RawExit::with(ExitStatus::Signal(Signal::KILL)))),
            );
            ended.iter().for_each(|(other, _)| drop(table.alive.remove(other)));
            table.end_forks(&process.container);
        }
        drop(table);
        ended.push((process.clone(), ending));
        ended.into_iter().for_each(|(process, ending)| self.report(process, ending));
        Delivery::Sent
    }

    fn report(&self, process: ProcessRef, ending: RawExit) {
        self.timeline.push(What::Ended(process.clone(), ending.clone()));
        let exits = self.exits.clone();
        match self.dice.delay() {
            None => exits.tell(process, ending),
            Some(delay) => drop(tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                exits.tell(process, ending);
            })),
        }
    }

    /// Ends everything in a container, without a word: it is being released.
    pub(crate) fn remove(&self, container: &ContainerId) {
        let mut table = lock(&self.table);
        let alive: Vec<_> =
            table.alive.range(ProcessRef::all_of(container)).map(|(id, _)| id.clone()).collect();
        alive.iter().for_each(|process| drop(table.alive.remove(process)));
        table.end_forks(container);
        table.frozen.remove(container);
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
    fn end_forks(&mut self, container: &ContainerId) {
        let parents: Vec<_> =
            self.forks.range(ProcessRef::all_of(container)).map(|(id, _)| id.clone()).collect();
        let forks = parents.iter().filter_map(|parent| self.forks.remove(parent)).flatten();
        forks.for_each(|fork| fork.abort());
    }
}
