//! The ports of `executor-core`, on a real runtime.
//!
//! ```text
//!  prepare: claim the id ▶ make the bundle        (blocking pool)
//!  start:   run --detach ▶ pid file ▶ adopt       (spawner; one call, one log, one deadline)
//!  release: kill what is left ▶ own removal of cgroups, state, mounts, files ▶ verified
//! ```
//! The runtime's own `delete` is not called: removing what `state.json` names takes a tenth of the
//! time, works on containers that were only half made, and tells what is left.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::{Semaphore, watch};

use crate::command_line::{CommandLine, Launch, LaunchKind, Log};
use crate::procfs::Stat;
use crate::root::{Claim, Root};
use crate::spawner::local::{LocalSpawner, Subreaper};
use crate::spawner::{CallEnd, Parent, RuntimeChild, Spawner, Strays};
use crate::{Bundles, CANDIDATES, Place, cgroup, failure, find_runtime, pidfd};

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

/// A runtime for an [`Executor`](executor_core::Executor). One is good for one executor.
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
}

struct Shared {
    command_line: CommandLine,
    bundles: Arc<dyn Bundles>,
    mode: Mode,
    no_pivot: bool,
    start_deadline: Duration,
    spawner: Arc<dyn Spawner>,
    blocking: Semaphore,
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
    init: OnceLock<HostPid>,
    /// Starts under way can be given up by sending here.
    abandon: Mutex<HashMap<ProcessId, watch::Sender<bool>>>,
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

