//! Waits: what the table does once a set of processes has exited, or once the deadline has passed.
//!
//! ```text
//!  begin_wait ──▶ waiting ── the last process exits, or the deadline passes ──▶ finish_wait ──▶ its Continuation
//!                   └── Closing, EndAll: every CHECK_INTERVAL they also do a part of the work
//! ```

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExitStatus, Signal};

use super::{CHECK_INTERVAL, ChildTable, ClientId, HANDOVER, push_bounded};
use crate::kernel::Kernel;
use crate::seam::{CallId, Event, Members, Token};

pub(super) struct Wait {
    pub(super) client: ClientId,
    /// The numbers of the watched processes.
    processes: BTreeSet<u64>,
    deadline: Instant,
    /// For a wait that works while it waits: when it does so next.
    next_check: Option<Instant>,
    then: Continuation,
}

/// What follows a wait.
pub(super) enum Continuation {
    CallEnded {
        call: CallId,
        status: ExitStatus,
    },
    UnadoptedEnded {
        token: Token,
    },
    /// Next, what is left in these process groups of runtimes is killed.
    Closing {
        token: Token,
        groups: HashSet<u32>,
    },
    Closed {
        token: Token,
    },
    EndAll {
        token: Token,
        container: ContainerId,
        members: Members,
        thaw: Vec<OsString>,
    },
}

impl Wait {
    pub(super) fn next_deadline(&self) -> Instant {
        self.next_check.map_or(self.deadline, |check| check.min(self.deadline))
    }

    /// Removes a process that has exited. Whether it was the last one.
    fn remove_last(&mut self, number: u64) -> bool {
        self.processes.remove(&number) && self.processes.is_empty()
    }
}

impl<K: Kernel> ChildTable<K> {
    /// Kills every runtime and adopted process of a client, and begins to wait for their exits.
    pub(super) fn close(&mut self, now: Instant, client: ClientId, token: Token, patience: Duration) {
        let Some(own) = self.clients.get_mut(&client) else { return };
        own.is_closed = true;
        let calls: Vec<_> = own.calls.values().copied().collect();
        let processes: BTreeSet<_> = calls.iter().chain(own.adopted.values()).copied().collect();
        let watched_calls = calls.iter().filter_map(|call| self.watched.get(call));
        let groups = watched_calls.map(|call| call.pid.get()).collect();
        for number in &processes {
            let _gone = self.signal_group(*number, Signal::KILL);
        }
        self.begin_wait(client, processes, now, now + patience, Continuation::Closing { token, groups });
    }

    /// Begins to kill what is in a container until nothing is left.
    pub(super) fn end_all(&mut self, now: Instant, client: ClientId, then: Continuation, patience: Duration) {
        self.begin_wait(client, BTreeSet::new(), now, now + patience, then);
    }

    /// Begins to wait until these processes have exited.
    pub(super) fn begin_wait(
        &mut self,
        client: ClientId,
        processes: BTreeSet<u64>,
        now: Instant,
        deadline: Instant,
        then: Continuation,
    ) {
        let number = self.next;
        self.next += 1;
        let works_meanwhile = matches!(then, Continuation::EndAll { .. } | Continuation::Closing { .. });
        let next_check = works_meanwhile.then_some(now);
        self.waits.insert(number, Wait { client, processes, deadline, next_check, then });
        self.advance_wait(now, number);
    }

    /// A watched process has exited: advances the waits for which it was the last one.
    pub(super) fn process_ended(&mut self, now: Instant, exited: u64) {
        let mut complete = Vec::new();
        for (number, wait) in &mut self.waits {
            if wait.remove_last(exited) {
                complete.push(*number);
            }
        }
        for number in complete {
            self.advance_wait(now, number);
        }
    }

    pub(super) fn advance_due_waits(&mut self, now: Instant) {
        let due = self.waits.iter().filter(|(_, wait)| wait.next_deadline() <= now);
        let due: Vec<_> = due.map(|(number, _)| *number).collect();
        for number in due {
            self.advance_wait(now, number);
        }
    }

    /// Does the part of a wait that is possible now, and finishes the wait when it is complete or overdue.
    fn advance_wait(&mut self, now: Instant, number: u64) {
        let Some(mut wait) = self.waits.remove(&number) else { return };
        let is_overdue = wait.deadline <= now;
        let is_complete = match &wait.then {
            Continuation::EndAll { container, members, thaw, .. } => {
                self.end_members(wait.client, container, members, thaw)
            }
            // An init does not end before the zombies in its pid namespace are reaped.
            Continuation::Closing { .. } => {
                self.reap_orphans();
                wait.processes.retain(|number| self.watched.contains_key(number));
                wait.processes.is_empty()
            }
            Continuation::CallEnded { .. }
            | Continuation::UnadoptedEnded { .. }
            | Continuation::Closed { .. } => wait.processes.is_empty(),
        };
        if !is_complete && !is_overdue {
            wait.next_check = wait.next_check.map(|_| now + CHECK_INTERVAL);
            self.waits.insert(number, wait);
            return;
        }
        self.finish_wait(now, wait);
    }

    fn finish_wait(&mut self, now: Instant, wait: Wait) {
        let Wait { client, then, .. } = wait;
        match then {
            Continuation::CallEnded { call, status } => {
                if let Some(own) = self.clients.get_mut(&client) {
                    own.calls.remove(&call);
                    push_bounded(&mut own.ended_calls, (call, status));
                }
                self.emit(client, Event::CallEnded { call, status });
                self.monitor_ended(client, call, status);
            }
            Continuation::UnadoptedEnded { token } => {
                self.reap_orphans();
                self.emit(client, Event::Done { token });
            }
            Continuation::Closing { token, groups } => {
                let left = self.kill_unadopted(client, |_, _, stat| groups.contains(&stat.group));
                self.begin_wait(client, left, now, now + HANDOVER, Continuation::Closed { token });
            }
            Continuation::Closed { token } => self.emit(client, Event::Done { token }),
            Continuation::EndAll { token, .. } => {
                self.reap_remembered();
                self.emit(client, Event::Done { token });
            }
        }
    }
}
