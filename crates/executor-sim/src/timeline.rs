//! The timeline of a simulation: everything that happened, in order. The promises of the lifecycle are checked against it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor_core::ObservedMessage;
use executor_core::lifecycle::container::ContainerEvent;
use executor_core::lifecycle::{
    ContainerId, Event, EventKind, EventOrder, ProcessId, ProcessRef, RawExit, Refused, Signal, SignalScope,
    TerminalSize,
};
use tokio::time::Instant;

use crate::lock;

/// A request of the actors to the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make a bundle.
    Prepare(ContainerId),
    /// Create a container, without executing its program.
    Create(ContainerId),
    /// Start a process, whether it was created before or not.
    Start(ProcessRef),
    /// Abandon a start.
    Abandon(ProcessRef),
    /// Send a signal.
    Signal(ProcessRef, Signal, SignalScope),
    /// Change the size of a terminal.
    Resize(ProcessRef, TerminalSize),
    /// Kill a process.
    Kill(ProcessRef),
    /// Freeze a container.
    Pause(ContainerId),
    /// Thaw a container.
    Resume(ContainerId),
    /// Change the limits of a container; [`SimRuntime::limits`](crate::SimRuntime::limits) has them.
    Update(ContainerId),
    /// Kill the processes that did not end with init.
    KillRemaining(ContainerId),
    /// Release the container's resources.
    Release(ContainerId),
    /// Release what a container has when the deadline of a shutdown is over. Its actors are gone: no more events come.
    ReleaseLate(ContainerId),
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An actor handled a message. Recorded in a [`Simulation`](crate::Simulation) only.
    Handled {
        /// The actor and the message.
        message: ObservedMessage,
        /// Why the message was refused, if it was.
        refused: Option<Refused>,
    },
    /// The actors asked the runtime for something.
    Request(Request),
    /// A process ended. The exit source reports it now or later.
    Ended(ProcessRef, RawExit),
    /// An event was published. Recorded in a [`Simulation`](crate::Simulation) only.
    Published(Event),
    /// The executor crashed, or was detached.
    Crashed,
}

/// One thing that happened, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The virtual time since the executor was built.
    pub at: Duration,
    /// What happened.
    pub what: What,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, what } = self;
        write!(f, "{:>10.3} s  ", at.as_secs_f64())?;
        match what {
            What::Handled { message, refused } => {
                write!(f, "handled    {message:?}")?;
                refused.as_ref().map_or(Ok(()), |refused| write!(f, ": refused, {refused}"))
            }
            What::Request(asked) => write!(f, "asked      {asked:?}"),
            What::Ended(process, ending) => write!(f, "ended      {process}: {}", ending.status),
            What::Published(event) => {
                write!(f, "published  {} #{}: {:?}", event.container, event.seq, event.kind)
            }
            What::Crashed => f.write_str("crashed"),
        }
    }
}

/// A promise of the lifecycle that was broken, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenPromise(pub String);

impl fmt::Display for BrokenPromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokenPromise {}

/// Everything that happened so far. A clone shares its records.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    records: Vec<Record>,
    began: Option<Instant>,
    off: bool,
}

impl Timeline {
    pub(crate) fn begin(&self) {
        lock(&self.inner).began.get_or_insert_with(Instant::now);
    }

    pub(crate) fn turn_off(&self) {
        lock(&self.inner).off = true;
    }

    pub(crate) fn push(&self, what: What) {
        let mut inner = lock(&self.inner);
        if !inner.off {
            let at = inner.began.map_or(Duration::ZERO, |began| began.elapsed());
            inner.records.push(Record { at, what });
        }
    }

    /// The number of the last event that was published.
    pub(crate) fn last_number(&self) -> u64 {
        let inner = lock(&self.inner);
        let published = inner.records.iter().rev().find_map(|record| {
            let What::Published(event) = &record.what else { return None };
            Some(event.number)
        });
        published.unwrap_or_default()
    }

