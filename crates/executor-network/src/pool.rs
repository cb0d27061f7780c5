//! Networks that are ready before a container asks for one: setting one up takes as long as starting the container.
//!
//! A thread fills the pool up to its size from the first use of a network on, and empties it when none was asked for in a
//! while. What was used once is never used again: a namespace keeps what its container has made of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use executor_core::lifecycle::Leftover;

use crate::attachment::Attachment;
use crate::error::NetworkError;

/// How a network is set up, by its name; `None` stands for the one without.
type Make = dyn Fn(Option<&str>) -> Result<Attachment, NetworkError> + Send + Sync;

/// The pool of an executor. Dropping it takes back what is in it.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    filler: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    size: usize,
    idle: Duration,
    make: Box<Make>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    networks: BTreeMap<Option<String>, Ready>,
    closed: bool,
    /// What could not be taken back.
    left: Vec<Leftover>,
}

struct Ready {
    attachments: VecDeque<Attachment>,
    asked: Instant,
    /// Setting it up failed; it is tried again when one is asked for.
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

    /// A network that is ready, or was set up just now.
    pub(crate) fn take(&self, name: Option<&str>) -> Result<Attachment, NetworkError> {
        if self.shared.size > 0 {
            while let Some(ready) = self.shared.ask(name) {
                // It may have waited for long, and something may have become of it.
                match ready.check() {
                    Ok(()) => return Ok(ready),
                    Err(_) => self.shared.lock().left.extend(ready.remove()),
                }
            }
        }
        (self.shared.make)(name)
    }

    /// How many are ready.
    #[cfg(test)]
    fn ready(&self) -> usize {
        self.shared.lock().networks.values().map(|ready| ready.attachments.len()).sum()
    }

    /// Takes back what is in it; answers with what could not be.
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

    /// One is wanted: then more will be.
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

    fn fill(&self) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(expired) = state.expired(self.idle) {
                drop(state);
                let left: Vec<_> = expired.attachments.iter().flat_map(Attachment::remove).collect();
                state = self.lock();
                state.left.extend(left);
                continue;
            }
            let Some(name) = state.lacking(self.size) else {
                let wait = state.next_expiry(self.idle);
                state = match wait {
                    Some(wait) => {
                        self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
                continue;
            };
            drop(state);
            let made = (self.make)(name.as_deref());
            state = self.lock();
            match (made, state.networks.get_mut(&name)) {
                (Ok(made), Some(ready)) => ready.attachments.push_back(made),
                (Ok(made), None) => {
                    let left = made.remove();
                    state.left.extend(left);
                }
                // The next to ask gets the error: it is tried again then.
                (Err(_), Some(ready)) => ready.failed = true,
                (Err(_), None) => {}
            }
        }
    }
}

impl State {
    fn lacking(&self, size: usize) -> Option<Option<String>> {
        let lacks = |ready: &Ready| ready.attachments.len() < size && !ready.failed;
        self.networks.iter().find(|(_, ready)| lacks(ready)).map(|(name, _)| name.clone())
    }

    fn expired(&mut self, idle: Duration) -> Option<Ready> {
        let name = self.networks.iter().find(|(_, ready)| ready.asked.elapsed() >= idle)?.0.clone();
        self.networks.remove(&name)
    }

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
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pool(dir: &Path, size: usize, idle: Duration) -> Pool {
        let (dir, number) = (dir.to_owned(), AtomicUsize::new(0));
        let make = move |name: Option<&str>| match name {
            Some("broken") => Err(NetworkError::NotOpened),
            _ => {
                let dir = dir.join(number.fetch_add(1, Ordering::Relaxed).to_string());
                std::fs::create_dir(&dir).unwrap();
                Ok(Attachment::bare(dir))
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
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn it_fills_up_after_the_first_use_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path(), 2, Duration::from_secs(1000));
        assert_eq!((pool.ready(), made(dir.path())), (0, 0), "none was asked for");
        let first = pool.take(None).unwrap();
        until(&pool, 2);
        let second = pool.take(None).unwrap();
        assert_ne!(first.dir, second.dir);
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
