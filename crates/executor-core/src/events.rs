//! What subscribers receive: a snapshot, then every event after it. Events that they miss are counted.
//!
//! Each container has a [`Hub`]. Its snapshot is always current; its event channel exists from the first subscriber
//! on. A slow subscriber loses the oldest events and is sent their number. It holds nothing up.

mod hub;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use actix::{Message, Recipient};
use executor_lifecycle::container::Phase;
use executor_lifecycle::{ContainerId, Event, EventKind, ExecId, Exit, HostPid, Leftover, Timestamp};
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

pub(crate) use self::hub::{Bus, BusView, Hub, View};
use crate::metrics::Meters;
use crate::{Labels, Swept};

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
    /// Its phase.
    pub phase: Phase,
    /// The pid of init on the host. `None` before init exists.
    pub pid: Option<HostPid>,
    /// When the program of init started, on the executor's clock. `None` before.
    pub started_at: Option<Timestamp>,
    /// The execs that have not exited, each with its pid on the host once it runs.
    pub execs: BTreeMap<ExecId, Option<HostPid>>,
    /// The exit of init. `None` before every process has ended.
    pub exit: Option<Exit>,
    /// What could not be removed. `None` before the release.
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
    /// The container when the subscription began. It comes first, and only for the events of one container.
    Snapshot(Snapshot),
    /// A container of a dead executor that was removed. These come first, and only for the events of an executor.
    Swept(Swept),
    /// The next event.
    Event(Event),
    /// The subscriber was too slow and has missed events.
    Gap {
        /// How many events it has missed.
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
    /// What was recorded before the subscription.
    past: VecDeque<Notice>,
    snapshot: Option<Snapshot>,
    receiver: broadcast::Receiver<Event>,
    /// Events up to this one are in the snapshot, or in the past.
    seen: u64,
    /// Whether these are one container's events, which end with `Released`.
    of_one: bool,
    ended: bool,
    meters: Meters,
}

impl Events {
    /// The next notice. `None` after `Released` for the events of a container, and if the executor has stopped.
    ///
    /// # Cancel safety
    /// No notice is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Notice> {
        if let Some(swept) = self.swept.pop_front() {
            return Some(Notice::Swept(swept));
        }
        if let Some(notice) = self.past.pop_front() {
            return Some(notice);
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
                Ok(event) if !self.of_one && event.number <= self.seen => {}
                Ok(event) => {
                    self.ended = self.of_one && matches!(event.kind, EventKind::Released { .. });
                    return Some(Notice::Event(event));
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.meters.missed(missed);
                    return Some(Notice::Gap { missed });
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Sends each notice to an actor, when it has handled the former one, until the events or the actor end.
    pub(crate) async fn send_to(mut self, subscriber: Recipient<Notice>) {
        while let Some(notice) = self.next().await {
            if subscriber.send(notice).await.is_err() {
                return;
            }
        }
    }

    /// Makes a stream of it.
    pub fn into_stream(self) -> impl Stream<Item = Notice> + Send {
        futures::stream::unfold(self, |mut events| async move {
            events.next().await.map(|notice| (notice, events))
        })
    }
}

impl Snapshot {
    fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        match &event.kind {
            EventKind::Registered | EventKind::OutOfMemory(_) => {}
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
            // Only this workspace adds events. A new one must be added here.
            _ => {}
        }
    }
}
