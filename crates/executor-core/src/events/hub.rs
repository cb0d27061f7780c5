//! The channels of events: one for each container, and one for all containers of an executor.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use actix::Recipient;
use executor_lifecycle::container::Phase;
use executor_lifecycle::{ContainerId, Event, EventKind, Exit, ProcessRef};
use tokio::sync::{broadcast, watch};

use super::{Events, Notice, Snapshot};
use crate::clock::Clock;
use crate::exits::{ExitNotice, ExitRecipients, lost};
use crate::history::History;
use crate::metrics::{ContainerMeter, Meters, StartKind};
use crate::{Labels, Swept};

/// Events a subscriber may be behind before it loses some.
const CONTAINER_BACKLOG: usize = 256;

const EXECUTOR_BACKLOG: usize = 4096;

/// The executor's channel for the events of all its containers. It ends with the actors that hold it.
#[derive(Clone, Debug)]
pub(crate) struct Bus {
    channel: broadcast::Sender<Event>,
    exit_recipients: Arc<ExitSubscribers>,
    meters: Meters,
    swept: Arc<[Swept]>,
    history: Arc<History>,
}

/// The view of the channel that a handle of the executor holds.
#[derive(Debug)]
pub(crate) struct BusView {
    channel: broadcast::WeakSender<Event>,
    /// Weak: a recipient is an actor that may hold the executor's handle.
    exit_recipients: Weak<ExitSubscribers>,
    meters: Meters,
    swept: Arc<[Swept]>,
    history: Arc<History>,
}

/// The actors that receive the exit of every container.
type ExitSubscribers = Mutex<Vec<Recipient<ExitNotice>>>;

impl Bus {
    pub(crate) fn new(meters: Meters, swept: Vec<Swept>, history: History) -> Self {
        let channel = broadcast::Sender::new(EXECUTOR_BACKLOG);
        let history = Arc::new(history);
        Self { channel, exit_recipients: Arc::default(), meters, swept: swept.into(), history }
    }

    pub(crate) const fn history(&self) -> &Arc<History> {
        &self.history
    }

    pub(crate) const fn meters(&self) -> &Meters {
        &self.meters
    }

    pub(crate) fn view(&self) -> BusView {
        let Self { channel, exit_recipients, meters, swept, history } = self;
        BusView {
            channel: channel.downgrade(),
            exit_recipients: Arc::downgrade(exit_recipients),
            meters: meters.clone(),
            swept: Arc::clone(swept),
            history: Arc::clone(history),
        }
    }

    fn publish(&self, event: Event) {
        if let EventKind::Exited { exit } = &event.kind {
            self.publish_exit(&event.container, exit);
        }
        let _no_subscriber = self.channel.send(event);
    }

    fn publish_exit(&self, container: &ContainerId, exit: &Exit) {
        let mut recipients = lock(&self.exit_recipients);
        recipients.retain(Recipient::connected);
        for to in &*recipients {
            to.do_send(ExitNotice { process: ProcessRef::init(container.clone()), exit: exit.clone() });
        }
    }
}

impl BusView {
    pub(crate) fn swept(&self) -> &[Swept] {
        &self.swept
    }

    /// Whether the containers outlive the executor.
    pub(crate) fn is_kept(&self) -> bool {
        self.history.is_kept()
    }

    pub(crate) fn subscribe(&self) -> Events {
        let receiver = self.channel.upgrade().map_or_else(closed, |bus| bus.subscribe());
        let swept = self.swept.iter().cloned().collect();
        self.events(swept, receiver)
    }

    fn events(&self, swept: VecDeque<Swept>, receiver: broadcast::Receiver<Event>) -> Events {
        let (meters, past) = (self.meters.clone(), VecDeque::new());
        Events { swept, past, snapshot: None, receiver, seen: 0, of_one: false, ended: false, meters }
    }

    /// The events after the one with this number. `None` if they are not recorded.
    pub(crate) fn events_since(&self, number: u64) -> std::io::Result<Option<Events>> {
        // It subscribes first: each event is in the record or in the channel, and those in both are known by their number.
        let receiver = self.channel.upgrade().map_or_else(closed, |bus| bus.subscribe());
        let Some(past) = self.history.since(number)? else { return Ok(None) };
        let seen = past.back().map_or(number, |last| last.number);
        Ok(Some(Events { past: with_gaps(past, number), seen, ..self.events(VecDeque::new(), receiver) }))
    }

    /// From now on, sends the exit of every container to `to`. Returns whether the executor still runs.
    pub(crate) fn notify_exits(&self, to: Recipient<ExitNotice>) -> bool {
        let Some(recipients) = self.exit_recipients.upgrade() else { return false };
        lock(&recipients).push(to);
        true
    }
}

