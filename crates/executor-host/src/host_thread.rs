//! The thread of a host: one request, then exits, then what is due.
//!
//! ```text
//!  LocalHost, KeeperHost ──▶ queue ── eventfd ──▶ thread ── ChildTable ──▶ each client's EventSink
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::children::{ChildTable, ClientId};
use crate::kernel::{Kernel, OOM, Waits};
use crate::lock;
use crate::seam::{EventSink, Request};

/// The requests to a host's thread.
pub(crate) struct Queue {
    entries: Mutex<VecDeque<(ClientId, Entry)>>,
    wake: OwnedFd,
    next_client: AtomicU64,
}

pub(crate) enum Entry {
    Join(Box<dyn EventSink>),
    Request(Request, Vec<OwnedFd>),
    Leave,
}

impl Queue {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { entries: Mutex::default(), wake, next_client: AtomicU64::new(0) })
    }

    /// The eventfd that wakes the thread.
    pub(crate) fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    /// Enters a new client, whose events go to `sink`.
    pub(crate) fn join(&self, sink: impl EventSink) -> ClientId {
        let client = self.next_client.fetch_add(1, Ordering::Relaxed);
        self.enter(client, Entry::Join(Box::new(sink)));
        client
    }

    pub(crate) fn enter(&self, client: ClientId, entry: Entry) {
        lock(&self.entries).push_back((client, entry));
        // A write to an eventfd fails only when its counter, of 64 bits, is full.
        let _woken = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.entries).is_empty()
    }

    /// Drops what was entered: the sinks of clients that have not joined yet, and requests.
    pub(crate) fn clear(&self) {
        lock(&self.entries).clear();
    }

    /// The thread's work. It ends when `may_stop` agrees, which is asked when there are no clients, and no children that only
    /// this host can reap.
    pub(crate) fn work<K: Kernel + Waits>(&self, mut table: ChildTable<K>, may_stop: impl Fn() -> bool) {
        loop {
            let next = lock(&self.entries).pop_front();
            let was_empty = next.is_none();
            match next {
                Some((client, Entry::Join(sink))) => table.join(client, sink),
                Some((client, Entry::Request(request, fds))) => {
                    table.handle(Instant::now(), client, request, fds)
                }
                Some((client, Entry::Leave)) => table.leave(client),
                None if !table.is_needed() && may_stop() => return,
                None => table.idle(Instant::now()),
            }
            // Exits are handled between two requests, so that many requests do not delay them.
            let now = Instant::now();
            let until_due = table.next_deadline(now).map(|at| at.saturating_duration_since(now));
            let timeout = if was_empty { until_due } else { Some(Duration::ZERO) };
            for number in table.kernel().wait(&self.wake, timeout) {
                match number {
                    OOM => table.log_noticed(),
                    number => table.ended(Instant::now(), number),
                }
            }
            table.tick(Instant::now());
        }
    }
}