    /// All records, the oldest first.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.inner).records.clone()
    }

    /// What the actors have asked the runtime for, the oldest first.
    pub fn asked(&self) -> Vec<Request> {
        let inner = lock(&self.inner);
        let asked = inner.records.iter().filter_map(|record| match &record.what {
            What::Request(asked) => Some(asked.clone()),
            What::Handled { .. } | What::Ended(..) | What::Published(_) | What::Crashed => None,
        });
        asked.collect()
    }

    /// Checks the promises of the lifecycle for every container:
    ///
    /// - Its events come in order, each once, also if an executor crashes. The numbers of all events have no gap.
    /// - No process is started twice, and none after the container's release.
    /// - No process is signalled once its exit was reported.
    /// - What was prepared is released, once.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn check(&self) -> Result<(), BrokenPromise> {
        let inner = lock(&self.inner);
        let mut story = PublishedState::default();
        inner.records.iter().try_for_each(|record| story.read(&record.what))?;
        story.end()
    }
}

/// What the records read so far say about each container.
#[derive(Default)]
struct PublishedState {
    orders: BTreeMap<ContainerId, EventOrder>,
    prepared: BTreeSet<ContainerId>,
    released: BTreeSet<ContainerId>,
    late: BTreeSet<ContainerId>,
    started: BTreeSet<ProcessRef>,
    ended: BTreeSet<ProcessRef>,
    /// The number of the last event.
    number: u64,
    /// The containers whose release was asked for and not published.
    releasing: BTreeSet<ContainerId>,
}

impl PublishedState {
    fn read(&mut self, what: &What) -> Result<(), BrokenPromise> {
        match what {
            What::Request(asked) => self.asked(asked),
            What::Published(event) => self.told(event),
            What::Crashed => {
                // What was not published is not known to its successor.
                self.ended.clear();
                for container in std::mem::take(&mut self.releasing) {
                    self.released.remove(&container);
                }
                Ok(())
            }
            What::Handled { message: ObservedMessage::Container(container, event), refused: None } => {
                if let ContainerEvent::ProcessExited { process, .. } = event {
                    // The id of an exec may be used again once the exec has ended.
                    if *process != ProcessId::Init {
                        self.started
                            .remove(&ProcessRef { container: container.clone(), process: process.clone() });
                    }
                    self.ended.insert(ProcessRef { container: container.clone(), process: process.clone() });
                }
                Ok(())
            }
            What::Handled { .. } | What::Ended(..) => Ok(()),
        }
    }

    /// The id of a container that was released may be used again: then its events begin anew.
    fn told(&mut self, event: &Event) -> Result<(), BrokenPromise> {
        if event.number != self.number + 1 {
            return Err(BrokenPromise(format!("event {} comes after event {}", event.number, self.number)));
        }
        self.number = event.number;
        if matches!(event.kind, EventKind::Released { .. }) {
            // It may have been recorded before a crash, and be told after it.
            self.releasing.remove(&event.container);
            self.released.insert(event.container.clone());
        }
        let order = self.orders.entry(event.container.clone()).or_default();
        if order.is_complete() {
            *order = EventOrder::default();
        }
        order.check(event).map_err(|error| BrokenPromise(error.to_string()))
    }

    fn asked(&mut self, asked: &Request) -> Result<(), BrokenPromise> {
        let rule = |holds: bool, broken: &str| match holds {
            true => Ok(()),
            false => Err(BrokenPromise(format!("{asked:?}: {broken}"))),
        };
        match asked {
            Request::Prepare(container) => {
                forget(&mut self.started, container);
                forget(&mut self.ended, container);
                let was_prepared = !self.prepared.insert(container.clone());
                let was_released = self.released.remove(container);
                rule(!was_prepared || was_released, "it was prepared before and has not been released")
            }
            Request::Create(container) => {
                let init = ProcessRef::init(container.clone());
                rule(self.prepared.contains(container), "it was not prepared")?;
                rule(!self.started.contains(&init), "it was started before")
            }
            Request::Start(process) => {
                if process.process != ProcessId::Init {
                    self.ended.remove(process);
                }
                rule(self.started.insert(process.clone()), "it was started before")?;
                rule(!self.released.contains(&process.container), "its container was released")
            }
            Request::Signal(process, ..) | Request::Kill(process) => {
                rule(!self.ended.contains(process), "its exit was reported before")
            }
            Request::Release(container) => {
                self.releasing.insert(container.clone());
                rule(self.released.insert(container.clone()), "released twice")
            }
            Request::ReleaseLate(container) => {
                self.released.insert(container.clone());
                self.late.insert(container.clone());
                Ok(())
            }
            Request::Resize(..)
            | Request::Abandon(_)
            | Request::Pause(_)
            | Request::Resume(_)
            | Request::Update(_)
            | Request::KillRemaining(_) => Ok(()),
        }
    }

