//! The ports of `executor-core`, on a real runtime.
//!
//! ```text
//!  prepare: claim the id ▶ begin to make the bundle  (blocking pool)
//!  start:   run --detach ▶ pid file ▶ adopt          (spawner; one call, one log, one deadline)
//!  create:  the same without the program, which a later start lets go
//!  release: kill what is left ▶ own removal of cgroups, state, mounts, files ▶ verified
//! ```
//! The runtime's own `delete` is not called: removing what `state.json` names takes a tenth of the
//! time, works on containers that were only half made, and tells what is left.

mod launch;
mod prepare;
mod ready;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use executor_core::lifecycle::{
    ContainerId, ExecId, ExitStatus, HostPid, NetworkUsage, ProcessId, ProcessRef, RawExit, Signal,
    SignalScope, StartFailure, StartFailureKind, TerminalSize, Usage,
};
use executor_core::{
    BoxFuture, BoxStream, CgroupParent, ChildStdio, ContainerSpec, Delivery, ExecSpec, ExitSource, Network,
    ProcessMode, Runtime, RuntimeError, Swept,
};
use futures::{FutureExt, StreamExt};
use rustix::io::Errno;
use tokio::sync::{Semaphore, watch};

use self::prepare::Written;
use crate::cgroup::Cgroups;
use crate::command_line::{CommandLine, LaunchKind};
use crate::kick::{Kick, Request};
use crate::procfs::Stat;
use crate::root::{Claim, Root};
use crate::spawner::Spawner;
use crate::spawner::local::{LocalSpawner, Subreaper};
use crate::terminal::Terminal;
use crate::{Bundles, CANDIDATES, Place, find_runtime, lock, pidfd, procfs};

/// Blocking work that goes on at once; more waits its turn.
const BLOCKING_AT_ONCE: usize = 8;

/// How long a runtime may take to start a process, by default.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a runtime may take for anything else.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How containers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The runtime exits when the container runs, and its init becomes a child of the embedder's
    /// process, which is made a child subreaper for that. No process is needed besides.
    #[default]
    Detached,
    /// The runtime stays as the monitor of its container; the embedder's process is left as it is.
    /// Before Linux 6.15 an end by signal n is then told as code 128+n: the runtime says no more.
    Foreground,
}

/// A runtime for an [`Executor`](executor_core::Executor). One is good for one executor; a clone is the
/// same one, to ask its command line while an executor uses it.
#[derive(Clone)]
pub struct Runc {
    shared: Arc<Shared>,
}

/// Makes a [`Runc`].
pub struct RuncBuilder {
    candidates: Vec<String>,
    bundles: Arc<dyn Bundles>,
    mode: Mode,
    no_pivot: bool,
    start_deadline: Duration,
    cgroup_parent: Option<CgroupParent>,
    cgroup_kick: bool,
    in_memory: bool,
}

struct Shared {
    command_line: CommandLine,
    bundles: Arc<dyn Bundles>,
    mode: Mode,
    no_pivot: bool,
    start_deadline: Duration,
    cgroup_parent: Option<CgroupParent>,
    kick: Option<Kick>,
    /// Cloned by each request that is under way.
    requests: Arc<()>,
    processors: usize,
    spawner: Arc<dyn Spawner>,
    blocking: Arc<Semaphore>,
    /// Whether the driver is closed. Blocking work holds it as it goes on, since it goes on when nobody waits for
    /// it any more.
    closed: Arc<RwLock<bool>>,
    opened: OnceLock<Opened>,
    containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
}

/// What is known once the root is.
struct Opened {
    root: Root,
    command_line: CommandLine,
    subreaper: Mutex<Option<Subreaper>>,
}

