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

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use executor_core::metrics::PoolJobs;
use tokio::sync::Semaphore;

use crate::{Error, Result, lock};

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
    begun: Arc<Begun>,
}

/// The work that has begun. It continues when its future is dropped.
#[derive(Default)]
struct Begun {
    work: Mutex<Work>,
    less: Condvar,
}

#[derive(Default)]
struct Work {
    /// How many pieces have begun and are not done.
    count: usize,
    /// Whether the driver is closed, and no more begins.
    is_closed: bool,
}

/// A piece of work, until it is done or has panicked.
struct Piece(Arc<Begun>);

impl Piece {
    fn begin(begun: Arc<Begun>) -> Option<Self> {
        {
            let mut work = lock(&begun.work);
            if work.is_closed {
                return None;
            }
            work.count += 1;
        }
        Some(Self(begun))
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        lock(&self.0.work).count -= 1;
        self.0.less.notify_all();
    }
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
            begun: Arc::default(),
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
        let begun = Arc::clone(&self.begun);
        let work = move || {
            let _turn = turn;
            if let Some((jobs, job)) = &mut measured {
                jobs.begin(job);
            }
            let _until_done = Piece::begin(begun).ok_or(Error::NotOpen)?;
            Ok(work())
        };
        tokio::task::spawn_blocking(work).await?
    }

    /// From now on, no work begins. Waits for what has begun, `patience` at most: it may wait for a file system that does not
    /// answer. Returns whether all of it has ended.
    #[must_use]
    pub(super) fn close(&self, patience: Duration) -> bool {
        let mut work = lock(&self.begun.work);
        work.is_closed = true;
        let waited = self.begun.less.wait_timeout_while(work, patience, |work| work.count > 0);
        let (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if work.count > 0 {
            tracing::warn!(count = work.count, "work that has begun does not end");
        }
        work.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    #[tokio::test]
    async fn work_that_does_not_end_is_not_waited_for_without_end() {
        const SOON: Duration = Duration::from_millis(50);
        let pools = Arc::new(Pools::new());
        let (go, wait) = mpsc::channel::<()>();
        let own = Arc::clone(&pools);
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let hangs = tokio::spawn(async move {
            let work = move || {
                begun.send(()).unwrap();
                wait.recv()
            };
            own.run(Pool::Bundles, work).await
        });
        has_begun.await.unwrap();
        let begun = Instant::now();
        assert!(!pools.close(SOON));
        assert!(begun.elapsed() >= SOON);
        assert!(matches!(pools.run(Pool::Bundles, || ()).await, Err(Error::NotOpen)));
        drop(go);
        hangs.await.unwrap().unwrap().unwrap_err();
        assert!(pools.close(Duration::from_secs(1000)));
    }
}
