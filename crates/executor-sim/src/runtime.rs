//! The simulated runtime: the ports `Runtime` and `ExitSource`, in memory.

mod kept;
mod start;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use executor_core::lifecycle::{
    ContainerId, ExecId, ExitStatus, HostPid, Leftover, OomKill, ProcessId, ProcessRef, RawExit, Signal,
    SignalScope, StartFailure, StartFailureKind, TerminalSize, Usage,
};
use executor_core::{
    BoxFuture, BoxStream, ChildStdio, ContainerSpec, Delivery, ExecSpec, ExitQueue, ExitSource, Kept, Kill,
    Resources, Runtime, RuntimeError, StreamKind, Swept,
};
use futures::{FutureExt, future};
use tokio::sync::watch;

use self::start::Until;
use crate::limits::merge;
use crate::processes::Processes;
use crate::program::{Program, Troubles};
use crate::simulation::Dice;
use crate::timeline::{Request, Timeline, What};
use crate::{lock, shell};

/// A simulated runtime. A clone shares its state: keep one to script the runtime and to look at it while an executor uses
/// the other.
///
/// It knows `sh -c`, `sleep`, `echo`, `cat`, `true` and `false`, as far as tests need them. A script may have loops
/// (`for i in 1 2 3; do …; done`, `while :; do …; done`), variables, `&&` and `||`, `trap` and `exit`. If it has something
/// else, the start fails and says what is not supported. Every other program has to be scripted with
/// [`program`](Self::program); if it is not, the start fails as not found.
pub struct SimRuntime {
    shared: Arc<Shared>,
    /// Which of the executors that have used the runtime uses this clone.
    incarnation: OnceLock<u64>,
}

/// The clone is not used by an executor yet.
impl Clone for SimRuntime {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), incarnation: OnceLock::new() }
    }
}

struct Shared {
    state: Mutex<State>,
    processes: Arc<Processes>,
    dice: Arc<Dice>,
    timeline: Timeline,
    /// The number of the executor that uses it. It changes when an executor crashes, and when another begins.
    incarnation: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// The scripted programs by their names.
    programs: HashMap<String, Program>,
    containers: HashMap<ContainerId, Bundle>,
    /// The starts that can be abandoned.
    starting: HashMap<ProcessRef, watch::Sender<bool>>,
    /// When the runtime panics.
    panics: Option<fn(&Request) -> bool>,
    /// What executors that are kept have recorded, by their names.
    ledgers: HashMap<String, kept::Lines>,
    held: kept::Held,
    /// The name of the executor that lives, if it is kept.
    open: Option<String>,
}

const NO_PROGRAM: &str = "the simulated runtime has no program of this name; add it with SimRuntime::program";

/// The cause of a failure that a fault or the seed has caused.
const SCRIPTED: &str = "a simulated fault";

/// What `prepare` makes for a container.
#[derive(Clone)]
struct Bundle {
    /// The program of init, or why there is none.
    program: Result<Program, StartFailure>,
    env: BTreeMap<String, String>,
    limits: Resources,
    spec: Option<Arc<ContainerSpec>>,
}

impl Default for Bundle {
    fn default() -> Self {
        let (env, limits) = (BTreeMap::new(), Resources::default());
        Self { program: Err(no_program()), env, limits, spec: None }
    }
}

fn no_program() -> StartFailure {
    StartFailure::new(StartFailureKind::NotFound, NO_PROGRAM)
}

impl Default for SimRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl SimRuntime {
    /// A runtime without scripted programs.
    pub fn new() -> Self {
        let (exits, dice, timeline) = (ExitQueue::default(), Arc::new(Dice::default()), Timeline::default());
        let processes = Processes::new(exits, Arc::clone(&dice), timeline.clone());
        let incarnation = watch::Sender::new(0);
        let shared = Shared { state: Mutex::default(), processes, dice, timeline, incarnation };
        Self { shared: Arc::new(shared), incarnation: OnceLock::new() }
    }

