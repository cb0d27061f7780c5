//! The builder of an executor, and the actors and the thread that it starts.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use actix::{Addr, System, SystemRunner};
use executor_lifecycle::{Leftover, Timestamp};
use tokio::sync::watch;

use super::{Executor, Inner, default_root};
use crate::actors::{ExecutorActor, Left, Reaper, World};
use crate::clock::Clock;
use crate::descriptors::{SIGNAL_DESCRIPTORS, check_free_descriptors};
use crate::events::Bus;
use crate::handle::Tokens;
use crate::history::{History, Past};
use crate::messages::Stop;
use crate::metrics::Meters;
use crate::observe::ObserverSlot;
use crate::{Error, ExitSource, Kept, KeptContainer, Observer, Runtime, Survival, Unadopted};

/// How many file descriptors the executor's thread needs: tokio's reactor has three.
const SYSTEM_DESCRIPTORS: usize = 3 + SIGNAL_DESCRIPTORS;

/// How long the actors may take to end after [`Stop`].
const ACTORS_END: Duration = Duration::from_secs(1);

/// Makes an [`Executor`].
pub struct ExecutorBuilder {
    runtime: Arc<dyn Runtime>,
    exits: Arc<dyn ExitSource>,
    root: PathBuf,
    began_at: Option<Timestamp>,
    observer: Option<Arc<dyn Observer>>,
    survival: Survival,
}

impl ExecutorBuilder {
    pub(super) fn new<R: Runtime + ExitSource>(runtime: R) -> Self {
        let runtime = Arc::new(runtime);
        Self {
            exits: Arc::clone(&runtime) as _,
            runtime,
            root: default_root(),
            began_at: None,
            observer: None,
            survival: Survival::EndWithMe,
        }
    }

    /// Sets what becomes of the containers when the executor ends without a shutdown. The default is
    /// [`Survival::EndWithMe`].
    #[must_use]
    pub fn survival(self, survival: Survival) -> Self {
        Self { survival, ..self }
    }

    /// Sets the root directory, for bundles and the state of the runtime. It is created if it does not exist.
    /// Executors may share it: each removes what dead ones left, and leaves live ones alone. The default is
    /// [`default_root`].
    ///
    /// A runtime refuses a root that somebody else could change or could have prepared. It must belong to this
    /// process's user, must not be a link, and nobody else may be able to write to it. The directories above it must
    /// belong to root or to this user, and may be writable for others only with the sticky bit, as `/tmp` is.
    #[must_use]
    pub fn root(self, root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..self }
    }

    /// Sets the moment that the executor's clock shows when it is built. The default is the time of day.
    #[must_use]
    pub fn began_at(self, moment: Timestamp) -> Self {
        Self { began_at: Some(moment), ..self }
    }

    /// Shows every message of the actors to `observer`, and lets it decide which actor goes first.
    #[must_use]
    pub fn observer(self, observer: impl Observer) -> Self {
        Self { observer: Some(Arc::new(observer)), ..self }
    }

    /// Opens the root directory, removes what dead executors left there, and starts the executor's thread.
    ///
    /// # Errors
    /// [`Error::Runtime`] if the root directory cannot be opened or the runtime cannot be used; [`Error::Thread`] if
    /// the thread cannot be started.
    pub fn build(self) -> Result<Executor, Error> {
        let Opened { bus, unadopted, left } = self.open()?;
        let (closing, closed) = Closing::new(&self.runtime, bus.meters());
        let view = bus.view();
        let (ready, address) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("longshore".into()).spawn(move || {
            let system = match new_system() {
                Ok(system) => system,
                Err(error) => {
                    drop(closing);
                    let _builder_waits = ready.send(Err(error));
                    return;
                }
            };
            system.block_on(async {
                let mut actors = self.start_actors(bus, left);
                let _builder_waits = ready.send(Ok(actors.executor.clone()));
                actors.until_stopped().await;
                actors.end().await;
            });
            drop(system);
            drop(closing);
        });
        let thread = Mutex::new(Some(thread.map_err(Error::Thread)?));
        let address = address.recv().map_err(|_| Error::Stopped)?.map_err(Error::Thread)?;
        let (bus, tokens) = (view, Tokens::default());
        Ok(Executor { inner: Arc::new(Inner { address, bus, tokens, unadopted, thread, closed }) })
    }

    /// Does as [`build`](Self::build), without a thread: the actors run in the actix `System` of the calling thread,
    /// together with the embedder's own. If those block, the executor blocks.
    ///
    /// Dropping the last handle begins a shutdown and does not wait for it. Dropping or stopping the `System` ends
    /// the containers and blocks until they are released.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    ///
    /// # Panics
    /// If no actix `System` runs on the thread, as under `#[tokio::main]`. [`build`](Self::build) needs none.
    #[track_caller]
    pub fn build_here(self) -> Result<Executor, Error> {
        // Otherwise actix panics, in words that name neither this method nor the other one.
        let in_system = System::is_registered() && tokio::runtime::Handle::try_current().is_ok();
        assert!(
            in_system,
            "`build_here` needs an actix `System` that runs on this thread: call `build` instead, or use `#[actix::main]`"
        );
        let Opened { bus, unadopted, left } = self.open()?;
        let (closing, closed) = Closing::new(&self.runtime, bus.meters());
        let view = bus.view();
        let mut actors = self.start_actors(bus, left);
        let address = actors.executor.clone();
        actix_rt::spawn(async move {
            actors.until_stopped().await;
            actors.end().await;
            // Closing may block, and this thread is not ours. If the `System` ends meanwhile, dropping the task
            // closes it here.
            let _system_gone = tokio::task::spawn_blocking(|| drop(closing)).await;
        });
        let (bus, tokens, thread) = (view, Tokens::default(), Mutex::default());
        Ok(Executor { inner: Arc::new(Inner { address, bus, tokens, unadopted, thread, closed }) })
    }

    /// Opens the root. Metrics are registered on the calling thread, which may have a recorder of its own.
    fn open(&self) -> Result<Opened, Error> {
        let meters = Meters::register();
        let (swept, history, unadopted, left) = match &self.survival {
            Survival::EndWithMe => {
                (self.runtime.open(&self.root)?, History::none(), Vec::new(), Left::default())
            }
            Survival::Keep { name } => {
                let Kept { swept, ledger, containers, unadopted } =
                    self.runtime.open_kept(&self.root, name)?;
                let (history, past) = History::resume(ledger)?;
                let (unadopted, left) = reliable(past, containers, unadopted);
                (swept, history, unadopted, left)
            }
        };
        meters.swept(&swept);
        Ok(Opened { bus: Bus::new(meters, swept, history), unadopted, left })
    }

    fn start_actors(self, bus: Bus, left: Left) -> Actors {
        let observer_slot = ObserverSlot { clock: Clock::new(self.began_at), observer: self.observer };
        let reaper = Reaper::start(&*self.exits, &observer_slot);
        let (present, absent) = tokio::sync::mpsc::channel(1);
        let world = World {
            runtime: self.runtime,
            clock: observer_slot.clock,
            reaper: reaper.clone(),
            observer_slot,
            meters: bus.meters().clone(),
            history: Arc::clone(bus.history()),
            present,
        };
        let (stop, stopped) = watch::channel(false);
        Actors {
            executor: ExecutorActor::spawn(world, bus, stop, &*self.exits, left),
            reaper,
            stopped,
            absent,
        }
    }
}

