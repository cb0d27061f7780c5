//! The numbers of an executor's events, and the record of them for a successor.
//!
//! Each line of the [`Ledger`] is a JSON object. Its `line` says what it is:
//!
//! | line | holds |
//! |---|---|
//! | `version` | the version of this form; it is the first line |
//! | `event` | an event, before anybody knows of it |
//! | `note` | what a successor has to know of a process besides, before it is acted on |
//! | `labels` | the labels of the run that a ready container was given to |

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use executor_lifecycle::process::ProcessNote;
use executor_lifecycle::registry::REMEMBERED;
use executor_lifecycle::{ContainerId, Event, EventKind, EventOrder, Exit, ProcessId, ProcessRef};
use serde::{Deserialize, Serialize};

use crate::kept::Ledger;
use crate::{Labels, RuntimeError};

/// The version of the lines that this library writes, and the last one that it reads.
const VERSION: u32 = 1;

/// How many of the last events are kept when the ledger is shortened, besides those of containers that are not released.
const KEPT_EVENTS: u64 = 10_000;

/// How many bytes the ledger has at least when it is shortened.
const LONG: usize = 8 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Line {
    Version { version: u32 },
    Event(Event),
    Note { of: ProcessRef, note: ProcessNote },
    Labels { container: ContainerId, labels: Labels },
}

/// Gives each event its number, and records it.
pub(crate) struct History {
    inner: Mutex<Inner>,
    ledger: Option<Arc<dyn Ledger>>,
}

#[derive(Default)]
struct Inner {
    /// The number of the last event.
    last: u64,
    /// Lines that could not be written. They are written before the next ones.
    unwritten: String,
}

/// What a ledger says of the past.
#[derive(Default)]
pub(crate) struct Past {
    pub(crate) containers: BTreeMap<ContainerId, PastContainer>,
    /// The exits of containers that were released, the oldest first.
    pub(crate) remembered: VecDeque<(ContainerId, Exit)>,
    /// The number of the last event.
    last: u64,
}

/// A container that was not released.
#[derive(Default)]
pub(crate) struct PastContainer {
    pub(crate) events: Vec<Event>,
    pub(crate) notes: BTreeMap<ProcessId, ProcessNote>,
    pub(crate) labels: Option<Labels>,
    order: EventOrder,
    /// Why its lines cannot be relied on.
    pub(crate) broken: Option<String>,
}

impl History {
    /// Numbers only.
    pub(crate) fn none() -> Self {
        Self { inner: Mutex::default(), ledger: None }
    }

    /// Goes on with a ledger.
    pub(crate) fn resume(ledger: Arc<dyn Ledger>) -> Result<(Self, Past), RuntimeError> {
        let failed = |error| RuntimeError::failed("read the ledger of", "this executor", error);
        let bytes = ledger.read().map_err(failed)?;
        let past = Past::read(&bytes)?;
        let inner = Inner { last: past.last, unwritten: String::new() };
        let history = Self { inner: Mutex::new(inner), ledger: Some(ledger) };
        if bytes.is_empty() {
            history.record(&Line::Version { version: VERSION });
        }
        if let Some((lines, ledger)) = mended(&bytes, &past).zip(history.ledger.as_ref()) {
            ledger.replace(&lines).map_err(failed)?;
        }
        Ok((history, past))
    }

    /// Whether there is a successor to record for.
    pub(crate) const fn is_kept(&self) -> bool {
        self.ledger.is_some()
    }