    /// Adds a program of this name. It is found by the first argument of a process.
    #[must_use]
    pub fn program(self, name: impl Into<String>, program: Program) -> Self {
        lock(&self.shared.state).programs.insert(name.into(), program);
        self
    }

    /// Adds a bug: when the runtime is asked for something that `when` returns true for, it panics, and so does the actor
    /// that asks.
    #[must_use]
    pub fn panicking(self, when: fn(&Request) -> bool) -> Self {
        lock(&self.shared.state).panics = Some(when);
        self
    }

    /// Everything that happened so far.
    pub fn timeline(&self) -> &Timeline {
        &self.shared.timeline
    }

    /// What the actors have asked the runtime for so far.
    pub fn asked(&self) -> Vec<Request> {
        self.shared.timeline.asked()
    }

    /// The processes that exist now, those that are only created included.
    pub fn alive(&self) -> Vec<ProcessRef> {
        self.shared.processes.alive()
    }

    /// Sets the resources that a container has used, from now on. The same as [`Program::uses`], from outside the program.
    /// Does nothing if the container has no processes.
    pub fn set_usage(&self, container: &ContainerId, usage: &Usage) {
        self.shared.processes.set_usage(container, usage);
    }

    /// The limits of a container, as its specification and its updates have set them. `None` before it is prepared and
    /// after it is released. They are recorded, and limit nothing.
    pub fn limits(&self, container: &ContainerId) -> Option<Resources> {
        lock(&self.shared.state).containers.get(container).map(|bundle| bundle.limits.clone())
    }

    /// Ends a process as if it ended by itself. With init, all processes of the container end, as with a pid namespace.
    pub fn end(&self, process: &ProcessRef, status: ExitStatus) -> Delivery {
        self.shared.processes.end(process, RawExit::with(status))
    }

    pub(crate) fn dice(&self) -> &Arc<Dice> {
        &self.shared.dice
    }

    /// `false` if the executor that asks has crashed.
    #[must_use]
    fn ask(&self, asked: Request) -> bool {
        if !self.is_current() {
            return false;
        }
        let panics = lock(&self.shared.state).panics;
        self.shared.timeline.push(What::Request(asked.clone()));
        assert!(!panics.is_some_and(|panics| panics(&asked)), "a scripted panic: {asked:?}");
        true
    }

    /// The program that these arguments name.
    fn find(&self, args: &[String], env: &BTreeMap<String, String>) -> Result<Program, StartFailure> {
        let scripted = |name: &str| lock(&self.shared.state).programs.get(name).cloned();
        if let Some(program) = args.first().and_then(|name| scripted(name)) {
            return Ok(program);
        }
        let is_scripted = |name: &str| scripted(name).is_some();
        shell::program(args, env, &is_scripted).unwrap_or_else(|| Err(no_program()))
    }

    fn bundle(&self, container: &ContainerId) -> Bundle {
        lock(&self.shared.state).containers.get(container).cloned().unwrap_or_default()
    }

    fn freeze(&self, id: &ContainerId, frozen: bool) -> BoxFuture<'static, Result<(), RuntimeError>> {
        let fails = frozen && self.bundle(id).program.is_ok_and(|program| program.troubles.pause_fails);
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        let freeze = async move {
            shared.dice.take_time().await;
            if fails || shared.dice.goes_wrong() {
                let op = if frozen { "pause" } else { "resume" };
                return Err(RuntimeError::failed(op, id, SCRIPTED));
            }
            shared.processes.freeze(&id, frozen);
            Ok(())
        };
        self.while_current(freeze)
    }
}

impl Runtime for SimRuntime {
    fn open(&self, _: &Path) -> Result<Vec<Swept>, RuntimeError> {
        self.begin_incarnation();
        self.shared.timeline.begin();
        Ok(Vec::new())
    }

