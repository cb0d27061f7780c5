//! The events of a container that are published, and their order.
//!
//! ```text
//! Registered < Created? < Started? < Exited < Released
//! ExecAdded < ExecStarted? < ExecExited, after Registered and before Exited; started after Started
//! ```
//! Each once, with a sequence number without holes. `Created` is there where the container stood at created before
//! it was started. A start that failed has no `Started` (or no `ExecStarted`), and its exit says why.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{ContainerId, ExecId, Exit, HostPid, Leftover, Timestamp};

/// Something that happened to a container.
///
/// As JSON one object: `seq`, `container`, `at`, `event`, which is the name of the kind, and what the kind holds.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Position in the container's own sequence, from 1.
    pub seq: u64,
    /// Whose event it is.
    pub container: ContainerId,
    /// When the executor knew.
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
    /// The id is taken and the container is being made.
    Registered,
    /// Init exists and waits for its program to be executed.
    Created {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Init runs.
    Started {
        /// Its pid on the host.
        pid: HostPid,
    },
    /// Another process was accepted, under an id that was free.
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
    /// All processes are frozen.
    Paused,
    /// They run again.
    Resumed,
    /// Init ended, or could not be started; no process of the container is left.
    Exited {
        /// How and why.
        exit: Exit,
    },
    /// Everything the container had is given back and its id is free.
    Released {
        /// What could not be removed; empty when all is well.
        left: Vec<Leftover>,
    },
}

impl Event {
    /// The event with this number of a container.
    pub const fn new(seq: u64, container: ContainerId, at: Timestamp, kind: EventKind) -> Self {
        Self { seq, container, at, kind }
    }
}

/// Checks that the events of one container come in the order that is promised.
///
/// Tests of every kind feed it what subscribers see; it shares no code with the machines.
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
    /// Takes the container's next event.
    pub fn check(&mut self, event: &Event) -> Result<(), OutOfOrder> {
        self.broken_rule(event)
            .map_or(Ok(()), |broken| Err(OutOfOrder { event: Box::new(event.clone()), broken }))
    }

    /// Whether the last event has come.
    pub const fn is_complete(&self) -> bool {
        self.released
    }

    fn broken_rule(&mut self, event: &Event) -> Option<&'static str> {
        if event.seq != self.seq + 1 {
            return Some("a sequence number is missing or comes twice");
        }
        self.seq = event.seq;
        let rule = |holds: bool, broken| (!holds).then_some(broken);
        match &event.kind {
            EventKind::Registered => {
                rule(!std::mem::replace(&mut self.registered, true), "Registered is published once")
            }
            EventKind::Created { .. } => rule(
                self.registered && !self.started && !self.exited,
                "Created comes before Started and Exited",
            )
            .or_else(|| rule(!std::mem::replace(&mut self.created, true), "Created is published once")),
            EventKind::Started { .. } => {
                rule(self.registered && !self.exited, "Started comes between Registered and Exited").or_else(
                    || rule(!std::mem::replace(&mut self.started, true), "Started is published once"),
                )
            }
            EventKind::ExecAdded { exec } => {
                rule(self.registered && !self.exited, "ExecAdded comes between Registered and Exited")
                    .or_else(|| {
                        rule(self.added.insert(exec.clone()), "an exec's id is taken until it has exited")
                    })
            }
            EventKind::ExecStarted { exec, .. } => {
                rule(self.started && !self.exited, "ExecStarted comes between Started and Exited")
                    .or_else(|| {
                        rule(self.added.contains(exec), "ExecStarted comes between ExecAdded and ExecExited")
                    })
                    .or_else(|| rule(self.running.insert(exec.clone()), "ExecStarted is published once"))
            }
            EventKind::ExecExited { exec, exit } => {
                rule(self.registered && !self.exited, "ExecExited comes before Exited")
                    .or_else(|| rule(self.added.remove(exec), "ExecExited comes once, after ExecAdded"))
                    .or_else(|| {
                        let ran = self.running.remove(exec);
                        rule(ran == exit.started_at.is_some(), "an exec that ran has started")
                    })
            }
            EventKind::Paused | EventKind::Resumed => {
                rule(self.started && !self.exited, "a container is paused while it runs")
            }
            EventKind::Exited { exit } => rule(self.registered, "Exited comes after Registered")
                .or_else(|| rule(self.added.is_empty(), "every exec ends before Exited"))
                .or_else(|| {
                    rule(self.started == exit.started_at.is_some(), "a container that ran has started")
                })
                .or_else(|| rule(!std::mem::replace(&mut self.exited, true), "Exited is published once")),
            EventKind::Released { .. } => rule(self.exited, "Released comes after Exited")
                .or_else(|| rule(!std::mem::replace(&mut self.released, true), "Released is published once")),
        }
    }
}

#[cfg(test)]
mod tests {
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
            let event = Event { seq, container, at: Timestamp::default(), kind: kind.clone() };
            order.check(&event).map_err(|error| error.broken)?;
        }
        Ok(order.is_complete())
    }

    fn pid() -> HostPid {
        HostPid::new(7).unwrap()
    }

    #[test]
    fn the_promised_order_is_taken_and_its_violations_are_not() {
        use EventKind::{Created, ExecAdded, ExecExited, ExecStarted, Exited, Registered, Released, Started};
        let (created, started) = (|| Created { pid: pid() }, || Started { pid: pid() });
        let exec = || ExecId::numbered(1);
        let exec_added = || ExecAdded { exec: exec() };
        let exec_started = || ExecStarted { exec: exec(), pid: pid() };
        let exec_exited = |ran| ExecExited { exec: exec(), exit: exit(ran) };
        let exited = |ran| Exited { exit: exit(ran) };
        let released = || Released { left: Vec::new() };

        let whole = [
            Registered,
            created(),
            started(),
            exec_added(),
            exec_started(),
            exec_exited(true),
            exec_added(),
            exec_exited(false),
            exited(true),
            released(),
        ];
        assert_eq!(check(&whole), Ok(true));
        assert_eq!(
            check(&[Registered, exec_added(), exec_exited(false), exited(false), released()]),
            Ok(true)
        );
        assert_eq!(check(&whole[..9]), Ok(false));
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
            (vec![Registered, released()], "Released comes after Exited"),
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
        let event = Event { seq: 2, container, at: Timestamp::default(), kind: EventKind::Registered };
        assert!(order.check(&event).is_err());
    }
}
