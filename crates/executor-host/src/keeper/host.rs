//! A keeper as the parent of processes: the child table and its thread are here, the parent is there.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use super::Keeper;
use super::kernel::KeeperKernel;
use crate::children::{ChildTable, ClientId};
use crate::client::HostClient;
use crate::error::{Error, Result};
use crate::host_thread::{Entry, Queue};
use crate::seam::{EventSink, ProcessHost, Request};

/// A client's connection to the host of one keeper. It has a thread of its own, which ends after it was dropped, when the last of
/// its runtimes has ended.
pub struct KeeperHost {
    client: ClientId,
    queue: Arc<Queue>,
}

impl KeeperHost {
    /// Starts the host's thread. Events go to `sink`.
    ///
    /// # Errors
    /// When the thread cannot be started, or a file descriptor cannot be made.
    pub fn connect(keeper: Keeper, sink: impl EventSink) -> io::Result<Self> {
        let queue = Arc::new(Queue::new()?);
        let table = ChildTable::new(KeeperKernel::new(queue.wake(), keeper)?);
        let client = queue.join(sink);
        let own = Arc::clone(&queue);
        thread::Builder::new().name("longshore-kept".into()).spawn(move || {
            let guard = ThreadGuard(own);
            guard.0.work(table, || guard.0.is_empty());
        })?;
        Ok(Self { client, queue })
    }
}

impl HostClient {
    /// A client of a keeper, whose processes outlive this one.
    ///
    /// # Errors
    /// When the host's thread cannot be started.
    pub fn kept(keeper: Keeper) -> Result<Self> {
        Self::connect(|sink| {
            KeeperHost::connect(keeper, sink).map(|host| Box::new(host) as Box<dyn ProcessHost>)
        })
        .map_err(Error::system("start the host's thread"))
    }
}

impl ProcessHost for KeeperHost {
    fn request(&self, request: Request, fds: Vec<OwnedFd>) {
        self.queue.enter(self.client, Entry::Request(request, fds));
    }
}

impl Drop for KeeperHost {
    fn drop(&mut self) {
        self.queue.enter(self.client, Entry::Leave);
    }
}

/// Drops what was entered and is not carried out any more, when the thread ends by a panic.
struct ThreadGuard(Arc<Queue>);

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        self.0.clear();
    }
}