    fn open_kept(&self, _: &Path, name: &str) -> Result<Kept, RuntimeError> {
        self.open_as_kept(name)
    }

    fn adopt(&self, id: &ContainerId, processes: Vec<(ProcessId, HostPid)>) {
        self.adopt_kept(id, &processes);
    }

    fn hold(&self, process: &ProcessRef, stream: StreamKind, end: BorrowedFd<'_>) {
        self.hold_end(process, stream, end);
    }

    fn unhold(&self, process: &ProcessRef, stream: StreamKind) {
        lock(&self.shared.state).held.remove(&(process.clone(), stream));
    }

    /// From now on it is nobody's, until another executor opens it.
    fn detach(&self) {
        if self.is_current() {
            self.crash();
        }
    }

    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, Result<(), StartFailure>> {
        if !self.ask(Request::Prepare(id.clone())) {
            return kept::fenced();
        }
        let env = spec.process.env.iter().cloned().collect();
        let limits = spec.resources.clone();
        let program = self.find(&spec.process.args, &env);
        let failure = program.as_ref().ok().and_then(|program| program.troubles.prepare.clone());
        let bundle = Bundle { program, env, limits, spec: Some(spec) };
        lock(&self.shared.state).containers.insert(id.clone(), bundle);
        let dice = Arc::clone(&self.shared.dice);
        self.while_current(async move {
            dice.take_time().await;
            let fault =
                dice.goes_wrong().then(|| StartFailure::new(StartFailureKind::NoResources, "no space left"));
            failure.or(fault).map_or(Ok(()), Err)
        })
    }

    fn create(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        if !self.ask(Request::Create(id.clone())) {
            return kept::fenced();
        }
        self.start_process(ProcessRef::init(id.clone()), self.bundle(id).program, stdio, Until::Created)
    }

    fn start(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), StartFailure>> {
        let process = ProcessRef::init(id.clone());
        if !self.ask(Request::Start(process.clone())) {
            return kept::fenced();
        }
        let (shared, mut abandoned) = (Arc::clone(&self.shared), self.may_be_abandoned(&process));
        self.while_current(async move {
            tokio::select! {
                biased;
                () = shared.dice.take_time() => {}
                _ = abandoned.wait_for(|abandoned| *abandoned) => {}
            }
            lock(&shared.state).starting.remove(&process);
            if !shared.processes.begin(&process) {
                let message = "the container has ended before its start";
                return Err(StartFailure::new(StartFailureKind::ContainerGone, message));
            }
            Ok(())
        })
    }