/// A container that was claimed.
struct Container {
    claim: Claim,
    spec: Arc<ContainerSpec>,
    /// Set when it is prepared; its bundle may still be being made.
    written: OnceLock<Written>,
    init: OnceLock<HostPid>,
    /// Whether init waits to be let go.
    created: AtomicBool,
    /// Found when init runs, so that nothing has to be looked for when it ends.
    cgroups: OnceLock<Cgroups>,
    /// Starts under way can be given up by sending here.
    abandon: Mutex<HashMap<ProcessId, watch::Sender<bool>>>,
    terminals: Mutex<HashMap<ProcessId, Terminal>>,
    /// Whether we have frozen it.
    frozen: AtomicBool,
    /// Those that no pid namespace takes along with init, when they were killed: they become our children.
    orphans: Mutex<Vec<(HostPid, OwnedFd)>>,
    /// Processes that SIGKILL was sent to.
    killed: Mutex<HashSet<ProcessId>>,
}

impl RuncBuilder {
    /// The runtime's name on `PATH`, or its path, in place of the usual candidates.
    #[must_use]
    pub fn runtime(mut self, command: impl Into<String>) -> Self {
        self.candidates = vec![command.into()];
        self
    }

    /// How containers are kept.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Has the runtime use `MS_MOVE` in place of `pivot_root`, for a host whose root is a ramdisk.
    #[must_use]
    pub fn no_pivot(self, no_pivot: bool) -> Self {
        Self { no_pivot, ..self }
    }

    /// How long the runtime may take to start a process before it is killed; 60 s by default.
    #[must_use]
    pub fn start_deadline(self, start_deadline: Duration) -> Self {
        Self { start_deadline, ..self }
    }

    /// The cgroup that those of containers lie in which ask for no other; by default the root of the hierarchies,
    /// or what systemd has given to an ordinary user.
    #[must_use]
    pub fn cgroup_parent(self, parent: CgroupParent) -> Self {
        Self { cgroup_parent: Some(parent), ..self }
    }

    /// Whether a thread of ours writes this process's pid to the cgroup it is in, while requests are under way. It moves
    /// nothing, and saves a runtime about ten milliseconds of waiting for the kernel; where it does not it
    /// rests, and where it is not permitted it stops. By default it does.
    #[must_use]
    pub fn cgroup_kick(self, cgroup_kick: bool) -> Self {
        Self { cgroup_kick, ..self }
    }

    /// Whether a runtime that is called again and again is executed from a sealed copy of its program in memory, which
    /// is what runc and crun make for themselves at every start where it is not there. It takes the program's size of
    /// memory, ten megabytes, once for the process. By default it is.
    #[must_use]
    pub fn in_memory(self, in_memory: bool) -> Self {
        Self { in_memory, ..self }
    }

    /// Finds the runtime and starts the spawner's thread.
    ///
    /// # Errors
    /// When there is no runtime, or no thread can be started.
    pub fn build(self) -> Result<Runc, RuntimeError> {
        let Self {
            candidates,
            bundles,
            mode,
            no_pivot,
            start_deadline,
            cgroup_parent,
            cgroup_kick,
            in_memory,
        } = self;
        // A monitor that stays is better called what it is.
        let in_memory = in_memory && mode == Mode::Detached;
        let program = find_runtime(&candidates)
            .map_err(|error| RuntimeError::new("find a runtime", error.to_string()))?;
        let spawner = LocalSpawner::start(in_memory)
            .map_err(|error| RuntimeError::new("start a thread", error.to_string()))?;
        let spawner: Arc<dyn Spawner> = Arc::new(spawner);
        let command_line = CommandLine::new(program, CALL_DEADLINE, Arc::clone(&spawner));
        Ok(Runc {
            shared: Arc::new(Shared {
                command_line,
                bundles,
                mode,
                no_pivot,
                start_deadline,
                cgroup_parent,
                kick: cgroup_kick.then(Kick::start).flatten(),
                requests: Arc::default(),
                processors: thread::available_parallelism().map_or(1, NonZero::get),
                spawner,
                blocking: Arc::new(Semaphore::new(BLOCKING_AT_ONCE)),
                closed: Arc::default(),
                opened: OnceLock::new(),
                containers: Mutex::default(),
            }),
        })
    }
}

impl Runc {
    /// A runtime that takes its bundles from `bundles`.
    pub fn builder(bundles: Arc<dyn Bundles>) -> RuncBuilder {
        RuncBuilder {
            candidates: CANDIDATES.map(str::to_owned).into(),
            bundles,
            mode: Mode::default(),
            no_pivot: false,
            start_deadline: START_DEADLINE,
            cgroup_parent: None,
            cgroup_kick: true,
            in_memory: true,
        }
    }

