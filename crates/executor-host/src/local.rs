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

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::children::{ChildTable, ClientId};
use crate::host_thread::{Entry, Queue};
use crate::kernel::Linux;
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
                let queue = start()?;
                *host = Some(Arc::clone(&queue));
                queue
            }
        };
        let client = queue.join(sink);
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

fn start() -> io::Result<Arc<Queue>> {
    let queue = Arc::new(Queue::new()?);
    let table = ChildTable::new(Linux::new(queue.wake())?);
    let own = Arc::clone(&queue);
    thread::Builder::new().name("longshore-host".into()).spawn(move || {
        let guard = ThreadGuard(own);
        guard.0.work(table, || stop_if_idle(&guard.0));
    })?;
    Ok(queue)
}

/// Stops unless a client has just joined.
fn stop_if_idle(queue: &Arc<Queue>) -> bool {
    let mut host = lock(&HOST);
    let is_idle = queue.is_empty();
    if is_idle {
        forget(queue, &mut host);
    }
    is_idle
}

fn forget(queue: &Arc<Queue>, host: &mut Option<Arc<Queue>>) {
    if host.as_ref().is_some_and(|host| Arc::ptr_eq(host, queue)) {
        *host = None;
    }
}

/// Cleans up when the thread ends, by a panic as well: the next client starts a new thread, and the sinks of
/// the present clients are dropped.
struct ThreadGuard(Arc<Queue>);

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        let mut host = lock(&HOST);
        forget(&self.0, &mut host);
        self.0.clear();
    }
}
