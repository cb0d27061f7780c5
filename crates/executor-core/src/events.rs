//! What subscribers see of a container: a snapshot, then every event after it, gaps told.
//!
//! Each container has a [`Hub`]. Its snapshot is always current, for those who wait for a state;
//! its event channel exists from the first subscriber on. A slow subscriber loses the oldest events
//! and is told how many; it never holds anything up.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use executor_lifecycle::container::Phase;
use executor_lifecycle::{ContainerId, Event, EventKind, ExecId, Exit, HostPid, Leftover, Timestamp};
use futures::Stream;
use tokio::sync::{broadcast, watch};

use crate::Swept;

/// Events a subscriber may be behind before it loses some.
const CONTAINER_BACKLOG: usize = 256;
const EXECUTOR_BACKLOG: usize = 4096;

/// A container as of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which container.
    pub container: ContainerId,
    /// The sequence number of the last event it includes; 0 before the first.
    pub seq: u64,
    /// Where it is in its life.
    pub phase: Phase,
    /// Init's pid on the host, once it exists.
    pub pid: Option<HostPid>,
    /// When init started.
    pub started_at: Option<Timestamp>,
    /// The execs that have not exited, each with its pid once it runs.
    pub execs: BTreeMap<ExecId, Option<HostPid>>,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
    /// Once it is released: what could not be removed.
    pub left: Option<Vec<Leftover>>,
}

/// A line for people: `id: running, pid 12`.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.container, self.phase)?;
        match (&self.exit, self.pid) {
            (Some(exit), _) => write!(f, ", {exit}"),
            (None, Some(pid)) => write!(f, ", pid {pid}"),
            (None, None) => Ok(()),
        }
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// How things stood when the subscription began. First, and only for a container's events.
    Snapshot(Snapshot),
    /// What a dead executor had left, and is gone now. First, and only for an executor's events.
    Swept(Swept),
    /// What happened next.
    Event(Event),
    /// The subscriber was too slow and has missed events.
    Gap {
        /// How many.
        missed: u64,
    },
}

/// A subscription to the events of a container, or of all containers of an executor.
#[derive(Debug)]
pub struct Events {
    swept: VecDeque<Swept>,
    snapshot: Option<Snapshot>,
    receiver: broadcast::Receiver<Event>,
    /// Events up to this one are in the snapshot.
    seen: u64,
    /// Whether these are one container's events, which end with `Released`.
    of_one: bool,
    ended: bool,
}

