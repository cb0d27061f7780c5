//! The embedding API: an executor, which [`builder`] makes and starts.
//!
//! One thread runs an actix `System` with all actors of an executor: a second arbiter would cost more for each
//! message than it could gain. `System::new` panics on a tokio worker, so we start a thread of our own, unless the
//! embedder has a `System` and wants the actors there.

mod builder;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix::{Addr, Recipient};
use executor_lifecycle::{Cancel, ContainerId, Exit, Leftover};
use tokio::sync::watch;
use uuid::Uuid;

pub use self::builder::ExecutorBuilder;
use crate::actors::ExecutorActor;
use crate::events::BusView;
use crate::handle::{Tokens, ask, ask_or_cancel};
use crate::messages::{self, Drain, ExitOf, Get, List, Prepare, Run, RunAccepted, Shutdown};
use crate::{
    ContainerHandle, ContainerSpec, Error, Events, ExitNotice, ExitSource, InvalidSpec, Notice, Runtime,
    RuntimeError, Snapshot, Swept, Unadopted, io,
};

/// How long dropping the last handle waits for the containers to end.
const DROP_DEADLINE: Duration = Duration::from_secs(10);

/// Runs containers. A clone is another handle of the same executor.
///
/// End it with [`shutdown`](Self::shutdown). Dropping the last clone kills the containers and blocks until they are
/// released, at most 10 s. If they are kept, it does as [`detach`](Self::detach) instead.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    address: Addr<ExecutorActor>,
    bus: BusView,
    tokens: Tokens,
    unadopted: Vec<Unadopted>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What could not be removed when the runtime was closed. `None` until then.
    closed: watch::Receiver<Option<Vec<Leftover>>>,
}

/// How a shutdown went.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Containers that were not released at the deadline. They were ended and released after it.
    pub late: Vec<ContainerId>,
    /// What could not be removed. Empty if all was.
    pub left: Vec<Leftover>,
}

impl Executor {
    /// Makes a builder of an executor on `runtime`.
    pub fn builder<R: Runtime + ExitSource>(runtime: R) -> ExecutorBuilder {
        ExecutorBuilder::new(runtime)
    }

    /// What dead executors had left under the root directory. [`ExecutorBuilder::build`] removed it.
    pub fn swept(&self) -> &[Swept] {
        self.inner.bus.swept()
    }

    /// The containers that the executor before this one has left, which run on or have ended meanwhile; see
    /// [`Survival::Keep`](crate::Survival::Keep). A handle has the ends of the pipes that were kept. Each is returned once: after that,
    /// [`get`](Self::get) finds it.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. If it is dropped after that, [`get`](Self::get) finds the containers.
    pub async fn adopted(&self) -> Result<Vec<ContainerHandle>, Error> {
        let accepted = self.ask(messages::TakeAdopted).await.ok_or(Error::Stopped)?;
        let handle = |RunAccepted { id, parts, ours }| {
            ContainerHandle::new(id, parts, ours, self.inner.tokens.clone())
        };
        Ok(accepted.into_iter().map(handle).collect())
    }

    /// What the executor before this one has left and cannot be taken up: it is left as it is.
    pub fn unadopted(&self) -> &[Unadopted] {
        &self.inner.unadopted
    }

    /// Ends the executor and lets its containers run on; the next one of the same root and name takes them up. Who waits for the
    /// exit of one gets [`Lost`](executor_lifecycle::ExitReason::Lost), since this executor will not see it. Returns when the root is given
    /// up. Dropping the last handle of an executor that is kept does the same.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`](crate::RuntimeError::Unsupported) unless the executor is kept; nothing is changed then.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled.
    pub async fn detach(&self) -> Result<(), Error> {
        if !self.inner.bus.is_kept() {
            return Err(RuntimeError::unsupported("detach", "an executor that is not kept").into());
        }
        self.ask(messages::Detach).await.unwrap_or_default();
        let mut closed = self.inner.closed.clone();
        drop(closed.wait_for(Option::is_some).await);
        Ok(())
    }

