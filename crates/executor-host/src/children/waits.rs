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

use super::{CHECK_INTERVAL, ChildTable, ClientId, Role, push_bounded};
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
        /// The process group whose rest is killed before, if the call has failed.
        group: Option<u32>,
    },
    UnadoptedEnded {
        token: Token,
    },
    /// What is left in these process groups of runtimes is killed meanwhile.
    Closing {
        token: Token,
        groups: HashSet<u32>,
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

    /// The process group that is killed before the wait is over.
    const fn group(&self) -> Option<u32> {
        match self.then {
            Continuation::CallEnded { group, .. } => group,
            Continuation::UnadoptedEnded { .. }
            | Continuation::Closing { .. }
            | Continuation::EndAll { .. } => None,
        }
    }

    /// Removes a process that has exited. Whether it was the last one.
    fn remove_last(&mut self, number: u64) -> bool {
        self.processes.remove(&number) && self.processes.is_empty()
    }
}

impl<K: Kernel> ChildTable<K> {
    /// Kills every runtime and adopted process of a client, and begins to wait for their exits.
    pub(super) fn close(&mut self, now: Instant, client: ClientId, token: Token, patience: Duration) {
        // Nobody adopts it any more, and the init of its pid namespace does not end before it is reaped.
        self.give_up_left_by(|left| left.client == client);
        let Some(own) = self.clients.get_mut(&client) else { return };
        own.is_closed = true;
        let calls: Vec<_> = own.calls.values().copied().collect();
        let processes: BTreeSet<_> = calls.iter().chain(own.adopted.values()).copied().collect();
        let watched_calls = calls.iter().filter_map(|call| self.watched.get(call));
        let ending = self.waits.values().filter(|wait| wait.client == client).filter_map(Wait::group);
        let unfinished = own.unfinished.iter().copied();
        let groups = watched_calls
            .map(|call| call.runtime.unwrap_or(call.pid).get())
            .chain(ending)
            .chain(unfinished)
            .collect();
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
            Continuation::Closing { groups, .. } => {
                // An init does not end before the zombies in its pid namespace are reaped.
                self.reap_orphans();
                wait.processes.retain(|number| self.watched.contains_key(number));
                if wait.processes.is_empty() {
                    self.kill_unadopted(wait.client, |_, _, stat| groups.contains(&stat.group));
                    wait.processes = self.dying(wait.client);
                }
                wait.processes.is_empty()
            }
            Continuation::CallEnded { group, .. } => {
                if wait.processes.is_empty() && !is_overdue {
                    wait.processes = self.kill_group(wait.client, *group);
                }
                wait.processes.is_empty()
            }
            Continuation::UnadoptedEnded { .. } => wait.processes.is_empty(),
        };
        if !is_complete && !is_overdue {
            wait.next_check = wait.next_check.map(|_| now + CHECK_INTERVAL);
            self.waits.insert(number, wait);
            return;
        }
        self.finish_wait(wait);
    }

    /// The processes of a client that were killed and have not exited.
    fn dying(&self, client: ClientId) -> BTreeSet<u64> {
        let dying = self.watched.iter().filter(|(_, watched)| {
            watched.client == client && matches!(watched.role, Role::Killed | Role::Call(_))
        });
        dying.map(|(number, _)| *number).collect()
    }

    fn finish_wait(&mut self, wait: Wait) {
        let client = wait.client;
        match wait.then {
            Continuation::CallEnded { call, status, group } => {
                if let Some(own) = self.clients.get_mut(&client) {
                    if let Some(group) = group.filter(|_| !wait.processes.is_empty()) {
                        push_bounded(&mut own.unfinished, group);
                    }
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
            Continuation::Closing { token, groups: _ } => self.emit(client, Event::Done { token }),
            Continuation::EndAll { token, .. } => {
                self.reap_remembered();
                self.emit(client, Event::Done { token });
            }
        }
    }
}
