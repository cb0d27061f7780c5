//! The events of a container that are published, and their order.
//!
//! ```text
//! Registered < Created? < Started? < Exited < Released
//! ExecAdded < ExecStarted? < ExecExited, after Registered and before Exited; started after Started
//! OutOfMemory, after Registered and before Exited; each kill once, and before the exit of the process that was killed
//! ```
//! Each is published once, and sequence numbers have no gaps. `Created` is published only for a container that was
//! held at created. If a start fails, there is no `Started` (or no `ExecStarted`), and the exit has the reason.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{ContainerId, ExecId, Exit, HostPid, Leftover, OomKill, Timestamp};

/// Something that happened to a container.
///
/// In JSON it is one object: `number`, `seq`, `container`, `at`, `event`, which is the name of the kind, and the fields of
/// the kind.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Its number in the sequence of the executor, from 1. 0 until it is published there.
    #[serde(default)]
    pub number: u64,
    /// Its number in the sequence of the container, from 1.
    pub seq: u64,
    /// The container.
    pub container: ContainerId,
    /// When the executor knew of it.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen to a container.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The id is taken, and the container is being created.
    Registered,
    /// Init exists, and its program is not executed.
    Created {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Init runs.
    Started {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Another process was registered.
    ExecAdded {
        /// Which one.
        exec: ExecId,
    },
    /// An exec'd process runs.
    ExecStarted {
        /// Which one.
        exec: ExecId,
        /// Its pid on the host.
        pid: HostPid,
    },
    /// An exec'd process ended, or could not be started.
    ExecExited {
        /// Which one.
        exec: ExecId,
        /// How and why.
        exit: Exit,
    },
    /// The OOM killer has killed a process of the container, which may run on.
    OutOfMemory(OomKill),
    /// All processes are frozen.
    Paused,
    /// All processes run again.
    Resumed,
    /// Init ended, or could not be started; no process of the container is left.
    Exited {
        /// How and why.
        exit: Exit,
    },
    /// Everything that the container had is released, and its id is free.
    Released {
        /// What could not be removed. Empty if all was.
        left: Vec<Leftover>,
    },
}

impl Event {
    /// The event of a container with this number.
    pub const fn new(seq: u64, container: ContainerId, at: Timestamp, kind: EventKind) -> Self {
        Self { number: 0, seq, container, at, kind }
    }
}

/// Checks that the events of one container come in the promised order.
///
/// Tests of all kinds give it what subscribers receive. It shares no code with the machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventOrder {
    seq: u64,
    registered: bool,
    created: bool,
    started: bool,
    exited: bool,
    released: bool,
    added: BTreeSet<ExecId>,
    running: BTreeSet<ExecId>,
    oom_kills: u64,
}

/// An event that breaks the order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[error("event {} of {}: {broken}", event.seq, event.container)]
pub struct OutOfOrder {
    /// The event.
    pub event: Box<Event>,
    /// The rule it breaks.
    pub broken: &'static str,
}

impl EventOrder {
    /// Checks the next event of the container.
    ///
    /// # Errors
    /// The event and the rule that it breaks.
    pub fn check(&mut self, event: &Event) -> Result<(), OutOfOrder> {
        self.broken_rule(event)
            .map_or(Ok(()), |broken| Err(OutOfOrder { event: Box::new(event.clone()), broken }))
    }

    /// Whether `Released` has come.
    pub const fn is_complete(&self) -> bool {
        self.released
    }

    fn broken_rule(&mut self, event: &Event) -> Option<&'static str> {
        if event.seq != self.seq + 1 {
            return Some("a sequence number is missing or comes twice");
        }
        self.seq = event.seq;
        match &event.kind {
            EventKind::Registered => unless(first(&mut self.registered), "Registered is published once"),
            EventKind::Created { .. } => self.created(),
            EventKind::Started { .. } => self.started(),
            EventKind::ExecAdded { exec } => self.exec_added(exec),
            EventKind::ExecStarted { exec, .. } => self.exec_started(exec),
            EventKind::ExecExited { exec, exit } => self.exec_exited(exec, exit),
            EventKind::OutOfMemory(kill) => self.oom_killed(kill),
            EventKind::Paused | EventKind::Resumed => {
                unless(self.started && !self.exited, "a container is paused while it runs")
            }
            EventKind::Exited { exit } => self.exited(exit),
            EventKind::Released { .. } => unless(self.exited, "Released comes after Exited")
                .or_else(|| unless(first(&mut self.released), "Released is published once")),
        }
    }

    fn created(&mut self) -> Option<&'static str> {
        let is_early = self.registered && !self.started && !self.exited;
        unless(is_early, "Created comes before Started and Exited")
            .or_else(|| unless(first(&mut self.created), "Created is published once"))
    }

    fn started(&mut self) -> Option<&'static str> {
        let is_between = self.registered && !self.exited;
        unless(is_between, "Started comes between Registered and Exited")
            .or_else(|| unless(first(&mut self.started), "Started is published once"))
    }

    fn exec_added(&mut self, exec: &ExecId) -> Option<&'static str> {
        let is_between = self.registered && !self.exited;
        unless(is_between, "ExecAdded comes between Registered and Exited")
            .or_else(|| unless(self.added.insert(exec.clone()), "an exec's id is taken until it has exited"))
    }

    fn exec_started(&mut self, exec: &ExecId) -> Option<&'static str> {
        let is_between = self.started && !self.exited;
        let is_added = self.added.contains(exec);
        unless(is_between, "ExecStarted comes between Started and Exited")
            .or_else(|| unless(is_added, "ExecStarted comes between ExecAdded and ExecExited"))
            .or_else(|| unless(self.running.insert(exec.clone()), "ExecStarted is published once"))
    }

    fn exec_exited(&mut self, exec: &ExecId, exit: &Exit) -> Option<&'static str> {
        unless(self.registered && !self.exited, "ExecExited comes before Exited")
            .or_else(|| unless(self.added.remove(exec), "ExecExited comes once, after ExecAdded"))
            .or_else(|| {
                let ran = self.running.remove(exec);
                unless(ran == exit.started_at.is_some(), "an exec that ran has started")
            })
    }

    fn oom_killed(&mut self, kill: &OomKill) -> Option<&'static str> {
        let is_new = kill.kills > self.oom_kills;
        self.oom_kills = kill.kills;
        unless(self.registered && !self.exited, "OutOfMemory comes between Registered and Exited")
            .or_else(|| unless(is_new, "a kill is published once"))
    }

    fn exited(&mut self, exit: &Exit) -> Option<&'static str> {
        unless(self.registered, "Exited comes after Registered")
            .or_else(|| unless(self.added.is_empty(), "every exec ends before Exited"))
            .or_else(|| unless(self.started == exit.started_at.is_some(), "a container that ran has started"))
            .or_else(|| unless(first(&mut self.exited), "Exited is published once"))
    }
}