    /// The runtime's command line: with the state of this driver's containers once an executor was
    /// built on it, with the runtime's default before. Its futures need a tokio runtime.
    pub fn command_line(&self) -> CommandLine {
        self.shared
            .opened()
            .map_or_else(|_| self.shared.command_line.clone(), |opened| opened.command_line.clone())
    }
}

impl Runtime for Runc {
    fn open(&self, root: &Path) -> Result<Vec<Swept>, RuntimeError> {
        let shared = &self.shared;
        let error =
            |error: io::Error| RuntimeError::new("open the root", error.to_string()).of(root.display());
        if shared.opened.get().is_some() {
            return Err(error(io::Error::other("this driver has one already")));
        }
        let (root, swept) = Root::open(root, &*shared.bundles).map_err(error)?;
        let subreaper = match shared.mode {
            Mode::Detached => Some(
                Subreaper::become_one()
                    .map_err(|cause| RuntimeError::new("become a child subreaper", cause.to_string()))?,
            ),
            Mode::Foreground => None,
        };
        let command_line = shared.command_line.with_state(root.runtime_state(), root.executor());
        let _first = shared.opened.set(Opened { root, command_line, subreaper: Mutex::new(subreaper) });
        Ok(swept)
    }

    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, Result<(), StartFailure>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        let request = shared.request();
        async move {
            let _until_prepared = request;
            let (worker, own) = (Arc::clone(&shared), id.clone());
            let written = shared.begin(move |may_call| worker.claim_and_write(&own, spec, may_call)).await?;
            let container = shared.container(&id).map_err(|error| broken(error.message))?;
            let _first = container.written.set(written);
            Ok(())
        }
        .boxed()
    }

    fn create(&self, id: &ContainerId, stdio: ChildStdio) -> BoxFuture<'static, Result<(), StartFailure>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        let request = shared.request();
        async move {
            let _until_created = request;
            let container = shared.container(&id).map_err(|error| broken(error.message))?;
            shared.create(&container, stdio).await
        }
        .boxed()
    }

    fn is_ready(&self, id: &ContainerId) -> bool {
        self.shared.spawner.lives(&ProcessRef::init(id.clone()))
    }

    fn start(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let container = shared.container(&id).map_err(|error| broken(error.message))?;
            if let Some(pid) = container.init.get()
                && container.created.swap(false, Ordering::Relaxed)
            {
                return shared.let_go(&container, *pid).await;
            }
            let _until_started = shared.request();
            let kind = LaunchKind::Run { bundle: &container.claim.dir, no_pivot: shared.no_pivot };
            shared.launch_init(&container, kind, stdio).await
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
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        let request = shared.request();
        async move {
            let _until_started = request;
            let container = shared.container(&id).map_err(|error| gone(error.message))?;
            let abandoned = container.may_be_abandoned(ProcessId::Exec(exec));
            let file = container.claim.dir.join(format!("{exec}.json"));
            let (worker, process) = (Arc::clone(&shared), Arc::clone(&container));
            let path = file.clone();
            let write = move |may_call| worker.write_process(&process, &spec, &path, may_call);
            let launched = async {
                let written = shared.begin(write).await?;
                let kind = LaunchKind::Exec { process: &file };
                shared.launch(&container, ProcessId::Exec(exec), kind, stdio, written, abandoned).await
            };
            let launched = launched.await;
            shared.blocking(move || fs::remove_file(file)).await.ok();
            launched
        }
        .boxed()
    }

    fn abandon(&self, process: &ProcessRef) {
        if let Ok(container) = self.shared.container(&process.container)
            && let Some(abandon) = lock(&container.abandon).get(&process.process)
        {
            abandon.send_replace(true);
        }
    }

    fn signal(
        &self,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> Result<Delivery, RuntimeError> {
        let spawner = &self.shared.spawner;
        let sent = match scope {
            SignalScope::Process => spawner.signal(process, signal),
            SignalScope::Group => spawner.signal_group(process, signal),
            SignalScope::Container => Ok(self.shared.container(&process.container)?.signal_all(signal)),
        };
        sent.map_err(|error| RuntimeError::new(format!("send {signal}"), error.to_string()).of(process))
    }

    fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<(), RuntimeError> {
        let container = self.shared.container(&process.container)?;
        let terminals = lock(&container.terminals);
        let resized = terminals.get(&process.process).map_or(Ok(()), |terminal| terminal.resize(size));
        resized.map_err(|error| RuntimeError::new("resize", error.to_string()).of(process))
    }

    fn kill(&self, process: &ProcessRef) -> Result<Delivery, RuntimeError> {
        let killed = self.shared.spawner.kill(process);
        if let Ok(container) = self.shared.container(&process.container) {
            // Without a pid namespace nothing goes with init by itself.
            if process.process == ProcessId::Init && container.spec.process_mode == ProcessMode::NoSandbox {
                container.note_orphans();
                container.signal_all(Signal::KILL);
            }
            let again = !lock(&container.killed).insert(process.process);
            if again || container.frozen.load(Ordering::Relaxed) {
                container.cgroups().thaw();
            }
        }
        killed.map_err(|error| RuntimeError::new("kill", error.to_string()).of(process))
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        if let Ok(container) = self.shared.container(id) {
            container.frozen.store(true, Ordering::Relaxed);
        }
        let (command_line, id) = (self.command_line(), id.clone());
        async move { command_line.pause(&id).await }.boxed()
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
        let (command_line, id) = (self.command_line(), id.clone());
        async move { command_line.resume(&id).await }.boxed()
    }

    fn processes(&self, id: &ContainerId) -> BoxFuture<'static, Result<Vec<HostPid>, RuntimeError>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let container = shared.container(&id)?;
            let listed = shared.blocking(move || container.processes()).await;
            let pids = listed.map_err(|error| RuntimeError::new("list processes", error).of(&id))?;
            Ok(pids.into_iter().collect())
        }
        .boxed()
    }

    fn usage(&self, id: &ContainerId) -> BoxFuture<'static, Result<Usage, RuntimeError>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let error = |message: &str| RuntimeError::new("read the usage", message).of(&id);
            let container = shared.container(&id)?;
            if container.has_ended() {
                return Err(error("it does not run"));
            }
            let worker = Arc::clone(&shared);
            shared.blocking(move || worker.usage(&container)).await.map_err(|panicked| error(&panicked))
        }
        .boxed()
    }

    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<String>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let worker = Arc::clone(&shared);
            shared.settle(&id).await;
            shared.run_poststop_hooks(&id).await;
            let released = shared.blocking(move || worker.release(&id)).await;
            released.unwrap_or_else(|error| vec![error])
        }
        .boxed()
    }

    fn close(&self) -> Vec<String> {
        let shared = &self.shared;
        if let Some(kick) = &shared.kick {
            kick.stop();
        }
        *shared.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        shared.spawner.end_all(CALL_DEADLINE);
        let rest: Vec<_> = lock(&shared.containers).keys().cloned().collect();
        let mut left: Vec<_> = rest.iter().flat_map(|id| shared.release(id)).collect();
        if let Some(opened) = shared.opened.get() {
            left.extend(opened.root.close(&*shared.bundles));
            drop(lock(&opened.subreaper).take());
        }
        left
    }
}

