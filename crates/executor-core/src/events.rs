//! What subscribers see of a container: a snapshot, then every event after it, gaps told.
//!
//! Each container has a [`Hub`]. Its snapshot is always current, for those who wait for a state;
//! its event channel exists from the first subscriber on. A slow subscriber loses the oldest events
//! and is told how many; it never holds anything up.

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
    meters: Meters,
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
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.meters.missed(missed);
                    return Some(Notice::Gap { missed });
                }
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
