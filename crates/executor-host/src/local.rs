//! The embedder's own process as the parent of its runtimes and, as their subreaper, of containers.
//!
//! ```text
//!  LocalHost ─┐
//!  LocalHost ─┼─▶ queue ── eventfd ──▶ the host's thread: one request, then exits, then what is due
//!  LocalHost ─┘                            └── ChildTable ──▶ each client's EventSink
//! ```
//! Children belong to a process and not to an executor, so all executors of a process share one thread. The
//! first client starts it. It ends when the last client has left and the last of their runtimes is reaped.
//!
//! Exits are reported by pidfds, and each child is reaped by its pidfd. Waiting for any child would also reap
//! the embedder's own.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::children::{ChildTable, ClientId};
use crate::kernel::{Linux, OOM};
use crate::lock;
use crate::seam::{EventSink, ProcessHost, Request};

/// A client's connection to this process's host.
pub struct LocalHost {
    client: ClientId,
    queue: Arc<Queue>,
}

/// The host of this process. It cannot belong to an executor, because children and the subreaper flag belong
/// to the process.
static HOST: Mutex<Option<Arc<Queue>>> = Mutex::new(None);

/// The requests to the host's thread.
struct Queue {
    entries: Mutex<VecDeque<(ClientId, Entry)>>,
    wake: OwnedFd,
    next_client: AtomicU64,
}

enum Entry {
    Join(Box<dyn EventSink>),
    Request(Request, Vec<OwnedFd>),
    Leave,
}

impl LocalHost {
    /// Becomes a client of this process's host, and starts its thread if there is none. Events go to `sink`.
    ///
    /// # Errors
    /// When the thread cannot be started, or a file descriptor cannot be made.
    pub fn connect(sink: impl EventSink) -> io::Result<Self> {
        let mut host = lock(&HOST);
        let queue = match &*host {
            Some(queue) => Arc::clone(queue),
            None => {
                let queue = Queue::start()?;
                *host = Some(Arc::clone(&queue));
                queue
            }
        };
        let client = queue.next_client.fetch_add(1, Ordering::Relaxed);
        queue.enter(client, Entry::Join(Box::new(sink)));
        Ok(Self { client, queue })
    }
}

impl ProcessHost for LocalHost {
    fn request(&self, request: Request, fds: Vec<OwnedFd>) {
        self.queue.enter(self.client, Entry::Request(request, fds));
    }
}

impl Drop for LocalHost {
    fn drop(&mut self) {
        self.queue.enter(self.client, Entry::Leave);
    }
}

impl Queue {
    fn start() -> io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let table = ChildTable::new(Linux::new(&wake)?);
        let queue = Arc::new(Self { entries: Mutex::default(), wake, next_client: AtomicU64::new(0) });
        let own = Arc::clone(&queue);
        thread::Builder::new().name("longshore-host".into()).spawn(move || own.work(table))?;
        Ok(queue)
    }

    fn enter(&self, client: ClientId, entry: Entry) {
        lock(&self.entries).push_back((client, entry));
        // A write to an eventfd fails only when its counter, of 64 bits, is full.
        let _woken = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn work(self: Arc<Self>, mut table: ChildTable<Linux>) {
        let _guard = ThreadGuard(Arc::clone(&self));
        loop {
            let next = lock(&self.entries).pop_front();
            let was_empty = next.is_none();
            match next {
                Some((client, Entry::Join(sink))) => table.join(client, sink),
                Some((client, Entry::Request(request, fds))) => {
                    table.handle(Instant::now(), client, request, fds)
                }
                Some((client, Entry::Leave)) => table.leave(client),
                None if !table.is_needed() && self.stop_if_idle() => return,
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

    /// Stops unless a client has just joined.
    fn stop_if_idle(&self) -> bool {
        let mut host = lock(&HOST);
        let is_idle = lock(&self.entries).is_empty();
        if is_idle {
            self.forget(&mut host);
        }
        is_idle
    }

    fn forget(&self, host: &mut Option<Arc<Self>>) {
        if host.as_ref().is_some_and(|host| std::ptr::eq(Arc::as_ptr(host), self)) {
            *host = None;
        }
    }
}

/// Cleans up when the thread ends, by a panic as well: the next client starts a new thread, and the sinks of
/// the present clients are dropped.
struct ThreadGuard(Arc<Queue>);

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        let mut host = lock(&HOST);
        self.0.forget(&mut host);
        lock(&self.0.entries).clear();
    }
}