impl ExitSource for Runc {
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        let shared = Arc::clone(&self.shared);
        let exits = self.shared.spawner.exits();
        if let (Mode::Detached, Ok(opened)) = (shared.mode, shared.opened())
            && let Err(error) = shared.spawner.reap_orphans(opened.root.containers())
        {
            tracing::error!(%error, "orphans are reaped only when their container is released");
        }
        let told = move |(process, ending): (ProcessRef, RawExit)| {
            let shared = Arc::clone(&shared);
            async move {
                // The plugins' networks are asked on a thread of their own, which is waited for.
                let is_cni =
                    |container: Arc<Container>| matches!(container.spec.network, Network::Cni { .. });
                if process.process != ProcessId::Init
                    || !shared.container(&process.container).is_ok_and(is_cni)
                {
                    return shared.ending(process, ending.status);
                }
                let (worker, own) = (Arc::clone(&shared), process.clone());
                let asked = shared.blocking(move || worker.ending(own, ending.status)).await;
                asked.unwrap_or_else(|_panicked| (process, RawExit::with(ending.status)))
            }
        };
        exits.map(told).buffered(BLOCKING_AT_ONCE).boxed()
    }
}

impl Shared {
    fn opened(&self) -> Result<&Opened, RuntimeError> {
        self.opened.get().ok_or_else(|| RuntimeError::new("use the runtime", "no executor was built on it"))
    }

