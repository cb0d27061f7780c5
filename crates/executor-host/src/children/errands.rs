//! What is done when processes have ended, or when its time is over.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExitStatus, Signal};

use super::{ADOPTION, ChildTable, ClientId, LOOK, bounded};
use crate::kernel::Kernel;
use crate::seam::{CallId, Event, Members, Token};

/// Something that is done when processes have ended, or its time is over.
pub(super) struct Errand {
    pub(super) client: ClientId,
    pub(super) awaits: BTreeSet<u64>,
    pub(super) deadline: Instant,
    /// When it looks again by itself.
    pub(super) look: Option<Instant>,
    pub(super) then: Then,
}

pub(super) enum Then {
    CallEnded {
        call: CallId,
        status: ExitStatus,
    },
    Unadopted {
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
        own.closed = true;
        let calls: Vec<_> = own.calls.values().copied().collect();
        let awaits: BTreeSet<_> = calls.iter().chain(own.adopted.values()).copied().collect();
        let groups =
            calls.iter().filter_map(|call| self.watched.get(call)).map(|call| call.pid.get()).collect();
        for number in &awaits {
            let _gone = self.signal_group(*number, Signal::KILL);
        }
        self.begin(client, awaits, now, now + patience, Then::Closing { token, groups });
    }

    /// Begins to wait for the ends of these.
    pub(super) fn begin(
        &mut self,
        client: ClientId,
        awaits: BTreeSet<u64>,
        now: Instant,
        deadline: Instant,
        then: Then,
    ) {
        let number = self.next;
        self.next += 1;
        let looks = matches!(then, Then::EndAll { .. } | Then::Closing { .. });
        self.errands.insert(number, Errand { client, awaits, deadline, look: looks.then_some(now), then });
        self.look(now, number);
    }

    /// One process less to wait for.
    pub(super) fn awaited(&mut self, now: Instant, ended: u64) {
        let lighter = |errand: &mut Errand| errand.awaits.remove(&ended) && errand.awaits.is_empty();
        let over: Vec<_> = self
            .errands
            .iter_mut()
            .filter_map(|(number, errand)| lighter(errand).then_some(*number))
            .collect();
        over.into_iter().for_each(|number| self.look(now, number));
    }

    /// Goes on with an errand if it can.
    pub(super) fn look(&mut self, now: Instant, number: u64) {
        let Some(mut errand) = self.errands.remove(&number) else { return };
        let overdue = errand.deadline <= now;
        let over = match &errand.then {
            Then::EndAll { container, members, thaw, .. } => {
                self.end_members(errand.client, container, members, thaw)
            }
            // Zombies of their pid namespaces hold inits up.
            Then::Closing { .. } => {
                self.reap_orphans();
                errand.awaits.retain(|awaited| self.watched.contains_key(awaited));
                errand.awaits.is_empty()
            }
            Then::CallEnded { .. } | Then::Unadopted { .. } | Then::Closed { .. } => errand.awaits.is_empty(),
        };
        if !over && !overdue {
            errand.look = errand.look.map(|_| now + LOOK);
            self.errands.insert(number, errand);
            return;
        }
        self.finish(now, errand);
    }

    fn finish(&mut self, now: Instant, errand: Errand) {
        let Errand { client, then, .. } = errand;
        match then {
            Then::CallEnded { call, status } => {
                if let Some(own) = self.clients.get_mut(&client) {
                    own.calls.remove(&call);
                    bounded(&mut own.ended_calls, (call, status));
                }
                self.emit(client, Event::CallEnded { call, status });
                self.monitor_ended(client, call, status);
            }
            Then::Unadopted { token } => {
                self.reap_orphans();
                self.emit(client, Event::Done { token });
            }
            Then::Closing { token, groups } => {
                let left = self.doom(client, |_, _, stat| groups.contains(&stat.group));
                self.begin(client, left, now, now + ADOPTION, Then::Closed { token });
            }
            Then::Closed { token } => self.emit(client, Event::Done { token }),
            Then::EndAll { token, .. } => {
                self.reap_remembered();
                self.emit(client, Event::Done { token });
            }
        }
    }
}
