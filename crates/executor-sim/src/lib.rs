//! A scripted runtime: containers that are a few lines of memory, for tests of what is built on
//! `executor-core`, without root or an OCI runtime.
//!
//! A script says, for each program by its first argument, how its start goes and how long it lives.
//! What the actors asked of the runtime is recorded, and what is still alive can be asked for.
//!
//! ```
//! use std::time::Duration;
//! use executor_core::{ContainerSpec, Executor};
//! use executor_core::lifecycle::ExitStatus;
//! use executor_sim::{Program, SimRuntime};
//!
//! let runtime = SimRuntime::new().program("job", Program::exits(3));
//! let executor = Executor::builder(runtime).build().unwrap();
//! futures::executor::block_on(async {
//!     let container = executor.run(ContainerSpec::host(["job"])).await.unwrap();
//!     assert_eq!(container.wait().await.status, ExitStatus::Code(3));
//!     executor.shutdown(Duration::from_secs(1)).await;
//! });
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use executor_core::lifecycle::{
    ContainerId, Ending, ExecId, ExitStatus, HostPid, ProcessId, ProcessRef, Signal, StartFailure,
    StartFailureKind,
};
use executor_core::{
    BoxFuture, BoxStream, ChildStdio, ContainerSpec, Delivery, ExecSpec, ExitSource, Runtime, RuntimeError,
    Swept,
};
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};

/// How a program starts, lives and ends. The default starts at once and lives until it is killed.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Whether the runtime can start it.
    pub start: Start,
    /// How it ends by itself, if it does.
    pub ends: Option<(Duration, ExitStatus)>,
    /// Signals that do nothing to it.
    pub ignores: Vec<Signal>,
    /// How often SIGKILL cannot be delivered before it can.
    pub kill_refused: u32,
}

/// How a start goes.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// At once.
    #[default]
    Works,
    /// After a while.
    Slow(Duration),
    /// Not at all.
    Fails(StartFailure),
    /// The runtime hangs until it is given up.
    Hangs,
    /// The process ends before the runtime has said that it runs.
    EndsFirst(ExitStatus),
}

impl Program {
    /// One that exits at once with this code.
    pub fn exits(code: u8) -> Self {
        Self::runs(Duration::ZERO, code)
    }

    /// One that runs for a while and exits with this code.
    pub fn runs(time: Duration, code: u8) -> Self {
        Self { ends: Some((time, ExitStatus::Code(code))), ..Self::default() }
    }

    /// One that starts in this way and lives until it is killed.
    pub fn starts(start: Start) -> Self {
        Self { start, ..Self::default() }
    }

    /// The same, deaf to this signal.
    #[must_use]
    pub fn ignoring(mut self, signal: Signal) -> Self {
        self.ignores.push(signal);
        self
    }
}

/// What the actors asked of the runtime, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To make a bundle.
    Prepare(ContainerId),
    /// To start a process.
    Start(ProcessRef),
    /// To give a start up.
    Abandon(ProcessRef),
    /// To send a signal.
    Signal(ProcessRef, Signal),
    /// To kill a process.
    Kill(ProcessRef),
    /// To freeze a container.
    Pause(ContainerId),
    /// To thaw a container.
    Resume(ContainerId),
    /// To give everything back.
    Release(ContainerId),
}

/// The runtime. A clone is the same one, to script it and to ask it while an executor uses it.
#[derive(Clone)]
pub struct SimRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    exits: mpsc::UnboundedSender<(ProcessRef, Ending)>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<(ProcessRef, Ending)>>>,
}

#[derive(Default)]
struct State {
    programs: HashMap<String, Program>,
    init_programs: HashMap<ContainerId, Program>,
    alive: HashMap<ProcessRef, Alive>,
    abandoned: HashMap<ProcessRef, watch::Sender<bool>>,
    asked: Vec<Asked>,
    panics: Option<fn(&Asked) -> bool>,
    last_pid: u32,
}