    /// Something is about to be started.
    fn request(&self) -> (Option<Request>, Arc<()>) {
        (self.kick.as_ref().map(Kick::request), Arc::clone(&self.requests))
    }

    /// Whether no more is being started than there are processors.
    fn has_idle_processors(&self) -> bool {
        Arc::strong_count(&self.requests) - 1 <= self.processors
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<Container>, RuntimeError> {
        let found = lock(&self.containers).get(id).cloned();
        found.ok_or_else(|| RuntimeError::new("find a container", "it does not exist").of(id))
    }

    /// Runs blocking work on the pool. An error says that it panicked, or came too late.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        self.begin_blocking(work).await.await
    }

    /// Answers when it is its turn, with what will tell how it went.
    async fn begin_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, String>> {
        let turn = Arc::clone(&self.blocking).acquire_owned().await;
        let closed = Arc::clone(&self.closed);
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let closed = closed.read().unwrap_or_else(PoisonError::into_inner);
            if *closed { Err("the driver is closed".to_owned()) } else { Ok(work()) }
        });
        work.map(|ended| ended.unwrap_or_else(|error| Err(error.to_string()))).boxed()
    }

    fn ending(&self, process: ProcessRef, status: ExitStatus) -> (ProcessRef, RawExit) {
        let usage = match (process.process, self.container(&process.container)) {
            (ProcessId::Init, Ok(container)) => Some(Box::new(self.usage(&container))),
            (ProcessId::Init | ProcessId::Exec(_), _) => None,
        };
        (process, RawExit { status, usage })
    }

    /// What a container has used so far, of the network too as long as that can be told. Blocks for a moment.
    fn usage(&self, container: &Container) -> Usage {
        let live = || {
            let own = container.spec.network != Network::Host;
            let init = container
                .init
                .get()
                .filter(|init| own && Stat::of(**init).is_some_and(|stat| !stat.is_ending()))?;
            fs::read_to_string(format!("/proc/{init}/net/dev"))
                .ok()
                .map(|text| NetworkUsage::of_interfaces(&text))
        };
        let network = self.bundles.network_usage(&container.claim.dir).or_else(live);
        Usage { network, ..container.cgroups().usage() }
    }

    /// Waits until nothing is written any more to what is to be removed.
    async fn settle(&self, id: &ContainerId) {
        let written = self.container(id).ok().and_then(|container| container.written.get().cloned());
        if let Some(written) = written {
            let _told_to_the_start = written.await;
        }
    }

    /// Our own removal runs no hooks: where a caller's configuration has some for after the end, the runtime's own
    /// delete comes first.
    async fn run_poststop_hooks(&self, id: &ContainerId) {
        let Ok((opened, container)) = self.opened().and_then(|opened| Ok((opened, self.container(id)?)))
        else {
            return;
        };
        let config = container.spec.config.as_ref();
        if config.is_some_and(|config| config.json().pointer("/hooks/poststop").is_some())
            && let Err(error) = opened.command_line.delete(id).await
        {
            tracing::warn!(container = %id, %error, "poststop hooks");
        }
    }

    /// Ends and removes everything a container has. Blocks.
    fn release(&self, id: &ContainerId) -> Vec<String> {
        let Ok(container) = self.container(id) else {
            return Vec::new();
        };
        container.note_orphans();
        let (killed, left) = match container.cgroups.get() {
            Some(cgroups) => container.claim.dispose_with(cgroups, &*self.bundles),
            None => container.claim.dispose(&*self.bundles),
        };
        self.spawner.reap(&lock(&container.orphans));
        if killed > 0 {
            tracing::debug!(container = %id, killed, "processes were left");
        }
        if let Some(strays) = container.claim.strays(true) {
            self.spawner.end_strays(&strays);
        }
        self.spawner.forget(id);
        // What could not be removed is tried again at the end.
        if left.is_empty() {
            lock(&self.containers).remove(id);
        }
        left
    }
}

