//! Networks that are ready before a container asks for one. Setting up a network takes as long as starting a container.
//!
//! A thread fills the pool: after a network was used for the first time, it keeps up to `size` more of it ready. If no
//! container has asked for the network for `idle`, the thread removes them. A network is never used twice, because a
//! container may have changed its namespace.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use executor_core::lifecycle::Leftover;

use crate::attachment::Attachment;
use crate::error::NetworkError;

/// Sets up the network of this name. `None` stands for the one that is taken when a container names none.
type Make = dyn Fn(Option<&str>) -> Result<Attachment, NetworkError> + Send + Sync;

/// The pool of an executor. Drop removes the networks in it.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    filler: Mutex<Option<JoinHandle<()>>>,
}

/// What the pool and its thread share.
struct Shared {
    /// How many of each network are kept ready.
    size: usize,
    /// How long after the last request they are kept ready.
    idle: Duration,
    make: Box<Make>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    networks: BTreeMap<Option<String>, Ready>,
    closed: bool,
    /// What could not be removed.
    left: Vec<Leftover>,
}

/// The networks of one name that are ready.
struct Ready {
    attachments: VecDeque<Attachment>,
    /// When a container asked for one last.
    asked: Instant,
    /// The last one could not be set up. The next request makes the thread try again.
    failed: bool,
}

impl Pool {
    pub(crate) fn new(size: usize, idle: Duration, make: Box<Make>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { size, idle, make, state: Mutex::default(), changed: Condvar::new() });
        let filler = (size > 0).then(|| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("longshore-net".into()).spawn(move || shared.fill())
        });
        Ok(Self { shared, filler: Mutex::new(filler.transpose()?) })
    }

    /// A network that was ready, or is set up now.
    pub(crate) fn take(&self, name: Option<&str>) -> Result<Attachment, NetworkError> {
        if self.shared.size > 0 {
            while let Some(ready) = self.shared.ask(name) {
                // It may have been ready for a long time, and something may have changed it.
                match ready.check() {
                    Ok(()) => return Ok(ready),
                    Err(_) => self.shared.lock().left.extend(ready.remove()),
                }
            }
        }
        (self.shared.make)(name)
    }

    /// How many networks are ready.
    #[cfg(test)]
    fn ready(&self) -> usize {
        self.shared.lock().networks.values().map(|ready| ready.attachments.len()).sum()
    }

    /// Removes the networks in the pool. Returns what could not be removed.
    pub(crate) fn close(&self) -> Vec<Leftover> {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        let filler = self.filler.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(filler) = filler {
            let _panicked = filler.join();
        }
        let mut state = self.shared.lock();
        let networks = std::mem::take(&mut state.networks);
        let mut left = std::mem::take(&mut state.left);
        drop(state);
        left.extend(networks.into_values().flat_map(|ready| ready.attachments).flat_map(|one| one.remove()));
        left
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a network if one is ready, and wakes the thread to set up more.
    fn ask(&self, name: Option<&str>) -> Option<Attachment> {
        let mut state = self.lock();
        let ready = state.networks.entry(name.map(str::to_owned)).or_insert_with(|| Ready {
            attachments: VecDeque::new(),
            asked: Instant::now(),
            failed: false,
        });
        (ready.asked, ready.failed) = (Instant::now(), false);
        let taken = ready.attachments.pop_front();
        self.changed.notify_all();
        taken
    }

    /// The thread: removes, sets up, or waits, until the pool is closed. The lock is not held while it does the first two.
    fn fill(&self) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(expired) = state.expired(self.idle) {
                drop(state);
                self.remove(&expired);
                state = self.lock();
            } else if let Some(name) = state.lacking(self.size) {
                drop(state);
                self.add(&name);
                state = self.lock();
            } else {
                state = self.wait(state);
            }
        }
    }

    fn remove(&self, expired: &Ready) {
        let left: Vec<_> = expired.attachments.iter().flat_map(Attachment::remove).collect();
        self.lock().left.extend(left);
    }

    fn add(&self, name: &Option<String>) {
        let made = (self.make)(name.as_deref());
        let mut state = self.lock();
        match (made, state.networks.get_mut(name)) {
            (Ok(made), Some(ready)) => ready.attachments.push_back(made),
            // It has expired meanwhile.
            (Ok(made), None) => {
                let left = made.remove();
                state.left.extend(left);
            }
            // The next container that asks tries again, and gets the error.
            (Err(_), Some(ready)) => ready.failed = true,
            (Err(_), None) => {}
        }
    }

    /// Waits until a container asks for a network, the pool is closed, or a network expires.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match state.next_expiry(self.idle) {
            Some(time) => self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0,
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl State {
    /// The name of a network of which fewer than `size` are ready.
    fn lacking(&self, size: usize) -> Option<Option<String>> {
        let lacks = |ready: &Ready| ready.attachments.len() < size && !ready.failed;
        self.networks.iter().find(|(_, ready)| lacks(ready)).map(|(name, _)| name.clone())
    }

    /// Takes out the networks of a name that was not asked for during `idle`.
    fn expired(&mut self, idle: Duration) -> Option<Ready> {
        let name = self.networks.iter().find(|(_, ready)| ready.asked.elapsed() >= idle)?.0.clone();
        self.networks.remove(&name)
    }

    /// How long it is until the next networks expire. `None` if there are none.
    fn next_expiry(&self, idle: Duration) -> Option<Duration> {
        self.networks.values().map(|ready| idle.saturating_sub(ready.asked.elapsed())).min()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("size", &self.shared.size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::{NETWORKS, NetworkDir};
    use executor_disk::Dir;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pool(dir: &Path, size: usize, idle: Duration) -> Pool {
        let root = Arc::new(Dir::open_checked(dir).unwrap());
        let number = AtomicUsize::new(0);
        let make = move |name: Option<&str>| match name {
            Some("broken") => Err(NetworkError::NotOpened),
            _ => {
                let name = number.fetch_add(1, Ordering::Relaxed).to_string();
                root.open_or_make_dir(NETWORKS).unwrap().make_dir(&name, 0o700).unwrap();
                Ok(Attachment::bare(NetworkDir { root: Arc::clone(&root), name }))
            }
        };
        Pool::new(size, idle, Box::new(make)).unwrap()
    }

    fn until(pool: &Pool, ready: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while pool.ready() != ready {
            assert!(Instant::now() < deadline, "{} are ready, not {ready}", pool.ready());
            thread::yield_now();
        }
    }

    fn made(dir: &Path) -> usize {
        std::fs::read_dir(dir.join(NETWORKS)).map_or(0, Iterator::count)
    }

    #[test]
    fn it_fills_up_after_the_first_use_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path(), 2, Duration::from_secs(1000));
        assert_eq!((pool.ready(), made(dir.path())), (0, 0), "none was asked for");
        let first = pool.take(None).unwrap();
        until(&pool, 2);
        let second = pool.take(None).unwrap();
        assert_ne!(first.dir.name, second.dir.name);
        until(&pool, 2);
        assert!(matches!(pool.take(Some("broken")), Err(NetworkError::NotOpened)));
        assert_eq!(pool.close(), []);
        assert_eq!(made(dir.path()), 2, "those in use");
    }

    #[test]
    fn it_empties_when_none_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path(), 3, Duration::from_millis(300));
        pool.take(None).unwrap().remove();
        until(&pool, 3);
        until(&pool, 0);
        assert_eq!(pool.close(), []);
        assert_eq!(made(dir.path()), 0);
    }
}
