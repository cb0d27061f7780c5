//! A container: its phase, its execs, its start and its exit, from its events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use executor_lifecycle::container::Phase;
use executor_lifecycle::{Event, EventKind, ExecId, Exit, ExitReason, Timestamp};

use super::super::StartKind;
use super::super::series::Counted;
use super::{EXEC, Handles, INIT, failure_label, kind_label};
use crate::clock::Clock;

/// The metrics of a container. Its hub has it, so that it also sees the events of a container whose actor is gone.
pub(crate) struct ContainerMeter {
    handles: Arc<Handles>,
    clock: Clock,
    kind: StartKind,
    /// When it was requested, or began to be made for its pool.
    requested_at: Timestamp,
    known: Mutex<Known>,
}

/// What is known of a container so far.
struct Known {
    phase: Phase,
    /// Whether callers see it. One that is kept ready is not seen before a run is given it.
    is_visible: bool,
    started_at: Option<Timestamp>,
    /// When its start was requested.
    start_requested_at: Timestamp,
    counted: Option<Counted>,
    execs: BTreeMap<ExecId, Exec>,
    /// The kills of the OOM killer that are counted.
    oom_kills: u64,
    /// The exit of one that no caller sees. It counts if it is given to a run nevertheless.
    withheld: Option<Exit>,
}

struct Exec {
    requested_at: Timestamp,
    /// Since when it runs, and that it is counted.
    running: Option<(Timestamp, Option<Counted>)>,
}

impl ContainerMeter {
    pub(super) fn new(handles: Arc<Handles>, kind: StartKind, clock: Clock) -> Self {
        let requested_at = clock.now();
        let mut known = Known {
            phase: Phase::Creating,
            is_visible: kind != StartKind::Ready,
            started_at: None,
            start_requested_at: requested_at,
            counted: None,
            execs: BTreeMap::new(),
            oom_kills: 0,
            withheld: None,
        };
        known.count(&handles);
        Self { handles, clock, kind, requested_at, known: Mutex::new(known) }
    }

