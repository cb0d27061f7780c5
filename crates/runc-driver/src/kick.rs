//! Keeps the kernel's lock for moving processes between cgroups from having to be warmed up by the runtime.
//!
//! ```text
//!  idle ── a request ──▶ kicking: one write at once, one every few milliseconds ── the last request is over ──▶ idle
//!    └── writes are not permitted ──▶ off
//! ```
//! Whoever moves a process takes a lock that everyone who forks holds for reading, and the first to do so after a
//! while waits for an RCU grace period: about ten milliseconds, which a runtime spends in its own write to
//! `cgroup.procs`. A write of our own pid to our own cgroup moves nothing and takes the same lock. Made when a
//! request arrives, it has the grace period pass while the bundle is written and the runtime starts; repeated, it
//! keeps it from being needed again. docs/adr/0010 has the measurements.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// From one write to the next while requests are under way: the kernel lets go of the lock's warmth after a grace
/// period or two.
const AGAIN: Duration = Duration::from_millis(4);

/// The thread that writes, for those who have requests.
#[derive(Clone)]
pub(crate) struct Kick {
    shared: Arc<KickShared>,
}

struct KickShared {
    state: Mutex<KickState>,
    changed: Condvar,
}

#[derive(Default)]
struct KickState {
    requests: usize,
    /// Requests so far: one that came and went while the thread was writing is not missed.
    begun: u64,
    off: bool,
}

/// A request that is under way.
pub(crate) struct KickGuard(Option<Arc<KickShared>>);

impl Kick {
    /// Starts the thread; `None` where it may not write, or nothing is there to write to.
    pub(crate) fn start() -> Option<Self> {
        let file = own_procs().and_then(|file| OpenOptions::new().write(true).open(file).ok())?;
        let shared = Arc::new(KickShared { state: Mutex::default(), changed: Condvar::new() });
        let worker = Arc::clone(&shared);
        thread::Builder::new().name("longshore-kick".into()).spawn(move || worker.work(&file)).ok()?;
        Some(Self { shared })
    }

    /// A request has arrived; it lasts until it is dropped.
    pub(crate) fn request(&self) -> KickGuard {
        let mut state = self.shared.lock();
        if state.off {
            return KickGuard(None);
        }
        state.requests += 1;
        state.begun += 1;
        self.shared.changed.notify_one();
        KickGuard(Some(Arc::clone(&self.shared)))
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.shared.lock().off = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for KickGuard {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.lock().requests -= 1;
        }
    }
}

impl KickShared {
    fn lock(&self) -> MutexGuard<'_, KickState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, file: &File) {
        let mut seen = 0;
        let mut state = self.lock();
        while !state.off {
            if state.begun == seen && state.requests == 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            seen = state.begun;
            drop(state);
            let written = write_own_pid(file);
            state = self.lock();
            state.off |= written.is_err();
            if state.off || state.requests == 0 {
                continue;
            }
            state = self.changed.wait_timeout(state, AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn write_own_pid(mut file: &File) -> io::Result<()> {
    file.write_all(std::process::id().to_string().as_bytes())
}

/// The `cgroup.procs` of the cgroup that this process is in, in whichever hierarchy lets it be written.
fn own_procs() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut files = own.lines().filter_map(|line| procs_of(line, &mounts));
    files
        .find(|file| OpenOptions::new().write(true).open(file).is_ok_and(|file| write_own_pid(&file).is_ok()))
}

/// A line `number:controllers:path`; a hierarchy of v1 is known by its controllers, that of v2 by having none.
fn procs_of(line: &str, mounts: &str) -> Option<PathBuf> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let mount = mounts.lines().find_map(|mount| {
        let fields: Vec<_> = mount.split(' ').collect();
        let (&point, &kind, &options) = (fields.get(1)?, fields.get(2)?, fields.get(3)?);
        let has_all = || controllers.split(',').all(|one| options.split(',').any(|option| option == one));
        let is_it = match controllers {
            "" => kind == "cgroup2",
            _ => kind == "cgroup" && has_all(),
        };
        is_it.then(|| PathBuf::from(point))
    })?;
    Some(mount.join(Path::new(path).strip_prefix("/").ok()?).join("cgroup.procs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_in_each_kind_of_hierarchy() {
        let mounts = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let of = |line: &str| procs_of(line, mounts);
        assert_eq!(of("3:cpu,cpuacct:/a/b"), Some("/sys/fs/cgroup/cpu,cpuacct/a/b/cgroup.procs".into()));
        assert_eq!(of("0::/"), Some("/sys/fs/cgroup/unified/cgroup.procs".into()));
        assert_eq!(of("4:memory:/a"), None);
        assert_eq!(of("nonsense"), None);
    }

    #[test]
    fn it_writes_only_while_requests_are_under_way() {
        let file = tempfile::tempfile().unwrap();
        let shared = Arc::new(KickShared { state: Mutex::default(), changed: Condvar::new() });
        let kick = Kick { shared: Arc::clone(&shared) };
        let own = file.try_clone().unwrap();
        let worker = thread::spawn(move || shared.work(&file));
        let length = || own.metadata().unwrap().len();
        let request = kick.request();
        while length() < 100 {
            thread::yield_now();
        }
        drop(request);
        thread::sleep(AGAIN * 4);
        let idle = length();
        thread::sleep(AGAIN * 10);
        assert_eq!(length(), idle);
        kick.stop();
        worker.join().unwrap();
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let Some(kick) = Kick::start() else { return };
        let request = kick.request();
        drop(kick.request());
        drop(request);
        assert_eq!(kick.shared.lock().requests, 0);
        kick.stop();
        assert!(kick.request().0.is_none());
    }
}
