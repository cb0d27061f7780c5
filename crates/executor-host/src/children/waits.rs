//! What is done when processes have ended, or when its time is over.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExitStatus, Signal};

use super::{CHECK_INTERVAL, ChildTable, ClientId, HANDOVER, push_bounded};
use crate::kernel::Kernel;
use crate::seam::{CallId, Event, Members, Token};

/// Something that is done when processes have ended, or its time is over.
pub(super) struct Wait {
    pub(super) client: ClientId,
    pub(super) awaits: BTreeSet<u64>,
    pub(super) deadline: Instant,
    /// When it looks again by itself.
    pub(super) next_check: Option<Instant>,
    pub(super) then: Continuation,
}

pub(super) enum Continuation {
    CallEnded {
        call: CallId,
        status: ExitStatus,
    },
    UnadoptedEnded {
        token: Token,
    },
    /// What the runtimes of these groups have left is killed next.
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

impl<K: Kernel> ChildTable<K> {
    pub(super) fn close(&mut self, now: Instant, client: ClientId, token: Token, patience: Duration) {
        let Some(own) = self.clients.get_mut(&client) else { return };
        own.is_closed = true;
        let calls: Vec<_> = own.calls.values().copied().collect();
        let awaits: BTreeSet<_> = calls.iter().chain(own.adopted.values()).copied().collect();
        let groups =
            calls.iter().filter_map(|call| self.watched.get(call)).map(|call| call.pid.get()).collect();
        for number in &awaits {
            let _gone = self.signal_group(*number, Signal::KILL);
        }
        self.begin_wait(client, awaits, now, now + patience, Continuation::Closing { token, groups });
    }

    /// Begins to wait for the ends of these.
    pub(super) fn begin_wait(
        &mut self,
        client: ClientId,
        awaits: BTreeSet<u64>,
        now: Instant,
        deadline: Instant,
        then: Continuation,
    ) {
        let number = self.next;
        self.next += 1;
        let looks = matches!(then, Continuation::EndAll { .. } | Continuation::Closing { .. });
        self.waits.insert(number, Wait { client, awaits, deadline, next_check: looks.then_some(now), then });
        self.advance_wait(now, number);
    }

    /// One process less to wait for.
    pub(super) fn process_ended(&mut self, now: Instant, ended: u64) {
        let lighter = |wait: &mut Wait| wait.awaits.remove(&ended) && wait.awaits.is_empty();
        let over: Vec<_> =
            self.waits.iter_mut().filter_map(|(number, wait)| lighter(wait).then_some(*number)).collect();
        over.into_iter().for_each(|number| self.advance_wait(now, number));
    }

    /// Goes on with an wait if it can.
    pub(super) fn advance_wait(&mut self, now: Instant, number: u64) {
        let Some(mut wait) = self.waits.remove(&number) else { return };
        let overdue = wait.deadline <= now;
        let over = match &wait.then {
            Continuation::EndAll { container, members, thaw, .. } => {
                self.end_members(wait.client, container, members, thaw)
            }
            // Zombies of their pid namespaces hold inits up.
            Continuation::Closing { .. } => {
                self.reap_orphans();
                wait.awaits.retain(|awaited| self.watched.contains_key(awaited));
                wait.awaits.is_empty()
            }
            Continuation::CallEnded { .. }
            | Continuation::UnadoptedEnded { .. }
            | Continuation::Closed { .. } => wait.awaits.is_empty(),
        };
        if !over && !overdue {
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