    /// Whether a successor publishes from now on.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.is_taken_over())
    }

    /// The event with the next number, once it is recorded.
    pub(crate) fn numbered(&self, mut event: Event) -> Event {
        let mut inner = self.inner();
        inner.last += 1;
        event.number = inner.last;
        if self.is_kept() {
            self.write(&mut inner, &Line::Event(event.clone()));
        }
        event
    }

    pub(crate) fn note(&self, of: &ProcessRef, note: ProcessNote) {
        self.record(&Line::Note { of: of.clone(), note });
    }

    pub(crate) fn labels(&self, container: &ContainerId, labels: &Labels) {
        self.record(&Line::Labels { container: container.clone(), labels: labels.clone() });
    }

    /// The events with a greater number that the ledger has.
    pub(crate) fn since(&self, number: u64) -> std::io::Result<Option<VecDeque<Event>>> {
        let Some(ledger) = &self.ledger else { return Ok(None) };
        let bytes = ledger.read()?;
        let events = lines(&bytes).filter_map(|line| match serde_json::from_slice(line) {
            Ok(Line::Event(event)) if event.number > number => Some(event),
            _ => None,
        });
        Ok(Some(events.collect()))
    }

    fn record(&self, line: &Line) {
        if self.is_kept() {
            self.write(&mut self.inner(), line);
        }
    }

    /// What cannot be written now is written with what comes next: the order of the lines stays.
    fn write(&self, inner: &mut Inner, line: &Line) {
        let Some(ledger) = &self.ledger else { return };
        match serde_json::to_string(line) {
            Ok(line) => inner.unwritten.extend([line.as_str(), "\n"]),
            Err(error) => return tracing::error!(%error, "a line of the ledger has no form"),
        }
        match ledger.append(&inner.unwritten) {
            Ok(()) => inner.unwritten.clear(),
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be written: a successor may not know of this")
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("is_kept", &self.is_kept()).finish_non_exhaustive()
    }
}