/// The snapshot and the channel of one container, as the actors hold them. Both end with the actors.
#[derive(Debug)]
pub(crate) struct Hub {
    snapshot: watch::Sender<Snapshot>,
    channel: OnceLock<broadcast::Sender<Event>>,
    exit_recipients: ExitRecipients,
    bus: Bus,
    pub(crate) meter: ContainerMeter,
    /// The events that were not published on the bus, while the container is kept ready and is invisible. `None` once
    /// it is visible.
    withheld: Mutex<Option<Vec<Event>>>,
}

/// The view of one container that handles hold.
#[derive(Clone, Debug)]
pub(crate) struct View {
    snapshot: watch::Receiver<Snapshot>,
    hub: Weak<Hub>,
    meters: Meters,
}

impl Hub {
    /// The events of a container that is kept ready are not published on the bus at once.
    pub(crate) fn new(
        container: ContainerId,
        labels: Labels,
        bus: Bus,
        kind: StartKind,
        clock: Clock,
    ) -> Arc<Self> {
        let meter = bus.meters.container(kind, clock);
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
        let withheld = Mutex::new((kind == StartKind::Ready).then(Vec::new));
        Arc::new(Self { snapshot, channel: OnceLock::new(), exit_recipients, bus, meter, withheld })
    }

    pub(crate) fn view(self: &Arc<Self>) -> View {
        let meters = self.bus.meters.clone();
        View { snapshot: self.snapshot.subscribe(), hub: Arc::downgrade(self), meters }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    pub(crate) fn publish(&self, event: Event) {
        if self.bus.history.is_taken_over() {
            return;
        }
        // It is recorded before anybody knows of it.
        let event = if self.withheld().is_none() { self.bus.history.numbered(event) } else { event };
        // First, so that who knows of the event finds it counted.
        self.meter.event(&event);
        self.snapshot.send_modify(|snapshot| snapshot.apply(&event));
        if let EventKind::Exited { exit } = &event.kind {
            self.exit_recipients.publish(exit);
        }
        if let Some(channel) = self.channel.get() {
            let _no_subscriber = channel.send(event.clone());
        }
        if let Some(withheld) = &mut *self.withheld() {
            return withheld.push(event);
        }
        self.bus.publish(event);
    }

    /// Sets the labels to those of the run that took the container.
    pub(crate) fn set_labels(&self, labels: Labels) {
        self.bus.history.labels(&self.snapshot.borrow().container, &labels);
        self.snapshot.send_modify(|snapshot| snapshot.labels = labels);
    }

    /// Goes on after what another executor has published.
    pub(crate) fn restore(&self, events: &[Event]) {
        for event in events {
            self.meter.restored(event);
            self.snapshot.send_modify(|snapshot| snapshot.apply(event));
            if let EventKind::Exited { exit } = &event.kind {
                self.exit_recipients.publish(exit);
            }
        }
    }

    /// Publishes the withheld events on the bus. From now on events are published there at once.
    pub(crate) fn reveal(&self) {
        self.meter.reveal();
        for event in self.withheld().take().into_iter().flatten() {
            self.bus.publish(self.bus.history.numbered(event));
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

/// A push or a take cannot leave the value half changed.
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

    /// Subscribes before it reads the snapshot, and `publish` does it the other way round. So each event is in the
    /// snapshot or in the channel. Events that are in both are known by their number.
    pub(crate) fn subscribe(&self) -> Events {
        let channel =
            |hub: Arc<Hub>| hub.channel.get_or_init(|| broadcast::Sender::new(CONTAINER_BACKLOG)).subscribe();
        let receiver = self.hub.upgrade().map_or_else(closed, channel);
        let snapshot = Some(self.snapshot());
        let (meters, swept, past) = (self.meters.clone(), VecDeque::new(), VecDeque::new());
        Events { swept, past, snapshot, receiver, seen: 0, of_one: true, ended: false, meters }
    }
}

/// The events, and between them how many are not recorded any more.
fn with_gaps(events: VecDeque<Event>, after: u64) -> VecDeque<Notice> {
    let mut last = after;
    let mut notices = VecDeque::with_capacity(events.len());
    for event in events {
        if let missed @ 1.. = event.number.saturating_sub(last + 1) {
            notices.push_back(Notice::Gap { missed });
        }
        last = event.number;
        notices.push_back(Notice::Event(event));
    }
    notices
}

/// A channel on which nothing will come.
fn closed() -> broadcast::Receiver<Event> {
    broadcast::Sender::new(1).subscribe()
}