impl Container {
    fn new(claim: Claim, spec: Arc<ContainerSpec>) -> Self {
        Self {
            claim,
            spec,
            written: OnceLock::new(),
            init: OnceLock::new(),
            created: AtomicBool::new(false),
            cgroups: OnceLock::new(),
            abandon: Mutex::default(),
            terminals: Mutex::default(),
            frozen: AtomicBool::new(false),
            orphans: Mutex::default(),
            killed: Mutex::default(),
        }
    }

    /// From now on the start of this process can be given up, at whatever point it is.
    fn may_be_abandoned(&self, process: ProcessId) -> watch::Receiver<bool> {
        let (abandon, abandoned) = watch::channel(false);
        lock(&self.abandon).insert(process, abandon);
        abandoned
    }

    /// Before init runs they may not be there yet; afterwards they are looked for once.
    fn cgroups(&self) -> Cgroups {
        let at = || self.claim.cgroup.as_ref().map_or_else(Cgroups::none, |place| Cgroups::at(&place.path));
        let find = || self.claim.cgroups().unwrap_or_else(|_| at());
        match self.init.get() {
            Some(_) => self.cgroups.get_or_init(find).clone(),
            None => find(),
        }
    }

    /// The host pids of what is in it: by its cgroup, or by its pid namespace where no cgroups may be made.
    fn processes(&self) -> BTreeSet<HostPid> {
        match (&self.claim.cgroup, self.init.get()) {
            (None, Some(init)) => procfs::in_pid_namespace_of(*init).collect(),
            (Some(_), _) | (None, None) => self.cgroups().processes(),
        }
    }

    /// Notes who is in it now, where a pid namespace does not end and reap them with init.
    fn note_orphans(&self) {
        if self.spec.process_mode == ProcessMode::NoSandbox {
            let open = |pid| Some((pid, pidfd::open(pid).ok()?));
            lock(&self.orphans).extend(self.processes().into_iter().filter_map(open));
        }
    }

    /// Sends a signal to everything in it.
    fn signal_all(&self, signal: Signal) -> Delivery {
        if self.claim.cgroup.is_some() {
            return self.cgroups().signal(signal);
        }
        let send = |pid: HostPid| {
            let pidfd = pidfd::open(pid).ok()?;
            // It was looked up before the pidfd was open.
            self.processes().contains(&pid).then(|| pidfd::send(&pidfd, signal).ok()).flatten()
        };
        let signalled = self.processes().into_iter().filter_map(send).count();
        if signalled > 0 { Delivery::Sent } else { Delivery::Gone }
    }

    fn has_ended(&self) -> bool {
        self.init.get().is_none_or(|init| Stat::of(*init).is_none_or(|stat| stat.is_ending()))
    }

    fn place(&self) -> Place<'_> {
        let cgroup = self.claim.cgroup.as_ref().map(|place| place.asked.as_str());
        Place { id: &self.claim.id, dir: &self.claim.dir, cgroup }
    }
}

fn broken(message: String) -> StartFailure {
    StartFailure::new(StartFailureKind::RuntimeBroken, message)
}

fn gone(message: String) -> StartFailure {
    StartFailure::new(StartFailureKind::ContainerGone, message)
}

fn from_io(path: &Path, error: &io::Error) -> StartFailure {
    let kind = match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => StartFailureKind::PermissionDenied,
        Some(Errno::NOSPC | Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE) => {
            StartFailureKind::NoResources
        }
        Some(_) | None => StartFailureKind::RuntimeBroken,
    };
    StartFailure::new(kind, format!("{}: {error}", path.display()))
}

impl Drop for Shared {
    /// A driver that no executor was built on, or that was closed before: the thread ends with it.
    fn drop(&mut self) {
        if let Some(kick) = &self.kick {
            kick.stop();
        }
    }
}
