//! Blocking work in separate pools. A container waits for its own work and for other containers' work of the
//! same kind, and never for work of another kind.
//!
//! | pool | work | why it is separate |
//! |---|---|---|
//! | bundles | reserving an id, writing a bundle | disk |
//! | attachments | attaching to slow networks | plugins, seconds each |
//! | detachments | detaching from slow networks | the same; a release does not wait for starts |
//! | releases | killing what is left, removing cgroups and files | waits for processes to exit |
//! | reads | usage, pid files, exec fifos | microseconds each |

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use executor_core::metrics::PoolJobs;
use tokio::sync::Semaphore;

use crate::{Error, Result};

/// How many pieces of work of one kind run at once. The others wait.
const AT_ONCE: usize = 8;

/// The same for work that mostly waits, for plugins or for processes that do not exit. Each takes a sleeping
/// thread. A container with processes in uninterruptible sleep takes five seconds. With a small limit, a few
/// of these would delay the releases of all other containers. All pools together stay well below the 512
/// threads that tokio has for blocking work.
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
    /// There is work once an executor uses the driver.
    jobs: OnceLock<PoolJobs>,
    /// Whether the driver is closed. Work holds the lock until it is done, since it continues when its future
    /// is dropped.
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
            jobs: OnceLock::new(),
            closed: Arc::default(),
        }
    }

    /// Measures the work from now on.
    pub(super) fn measure(&self) {
        self.jobs.get_or_init(PoolJobs::register);
    }

    /// Does blocking work once the pool has room. Work that has begun is done even if the future is dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        pool: Pool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (name, pool) = match pool {
            Pool::Bundles => ("bundles", &self.bundles),
            Pool::Attachments => ("attachments", &self.attachments),
            Pool::Detachments => ("detachments", &self.detachments),
            Pool::Releases => ("releases", &self.releases),
            Pool::Reads => ("reads", &self.reads),
        };
        let mut measured = self.jobs.get().map(|jobs| (jobs.clone(), jobs.wait(name)));
        let turn = Arc::clone(pool).acquire_owned().await;
        let closed = Arc::clone(&self.closed);
        let work = move || {
            let _turn = turn;
            if let Some((jobs, job)) = &mut measured {
                jobs.begin(job);
            }
            let closed = closed.read().unwrap_or_else(PoisonError::into_inner);
            if *closed { Err(Error::NotOpen) } else { Ok(work()) }
        };
        tokio::task::spawn_blocking(work).await?
    }

    /// Waits for work that has begun. From now on, none begins.
    pub(super) fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