    fn known<T>(&self, with: impl FnOnce(&mut Known) -> T) -> T {
        with(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn step(&self, step: &'static str, since: Timestamp, at: Timestamp) {
        self.handles.start_duration.record([kind_label(self.kind), step], at.since(since));
    }

    /// Its bundle is written, in its network.
    pub(crate) fn prepared(&self) {
        self.step("prepared", self.requested_at, self.clock.now());
    }

    /// Its start is requested, after the container itself.
    pub(crate) fn start_requested(&self) {
        if self.kind != StartKind::Run {
            let now = self.clock.now();
            self.known(|known| known.start_requested_at = now);
        }
    }

    /// Callers see it from now on.
    pub(crate) fn reveal(&self) {
        self.known(|known| {
            if !known.is_visible {
                known.is_visible = true;
                known.count(&self.handles);
                if let Some(exit) = known.withheld.take() {
                    self.handles.exited(kind_label(self.kind), INIT, &exit);
                }
            }
        });
    }

    /// An event of it is published.
    pub(crate) fn event(&self, Event { at, kind, .. }: &Event) {
        self.known(|known| {
            self.happened(known, *at, kind);
            self.settle(known, *at, kind);
        });
    }

    /// Another executor has published this event. What is there now is counted, and nothing that has happened.
    pub(crate) fn restored(&self, Event { at, kind, .. }: &Event) {
        self.known(|known| self.settle(known, *at, kind));
    }

    /// Records what has happened to what is known so far.
    fn happened(&self, known: &mut Known, at: Timestamp, kind: &EventKind) {
        match kind {
            EventKind::Created { .. } => self.step("created", self.requested_at, at),
            EventKind::Started { .. } => {
                self.step("started", known.start_requested_at, at);
                self.handles.starts.add([kind_label(self.kind), "started"], 1);
            }
            EventKind::ExecStarted { exec, .. } => {
                if let Some(exec) = known.execs.get(exec) {
                    self.handles.exec_start_duration.record([], at.since(exec.requested_at));
                    self.handles.starts.add([EXEC, "started"], 1);
                }
            }
            EventKind::ExecExited { exit, .. } => self.handles.exited(EXEC, EXEC, exit),
            EventKind::OutOfMemory(kill) => {
                self.handles.oom_kills.add([], kill.kills.saturating_sub(known.oom_kills));
            }
            EventKind::Exited { exit } => self.exited(known, exit),
            EventKind::Released { left } => self.handles.leftovers(left),
            // Only this workspace makes events: a new one is added here.
            EventKind::Registered
            | EventKind::ExecAdded { .. }
            | EventKind::Paused
            | EventKind::Resumed
            | _ => {}
        }
    }

    /// Knows from now on what is so after the event, and counts what is there.
    fn settle(&self, known: &mut Known, at: Timestamp, kind: &EventKind) {
        match kind {
            EventKind::Created { .. } => known.enter(Phase::Created, &self.handles),
            EventKind::Started { .. } => {
                known.started_at = Some(at);
                known.enter(Phase::Running, &self.handles);
            }
            EventKind::ExecAdded { exec } => {
                known.execs.insert(exec.clone(), Exec { requested_at: at, running: None });
            }
            EventKind::ExecStarted { exec, .. } => {
                if let Some(exec) = known.execs.get_mut(exec) {
                    exec.running = Some((at, self.handles.execs.count([])));
                }
            }
            EventKind::ExecExited { exec, .. } => drop(known.execs.remove(exec)),
            EventKind::OutOfMemory(kill) => known.oom_kills = kill.kills,
            EventKind::Paused => known.enter(Phase::Paused, &self.handles),
            EventKind::Resumed => known.enter(Phase::Running, &self.handles),
            EventKind::Exited { .. } => known.enter(Phase::Exited, &self.handles),
            EventKind::Released { .. } => known.enter(Phase::Released, &self.handles),
            // Only this workspace makes events: a new one is added here.
            EventKind::Registered | _ => {}
        }
    }

    /// A ready container that ends before a run gets it has no exit that callers see. If it could not be created, it counts
    /// as a failed start.
    fn exited(&self, known: &mut Known, exit: &Exit) {
        let kind = kind_label(self.kind);
        if known.is_visible || known.started_at.is_some() {
            self.handles.exited(kind, INIT, exit);
        } else if let ExitReason::StartFailed(failure) = &exit.reason {
            self.handles.starts.add([kind, failure_label(failure.kind)], 1);
        } else {
            known.withheld = Some(exit.clone());
        }
    }
}

impl Known {
    fn enter(&mut self, phase: Phase, handles: &Handles) {
        self.phase = phase;
        self.count(handles);
    }

    /// Counts it where it is now, and no more where it was.
    fn count(&mut self, handles: &Handles) {
        drop(self.counted.take());
        self.counted = match (self.is_visible, self.phase) {
            (true, Phase::Creating) => handles.containers.count(["creating"]),
            (true, Phase::Created) => handles.containers.count(["created"]),
            (true, Phase::Running) => handles.containers.count(["running"]),
            (true, Phase::Paused) => handles.containers.count(["paused"]),
            (true, Phase::Exited) => handles.containers.count(["exited"]),
            (false, Phase::Creating) => handles.ready_containers.count(["making"]),
            (false, Phase::Created) => handles.ready_containers.count(["ready"]),
            // One that was given to a run, and one that has ended, is not ready.
            (_, Phase::Running | Phase::Paused | Phase::Exited | Phase::Released | _) => None,
        };
    }
}

impl Drop for ContainerMeter {
    /// An executor that has stopped before the end of a container publishes no exit: it is lost, and so are its execs.
    fn drop(&mut self) {
        let now = self.clock.now();
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        for exec in known.execs.values() {
            let started_at = exec.running.as_ref().map(|(since, _)| *since);
            self.handles.exited(EXEC, EXEC, &Exit::lost(started_at, now));
        }
        let has_ended = matches!(known.phase, Phase::Exited | Phase::Released);
        if !has_ended && (known.is_visible || known.started_at.is_some()) {
            self.handles.exited(kind_label(self.kind), INIT, &Exit::lost(known.started_at, now));
        }
    }
}

impl fmt::Debug for ContainerMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerMeter").field("kind", &self.kind).finish_non_exhaustive()
    }
}