    fn end(self) -> Result<(), BrokenPromise> {
        if let Some(kept) = self.prepared.difference(&self.released).next() {
            return Err(BrokenPromise(format!("{kept} was prepared and never released")));
        }
        let is_cut_off =
            |(id, order): &(&ContainerId, &EventOrder)| !order.is_complete() && !self.late.contains(*id);
        match self.orders.iter().find(is_cut_off) {
            Some((container, _)) => {
                Err(BrokenPromise(format!("{container}: its events do not end with Released")))
            }
            None => Ok(()),
        }
    }
}

fn forget(processes: &mut BTreeSet<ProcessRef>, container: &ContainerId) {
    let all: Vec<_> = processes.range(ProcessRef::all_of(container)).cloned().collect();
    for process in all {
        processes.remove(&process);
    }
}

#[cfg(test)]
mod tests {
    use executor_core::lifecycle::{Exit, ProcessId, Timestamp};

    use super::*;

    fn id() -> ContainerId {
        ContainerId::new("c").unwrap()
    }

    fn init() -> ProcessRef {
        ProcessRef::init(id())
    }

    fn told(seq: u64, kind: EventKind) -> What {
        let mut event = Event::new(seq, id(), Timestamp::default(), kind);
        event.number = 1;
        What::Published(event)
    }

    fn exited() -> What {
        let exit = Exit::lost(None, Timestamp::default());
        let event = ContainerEvent::ProcessExited { process: ProcessId::Init, exit };
        What::Handled { message: ObservedMessage::Container(id(), event), refused: None }
    }

    fn check(story: &[What]) -> String {
        let timeline = Timeline::default();
        story.iter().for_each(|what| timeline.push(what.clone()));
        timeline.check().err().map_or_else(String::new, |broken| broken.to_string())
    }

    #[test]
    fn broken_promises_are_found() {
        let prepare = || What::Request(Request::Prepare(id()));
        let create = || What::Request(Request::Create(id()));
        let start = || What::Request(Request::Start(init()));
        let kill = || What::Request(Request::Kill(init()));
        let release = || What::Request(Request::Release(id()));
        let good = [prepare(), create(), start(), kill(), exited(), release()];
        assert_eq!(check(&good), "");
        let unstarted = [prepare(), exited(), release()];
        for before in [&good[..], &unstarted[..]] {
            assert_eq!(check(&[before, &good[..]].concat()), "", "an id may be taken again");
        }
        for (story, broken) in [
            (vec![prepare(), start(), start()], "it was started before"),
            (vec![prepare(), start(), exited(), kill(), release()], "its exit was reported before"),
            (vec![prepare(), release(), start()], "its container was released"),
            (vec![prepare(), release(), release()], "released twice"),
            (vec![prepare(), prepare()], "has not been released"),
            (vec![create()], "it was not prepared"),
            (vec![prepare(), start(), create()], "it was started before"),
            (vec![prepare(), start(), exited()], "never released"),
            (vec![told(1, EventKind::Registered)], "do not end with Released"),
            (vec![told(2, EventKind::Registered)], "a sequence number"),
        ] {
            assert!(check(&story).contains(broken), "{broken}: {}", check(&story));
        }
    }
}
