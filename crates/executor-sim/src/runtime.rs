//! The two ports of `executor-core`, on memory instead of an operating system.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use executor_core::lifecycle::{
    ContainerId, ExecId, ExitStatus, HostPid, ProcessRef, RawExit, Signal, SignalScope, StartFailure,
    StartFailureKind, TerminalSize,
};
use executor_core::{
    BoxFuture, BoxStream, ChildStdio, ContainerSpec, Delivery, ExecSpec, ExitQueue, ExitSource, Runtime,
    RuntimeError, Swept,
};
use futures::FutureExt;
use tokio::sync::watch;

use crate::processes::Processes;
use crate::program::{Program, StartTrouble, Troubles};
use crate::simulation::{Dice, HANG};
use crate::timeline::{Asked, Timeline, What};
use crate::{lock, shell};

/// The runtime. A clone is the same one, to script it and to ask it while an executor uses it.
///
/// It knows `sh -c`, `sleep`, `echo`, `cat`, `true` and `false` by itself, as far as they are needed in
/// tests; every other program has to be scripted, or is not found.
#[derive(Clone)]
pub struct SimRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    processes: Arc<Processes>,
    dice: Arc<Dice>,
    timeline: Timeline,
    exits: ExitQueue,
}

#[derive(Default)]
struct State {
    programs: HashMap<String, Program>,
    containers: HashMap<ContainerId, Bundle>,
    /// Streams of containers that were created and not started.
    created: HashMap<ContainerId, ChildStdio>,
    starting: HashMap<ProcessRef, watch::Sender<bool>>,
    panics: Option<fn(&Asked) -> bool>,
}

const NO_PROGRAM: &str = "no such program in the script";

/// What `prepare` makes.
#[derive(Clone, Default)]
struct Bundle {
    /// What init is to run; nothing when it is not found.
    program: Option<Program>,
    env: BTreeMap<String, String>,
}

impl Default for SimRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl SimRuntime {
    /// A runtime that knows no program but its shell's.
    pub fn new() -> Self {
        let (exits, dice, timeline) = (ExitQueue::default(), Arc::new(Dice::default()), Timeline::default());
        let processes = Processes::new(exits.clone(), Arc::clone(&dice), timeline.clone());
        let shared = Shared { state: Mutex::default(), processes, dice, timeline, exits };
        Self { shared: Arc::new(shared) }
    }

    /// The same, with a program of this name.
    #[must_use]
    pub fn program(self, name: impl Into<String>, program: Program) -> Self {
        lock(&self.shared.state).programs.insert(name.into(), program);
        self
    }

    /// The same, with a bug: it panics when it is asked for what `when` says, and with it the actor
    /// that asks.
    #[must_use]
    pub fn panicking(self, when: fn(&Asked) -> bool) -> Self {
        lock(&self.shared.state).panics = Some(when);
        self
    }

    /// Everything that happened so far.
    pub fn timeline(&self) -> &Timeline {
        &self.shared.timeline
    }

    /// What the actors asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.timeline.asked()
    }

    /// Processes that run now.
    pub fn alive(&self) -> Vec<ProcessRef> {
        self.shared.processes.alive()
    }

    /// Ends a process that runs, as if it did so by itself. With init end all of the container, as
    /// with a pid namespace.
    pub fn end(&self, process: &ProcessRef, status: ExitStatus) -> Delivery {
        self.shared.processes.end(process, RawExit::with(status))
    }

    pub(crate) fn dice(&self) -> &Arc<Dice> {
        &self.shared.dice
    }

    fn ask(&self, asked: Asked) {
        let panics = lock(&self.shared.state).panics;
        self.shared.timeline.push(What::Asked(asked.clone()));
        assert!(!panics.is_some_and(|panics| panics(&asked)), "the script says so: {asked:?}");
    }

    fn find(&self, args: &[String], env: &BTreeMap<String, String>) -> Option<Program> {
        let scripted = args.first().and_then(|name| lock(&self.shared.state).programs.get(name).cloned());
        scripted.or_else(|| shell::program(args, env))
    }

    fn bundle(&self, container: &ContainerId) -> Bundle {
        lock(&self.shared.state).containers.get(container).cloned().unwrap_or_default()
    }

    fn start_process(
        &self,
        process: ProcessRef,
        program: Option<Program>,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        self.ask(Asked::Start(process.clone()));
        let (abandon, abandoned) = watch::channel(false);
        lock(&self.shared.state).starting.insert(process.clone(), abandon);
        let shared = Arc::clone(&self.shared);
        async move {
            let answer = shared.start(&process, program, stdio, abandoned).await;
            lock(&shared.state).starting.remove(&process);
            answer
        }
        .boxed()
    }

    fn freeze(&self, id: &ContainerId, frozen: bool) -> BoxFuture<'static, Result<(), RuntimeError>> {
        let fails = frozen && self.bundle(id).program.is_some_and(|program| program.troubles.pause_fails);
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            shared.dice.take_time().await;
            if fails || shared.dice.goes_wrong() {
                return Err(
                    RuntimeError::new(if frozen { "pause" } else { "resume" }, "the script says so").of(id)
                );
            }
            shared.processes.freeze(&id, frozen);
            Ok(())
        }
        .boxed()
    }
}