impl Events {
    /// The next notice; `None` when nothing can come any more.
    pub async fn next(&mut self) -> Option<Notice> {
        if let Some(swept) = self.swept.pop_front() {
            return Some(Notice::Swept(swept));
        }
        if let Some(snapshot) = self.snapshot.take() {
            self.ended = snapshot.phase == Phase::Released;
            self.seen = snapshot.seq;
            return Some(Notice::Snapshot(snapshot));
        }
        if self.ended {
            return None;
        }
        loop {
            match self.receiver.recv().await {
                Ok(event) if self.of_one && event.seq <= self.seen => {}
                Ok(event) => {
                    self.ended = self.of_one && matches!(event.kind, EventKind::Released { .. });
                    return Some(Notice::Event(event));
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => return Some(Notice::Gap { missed }),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Notice> + Send {
        futures::stream::unfold(self, |mut events| async move {
            events.next().await.map(|notice| (notice, events))
        })
    }
}

/// The executor's channel for the events of all its containers. It ends with the actors that hold it.
#[derive(Clone, Debug)]
pub(crate) struct Bus(broadcast::Sender<Event>);

/// The end of the channel that a handle of the executor holds.
#[derive(Debug)]
pub(crate) struct BusView(broadcast::WeakSender<Event>);

impl Bus {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(EXECUTOR_BACKLOG))
    }

    pub(crate) fn view(&self) -> BusView {
        BusView(self.0.downgrade())
    }
}

impl BusView {
    pub(crate) fn subscribe(&self, swept: &[Swept]) -> Events {
        let receiver = self.0.upgrade().map_or_else(closed, |bus| bus.subscribe());
        let swept = swept.iter().cloned().collect();
        Events { swept, snapshot: None, receiver, seen: 0, of_one: false, ended: false }
    }
}

/// The actors' end of one container: its snapshot and its channel. Both end with the actors.
#[derive(Debug)]
pub(crate) struct Hub {
    snapshot: watch::Sender<Snapshot>,
    channel: OnceLock<broadcast::Sender<Event>>,
    bus: Bus,
    /// Events that the bus has not got, while the container is kept ready and so invisible.
    withheld: Mutex<Option<Vec<Event>>>,
}

/// The handles' end of one container.
#[derive(Clone, Debug)]
pub(crate) struct View {
    snapshot: watch::Receiver<Snapshot>,
    hub: Weak<Hub>,
}

impl Hub {
    /// `visible`: whether its events go to the bus at once.
    pub(crate) fn new(container: ContainerId, bus: Bus, visible: bool) -> Arc<Self> {
        let snapshot = watch::Sender::new(Snapshot {
            container,
            seq: 0,
            phase: Phase::Creating,
            pid: None,
            started_at: None,
            execs: BTreeMap::new(),
            exit: None,
            left: None,
        });
        let withheld = Mutex::new((!visible).then(Vec::new));
        Arc::new(Self { snapshot, channel: OnceLock::new(), bus, withheld })
    }

    pub(crate) fn view(self: &Arc<Self>) -> View {
        View { snapshot: self.snapshot.subscribe(), hub: Arc::downgrade(self) }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    pub(crate) fn publish(&self, event: Event) {
        self.snapshot.send_modify(|snapshot| snapshot.apply(&event));
        if let Some(channel) = self.channel.get() {
            let _nobody_listens = channel.send(event.clone());
        }
        if let Some(withheld) = &mut *self.withheld() {
            return withheld.push(event);
        }
        let _nobody_listens = self.bus.0.send(event);
    }

    /// From now on its events go to the bus, those that were withheld first.
    pub(crate) fn reveal(&self) {
        for event in self.withheld().take().into_iter().flatten() {
            let _nobody_listens = self.bus.0.send(event);
        }
    }

    /// A push or a take cannot leave it half changed.
    fn withheld(&self) -> MutexGuard<'_, Option<Vec<Event>>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Waits for a snapshot; `None` when the actors end before there is one.
    pub(crate) async fn wait_for(&self, known: impl FnMut(&Snapshot) -> bool) -> Option<Snapshot> {
        self.snapshot.clone().wait_for(known).await.ok().map(|snapshot| snapshot.clone())
    }

    /// Subscribes first and looks second; `publish` does it the other way round, so that no event
    /// is in neither and those in both are known by their number.
    pub(crate) fn subscribe(&self) -> Events {
        let channel =
            |hub: Arc<Hub>| hub.channel.get_or_init(|| broadcast::Sender::new(CONTAINER_BACKLOG)).subscribe();
        let receiver = self.hub.upgrade().map_or_else(closed, channel);
        let snapshot = Some(self.snapshot());
        Events { swept: VecDeque::new(), snapshot, receiver, seen: 0, of_one: true, ended: false }
    }
}

/// A channel on which nothing will come.
fn closed() -> broadcast::Receiver<Event> {
    broadcast::Sender::new(1).subscribe()
}

impl Snapshot {
    fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        match &event.kind {
            EventKind::Registered => {}
            EventKind::Created { pid } => {
                self.phase = Phase::Created;
                self.pid = Some(*pid);
            }
            EventKind::Started { pid } => {
                self.phase = Phase::Running;
                self.pid = Some(*pid);
                self.started_at = Some(event.at);
            }
            EventKind::ExecAdded { exec } => {
                self.execs.insert(exec.clone(), None);
            }
            EventKind::ExecStarted { exec, pid } => {
                self.execs.insert(exec.clone(), Some(*pid));
            }
            EventKind::ExecExited { exec, .. } => {
                self.execs.remove(exec);
            }
            EventKind::Paused => self.phase = Phase::Paused,
            EventKind::Resumed => self.phase = Phase::Running,
            EventKind::Exited { exit } => {
                self.phase = Phase::Exited;
                self.exit = Some(exit.clone());
            }
            EventKind::Released { left } => {
                self.phase = Phase::Released;
                self.left = Some(left.clone());
            }
        }
    }
}