    /// Finds the runtime and starts the spawner's thread.
    ///
    /// # Errors
    /// When there is no runtime, or no thread can be started.
    pub fn build(self) -> Result<Runc, RuntimeError> {
        let Self { candidates, bundles, mode, no_pivot, start_deadline } = self;
        let program = find_runtime(&candidates)
            .map_err(|error| RuntimeError::new("find a runtime", error.to_string()))?;
        let spawner =
            LocalSpawner::start().map_err(|error| RuntimeError::new("start a thread", error.to_string()))?;
        let spawner: Arc<dyn Spawner> = Arc::new(spawner);
        let command_line = CommandLine::new(program, CALL_DEADLINE, Arc::clone(&spawner));
        Ok(Runc {
            shared: Arc::new(Shared {
                command_line,
                bundles,
                mode,
                no_pivot,
                start_deadline,
                spawner,
                blocking: Semaphore::new(BLOCKING_AT_ONCE),
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
        async move {
            let worker = Arc::clone(&shared);
            shared
                .blocking(move || worker.claim_and_write(&id, spec))
                .await
                .unwrap_or_else(|error| Err(broken(error)))
        }
        .boxed()
    }

    fn start(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<HostPid, StartFailure>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let container = shared.container(&id).map_err(|error| broken(error.message))?;
            let bundle = container.claim.dir.clone();
            let kind = LaunchKind::Run { bundle: &bundle, no_pivot: shared.no_pivot };
            let pid = shared.launch(&container, ProcessId::Init, kind, stdio).await?;
            let _first = container.init.set(pid);
            Ok(pid)
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
        async move {
            let container = shared.container(&id).map_err(|error| gone(error.message))?;
            let file = container.claim.dir.join(format!("{exec}.json"));
            let (worker, process) = (Arc::clone(&shared), Arc::clone(&container));
            let path = file.clone();
            let written = shared.blocking(move || worker.write_process(&process, &spec, &path)).await;
            written.unwrap_or_else(|error| Err(broken(error)))?;
            let launched = shared
                .launch(&container, ProcessId::Exec(exec), LaunchKind::Exec { process: &file }, stdio)
                .await;
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

    fn signal(&self, process: &ProcessRef, signal: Signal) -> Result<Delivery, RuntimeError> {
        let sent = self.shared.spawner.signal(process, signal);
        sent.map_err(|error| RuntimeError::new(format!("send {signal}"), error.to_string()).of(process))
    }

    fn kill(&self, process: &ProcessRef) -> Result<Delivery, RuntimeError> {
        let killed = self.shared.spawner.kill(process);
        if let Ok(container) = self.shared.container(&process.container) {
            container.claim.cgroups().thaw();
        }
        killed.map_err(|error| RuntimeError::new("kill", error.to_string()).of(process))
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<(), RuntimeError>> {
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
            let listed = shared.blocking(move || container.claim.cgroups().processes()).await;
            let pids = listed.map_err(|error| RuntimeError::new("list processes", error).of(&id))?;
            Ok(pids.into_iter().collect())
        }
        .boxed()
    }

    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<String>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let worker = Arc::clone(&shared);
            let released = shared.blocking(move || worker.release(&id)).await;
            released.unwrap_or_else(|error| vec![error])
        }
        .boxed()
    }

    fn close(&self) -> Vec<String> {
        let shared = &self.shared;
        shared.spawner.end_all(CALL_DEADLINE);
        let rest: Vec<_> = lock(&shared.containers).keys().cloned().collect();
        let mut left: Vec<_> = rest.iter().flat_map(|id| shared.release(id)).collect();
        if let Some(opened) = shared.opened.get() {
            left.extend(opened.root.close());
            drop(lock(&opened.subreaper).take());
        }
        left
    }
}

impl ExitSource for Runc {
    fn exits(&self) -> BoxStream<'static, (ProcessRef, Ending)> {
        let shared = Arc::clone(&self.shared);
        let exits = self.shared.spawner.exits();
        if let (Mode::Detached, Ok(opened)) = (shared.mode, shared.opened()) {
            let cgroup = cgroup::executor_path(opened.root.executor());
            if let Err(error) = shared.spawner.reap_orphans_in(cgroup) {
                tracing::error!(%error, "orphans are reaped only when their container is released");
            }
        }
        let exits = futures::stream::unfold(exits, |mut exits| async move {
            let exit = exits.recv().await?;
            Some((exit, exits))
        });
        exits.map(move |(process, status)| shared.ending(process, status)).boxed()
    }
}

impl Shared {
    fn opened(&self) -> Result<&Opened, RuntimeError> {
        self.opened.get().ok_or_else(|| RuntimeError::new("use the runtime", "no executor was built on it"))
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<Container>, RuntimeError> {
        let found = lock(&self.containers).get(id).cloned();
        found.ok_or_else(|| RuntimeError::new("find a container", "it does not exist").of(id))
    }

    /// Runs blocking work on the pool. An error says that it panicked.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let _turn = self.blocking.acquire().await;
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
    }

    fn claim_and_write(&self, id: &ContainerId, spec: Arc<ContainerSpec>) -> Result<(), StartFailure> {
        let opened = self.opened().map_err(|error| broken(error.message))?;
        let claimed = opened.root.claim(id).map_err(|error| from_io(&opened.root.runtime_state(), &error))?;
        let claim = claimed.ok_or_else(|| {
            StartFailure::new(
                StartFailureKind::IdTaken,
                format!("the container id {id} is taken by another executor"),
            )
        })?;
        let container = Container { claim, spec, init: OnceLock::new(), abandon: Mutex::default() };
        let container = Arc::new(container);
        lock(&self.containers).insert(id.clone(), Arc::clone(&container));
        self.bundles.write(&container.place(), &container.spec)
    }

    fn write_process(&self, container: &Container, spec: &ExecSpec, file: &Path) -> Result<(), StartFailure> {
        let init = *container.init.get().ok_or_else(|| gone("the container does not run".to_owned()))?;
        let process = self.bundles.process(&container.place(), &container.spec, init, spec)?;
        fs::write(file, process).map_err(|error| from_io(file, &error))
    }

    /// Has the runtime start a process, and takes charge of it.
    async fn launch(
        &self,
        container: &Container,
        process: ProcessId,
        kind: LaunchKind<'_>,
        stdio: ChildStdio,
    ) -> Result<HostPid, StartFailure> {
        let claim = &container.claim;
        let opened = self.opened().map_err(|error| broken(error.message))?;
        let pid_file = claim.dir.join(format!("{process}.pid"));
        let detach = self.mode == Mode::Detached;
        let launch = Launch { id: &claim.id, kind, pid_file: &pid_file, detach };
        let (call, log) = opened.command_line.call(&launch.args(), stdio);
        let (abandon, abandoned) = watch::channel(false);
        lock(&container.abandon).insert(process, abandon);
        let started = self.launched(call, &launch, abandoned).await;
        lock(&container.abandon).remove(&process);

        match started {
            Launched::Detached => self.adopt(claim, process, &pid_file, Parent::Us, log).await,
            Launched::Monitored(monitor) => {
                self.adopt(claim, process, &pid_file, Parent::Runtime(monitor), log).await
            }
            Launched::Not { runtime, kind, message } => {
                if let Some(runtime) = runtime {
                    let strays = Strays { cgroup: claim.cgroup.clone(), runtime: Some(runtime), all: false };
                    let spawner = Arc::clone(&self.spawner);
                    self.blocking(move || spawner.end_strays(&strays)).await.ok();
                }
                let _never_written = fs::remove_file(&pid_file);
                let words = log.take().await;
                Err(match (kind, words) {
                    // Whatever the runtime says of it, there was nothing left to start a process in.
                    (None, words) if process != ProcessId::Init && container.has_ended() => {
                        gone(format!("the container has ended: {}", words.unwrap_or(message)))
                    }
                    (None, Some(words)) => failure::classify(words),
                    (kind, _) => StartFailure::new(kind.unwrap_or(StartFailureKind::RuntimeBroken), message),
                })
            }
        }
    }

    /// Spawns the runtime, and waits until it says that the process runs.
    async fn launched(
        &self,
        call: crate::spawner::Call,
        launch: &Launch<'_>,
        mut abandoned: watch::Receiver<bool>,
    ) -> Launched {
        let step = format!("{} {}", self.command_line.name(), launch.step());
        let not = |runtime, kind, message| Launched::Not { runtime, kind, message };
        let appears = match launch.detach {
            true => None,
            false => match PidFile::watch(launch.pid_file) {
                Ok(watched) => Some(watched),
                Err(error) => {
                    return not(None, Some(StartFailureKind::NoResources), format!("inotify: {error}"));
                }
            },
        };
        let runtime = match self.spawner.spawn(call).await {
            Ok(runtime) => runtime,
            Err(error) => {
                let failure = from_io(self.command_line.program(), &error);
                return not(None, Some(failure.kind), failure.message);
            }
        };
        let abandoned = async move {
            if abandoned.wait_for(|abandoned| *abandoned).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ended = runtime.wait(self.start_deadline, abandoned);
        let ended = match appears {
            None => ended.await,
            Some(watched) => tokio::select! {
                Ok(()) = watched.appeared() => return Launched::Monitored(runtime),
                ended = ended => ended,
            },
        };
        let own = Some(runtime.pid);
        match ended {
            Ok(CallEnd::Ended(ExitStatus::Code(0))) if launch.detach => Launched::Detached,
            // So short a life that the monitor's end came first.
            Ok(CallEnd::Ended(_)) if !launch.detach && launch.pid_file.exists() => {
                Launched::Monitored(runtime)
            }
            Ok(CallEnd::Ended(status)) => {
                not(own, None, format!("{step} failed with {status} and did not say why"))
            }
            Ok(CallEnd::Overdue) => {
                let message =
                    format!("{step} gave no answer within {:?}; it was killed", self.start_deadline);
                not(own, Some(StartFailureKind::RuntimeTimedOut), message)
            }
            Ok(CallEnd::Abandoned) => {
                not(own, Some(StartFailureKind::RuntimeTimedOut), format!("{step} was given up and killed"))
            }
            Err(error) => not(own, None, format!("{step}: {error}")),
        }
    }

    /// Opens the pidfd of what was started, while nobody can have reaped it.
    async fn adopt(
        &self,
        claim: &Claim,
        process: ProcessId,
        pid_file: &Path,
        parent: Parent,
        log: Log,
    ) -> Result<HostPid, StartFailure> {
        let file = pid_file.to_owned();
        let text = self.blocking(move || fs::read_to_string(file)).await.map_err(broken)?;
        let pid = text.ok().as_deref().and_then(crate::procfs::parse_pid);
        let pid = pid.ok_or_else(|| broken(format!("{} has no pid in it", pid_file.display())))?;
        let adopted = ProcessRef { container: claim.id.clone(), process };
        let reaped_by_others = self.spawner.adopt(adopted, pid, parent);
        drop(log);
        reaped_by_others.map_err(|error| broken(format!("the process {pid} cannot be watched: {error}")))?;
        Ok(pid)
    }

    fn ending(&self, process: ProcessRef, status: ExitStatus) -> (ProcessRef, Ending) {
        let usage = match (process.process, self.container(&process.container)) {
            (ProcessId::Init, Ok(container)) => Some(container.claim.cgroups().usage()),
            (ProcessId::Init | ProcessId::Exec(_), _) => None,
        };
        (process, Ending { status, usage })
    }

    /// Ends and removes everything a container has. Blocks.
    fn release(&self, id: &ContainerId) -> Vec<String> {
        let Ok(container) = self.container(id) else {
            return Vec::new();
        };
        let (killed, left) = container.claim.dispose(&*self.bundles);
        if killed > 0 {
            tracing::debug!(container = %id, killed, "processes were left");
        }
        self.spawner.end_strays(&Strays { cgroup: container.claim.cgroup.clone(), runtime: None, all: true });
        self.spawner.forget(id);
        lock(&self.containers).remove(id);
        left
    }
}

/// What became of a call that was to start a process.
enum Launched {
    Detached,
    Monitored(RuntimeChild),
    /// With the runtime if it was spawned, and the kind of failure if its log need not be asked.
    Not {
        runtime: Option<HostPid>,
        kind: Option<StartFailureKind>,
        message: String,
    },
}

/// A pid file that is to appear. Runtimes write it beside its place and rename it there.
struct PidFile {
    path: PathBuf,
    inotify: Arc<OwnedFd>,
}

impl PidFile {
    fn watch(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &inotify,
            path.parent().unwrap_or(path),
            WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE,
        )?;
        Ok(Self { path: path.to_owned(), inotify: Arc::new(inotify) })
    }

    async fn appeared(&self) -> io::Result<()> {
        let inotify = pidfd::watch(Arc::clone(&self.inotify))?;
        while !self.path.exists() {
            let mut ready = inotify.readable().await?;
            let mut events = [0; 4096];
            let _what_it_was = rustix::io::read(&self.inotify, &mut events);
            ready.clear_ready();
        }
        Ok(())
    }
}

impl Container {
    fn has_ended(&self) -> bool {
        self.init.get().is_none_or(|init| Stat::of(*init).is_none_or(|stat| stat.is_ending()))
    }

    fn place(&self) -> Place<'_> {
        Place { id: &self.claim.id, dir: &self.claim.dir, cgroup: &self.claim.cgroup }
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

/// Nothing is left half changed under any of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
