//! The ports of `executor-core`, on a real runtime.
//!
//! ```text
//!  prepare: claim the id ▶ attach ▶ write the bundle      (pools: bundles, attachments)
//!  run:     run --detach ▶ pid file ▶ adopt               (one call, one log, one deadline)
//!  create:  the same without the program, which start executes
//!  release: end what is left, cgroups, state ▶ detach ▶ mounts, files   (pools: releases, detachments)
//! ```
//! The runtime's own `delete` is not called: removing what `state.json` names takes a tenth of the
//! time, works on containers that were only half made, and tells what is left.
//!
//! Nothing is decided here. Signals, kills and thaws enter the host's queue before their methods return.

mod container;
mod created;
mod launch;
mod pools;
mod prepare;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use executor_core::lifecycle::{
    ContainerId, ExecId, ExitStatus, HostPid, Leftover, LeftoverKind, ProcessId, ProcessRef, RawExit, Signal,
    SignalScope, StartFailure, StartFailureKind, TerminalSize, Usage,
};
use executor_core::{
    BoxFuture, BoxStream, CgroupParent, ChildStdio, ContainerSpec, Delivery, ExecSpec, ExitSource, Kill,
    ProcessMode, Runtime, RuntimeError, Swept,
};
use executor_host::cgroup::PATIENCE;
use executor_host::{Adopted, HostClient, Root};
use futures::{FutureExt, StreamExt, future};
use tokio::sync::watch;

use self::container::{Container, Start, stem};
use self::launch::Kind;
use self::pools::{Pool, Pools};
use crate::command_line::CommandLine;
use crate::kick::{Kick, Request};
use crate::oci::OciRuntime;
use crate::{Bundles, CANDIDATES, Error, Result, find_runtime, lock};

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
    start_deadline: Duration,
    cgroup_parent: Option<CgroupParent>,
    kick: Option<Kick>,
    host: HostClient,
    pools: Pools,
    opened: OnceLock<Opened>,
    containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
    /// Ids that are being prepared, some of which have no container yet. Each is over when its channel is closed.
    preparing: Mutex<HashMap<ContainerId, watch::Sender<()>>>,
    sockets: AtomicU64,
}

/// What is known once the root is.
struct Opened {
    root: Root,
    command_line: CommandLine,
    runtime: Arc<dyn OciRuntime>,
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
    /// nothing, and saves a runtime about ten milliseconds of waiting for the kernel; where it is not permitted it
    /// stops. By default it does.
    #[must_use]
    pub fn cgroup_kick(self, cgroup_kick: bool) -> Self {
        Self { cgroup_kick, ..self }
    }

    /// Whether a runtime that is called again and again is executed from a sealed copy of its program in memory, which
    /// is what runc and crun make for themselves at every start where it is not there. It takes the program's size of
    /// memory, ten megabytes, once for the driver. By default it is.
    #[must_use]
    pub fn in_memory(self, in_memory: bool) -> Self {
        Self { in_memory, ..self }
    }