/// The rule that is broken unless it holds.
fn unless(holds: bool, broken: &'static str) -> Option<&'static str> {
    (!holds).then_some(broken)
}

/// Sets a flag. Returns whether it was not set before.
const fn first(flag: &mut bool) -> bool {
    !std::mem::replace(flag, true)
}

#[cfg(test)]
mod tests {
    use super::EventKind::Registered;
    use super::*;
    use crate::{ExitReason, ExitStatus};

    fn exit(ran: bool) -> Exit {
        let moment = Timestamp::default();
        Exit::new(ExitStatus::Code(0), ExitReason::Normal, &BTreeSet::new(), ran.then_some(moment), moment)
    }

    fn check(kinds: &[EventKind]) -> Result<bool, &'static str> {
        let mut order = EventOrder::default();
        for (seq, kind) in (1..).zip(kinds) {
            let container = ContainerId::new("c").unwrap();
            let event = Event::new(seq, container, Timestamp::default(), kind.clone());
            order.check(&event).map_err(|error| error.broken)?;
        }
        Ok(order.is_complete())
    }

    fn pid() -> HostPid {
        HostPid::new(7).unwrap()
    }

    fn created() -> EventKind {
        EventKind::Created { pid: pid() }
    }

    fn started() -> EventKind {
        EventKind::Started { pid: pid() }
    }

    fn exec_added() -> EventKind {
        EventKind::ExecAdded { exec: ExecId::numbered(1) }
    }

    fn exec_started() -> EventKind {
        EventKind::ExecStarted { exec: ExecId::numbered(1), pid: pid() }
    }

    fn exec_exited(ran: bool) -> EventKind {
        EventKind::ExecExited { exec: ExecId::numbered(1), exit: exit(ran) }
    }

    fn exited(ran: bool) -> EventKind {
        EventKind::Exited { exit: exit(ran) }
    }

    fn killed(kills: u64) -> EventKind {
        EventKind::OutOfMemory(OomKill::new(kills))
    }

    const RELEASED: EventKind = EventKind::Released { left: Vec::new() };

    #[test]
    fn the_promised_order_is_accepted() {
        let whole = [
            Registered,
            created(),
            started(),
            exec_added(),
            exec_started(),
            killed(1),
            exec_exited(true),
            exec_added(),
            exec_exited(false),
            killed(3),
            exited(true),
            RELEASED,
        ];
        assert_eq!(check(&whole), Ok(true));
        assert_eq!(check(&[Registered, exec_added(), exec_exited(false), exited(false), RELEASED]), Ok(true));
        assert_eq!(check(&whole[..11]), Ok(false));
    }

    #[test]
    fn violations_of_the_order_are_found() {
        for (wrong, broken) in [
            (vec![started()], "Started comes between Registered and Exited"),
            (vec![Registered, Registered], "Registered is published once"),
            (vec![Registered, started(), created()], "Created comes before Started and Exited"),
            (vec![Registered, created(), created()], "Created is published once"),
            (vec![Registered, started(), exited(true), exited(true)], "Exited is published once"),
            (
                vec![Registered, started(), exec_added(), exec_started(), exited(true)],
                "every exec ends before Exited",
            ),
            (vec![Registered, exec_added(), exited(false)], "every exec ends before Exited"),
            (vec![Registered, exec_added(), exec_added()], "an exec's id is taken until it has exited"),
            (
                vec![Registered, started(), exec_started()],
                "ExecStarted comes between ExecAdded and ExecExited",
            ),
            (vec![Registered, started(), exec_added(), exec_exited(true)], "an exec that ran has started"),
            (
                vec![Registered, started(), exec_added(), exec_exited(false), exec_exited(false)],
                "ExecExited comes once, after ExecAdded",
            ),
            (vec![Registered, exited(true)], "a container that ran has started"),
            (vec![Registered, RELEASED], "Released comes after Exited"),
            (vec![killed(1)], "OutOfMemory comes between Registered and Exited"),
            (
                vec![Registered, started(), exited(true), killed(1)],
                "OutOfMemory comes between Registered and Exited",
            ),
            (vec![Registered, started(), killed(2), killed(2)], "a kill is published once"),
            (
                vec![Registered, started(), exited(true), exec_started()],
                "ExecStarted comes between Started and Exited",
            ),
        ] {
            assert_eq!(check(&wrong), Err(broken));
        }
    }

    #[test]
    fn a_hole_in_the_sequence_is_seen() {
        let mut order = EventOrder::default();
        let container = ContainerId::new("c").unwrap();
        let event = Event::new(2, container, Timestamp::default(), EventKind::Registered);
        assert!(order.check(&event).is_err());
    }
}