impl Shared {
    async fn start(
        &self,
        process: &ProcessRef,
        program: Option<Program>,
        stdio: ChildStdio,
        mut abandoned: watch::Receiver<bool>,
    ) -> Result<HostPid, StartFailure> {
        let failure = |kind, message: &str| Err(StartFailure::new(kind, message));
        let given_up = || failure(StartFailureKind::RuntimeTimedOut, "the runtime was given up");
        let Some(mut program) = program else {
            return failure(StartFailureKind::NotFound, NO_PROGRAM);
        };
        self.dice.start_faults().into_iter().for_each(|fault| program.troubles.add(fault));
        self.dice.take_time().await;
        let mut ends_first = false;
        for trouble in std::mem::take(&mut program.troubles.start) {
            match trouble {
                StartTrouble::Slow(time) => tokio::select! {
                    biased;
                    () = tokio::time::sleep(time) => {}
                    _ = abandoned.wait_for(|abandoned| *abandoned) => return given_up(),
                },
                StartTrouble::Fails(failure) => return Err(failure),
                StartTrouble::Hangs => {
                    let _sender_gone = abandoned.wait_for(|abandoned| *abandoned).await;
                    return given_up();
                }
                StartTrouble::EndsFirst => ends_first = true,
            }
        }
        let (pid, ended) = self.processes.start(process, program, stdio);
        if ends_first {
            // A runtime that is given up ends what it has started; one that says nothing is not for ever.
            tokio::select! {
                biased;
                _ = ended => {}
                () = tokio::time::sleep(HANG) => {}
                _ = abandoned.wait_for(|abandoned| *abandoned) => drop(self.processes.kill(process)),
            }
        }
        self.dice.take_time().await;
        Ok(pid)
    }
}

impl Runtime for SimRuntime {
    fn open(&self, _: &Path) -> Result<Vec<Swept>, RuntimeError> {
        self.shared.timeline.begin();
        Ok(Vec::new())
    }

    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, Result<(), StartFailure>> {
        self.ask(Asked::Prepare(id.clone()));
        let env = spec.process.env.iter().cloned().collect();
        let program = self.find(&spec.process.args, &env);
        let failure = program.as_ref().and_then(|program| program.troubles.prepare.clone());
        lock(&self.shared.state).containers.insert(id.clone(), Bundle { program, env });
        let dice = Arc::clone(&self.shared.dice);
        async move {
            dice.take_time().await;
            let fault =
                dice.goes_wrong().then(|| StartFailure::new(StartFailureKind::NoResources, "no space left"));
            failure.or(fault).map_or(Ok(()), Err)
        }
        .boxed()
    }

    fn start(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let program = self.bundle(id).program;
        let stdio = lock(&self.shared.state).created.remove(id).unwrap_or(stdio);
        self.start_process(ProcessRef::init(id.clone()), program, stdio)
    }

    fn create(&self, id: &ContainerId, stdio: ChildStdio) -> BoxFuture<'static, Result<(), StartFailure>> {
        self.ask(Asked::Create(id.clone()));
        let has_program = self.bundle(id).program.is_some();
        lock(&self.shared.state).created.insert(id.clone(), stdio);
        let dice = Arc::clone(&self.shared.dice);
        async move {
            dice.take_time().await;
            // As of a runtime that looks for the program before it asks to be started.
            match (has_program, dice.goes_wrong()) {
                (false, _) => Err(StartFailure::new(StartFailureKind::NotFound, NO_PROGRAM)),
                (true, true) => Err(StartFailure::new(StartFailureKind::RuntimeBroken, "the seed says so")),
                (true, false) => Ok(()),
            }
        }
        .boxed()
    }

    fn exec(
        &self,
        id: &ContainerId,
        exec: ExecId,
        spec: ExecSpec,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let mut env = self.bundle(id).env;
        env.extend(spec.env);
        self.start_process(ProcessRef::exec(id.clone(), exec), self.find(&spec.args, &env), stdio)
    }

    fn abandon(&self, process: &ProcessRef) {
        self.ask(Asked::Abandon(process.clone()));
        if let Some(abandon) = lock(&self.shared.state).starting.get(process) {
            abandon.send_replace(true);
        }
    }

    fn signal(
        &self,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> Result<Delivery, RuntimeError> {
        self.ask(Asked::Signal(process.clone(), signal, scope));
        Ok(self.shared.processes.signal_all(process, signal, scope))
    }

    fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<(), RuntimeError> {
        self.ask(Asked::Resize(process.clone(), size));
        Ok(())
    }

    fn kill(&self, process: &ProcessRef) -> Result<Delivery, RuntimeError> {
        self.ask(Asked::Kill(process.clone()));
        let refused = || RuntimeError::new("kill", "the script says so").of(process);
        self.shared.processes.kill(process).ok_or_else(refused)
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        self.ask(Asked::Pause(id.clone()));
        self.freeze(id, true)
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        self.ask(Asked::Resume(id.clone()));
        self.freeze(id, false)
    }

    fn processes(&self, id: &ContainerId) -> BoxFuture<'static, Result<Vec<HostPid>, RuntimeError>> {
        futures::future::ready(Ok(self.shared.processes.pids(id))).boxed()
    }

    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<String>> {
        self.ask(Asked::Release(id.clone()));
        let mut state = lock(&self.shared.state);
        state.created.remove(id);
        let bundle = state.containers.remove(id).unwrap_or_default();
        drop(state);
        let Troubles { release_busy, release_leaves, .. } = bundle.program.unwrap_or_default().troubles;
        self.shared.processes.remove(id);
        let dice = Arc::clone(&self.shared.dice);
        async move {
            dice.take_time().await;
            if !release_busy.is_zero() {
                tokio::time::sleep(release_busy).await;
            }
            release_leaves
        }
        .boxed()
    }

    fn close(&self) -> Vec<String> {
        self.shared.processes.remove_all();
        Vec::new()
    }
}

impl ExitSource for SimRuntime {
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        self.shared.exits.take()
    }
}