impl State {
    fn ask(&mut self, asked: Asked) {
        self.asked.push(asked.clone());
        assert!(!self.panics.is_some_and(|panics| panics(&asked)), "the script says so: {asked:?}");
    }
}

struct Alive {
    pid: HostPid,
    program: Program,
}

impl Default for SimRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl SimRuntime {
    /// A runtime that knows no program yet: what it does not know is not found.
    pub fn new() -> Self {
        let (exits, receiver) = mpsc::unbounded_channel();
        Self {
            shared: Arc::new(Shared { state: Mutex::default(), exits, receiver: Mutex::new(Some(receiver)) }),
        }
    }

    /// The same, with a program of this name.
    #[must_use]
    pub fn program(self, name: impl Into<String>, program: Program) -> Self {
        self.state().programs.insert(name.into(), program);
        self
    }

    /// The same, with a bug: it panics when it is asked for what `when` says, and with it the actor
    /// that asks.
    #[must_use]
    pub fn panicking(self, when: fn(&Asked) -> bool) -> Self {
        self.state().panics = Some(when);
        self
    }

    /// What the actors asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// Processes that run now.
    pub fn alive(&self) -> Vec<ProcessRef> {
        let mut alive: Vec<_> = self.state().alive.keys().cloned().collect();
        alive.sort();
        alive
    }

    /// Ends a process that runs, as if it did so by itself. With init end all of the container, as
    /// with a pid namespace.
    pub fn end(&self, process: &ProcessRef, status: ExitStatus) -> Delivery {
        self.shared.end(process, status)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }

    fn start_process(
        &self,
        process: ProcessRef,
        program: Option<Program>,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let (abandon, mut abandoned) = watch::channel(false);
        let mut state = self.state();
        state.ask(Asked::Start(process.clone()));
        state.abandoned.insert(process.clone(), abandon);
        drop(state);
        let shared = Arc::clone(&self.shared);
        async move {
            let Some(program) = program else {
                return Err(StartFailure::new(StartFailureKind::NotFound, "no such program in the script"));
            };
            match &program.start {
                Start::Works | Start::EndsFirst(_) => {}
                Start::Slow(time) => tokio::time::sleep(*time).await,
                Start::Fails(failure) => return Err(failure.clone()),
                Start::Hangs => {
                    let _sender_gone = abandoned.wait_for(|abandoned| *abandoned).await;
                    return Err(StartFailure::new(StartFailureKind::RuntimeTimedOut, "given up"));
                }
            }
            Ok(shared.run(process, program))
        }
        .boxed()
    }
}

impl Shared {
    /// The process runs, and ends when its time is over or at once when its script says so.
    fn run(self: &Arc<Self>, process: ProcessRef, program: Program) -> HostPid {
        let mut state = lock(&self.state);
        state.abandoned.remove(&process);
        state.last_pid += 1;
        let pid = HostPid::new(state.last_pid).unwrap_or_else(|| unreachable!("pids count from 1"));
        let (ends, first) = (program.ends, program.start.clone());
        state.alive.insert(process.clone(), Alive { pid, program });
        drop(state);
        if let Start::EndsFirst(status) = first {
            self.end(&process, status);
        } else if let Some((after, status)) = ends {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                shared.end(&process, status);
            });
        }
        pid
    }

    fn end(&self, process: &ProcessRef, status: ExitStatus) -> Delivery {
        let mut state = lock(&self.state);
        if state.alive.remove(process).is_none() {
            return Delivery::Gone;
        }
        let mut ended = Vec::new();
        if process.process == ProcessId::Init {
            let others = state.alive.keys().filter(|other| other.container == process.container);
            ended.extend(others.cloned().map(|other| (other, ExitStatus::Signal(Signal::KILL))));
        }
        ended.iter().for_each(|(other, _)| drop(state.alive.remove(other)));
        drop(state);
        ended.push((process.clone(), status));
        for (process, status) in ended {
            let _executor_gone = self.exits.send((process, Ending::with(status)));
        }
        Delivery::Sent
    }
}