    /// Finds the runtime and connects to this process's host.
    ///
    /// # Errors
    /// When there is no runtime, or the host's thread cannot be started.
    pub fn build(self) -> std::result::Result<Runc, RuntimeError> {
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
        let program =
            find_runtime(&candidates).map_err(|error| Error::from(error).of("find", "a runtime"))?;
        let host = HostClient::local()
            .map_err(|error| RuntimeError::failed("connect to", "the process host", error))?;
        let command_line = CommandLine::new(program, no_pivot, in_memory, CALL_DEADLINE, host.clone());
        Ok(Runc {
            shared: Arc::new(Shared {
                command_line,
                bundles,
                mode,
                start_deadline,
                cgroup_parent,
                kick: cgroup_kick.then(Kick::start).flatten(),
                host,
                pools: Pools::new(),
                opened: OnceLock::new(),
                containers: Mutex::default(),
                preparing: Mutex::default(),
                sockets: AtomicU64::new(0),
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

    /// The runtime of an executor.
    fn runtime(&self) -> Result<Arc<dyn OciRuntime>> {
        self.shared.opened().map(|opened| Arc::clone(&opened.runtime))
    }
}

impl Runtime for Runc {
    fn open(&self, root: &Path) -> std::result::Result<Vec<Swept>, RuntimeError> {
        let shared = &self.shared;
        let failed = |source: Error| RuntimeError::Root { root: root.to_owned(), source: source.into() };
        if shared.opened.get().is_some() {
            let taken = std::io::Error::other("this driver has one already");
            return Err(RuntimeError::Root { root: root.to_owned(), source: taken.into() });
        }
        let (own, swept) = Root::open(root, &*shared.bundles).map_err(|error| failed(error.into()))?;
        match shared.mode {
            Mode::Detached => shared.host.subreap(true).map_err(|error| failed(error.into()))?,
            Mode::Foreground => {}
        }
        let command_line = shared.command_line.with_state(own.runtime_state(), own.executor());
        let runtime = Arc::new(command_line.clone());
        let _first = shared.opened.set(Opened { root: own, command_line, runtime });
        Ok(swept)
    }

    fn prepare(
        &self,
        id: &ContainerId,
        spec: Arc<ContainerSpec>,
    ) -> BoxFuture<'static, std::result::Result<(), StartFailure>> {
        let preparation = self.shared.begin_preparation(id);
        let prepared = Arc::clone(&self.shared).prepare(id.clone(), spec, preparation);
        self.shared.under_way(prepared)
    }

    fn create(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, std::result::Result<HostPid, StartFailure>> {
        let shared = Arc::clone(&self.shared);
        let Some(start) = shared.begin_start(id, ProcessId::Init) else { return unprepared(id) };
        self.shared.under_way(async move { shared.create(&start, stdio).await.map(reported) })
    }

    fn start(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<(), StartFailure>> {
        let shared = Arc::clone(&self.shared);
        // Its terminal came when it was created.
        let container = shared.container(id).ok();
        let Some(start) = container.and_then(|container| container.under_way(ProcessId::Init)) else {
            return unprepared(id);
        };
        async move { shared.start_created(&start).await }.boxed()
    }

    fn run(
        &self,
        id: &ContainerId,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, std::result::Result<HostPid, StartFailure>> {
        let shared = Arc::clone(&self.shared);
        let Some(start) = shared.begin_start(id, ProcessId::Init) else { return unprepared(id) };
        self.shared.under_way(async move {
            let started = shared.launch_init(&start, Kind::Run, stdio).await;
            started.map(reported)
        })
    }

    fn exec(
        &self,
        id: &ContainerId,
        exec: ExecId,
        spec: ExecSpec,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, std::result::Result<HostPid, StartFailure>> {
        let shared = Arc::clone(&self.shared);
        let Some(start) = shared.begin_start(id, ProcessId::Exec(exec)) else {
            return future::ready(Err(gone(format!("there is no container {id}")))).boxed();
        };
        let file = start.container.claim.dir.join(format!("{}.json", stem(&start.process)));
        self.shared.under_way(async move {
            let (worker, container, path) = (Arc::clone(&shared), Arc::clone(&start.container), file.clone());
            let process = start.process.clone();
            let write = move || worker.write_process(&container, &process, spec, &path);
            if let Err(failure) = shared.work(Pool::Bundles, write).await {
                let _left_to_release =
                    shared.pools.run(Pool::Bundles, move || std::fs::remove_file(file)).await;
                return Err(failure);
            }
            shared.launch(&start, Kind::Exec { process: file }, stdio).await.map(reported)
        })
    }

    fn abandon(&self, process: &ProcessRef) {
        if let Ok(container) = self.shared.container(&process.container) {
            container.abandon(&process.process);
        }
    }

    fn signal(
        &self,
        process: &ProcessRef,
        signal: Signal,
        scope: SignalScope,
    ) -> BoxFuture<'static, std::result::Result<Delivery, RuntimeError>> {
        let host = &self.shared.host;
        let sent = match scope {
            SignalScope::Process | SignalScope::Group => host.signal(process.clone(), signal, scope),
            SignalScope::Container => match self.shared.container(&process.container) {
                Ok(container) => host.signal_all(container.members(), signal),
                Err(error) => return future::ready(Err(error.of("signal", process))).boxed(),
            },
        };
        let process = process.clone();
        let failed = move |error| RuntimeError::failed(format!("send {signal} to"), process, error);
        sent.map(move |sent| sent.map_err(failed)).boxed()
    }

    fn resize(&self, process: &ProcessRef, size: TerminalSize) -> std::result::Result<(), RuntimeError> {
        // What has been released has no terminals.
        let Ok(container) = self.shared.container(&process.container) else { return Ok(()) };
        let resized = container.resize(&process.process, size);
        resized.map_err(|error| RuntimeError::failed("resize", process, error))
    }

    fn kill(
        &self,
        process: &ProcessRef,
        how: Kill,
    ) -> BoxFuture<'static, std::result::Result<Delivery, RuntimeError>> {
        let Kill { everything, thaw } = how;
        let container = self.shared.container(&process.container).ok();
        let everything = container.as_ref().filter(|_| everything).map(|container| container.members());
        let thaw = container.filter(|_| thaw).map(|container| container.freezers()).unwrap_or_default();
        let killed = self.shared.host.kill(process.clone(), everything, thaw);
        let process = process.clone();
        killed.map(move |killed| killed.map_err(|error| RuntimeError::failed("kill", process, error))).boxed()
    }

    fn end_rest(&self, id: &ContainerId) -> BoxFuture<'static, ()> {
        let Ok(container) = self.shared.container(id) else { return future::ready(()).boxed() };
        let (members, freezers) = (container.members(), container.freezers());
        let ended = self.shared.host.end_all(id.clone(), members, freezers, PATIENCE);
        let id = id.clone();
        let over = move |ended: executor_host::Result<()>| {
            if let Err(error) = ended {
                tracing::warn!(container = %id, %error, "end what is left");
            }
        };
        ended.map(over).boxed()
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<(), RuntimeError>> {
        let (runtime, id) = (self.runtime(), id.clone());
        async move {
            let paused = async { runtime?.pause(&id).await };
            paused.await.map_err(|error| error.of("pause", &id))
        }
        .boxed()
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<(), RuntimeError>> {
        let (runtime, id) = (self.runtime(), id.clone());
        async move {
            let resumed = async { runtime?.resume(&id).await };
            resumed.await.map_err(|error| error.of("resume", &id))
        }
        .boxed()
    }

    fn thaw(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<(), RuntimeError>> {
        let id = id.clone();
        match self.shared.container(&id) {
            Ok(container) => {
                let thawed = self.shared.host.thaw(container.freezers());
                thawed
                    .map(move |thawed| thawed.map_err(|error| RuntimeError::failed("thaw", id, error)))
                    .boxed()
            }
            Err(error) => future::ready(Err(error.of("thaw", &id))).boxed(),
        }
    }

    fn processes(
        &self,
        id: &ContainerId,
    ) -> BoxFuture<'static, std::result::Result<Vec<HostPid>, RuntimeError>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let listed = async {
                let container = shared.container(&id)?;
                shared.pools.run(Pool::Reads, move || container.processes()).await
            };
            let pids = listed.await.map_err(|error| error.of("list the processes of", &id))?;
            Ok(pids.into_iter().collect())
        }
        .boxed()
    }

    fn usage(&self, id: &ContainerId) -> BoxFuture<'static, std::result::Result<Usage, RuntimeError>> {
        const OP: &str = "read the usage of";
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move {
            let container = shared.container(&id).map_err(|error| error.of(OP, &id))?;
            let own = Arc::clone(&container);
            let has_ended = shared.pools.run(Pool::Reads, move || own.has_ended()).await;
            if has_ended.map_err(|error| error.of(OP, &id))? {
                return Err(RuntimeError::not_running(OP, &id));
            }
            shared.usage(container).await.map_err(|error| error.of(OP, &id))
        }
        .boxed()
    }

    fn release(&self, id: &ContainerId) -> BoxFuture<'static, Vec<Leftover>> {
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        async move { shared.release(&id).await }.boxed()
    }

    fn close(&self) -> Vec<Leftover> {
        let shared = &self.shared;
        if let Some(kick) = &shared.kick {
            kick.stop();
        }
        shared.pools.close();
        if let Err(error) = shared.host.close(CALL_DEADLINE) {
            tracing::warn!(%error, "not all processes could be ended");
        }
        let rest: Vec<_> = lock(&shared.containers).values().cloned().collect();
        let mut left: Vec<_> = rest.iter().flat_map(|container| shared.release_now(container)).collect();
        if let Some(opened) = shared.opened.get() {
            left.extend(opened.root.close(&*shared.bundles));
            if shared.mode == Mode::Detached
                && let Err(error) = shared.host.subreap(false)
            {
                tracing::warn!(%error, "this process stays a subreaper");
            }
        }
        left
    }
}

impl ExitSource for Runc {
    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        let shared = Arc::clone(&self.shared);
        if let (Mode::Detached, Ok(opened)) = (shared.mode, shared.opened())
            && let Err(error) = shared.host.reap_orphans(opened.root.containers())
        {
            tracing::error!(%error, "orphans are reaped only when their container is released");
        }
        let exits = shared.host.exits();
        let with_usage = move |(process, status)| Arc::clone(&shared).exit(process, status);
        // Each as soon as it is known: none waits for another.
        exits.map(with_usage).buffer_unordered(usize::MAX).boxed()
    }
}

impl Shared {
    fn opened(&self) -> Result<&Opened> {
        self.opened.get().ok_or(Error::NotOpen)
    }

    /// Something is being started until this is over.
    fn under_way<T: Send + 'static>(
        &self,
        start: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let request: Option<Request> = self.kick.as_ref().map(Kick::request);
        async move {
            let _until_it_is_over = request;
            start.await
        }
        .boxed()
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<Container>> {
        let found = lock(&self.containers).get(id).cloned();
        found.ok_or_else(|| Error::NoContainer(id.to_string()))
    }

    /// The start of a process, which can be given up from now on.
    fn begin_start(&self, id: &ContainerId, process: ProcessId) -> Option<Start> {
        self.container(id).ok()?.begin_start(process)
    }

    /// A name for a console socket: short, since a process's own may be too long for a socket's path.
    fn next_socket(&self) -> String {
        format!("tty.{}", self.sockets.fetch_add(1, Ordering::Relaxed))
    }

    async fn exit(self: Arc<Self>, process: ProcessRef, status: ExitStatus) -> (ProcessRef, RawExit) {
        let container = self.container(&process.container).ok();
        if let Some(container) = &container {
            container.forget_terminal(&process.process);
        }
        let usage = match (&process.process, container) {
            (ProcessId::Init, Some(container)) => self.usage(container).await.ok().map(Box::new),
            (ProcessId::Init | ProcessId::Exec(_), _) => None,
        };
        (process, RawExit { status, usage })
    }

    /// What a container has used so far, of the network too as long as that can be known.
    async fn usage(self: &Arc<Self>, container: Arc<Container>) -> Result<Usage> {
        let own = Arc::clone(&container);
        let mut usage = self.pools.run(Pool::Reads, move || own.usage()).await?;
        if container.network.outlives_processes {
            let own = Arc::clone(self);
            let ask = move || own.bundles.network_usage(&container.claim.dir);
            let asked = self.pools.run(Pool::Reads, ask).await?;
            usage.network = asked.or(usage.network);
        }
        Ok(usage)
    }

    /// Our own removal runs no hooks: where a caller's configuration has some for after the end, the runtime's own
    /// delete comes first.
    async fn run_poststop_hooks(&self, container: &Container) {
        let Ok(opened) = self.opened() else { return };
        let config = container.spec.config.as_ref();
        if config.is_some_and(|config| config.json().pointer("/hooks/poststop").is_some())
            && let Err(error) = opened.runtime.delete(&container.claim.id).await
        {
            tracing::warn!(container = %container.claim.id, %error, "poststop hooks");
        }
    }

    /// Ends and removes everything a container has. Whoever asked for its preparation or for a start may be gone while that
    /// goes on, and what is made after it was removed would stay.
    async fn release(self: Arc<Self>, id: &ContainerId) -> Vec<Leftover> {
        let preparing = lock(&self.preparing).get(id).cloned();
        if let Some(preparing) = preparing {
            preparing.closed().await;
        }
        let Ok(container) = self.container(id) else { return Vec::new() };
        container.close_starts().await;
        self.run_poststop_hooks(&container).await;
        self.remember_rest(&container);
        let released = async {
            let own = Arc::clone(&container);
            let (killed, mut left) =
                self.pools.run(Pool::Releases, move || own.claim.end(own.known_cgroups())).await?;
            if killed > 0 {
                tracing::debug!(container = %id, killed, "processes were left");
            }
            if container.claim.cgroup.is_some() {
                self.host.end_unadopted(container.members(), true, None).await?;
            }
            let pool = if container.network.is_slow { Pool::Detachments } else { Pool::Releases };
            let (own, detached) = (Arc::clone(&self), Arc::clone(&container));
            left.extend(self.pools.run(pool, move || own.bundles.detach(&detached.claim.dir)).await?);
            let (own, removed) = (Arc::clone(&self), Arc::clone(&container));
            self.pools.run(Pool::Releases, move || removed.claim.remove(&*own.bundles, left)).await
        };
        let left = released.await;
        self.released(&container, left.as_ref().is_ok_and(Vec::is_empty));
        left.unwrap_or_else(|error: Error| {
            vec![Leftover::new(LeftoverKind::File, &container.claim.dir, &error)]
        })
    }

    /// The same when the driver is closed. Blocks.
    fn release_now(&self, container: &Container) -> Vec<Leftover> {
        self.remember_rest(container);
        let (_, mut left) = container.claim.end(container.known_cgroups());
        if container.claim.cgroup.is_some()
            && let Err(error) = self.host.end_unadopted_now(container.members())
        {
            tracing::warn!(container = %container.claim.id, %error, "end what a runtime has left");
        }
        left.extend(self.bundles.detach(&container.claim.dir));
        let left = container.claim.remove(&*self.bundles, left);
        self.released(container, left.is_empty());
        left
    }

    /// Without a pid namespace that ends and reaps them, what is left becomes our children.
    fn remember_rest(&self, container: &Container) {
        if container.spec.process_mode == ProcessMode::NoSandbox {
            self.host.remember(container.claim.id.clone(), container.members());
        }
    }

    fn released(&self, container: &Container, completely: bool) {
        self.host.forget(container.claim.id.clone());
        // What could not be removed is tried again at the end.
        if completely {
            lock(&self.containers).remove(&container.claim.id);
        }
    }
}

/// The pid of a process that has started: from now on its exit is reported.
fn reported((pid, adopted): (HostPid, Adopted)) -> HostPid {
    adopted.report();
    pid
}

fn gone(message: String) -> StartFailure {
    StartFailure::new(StartFailureKind::ContainerGone, message)
}

fn unprepared<T: Send + 'static>(
    id: &ContainerId,
) -> BoxFuture<'static, std::result::Result<T, StartFailure>> {
    let message = format!("the container {id} is not prepared");
    future::ready(Err(StartFailure::new(StartFailureKind::RuntimeBroken, message))).boxed()
}

impl Drop for Shared {
    /// A driver that no executor was built on, or that was closed before: the thread ends with it.
    fn drop(&mut self) {
        if let Some(kick) = &self.kick {
            kick.stop();
        }
    }
}
