//! What subscribers see of a container: a snapshot, then every event after it, gaps told.
//!
//! Each container has a [`Hub`]. Its snapshot is always current, for those who wait for a state;
//! its event channel exists from the first subscriber on. A slow subscriber loses the oldest events
//! and is told how many; it never holds anything up.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use actix::{Message, Recipient};
use executor_lifecycle::container::Phase;
use executor_lifecycle::{
    ContainerId, Event, EventKind, ExecId, Exit, HostPid, Leftover, ProcessRef, Timestamp,
};
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use crate::exits::{ExitNotice, ExitRecipients, lost};
use crate::{Labels, Swept};

/// Events a subscriber may be behind before it loses some.
const CONTAINER_BACKLOG: usize = 256;
const EXECUTOR_BACKLOG: usize = 4096;

/// A container as of one event.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// Which container.
    pub container: ContainerId,
    /// The labels of its specification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
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

/// What a subscriber receives. It is a message, so that an actor can be the subscriber.
///
/// As JSON it is one object, and its `event` says which: `snapshot`, `swept`, `gap`, or the name of an
/// [`EventKind`]. The command's `--events` writes the same, one on each line.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Message, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[rtype(result = "()")]
#[serde(from = "NoticeForm", into = "NoticeForm")]
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

/// A [`Notice`] as JSON.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum NoticeForm {
    Event(Event),
    Other(OtherNotice),
}

/// A [`Notice`] that is no event.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
enum OtherNotice {
    Snapshot(Snapshot),
    Swept(Swept),
    Gap { missed: u64 },
}

impl From<NoticeForm> for Notice {
    fn from(form: NoticeForm) -> Self {
        match form {
            NoticeForm::Event(event) => Self::Event(event),
            NoticeForm::Other(OtherNotice::Snapshot(snapshot)) => Self::Snapshot(snapshot),
            NoticeForm::Other(OtherNotice::Swept(swept)) => Self::Swept(swept),
            NoticeForm::Other(OtherNotice::Gap { missed }) => Self::Gap { missed },
        }
    }
}

