//! The embedding API: an executor, its builder, and the thread its actors live on.
//!
//! One thread runs an actix `System` with all actors of an executor: a second arbiter would cost
//! more for each message than it could win. `System::new` panics on a tokio worker, so the thread is
//! always our own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix::{Addr, System};
use executor_lifecycle::ContainerId;
use tokio::sync::watch;
use uuid::Uuid;

use crate::actors::{ExecutorActor, Reaper, World};
use crate::clock::Clock;
use crate::events::{Bus, BusView};
use crate::messages::{Get, List, ProcessStreams, Run, Shutdown};
use crate::{ContainerHandle, ContainerSpec, Error, Events, ExitSource, Runtime, Snapshot, Swept, io};

/// How long dropping the last handle of an executor waits for its containers to end.
const DROP_DEADLINE: Duration = Duration::from_secs(10);

/// Runs containers. A clone is another handle of the same executor.
///
/// End it with [`shutdown`](Self::shutdown). Dropping the last clone does the same and blocks until
/// the containers are gone, at most 10 s: a process that exits leaves none behind.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    address: Addr<ExecutorActor>,
    bus: BusView,
    swept: Vec<Swept>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What closing the runtime could not remove; closed without a value while the thread runs.
    closed: watch::Receiver<Option<Vec<String>>>,
}

/// Makes an [`Executor`].
pub struct ExecutorBuilder {
    runtime: Arc<dyn Runtime>,
    exits: Arc<dyn ExitSource>,
    root: PathBuf,
}

/// How a shutdown went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Containers that had not been released when the deadline came; they were then ended and
    /// released all the same.
    pub late: Vec<ContainerId>,
    /// What could not be removed; empty when all is well.
    pub left: Vec<String>,
}

impl ExecutorBuilder {
    /// The directory for bundles and the runtime's state; made when absent. Several executors may
    /// share one: each removes what dead ones left, and touches nothing of live ones. By default
    /// `/run/longshore`.
    #[must_use]
    pub fn root(self, root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..self }
    }

    /// Opens the root, removes what dead executors left there, and starts the executor's thread.
    ///
    /// # Errors
    /// [`Error::Runtime`] when the root cannot be opened or the runtime cannot be used.
    pub fn build(self) -> Result<Executor, Error> {
        let Self { runtime, exits, root } = self;
        let swept = runtime.open(&root)?;
        let bus = Bus::new();
        let (ready, address) = mpsc::sync_channel(1);
        let (closed_sender, closed) = watch::channel(None);
        let view = bus.view();
        let thread = thread::Builder::new().name("longshore".into()).spawn(move || {
            let system = System::new();
            system.block_on(async {
                let world = World {
                    runtime: Arc::clone(&runtime),
                    clock: Clock::new(),
                    reaper: Reaper::start(&*exits),
                };
                let (stopped, mut until_stopped) = watch::channel(false);
                let executor = ExecutorActor::spawn(world, bus, stopped);
                let _builder_waits = ready.send(executor);
                // An error means that the actor is gone, which ends the executor as well.
                let _ = until_stopped.wait_for(|stopped| *stopped).await;
            });
            drop(system);
            closed_sender.send_replace(Some(runtime.close()));
        });
        let thread = thread.map_err(Error::Thread)?;
        let address = address.recv().map_err(|_| Error::Stopped)?;
        Ok(Executor {
            inner: Arc::new(Inner { address, bus: view, swept, thread: Mutex::new(Some(thread)), closed }),
        })
    }
}

impl Executor {
    /// Begins to build an executor on `runtime`.
    pub fn builder<R: Runtime + ExitSource>(runtime: R) -> ExecutorBuilder {
        let runtime = Arc::new(runtime);
        ExecutorBuilder { exits: Arc::clone(&runtime) as _, runtime, root: PathBuf::from("/run/longshore") }
    }

    /// What dead executors had left under the root, and is gone now.
    pub fn swept(&self) -> &[Swept] {
        &self.inner.swept
    }

    /// Registers a container and begins to start it; answers when its id is registered.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`], [`Error::IdTaken`], [`Error::ShuttingDown`]; in each case nothing was
    /// created and nothing of others was touched. That the container could not be started is not an
    /// error here: [`ContainerHandle::started`] and [`ContainerHandle::wait`] say so.
    pub async fn run(&self, mut spec: ContainerSpec) -> Result<ContainerHandle, Error> {
        spec.validate()?;
        let id = spec.id.clone().unwrap_or_else(generated_id);
        let (stdio, copiers, streams) =
            io::connect(std::mem::take(&mut spec.process.stdio)).map_err(Error::Pipe)?;
        let run = Run { id: id.clone(), spec, streams: ProcessStreams { stdio, copiers } };
        let parts = self.inner.address.send(run).await.map_err(|_| Error::Stopped)??;
        Ok(ContainerHandle::new(id, parts, streams))
    }

    /// Another handle of a container, by its id.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none or it is released.
    pub async fn get(&self, id: &ContainerId) -> Result<ContainerHandle, Error> {
        let parts = self.inner.address.send(Get(id.clone())).await.map_err(|_| Error::Stopped)?;
        let parts = parts.ok_or_else(|| Error::NotFound { id: id.clone() })?;
        Ok(ContainerHandle::new(id.clone(), parts, io::Streams::default()))
    }

    /// How every container stands, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn list(&self) -> Result<Vec<Snapshot>, Error> {
        self.inner.address.send(List).await.map_err(|_| Error::Stopped)
    }

    /// The events of all containers from now on.
    pub fn events(&self) -> Events {
        self.inner.bus.subscribe()
    }

    /// Takes nothing new, ends every container, waits until all are released, and stops.
    ///
    /// After `deadline` the actors are stopped all the same, and what is left is ended and released
    /// without them.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let late = self.inner.address.send(Shutdown { deadline }).await.unwrap_or_default();
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
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        self.address.do_send(Shutdown { deadline: DROP_DEADLINE });
        // On the executor's own thread, waiting for it would be for ever; it ends by itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the executor's thread panicked");
        }
    }
}

fn generated_id() -> ContainerId {
    let id = Uuid::new_v4().simple().to_string();
    #[expect(clippy::expect_used, reason = "32 hexadecimal digits")]
    ContainerId::new(id).expect("hexadecimal digits are an id")
}