/// What an executor begins with.
struct Opened {
    bus: Bus,
    unadopted: Vec<Unadopted>,
    left: Left,
}

/// What can be taken up. A container whose record cannot be relied on is left as it is, with all that is known of it.
fn reliable(
    mut past: Past,
    mut containers: Vec<KeptContainer>,
    mut unadopted: Vec<Unadopted>,
) -> (Vec<Unadopted>, Left) {
    for Unadopted { container, .. } in &unadopted {
        past.containers.retain(|id, _| id.as_str() != container);
    }
    past.containers.retain(|id, published| {
        let Some(why) = published.broken.take() else { return true };
        containers.retain(|kept| kept.id != *id);
        unadopted.push(Unadopted::new(id.as_str(), why));
        false
    });
    (unadopted, Left { past, containers })
}

/// An actix `System` for this thread. `System::new` would panic if there are no file descriptors, and so does tokio when it
/// first prepares for signals.
fn new_system() -> io::Result<SystemRunner> {
    check_free_descriptors(SYSTEM_DESCRIPTORS)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    Ok(System::with_tokio_rt(|| runtime))
}

/// The actors of an executor, for the task that drives them.
struct Actors {
    executor: Addr<ExecutorActor>,
    reaper: Addr<Reaper>,
    stopped: watch::Receiver<bool>,
    /// Closed when no actor is left.
    absent: tokio::sync::mpsc::Receiver<Infallible>,
}

impl Actors {
    /// Waits until a shutdown is over, or the executor's actor has ended.
    async fn until_stopped(&mut self) {
        let _actor_gone = self.stopped.wait_for(|stopped| *stopped).await;
    }

    /// Ends the actors that a shutdown has left. An actor that waits for a hanging runtime is left behind.
    async fn end(self) {
        let Self { executor, reaper, mut absent, .. } = self;
        executor.do_send(Stop);
        reaper.do_send(Stop);
        drop((executor, reaper));
        let _one_hangs = tokio::time::timeout(ACTORS_END, absent.recv()).await;
    }
}

/// Closes the runtime when it is dropped, for any reason, and keeps what was left.
struct Closing {
    runtime: Arc<dyn Runtime>,
    meters: Meters,
    closed: watch::Sender<Option<Vec<Leftover>>>,
}

impl Closing {
    fn new(runtime: &Arc<dyn Runtime>, meters: &Meters) -> (Self, watch::Receiver<Option<Vec<Leftover>>>) {
        let (closed, receiver) = watch::channel(None);
        (Self { runtime: Arc::clone(runtime), meters: meters.clone(), closed }, receiver)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let left = self.runtime.close();
        self.meters.leftovers(&left);
        self.closed.send_replace(Some(left));
    }
}
