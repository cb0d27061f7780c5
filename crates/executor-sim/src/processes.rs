//! The processes that run: what they do as time goes by, what signals do to them, and their ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor_core::lifecycle::{
    ContainerId, ExitStatus, HostPid, ProcessId, ProcessRef, RawExit, Signal, SignalScope, Usage,
};
use executor_core::{BoxFuture, ChildFd, ChildStdio, Delivery, ExitQueue, Kill};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
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

    /// Has a process do something, after which it ends in this way if it has not before.
    fn run(
        self: &Arc<Self>,
        process: &ProcessRef,
        stdio: ChildStdio,
        steps: Vec<Step>,
        then: Option<RawExit>,
    ) {
        let (processes, doer) = (Arc::clone(self), process.clone());
        let task = tokio::spawn(async move {
            let ending = processes.act(&doer, &stdio, &steps).await;
            drop(stdio);
            if let Some(ending) = ending.or(then) {
                processes.end(&doer, ending);
            }
        });
        if let Some(alive) = lock(&self.table).alive.get_mut(process) {
            alive.tasks.push(task.abort_handle());
        }
    }

    fn act<'a>(
        self: &'a Arc<Self>,
        process: &'a ProcessRef,
        stdio: &'a ChildStdio,
        steps: &'a [Step],
    ) -> BoxFuture<'a, Option<RawExit>> {
        async move {
            for step in steps {
                match step {
                    Step::Sleep(time) => tokio::time::sleep(*time).await,
                    Step::Forever => std::future::pending().await,
                    Step::Stdout(text) => write(&stdio.stdout, text).await,
                    Step::Stderr(text) => write(&stdio.stderr, text).await,
                    Step::CopyStdin => copy(&stdio.stdin, &stdio.stdout).await,
                    Step::Trap(signal, trap) => {
                        if let Some(alive) = lock(&self.table).alive.get_mut(process) {
                            alive.traps.insert(*signal, trap.clone());
                        }
                    }
                    Step::Fork(time) => self.fork(process, stdio.clone(), *time),
                    Step::Repeat(steps) => loop {
                        if let Some(ending) = self.act(process, stdio, steps).await {
                            return Some(ending);
                        }
                        tokio::time::sleep(ROUND).await;
                    },
                    Step::Exit(code) => return Some(RawExit::with(ExitStatus::Code(*code))),
                    Step::Die(signal) => {
                        self.signal(process, *signal);
                        tokio::task::yield_now().await;
                    }
                    Step::OutOfMemory => {
                        let usage = Some(Box::new(Usage { oom_kills: 1, ..Usage::default() }));
                        return Some(RawExit { status: ExitStatus::Signal(Signal::KILL), usage });
                    }
                }
                self.thawed(&process.container).await;
            }
            None
        }
        .boxed()
    }

    fn fork(self: &Arc<Self>, process: &ProcessRef, stdio: ChildStdio, time: Duration) {
        let child = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            drop(stdio);
        });
        lock(&self.table).forks.entry(process.clone()).or_default().push(child.abort_handle());
    }

    /// Waits while the container is frozen.
    async fn thawed(&self, container: &ContainerId) {
        let frozen = lock(&self.table).frozen.get(container).map(watch::Sender::subscribe);
        if let Some(mut frozen) = frozen {
            let _released = frozen.wait_for(|frozen| !frozen).await;
        }
    }

    /// Freezes or thaws a container. What was killed while it was frozen ends when it is thawed.
    pub(crate) fn freeze(&self, container: &ContainerId, frozen: bool) {
        let mut table = lock(&self.table);
        table
            .frozen
            .entry(container.clone())
            .or_insert_with(|| watch::Sender::new(false))
            .send_replace(frozen);
        let all = table.alive.range(ProcessRef::all_of(container));
        let doomed: Vec<_> =
            all.filter(|(_, alive)| alive.is_doomed && !frozen).map(|(id, _)| id.clone()).collect();
        drop(table);
        for process in doomed {
            self.end(&process, RawExit::with(ExitStatus::Signal(Signal::KILL)));
        }
    }

    /// A signal to more than one: what a process forked, or everything in the container.
    pub(crate) fn signal_all(
        self: &Arc<Self>,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> Delivery {
        match scope {
            SignalScope::Process => self.signal(process, signal),
            SignalScope::Group => {
                let forks = lock(&self.table).forks.remove(process);
                forks.into_iter().flatten().for_each(|fork| fork.abort());
                self.signal(process, signal)
            }
            SignalScope::Container => {
                // Init last: with it would end all others, and nobody could be signalled.
                let all = self.alive().into_iter().filter(|other| other.container == process.container);
                let all: Vec<_> = all.collect();
                let delivery = if all.is_empty() { Delivery::Gone } else { Delivery::Sent };
                for process in all.iter().rev() {
                    self.signal(process, signal);
                }
                delivery
            }
        }
    }

    /// As the kernel does it: init takes no signal from a parent pid namespace that it has not asked
    /// for, but SIGKILL.
    pub(crate) fn signal(self: &Arc<Self>, process: &ProcessRef, signal: Signal) -> Delivery {
        let table = lock(&self.table);
        let Some(alive) = table.alive.get(process) else { return Delivery::Gone };
        let harmless = ["CHLD", "CONT", "URG", "WINCH"].iter().any(|name| signal.to_string().ends_with(name));
        let trap = if signal == Signal::KILL { None } else { alive.traps.get(&signal).cloned() };
        let stdio = alive.stdio.clone();
        drop(table);
        match trap {
            Some(Trap::Ignore) => {}
            Some(Trap::Run(steps)) => self.run(process, stdio, steps, None),
            None if signal == Signal::KILL && self.is_frozen(process) => {
                if let Some(alive) = lock(&self.table).alive.get_mut(process) {
                    alive.is_doomed = true;
                }
            }
            None if signal == Signal::KILL || (process.process != ProcessId::Init && !harmless) => {
                self.end(process, RawExit::with(ExitStatus::Signal(signal)));
            }
            None => {}
        }
        Delivery::Sent
    }

    fn is_frozen(&self, process: &ProcessRef) -> bool {
        lock(&self.table).frozen.get(&process.container).is_some_and(|frozen| *frozen.borrow())
    }

    /// Kills a process with its process group. `None`: this time it cannot be done. What is frozen dies once it is
    /// thawed, so it is as with a kill that comes again.
    pub(crate) fn kill(&self, process: &ProcessRef, how: Kill) -> Option<Delivery> {
        let mut table = lock(&self.table);
        if let Some(alive) = table.alive.get_mut(process)
            && alive.kill_refused > 0
        {
            alive.kill_refused -= 1;
            return None;
        }
        table.forks.remove(process).into_iter().flatten().for_each(|fork| fork.abort());
        let is_frozen = match table.frozen.get(&process.container) {
            Some(frozen) if how.thaw => {
                frozen.send_replace(false);
                false
            }
            Some(frozen) => *frozen.borrow(),
            None => false,
        };
        if is_frozen {
            if let Some(alive) = table.alive.get_mut(process) {
                alive.is_doomed = true;
            }
            return Some(Delivery::Sent);
        }
        drop(table);
        if how.everything {
            self.end_rest(&process.container);
        }
        Some(self.end(process, RawExit::with(ExitStatus::Signal(Signal::KILL))))
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

/// What nobody reads any more is lost, as with EPIPE ignored.
async fn write(to: &ChildFd, text: &[u8]) {
    match to {
        ChildFd::Null => {}
        ChildFd::Inherit => drop(std::io::stdout().write_all(text)),
        ChildFd::Fd(fd) => match opened(fd, pipe::Sender::from_owned_fd) {
            Ok(mut pipe) => drop(pipe.write_all(text).await),
            Err(file) => drop(file.map(|mut file| file.write_all(text))),
        },
    }
}

async fn copy(from: &ChildFd, to: &ChildFd) {
    let ChildFd::Fd(fd) = from else { return };
    let mut chunk = vec![0; 64 << 10];
    match opened(fd, pipe::Receiver::from_owned_fd) {
        Ok(mut pipe) => {
            while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
                write(to, &chunk[..read]).await;
            }
        }
        Err(file) => {
            let mut text = Vec::new();
            drop(file.map(|mut file| std::io::Read::read_to_end(&mut file, &mut text)));
            write(to, &text).await;
        }
    }
}

/// An end of a pipe, or a file that is none.
fn opened<P>(
    fd: &Arc<OwnedFd>,
    pipe: impl FnOnce(OwnedFd) -> std::io::Result<P>,
) -> Result<P, std::io::Result<File>> {
    let duplicate = || fd.try_clone();
    duplicate().and_then(pipe).map_err(|_| duplicate().map(File::from))
}