    /// Registers a container and begins to start it. Returns when its id is registered.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`], [`Error::IdTaken`], [`Error::Pipe`], [`Error::ShuttingDown`], [`Error::Stopped`]. In
    /// each case nothing is left of the container, and no other container is affected. If the container cannot be
    /// started, that is not an error here: [`ContainerHandle::started`] and [`ContainerHandle::wait`] report it.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. If the future is dropped after that and before it
    /// returns, the container is cancelled and released, because no one has a handle of it.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sh", "-c", "echo hello; exit 3"]).piped()).await?;
    /// let output = container.io().take_stdout().expect("a pipe").read_to_end().await;
    /// let exit = container.wait().await;
    /// assert_eq!((output.as_slice(), exit.status), (&b"hello\n"[..], ExitStatus::Code(3)));
    ///
    /// let missing = executor.run(ContainerSpec::host(["no-such-program"])).await?.wait().await;
    /// assert!(matches!(missing.reason, ExitReason::StartFailed(_)));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn run(&self, spec: ContainerSpec) -> Result<ContainerHandle, Error> {
        self.register(spec, false).await
    }

    /// Registers a container and creates it, without executing its program: it is held at created until
    /// [`ContainerHandle::start`]. Returns when its id is registered; [`ContainerHandle::created`] waits until it is
    /// created.
    ///
    /// While it is held, execs and signals wait for the start. A cancel or SIGKILL ends it at once. The terminal gets the
    /// size that was requested last, before the first instruction of the program. A [`run`](Self::run) is `create` and
    /// `start`.
    ///
    /// # Errors
    /// As for [`run`](Self::run). A runtime that stays in the foreground cannot hold a container: its start fails.
    ///
    /// # Cancel safety
    /// As for [`run`](Self::run).
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.create(ContainerSpec::host(["sh", "-c", "exit 3"])).await?;
    /// let pid = container.created().await?;
    /// container.start().await?;
    /// assert_eq!(container.started().await?, pid);
    /// assert_eq!(container.wait().await.status, ExitStatus::Code(3));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn create(&self, spec: ContainerSpec) -> Result<ContainerHandle, Error> {
        self.register(spec, true).await
    }

    fn ask<M>(&self, message: M) -> impl Future<Output = Option<M::Result>> + Send + use<M>
    where
        M: actix::Message<Result: Send> + Send + 'static,
        ExecutorActor: actix::Handler<M>,
    {
        ask(&self.inner.address.downgrade(), message)
    }

    async fn register(&self, spec: ContainerSpec, hold: bool) -> Result<ContainerHandle, Error> {
        spec.validate()?;
        let cancel_on_drop = spec.cancel_on_drop;
        let token = self.inner.tokens.next();
        let empty = tracing::field::Empty;
        let span = tracing::info_span!("run", container = empty, exit.code = empty);
        let run = Run { spec, hold, token, span };
        let answer = ask_or_cancel(&self.inner.address.downgrade(), run, token).await;
        let RunAccepted { id, parts, ours } = answer.ok_or(Error::Stopped)??;
        Ok(ContainerHandle::new(id, parts, ours, self.inner.tokens.clone()).with(cancel_on_drop))
    }

    /// Keeps `count` containers of this specification ready from now on: they are created, but their program is not
    /// executed. A [`run`](Self::run) of an equal specification starts one of them, and another is created in its
    /// place. If none is ready, `run` creates its own. Returns when `count` containers are ready.
    ///
    /// Two specifications are equal here if they differ at most in the labels, the time limit, the exit codes that
    /// count as success, and `cancel_on_drop`. A specification with an id equals none. Files to be mounted,
    /// environment variables and names are read when a container is created, not when it is started. A ready
    /// container is not yet a container of the executor: it has no events and is in no list. Another `count` for the
    /// same specification replaces the former one. A count of 0 ends it, and so does a shutdown.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`], also if it has an id. [`Error::NotReady`] if a container cannot be created; the next
    /// `run` tries again. [`Error::ShuttingDown`], [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on the containers are kept ready, even if the
    /// future is dropped.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let spec = ContainerSpec::host(["true"]);
    /// executor.prepare(spec.clone(), 4).await?;
    /// let limited = spec.time_limit(Duration::from_secs(5), Cancel::now());
    /// let exit = executor.run(limited).await?.wait().await; // starts one of the four
    /// assert!(exit.is_success());
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn prepare(&self, spec: ContainerSpec, count: usize) -> Result<(), Error> {
        spec.validate()?;
        if spec.id.is_some() {
            return Err(InvalidSpec::new("id", "containers that are kept ready have ids of their own").into());
        }
        self.ask(Prepare { spec, count }).await.ok_or(Error::Stopped)?
    }

    /// Makes another handle of a container, by its id. The pipes of its init belong to the first handle.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such container or it is released; [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// Nothing is changed. The future can be dropped at any time.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let id: ContainerId = "build-17".parse().expect("an id");
    /// drop(executor.run(ContainerSpec::host(["sleep", "60"]).id(id.clone())).await?);
    /// let found = executor.get(&id).await?; // dropping a handle ends nothing
    /// assert!(matches!(found.cancel(Cancel::now()).await.reason, ExitReason::Cancelled { .. }));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn get(&self, id: &ContainerId) -> Result<ContainerHandle, Error> {
        let parts = self.ask(Get(id.clone())).await.ok_or(Error::Stopped)?;
        let parts = parts.ok_or_else(|| Error::NotFound { id: id.clone() })?;
        Ok(ContainerHandle::new(id.clone(), parts, io::Streams::default(), self.inner.tokens.clone()))
    }

    /// Returns the exit of the container with this id; `None` while it has not exited. If no container has the id now, the
    /// exit is that of the last one that was released. The executor remembers the last 1024 exits of released containers.
    ///
    /// # Errors
    /// [`Error::NotFound`] if this executor never had a container with this id, or has forgotten its exit;
    /// [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// Nothing is changed, so the future can be dropped at any time.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let id: ContainerId = "build-17".parse().expect("an id");
    /// executor.run(ContainerSpec::host(["sh", "-c", "exit 3"]).id(id.clone())).await?.released().await?;
    /// assert_eq!(executor.exit_of(&id).await?.map(|exit| exit.status), Some(ExitStatus::Code(3)));
    /// let unknown = executor.exit_of(&"build-18".parse().expect("an id")).await;
    /// assert!(matches!(unknown, Err(Error::NotFound { .. })));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn exit_of(&self, id: &ContainerId) -> Result<Option<Exit>, Error> {
        self.ask(ExitOf(id.clone())).await.ok_or(Error::Stopped)?
    }

    /// Returns every container as of its last event, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// Nothing is changed. The future can be dropped at any time.
    pub async fn list(&self) -> Result<Vec<Snapshot>, Error> {
        self.ask(List).await.ok_or(Error::Stopped)
    }

    /// Subscribes to the events of all containers from now on. What was swept when the executor was built comes
    /// first.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let mut events = executor.events();
    /// executor.run(ContainerSpec::host(["true"])).await?.released().await?;
    /// let mut order = EventOrder::default();
    /// while !order.is_complete() {
    ///     let Some(Notice::Event(event)) = events.next().await else { panic!("no event") };
    ///     order.check(&event).expect("registered < started < exited < released");
    /// }
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub fn events(&self) -> Events {
        self.inner.bus.subscribe()
    }

    /// Subscribes to the events after the one with this number, those that the executors before this one have published included:
    /// first what is recorded, then what comes. A [`Notice::Gap`] says how many are recorded no more. With the number of the last
    /// event that it has handled, a subscriber gets each event once, whoever has ended meanwhile. It reads the record, which blocks
    /// for a moment.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`](crate::RuntimeError::Unsupported) unless the executor is kept; [`RuntimeError::Failed`](crate::RuntimeError::Failed) if the record cannot be
    /// read.
    pub fn events_since(&self, number: u64) -> Result<Events, Error> {
        let failed = |error| RuntimeError::failed("read the record of", "this executor", error);
        let events = self.inner.bus.events_since(number).map_err(failed)?;
        events.ok_or_else(|| {
            RuntimeError::unsupported("read past events of", "an executor that is not kept").into()
        })
    }

    /// Takes no new containers from now on, and waits until all are released. They end by themselves or are
    /// cancelled. A container that is held at created must be started or cancelled, and one that is kept must be
    /// removed; execs are possible, too. Containers that were kept ready are ended. [`shutdown`](Self::shutdown) then
    /// stops the executor.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on no new containers are taken, even if the future is dropped.
    pub async fn drain(&self) -> Result<(), Error> {
        self.ask(Drain).await.ok_or(Error::Stopped)?
    }

    /// Sends the events of all containers from now on to an actor of yours. The next one is sent when the actor has
    /// handled the former. A slow actor gets a [`Notice::Gap`]. If you need only exits, use
    /// [`notify_exits`](Self::notify_exits): it loses none.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on the subscription exists, even if the future
    /// is dropped.
    pub async fn subscribe(&self, to: Recipient<Notice>) -> Result<(), Error> {
        self.ask(messages::Subscribe(to)).await.ok_or(Error::Stopped)
    }

    /// Sends the exit of every container that ends from now on to an actor of yours: one [`ExitNotice`] for each,
    /// exactly once, also if the actor is slow. Exits of execs are not among them; see
    /// [`ProcessHandle::notify_exit`](crate::ProcessHandle::notify_exit).
    ///
    /// The executor keeps the actor alive until it stops. If the actor holds the executor as well, only
    /// [`shutdown`](Self::shutdown) ends the two: dropping handles does not.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn notify_exits(&self, to: Recipient<ExitNotice>) -> Result<(), Error> {
        if self.inner.bus.notify_exits(to) { Ok(()) } else { Err(Error::Stopped) }
    }

    /// Takes no new containers, cancels every container as `cancel` says, waits until all are released, and stops the
    /// executor.
    ///
    /// A grace that is longer than the deadline ends half a second before it, or a quarter of the time if that is less, so
    /// that every exit is known by then. At `deadline` the actors are stopped, and what a runtime that hangs has left is killed
    /// and released without them: such a container is in [`ShutdownReport::late`], and its exit is
    /// [`Lost`](executor_lifecycle::ExitReason::Lost), without an event. A deadline of zero leaves no time for exits. To let containers end by
    /// themselves, call [`drain`](Self::drain) first.
    ///
    /// # Cancel safety
    /// The request is sent when the future is first polled. From then on the shutdown goes on, even if the future is
    /// dropped. A second call with a stronger cancel or a sooner deadline makes it faster.
    ///
    /// ```
    /// # use executor_core::*;
    /// # use executor_core::lifecycle::*;
    /// # use executor_sim::{SimRuntime, Simulation};
    /// # use std::time::Duration;
    /// # Simulation::new(SimRuntime::new()).run(async |sim| {
    /// # let executor = &sim.executor;
    /// let container = executor.run(ContainerSpec::host(["sleep", "60"])).await?;
    /// let report = executor.shutdown(Cancel::with_grace(Duration::from_secs(5)), Duration::from_secs(10)).await;
    /// assert_eq!(report, ShutdownReport::default()); // nothing was late, nothing is left
    /// assert!(matches!(container.wait().await.reason, ExitReason::Cancelled { .. }));
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn shutdown(&self, cancel: Cancel, deadline: Duration) -> ShutdownReport {
        let late = self.ask(Shutdown { cancel, deadline }).await.unwrap_or_default();
        let mut closed = self.inner.closed.clone();
        let left = closed.wait_for(Option::is_some).await.ok().and_then(|left| left.clone());
        ShutdownReport { late, left: left.unwrap_or_default() }
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match self.bus.is_kept() {
            true => self.address.do_send(messages::Detach),
            false => self.address.do_send(Shutdown { cancel: Cancel::now(), deadline: DROP_DEADLINE }),
        }
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // The executor's own thread cannot wait for itself. It ends by itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the executor's thread panicked");
        }
    }
}

/// The default root directory of this user: `/run/longshore` for root, else `$XDG_RUNTIME_DIR/longshore`, else
/// `longshore-UID` in the directory for temporary files.
pub fn default_root() -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return PathBuf::from("/run/longshore");
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    own.map_or_else(
        || std::env::temp_dir().join(format!("longshore-{}", uid.as_raw())),
        |dir| dir.join("longshore"),
    )
}

pub(crate) fn generated_id() -> ContainerId {
    let id = Uuid::new_v4().simple().to_string();
    #[expect(clippy::expect_used, reason = "32 hexadecimal digits")]
    ContainerId::new(id).expect("hexadecimal digits are an id")
}
