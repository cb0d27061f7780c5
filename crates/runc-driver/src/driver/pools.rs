//! Blocking work, in pools apart: a container waits for its own work and for others' of the same kind, never for another
//! kind.
//!
//! | pool | work | why apart |
//! |---|---|---|
//! | bundles | claiming an id, writing a bundle | disk |
//! | attachments | attaching to slow networks | others' programs, seconds each |
//! | detachments | detaching from slow networks | the same; a release does not wait for starts |
//! | releases | ending what is left, removing cgroups and files | waits for processes to die |
//! | reads | usage, pid files, exec fifos | microseconds each |

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Semaphore;

use crate::{Error, Result};

/// Blocking work of each kind that goes on at once; more waits its turn.
const AT_ONCE: usize = 8;

/// The same of work that mostly waits for others: plugins, or processes that do not die. It costs a thread that sleeps, and one
/// with processes in uninterruptible sleep takes five seconds: with few places, some of these would hold up the releases of all
/// other containers. All pools together stay well below the 512 threads that tokio has for blocking work.
const WAITING_AT_ONCE: usize = 64;

/// A kind of work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pool {
    Bundles,
    Attachments,
    Detachments,
    Releases,
    Reads,
}

pub(super) struct Pools {
    bundles: Arc<Semaphore>,
    attachments: Arc<Semaphore>,
    detachments: Arc<Semaphore>,
    releases: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    /// Whether the driver is closed. Work holds it while it goes on, since it goes on when it is not awaited any more.
    closed: Arc<RwLock<bool>>,
}

impl Pools {
    pub(super) fn new() -> Self {
        let pool = |at_once| Arc::new(Semaphore::new(at_once));
        Self {
            bundles: pool(AT_ONCE),
            attachments: pool(WAITING_AT_ONCE),
            detachments: pool(WAITING_AT_ONCE),
            releases: pool(WAITING_AT_ONCE),
            reads: pool(AT_ONCE),
            closed: Arc::default(),
        }
    }

    /// Does blocking work when it is its turn. Once begun, it is done whether or not it is awaited.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        pool: Pool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let pool = match pool {
            Pool::Bundles => &self.bundles,
            Pool::Attachments => &self.attachments,
            Pool::Detachments => &self.detachments,
            Pool::Releases => &self.releases,
            Pool::Reads => &self.reads,
        };
        let turn = Arc::clone(pool).acquire_owned().await;
        let closed = Arc::clone(&self.closed);
        let work = move || {
            let _turn = turn;
            let closed = closed.read().unwrap_or_else(PoisonError::into_inner);
            if *closed { Err(Error::NotOpen) } else { Ok(work()) }
        };
        tokio::task::spawn_blocking(work).await?
    }

    /// Waits for work that has begun; from now on none begins.
    pub(super) fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