    fn run(&self, id: &ContainerId, stdio: ChildStdio) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let process = ProcessRef::init(id.clone());
        if !self.ask(Request::Start(process.clone())) {
            return kept::fenced();
        }
        self.start_process(process, self.bundle(id).program, stdio, Until::Runs)
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
        let process = ProcessRef::exec(id.clone(), exec);
        if !self.ask(Request::Start(process.clone())) {
            return kept::fenced();
        }
        self.start_process(process, self.find(&spec.args, &env), stdio, Until::Runs)
    }

    fn abandon(&self, process: &ProcessRef) {
        if !self.ask(Request::Abandon(process.clone())) {
            return;
        }
        if let Some(abandon) = lock(&self.shared.state).starting.get(process) {
            abandon.send_replace(true);
        }
    }

    fn signal(
        &self,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> BoxFuture<'static, Result<Delivery, RuntimeError>> {
        if !self.ask(Request::Signal(process.clone(), signal, scope)) {
            return kept::fenced();
        }
        future::ready(Ok(self.shared.processes.signal_all(process, signal, scope))).boxed()
    }

    fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<(), RuntimeError> {
        let _has_crashed = !self.ask(Request::Resize(process.clone(), size));
        Ok(())
    }

    fn kill(&self, process: &ProcessRef, how: Kill) -> BoxFuture<'static, Result<Delivery, RuntimeError>> {
        if !self.ask(Request::Kill(process.clone())) {
            return kept::fenced();
        }
        let killed = self.shared.processes.kill(process, how);
        future::ready(killed.ok_or_else(|| RuntimeError::failed("kill", process, SCRIPTED))).boxed()
    }

    fn kill_remaining(&self, id: &ContainerId) -> BoxFuture<'static, ()> {
        if !self.ask(Request::KillRemaining(id.clone())) {
            return kept::fenced();
        }
        self.shared.processes.kill_remaining(id);
        let dice = Arc::clone(&self.shared.dice);
        self.while_current(async move { dice.take_time().await })
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        if !self.ask(Request::Pause(id.clone())) {
            return kept::fenced();
        }
        self.freeze(id, true)
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        if !self.ask(Request::Resume(id.clone())) {
            return kept::fenced();
        }
        self.freeze(id, false)
    }

    /// Happens at once and never fails.
    fn thaw(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        if !self.ask(Request::Resume(id.clone())) {
            return kept::fenced();
        }
        self.shared.processes.freeze(id, false);
        let dice = Arc::clone(&self.shared.dice);
        async move {
            dice.take_time().await;
            Ok(())
        }
        .boxed()
    }

    /// The limits are changed at once, so that updates are carried out in order.
    fn update(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> BoxFuture<'static, Result<(), RuntimeError>> {
        if !self.ask(Request::Update(id.clone())) {
            return kept::fenced();
        }
        let fails = self.shared.dice.goes_wrong();
        if let Some(bundle) = lock(&self.shared.state).containers.get_mut(id).filter(|_| !fails) {
            merge(&mut bundle.limits, resources);
        }
        let (dice, id) = (Arc::clone(&self.shared.dice), id.clone());
        async move {
            dice.take_time().await;
            if fails { Err(RuntimeError::failed("update", id, "the script says so")) } else { Ok(()) }
        }
        .boxed()
    }

    fn processes(&self, id: &ContainerId) -> BoxFuture<'static, Result<Vec<HostPid>, RuntimeError>> {
        future::ready(Ok(self.shared.processes.pids(id))).boxed()
    }

    /// What the script says, and how many processes there are.
    fn usage(&self, id: &ContainerId) -> BoxFuture<'static, Result<Usage, RuntimeError>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            shared.dice.take_time().await;
            Ok(shared.processes.usage(&id))
        }
        .boxed()
    }

    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<Leftover>> {
        if !self.ask(Request::Release(id.clone())) {
            return kept::fenced();
        }
        let bundle = {
            let mut state = lock(&self.shared.state);
            state.held.retain(|(process, _), _| process.container != *id);
            state.containers.remove(id).unwrap_or_default()
        };
        let Troubles { release_busy, release_leaves, .. } = bundle.program.unwrap_or_default().troubles;
        self.shared.processes.remove(id);
        let dice = Arc::clone(&self.shared.dice);
        self.while_current(async move {
            dice.take_time().await;
            if !release_busy.is_zero() {
                tokio::time::sleep(release_busy).await;
            }
            release_leaves
        })
    }

    /// Releases what a shutdown's deadline has left.
    fn close(&self) -> Vec<Leftover> {
        if !self.is_current() {
            return Vec::new();
        }
        self.shared.processes.remove_all();
        let mut state = lock(&self.shared.state);
        (state.open, state.held) = (None, kept::Held::new());
        let late = std::mem::take(&mut state.containers);
        drop(state);
        for id in late.into_keys() {
            let _is_current = self.ask(Request::ReleaseLate(id));
        }
        Vec::new()
    }
}

impl ExitSource for SimRuntime {
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        self.shared.processes.exits().take()
    }

    fn oom_kills(&self) -> BoxStream<'static, (ContainerId, OomKill)> {
        self.shared.processes.exits().take_oom_kills()
    }
}