impl From<Notice> for NoticeForm {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Event(event) => Self::Event(event),
            Notice::Snapshot(snapshot) => Self::Other(OtherNotice::Snapshot(snapshot)),
            Notice::Swept(swept) => Self::Other(OtherNotice::Swept(swept)),
            Notice::Gap { missed } => Self::Other(OtherNotice::Gap { missed }),
        }
    }
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

    /// Sends each notice to an actor, when it has handled the former, until one of the two ends.
    pub(crate) async fn send_to(mut self, subscriber: Recipient<Notice>) {
        while let Some(notice) = self.next().await {
            if subscriber.send(notice).await.is_err() {
                return;
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
pub(crate) struct Bus {
    channel: broadcast::Sender<Event>,
    exit_recipients: ExecutorExits,
}

/// The end of the channel that a handle of the executor holds.
#[derive(Debug)]
pub(crate) struct BusView {
    channel: broadcast::WeakSender<Event>,
    exit_recipients: ExecutorExits,
}

/// The actors that receive the exit of every container.
type ExecutorExits = Arc<Mutex<Vec<Recipient<ExitNotice>>>>;

impl Bus {
    pub(crate) fn new() -> Self {
        Self { channel: broadcast::Sender::new(EXECUTOR_BACKLOG), exit_recipients: Arc::default() }
    }

    pub(crate) fn view(&self) -> BusView {
        BusView { channel: self.channel.downgrade(), exit_recipients: Arc::clone(&self.exit_recipients) }
    }

    fn publish(&self, event: Event) {
        if let EventKind::Exited { exit } = &event.kind {
            self.publish_exit(&event.container, exit);
        }
        let _nobody_listens = self.channel.send(event);
    }

    fn publish_exit(&self, container: &ContainerId, exit: &Exit) {
        for to in &*lock(&self.exit_recipients) {
            to.do_send(ExitNotice { process: ProcessRef::init(container.clone()), exit: exit.clone() });
        }
    }
}

impl BusView {
    pub(crate) fn subscribe(&self, swept: &[Swept]) -> Events {
        let receiver = self.channel.upgrade().map_or_else(closed, |bus| bus.subscribe());
        let swept = swept.iter().cloned().collect();
        Events { swept, snapshot: None, receiver, seen: 0, of_one: false, ended: false }
    }

    /// From now on, sends the exit of every container to `to`. Whether there can still be one.
    pub(crate) fn notify_exits(&self, to: Recipient<ExitNotice>) -> bool {
        let is_open = self.channel.upgrade().is_some();
        lock(&self.exit_recipients).push(to);
        is_open
    }
}

/// The actors' end of one container: its snapshot and its channel. Both end with the actors.
#[derive(Debug)]
pub(crate) struct Hub {
    snapshot: watch::Sender<Snapshot>,
    channel: OnceLock<broadcast::Sender<Event>>,
    exit_recipients: ExitRecipients,
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
    pub(crate) fn new(container: ContainerId, labels: Labels, bus: Bus, visible: bool) -> Arc<Self> {
        let exit_recipients = ExitRecipients::new(ProcessRef::init(container.clone()));
        let snapshot = watch::Sender::new(Snapshot {
            container,
            labels,
            seq: 0,
            phase: Phase::Creating,
            pid: None,
            started_at: None,
            execs: BTreeMap::new(),
            exit: None,
            left: None,
        });
        let withheld = Mutex::new((!visible).then(Vec::new));
        Arc::new(Self { snapshot, channel: OnceLock::new(), exit_recipients, bus, withheld })
    }

    pub(crate) fn view(self: &Arc<Self>) -> View {
        View { snapshot: self.snapshot.subscribe(), hub: Arc::downgrade(self) }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    pub(crate) fn publish(&self, event: Event) {
        self.snapshot.send_modify(|snapshot| snapshot.apply(&event));
        if let EventKind::Exited { exit } = &event.kind {
            self.exit_recipients.publish(exit);
        }
        if let Some(channel) = self.channel.get() {
            let _nobody_listens = channel.send(event.clone());
        }
        if let Some(withheld) = &mut *self.withheld() {
            return withheld.push(event);
        }
        self.bus.publish(event);
    }

    /// Gives it the labels of the run that it was given to.
    pub(crate) fn set_labels(&self, labels: Labels) {
        self.snapshot.send_modify(|snapshot| snapshot.labels = labels);
    }

    /// From now on its events go to the bus, those that were withheld first.
    pub(crate) fn reveal(&self) {
        for event in self.withheld().take().into_iter().flatten() {
            self.bus.publish(event);
        }
    }

    fn withheld(&self) -> MutexGuard<'_, Option<Vec<Event>>> {
        lock(&self.withheld)
    }
}

impl Drop for Hub {
    /// The executor has stopped without having seen the end of a container that is visible.
    fn drop(&mut self) {
        let snapshot = self.snapshot.borrow().clone();
        let is_visible = self.withheld().is_none();
        if snapshot.exit.is_none() {
            let exit = lost(snapshot.started_at);
            self.exit_recipients.publish(&exit);
            if is_visible {
                self.bus.publish_exit(&snapshot.container, &exit);
            }
        }
    }
}

/// Locks what a push or a take cannot leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Waits for a snapshot; `None` when the actors end before there is one.
    pub(crate) async fn wait_for(&self, known: impl FnMut(&Snapshot) -> bool) -> Option<Snapshot> {
        self.snapshot.clone().wait_for(known).await.ok().map(|snapshot| snapshot.clone())
    }

    /// Sends the container's exit to `to`, now or later, exactly once.
    pub(crate) fn notify_exit(&self, to: Recipient<ExitNotice>) {
        if let Some(hub) = self.hub.upgrade() {
            return hub.exit_recipients.add(to);
        }
        let Snapshot { container, exit, started_at, .. } = self.snapshot();
        let exit = exit.unwrap_or_else(|| lost(started_at));
        to.do_send(ExitNotice { process: ProcessRef::init(container), exit });
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
            // Only this workspace makes events: a new one is added here.
            _ => {}
        }
    }
}