impl Past {
    fn read(bytes: &[u8]) -> Result<Self, RuntimeError> {
        let mut past = Self::default();
        for (index, line) in lines(bytes).enumerate() {
            match serde_json::from_slice(line) {
                Ok(Line::Version { version }) if version > VERSION => return Err(newer(version)),
                Ok(line) => past.take(line),
                Err(error) => past.damaged(index, line, &error),
            }
        }
        Ok(past)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Version { .. } => {}
            Line::Event(event) => self.event(event),
            Line::Note { of, note } => {
                if let Some(container) = self.containers.get_mut(&of.container) {
                    container.notes.insert(of.process, note);
                }
            }
            Line::Labels { container, labels } => {
                if let Some(container) = self.containers.get_mut(&container) {
                    container.labels = Some(labels);
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.last = self.last.max(event.number);
        let id = event.container.clone();
        let container = self.containers.entry(id.clone()).or_default();
        if let Err(error) = container.order.check(&event) {
            container.broken.get_or_insert(error.to_string());
        }
        if let EventKind::ExecExited { exec, .. } = &event.kind {
            container.notes.remove(&ProcessId::Exec(exec.clone()));
        }
        let is_over = matches!(event.kind, EventKind::Released { .. });
        container.events.push(event);
        if is_over && let Some(container) = self.containers.remove(&id) {
            self.remember(id, &container.events);
        }
    }

    fn remember(&mut self, id: ContainerId, events: &[Event]) {
        let exit = events.iter().find_map(|event| {
            let EventKind::Exited { exit } = &event.kind else { return None };
            Some(exit.clone())
        });
        self.remembered.extend(exit.map(|exit| (id, exit)));
        if self.remembered.len() > REMEMBERED {
            self.remembered.pop_front();
        }
    }

    /// A line that cannot be read. The container that it names cannot be relied on; nothing else is concluded from it.
    fn damaged(&mut self, index: usize, line: &[u8], error: &serde_json::Error) {
        tracing::warn!(line = index + 1, %error, "a line of the ledger cannot be read");
        let text = String::from_utf8_lossy(line);
        let named = text.split("\"container\":\"").nth(1).and_then(|rest| rest.split('"').next());
        if let Some(container) =
            named.and_then(|id| id.parse().ok()).and_then(|id: ContainerId| self.containers.get_mut(&id))
        {
            container
                .broken
                .get_or_insert(format!("line {} of the ledger cannot be read: {error}", index + 1));
        }
    }
}

/// The lines that are complete.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    bytes.get(..complete).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// The lines of a ledger that has become long, or that ends with half a line, which nobody has relied on.
fn mended(bytes: &[u8], past: &Past) -> Option<String> {
    let is_long = bytes.len() >= LONG;
    if !is_long && bytes.last().is_none_or(|last| *last == b'\n') {
        return None;
    }
    let recent = past.last.saturating_sub(KEPT_EVENTS);
    let is_needed = |line: &Line| match line {
        Line::Version { .. } => true,
        Line::Event(event) => event.number > recent || past.containers.contains_key(&event.container),
        Line::Note { of, .. } => past.containers.contains_key(&of.container),
        Line::Labels { container, .. } => past.containers.contains_key(container),
    };
    let mut shorter = String::new();
    for line in lines(bytes) {
        // What cannot be read is kept: somebody may want to look at it.
        if !is_long || serde_json::from_slice(line).map_or(true, |line| is_needed(&line)) {
            shorter.extend([&*String::from_utf8_lossy(line), "\n"]);
        }
    }
    Some(shorter)
}

fn newer(version: u32) -> RuntimeError {
    let message = format!("it has version {version}, and this library reads up to {VERSION}");
    RuntimeError::failed("read the ledger of", "this executor", std::io::Error::other(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_lifecycle::Timestamp;

    #[derive(Default)]
    struct Memory(Mutex<String>, Mutex<bool>);

    impl Ledger for Memory {
        fn append(&self, lines: &str) -> std::io::Result<()> {
            if *self.1.lock().unwrap() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0.lock().unwrap().push_str(lines);
            Ok(())
        }

        fn read(&self) -> std::io::Result<Vec<u8>> {
            Ok(self.0.lock().unwrap().clone().into_bytes())
        }

        fn replace(&self, lines: &str) -> std::io::Result<()> {
            lines.clone_into(&mut self.0.lock().unwrap());
            Ok(())
        }
    }

    fn event(seq: u64, container: &str, kind: EventKind) -> Event {
        Event::new(seq, container.parse().unwrap(), Timestamp::default(), kind)
    }

    fn broken(past: &Past, id: &str) -> Option<String> {
        past.containers[&id.parse::<ContainerId>().unwrap()].broken.clone()
    }

    #[test]
    fn numbers_go_on_and_what_was_not_written_comes_first() {
        let memory = Arc::new(Memory::default());
        let (history, _) = History::resume(Arc::clone(&memory) as _).unwrap();
        assert_eq!(history.numbered(event(1, "a", EventKind::Registered)).number, 1);
        *memory.1.lock().unwrap() = true;
        assert_eq!(history.numbered(event(1, "b", EventKind::Registered)).number, 2);
        *memory.1.lock().unwrap() = false;
        history.numbered(event(1, "c", EventKind::Registered));
        // The process is killed in the middle of a line.
        memory.append("{\"line\":\"ev").unwrap();
        let (history, past) = History::resume(Arc::clone(&memory) as _).unwrap();
        assert!(memory.0.lock().unwrap().ends_with("}\n"));
        assert_eq!(past.containers.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(past.containers.values().all(|container| container.broken.is_none()));
        assert_eq!(history.since(1).unwrap().unwrap().len(), 2);
    }

    #[test]
    fn a_damaged_line_breaks_its_container_alone() {
        let memory = Arc::new(Memory::default());
        let (history, _) = History::resume(Arc::clone(&memory) as _).unwrap();
        for container in ["a", "b"] {
            history.numbered(event(1, container, EventKind::Registered));
        }
        memory.append("{\"line\":\"event\",\"container\":\"b\",\"seq\":oops}\n").unwrap();
        let (_, past) = History::resume(Arc::clone(&memory) as _).unwrap();
        assert!(broken(&past, "a").is_none());
        assert!(broken(&past, "b").is_some());
        // A hole is seen, too.
        memory.append("{\"line\":\"event\",\"number\":9,\"seq\":3,\"container\":\"a\",\"at\":\"1970-01-01T00:00:00Z\",\"event\":\"paused\"}\n").unwrap();
        let (_, past) = History::resume(Arc::clone(&memory) as _).unwrap();
        assert!(broken(&past, "a").is_some());
    }

    #[test]
    fn a_newer_version_is_refused() {
        let memory = Arc::new(Memory::default());
        memory.append("{\"line\":\"version\",\"version\":2}\n").unwrap();
        assert!(History::resume(memory as _).is_err());
    }
}