impl Runtime for SimRuntime {
    fn open(&self, _: &Path) -> Result<Vec<Swept>, RuntimeError> {
        Ok(Vec::new())
    }

    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, Result<(), StartFailure>> {
        let mut state = self.state();
        state.ask(Asked::Prepare(id.clone()));
        let program = spec.process.args.first().and_then(|name| state.programs.get(name)).cloned();
        if let Some(program) = program {
            state.init_programs.insert(id.clone(), program);
        }
        futures::future::ready(Ok(())).boxed()
    }

    fn start(&self, id: &ContainerId, _: ChildStdio) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let program = self.state().init_programs.get(id).cloned();
        self.start_process(ProcessRef::init(id.clone()), program)
    }

    fn exec(
        &self,
        id: &ContainerId,
        exec: ExecId,
        spec: ExecSpec,
        _: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let program = spec.args.first().and_then(|name| self.state().programs.get(name).cloned());
        self.start_process(ProcessRef::exec(id.clone(), exec), program)
    }

    fn abandon(&self, process: &ProcessRef) {
        let mut state = self.state();
        state.ask(Asked::Abandon(process.clone()));
        if let Some(abandon) = state.abandoned.get(process) {
            abandon.send_replace(true);
        }
    }

    fn signal(&self, process: &ProcessRef, signal: Signal) -> Result<Delivery, RuntimeError> {
        let mut state = self.state();
        state.ask(Asked::Signal(process.clone(), signal));
        let Some(alive) = state.alive.get(process) else { return Ok(Delivery::Gone) };
        if alive.program.ignores.contains(&signal) {
            return Ok(Delivery::Sent);
        }
        drop(state);
        Ok(self.shared.end(process, ExitStatus::Signal(signal)))
    }

    fn kill(&self, process: &ProcessRef) -> Result<Delivery, RuntimeError> {
        let mut state = self.state();
        state.ask(Asked::Kill(process.clone()));
        if let Some(alive) = state.alive.get_mut(process)
            && alive.program.kill_refused > 0
        {
            alive.program.kill_refused -= 1;
            return Err(RuntimeError::new("kill", "refused by the script").of(process));
        }
        drop(state);
        Ok(self.shared.end(process, ExitStatus::Signal(Signal::KILL)))
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        self.state().ask(Asked::Pause(id.clone()));
        futures::future::ready(Ok(())).boxed()
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        self.state().ask(Asked::Resume(id.clone()));
        futures::future::ready(Ok(())).boxed()
    }

    fn processes(&self, id: &ContainerId) -> BoxFuture<'static, Result<Vec<HostPid>, RuntimeError>> {
        let state = self.state();
        let alive = state.alive.iter().filter(|(process, _)| process.container == *id);
        let mut pids: Vec<_> = alive.map(|(_, alive)| alive.pid).collect();
        pids.sort();
        futures::future::ready(Ok(pids)).boxed()
    }

    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<String>> {
        let mut state = self.state();
        state.ask(Asked::Release(id.clone()));
        state.alive.retain(|process, _| process.container != *id);
        state.init_programs.remove(id);
        futures::future::ready(Vec::new()).boxed()
    }

    fn close(&self) -> Vec<String> {
        self.state().alive.clear();
        Vec::new()
    }
}

impl ExitSource for SimRuntime {
    fn exits(&self) -> BoxStream<'static, (ProcessRef, Ending)> {
        let receiver = lock(&self.shared.receiver).take();
        futures::stream::unfold(receiver, |receiver| async move {
            let mut receiver = receiver?;
            let exit = receiver.recv().await?;
            Some((exit, Some(receiver)))
        })
        .boxed()
    }
}

/// Nothing is left half changed under any of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
