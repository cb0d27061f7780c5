//! The cgroup kick: keeps the kernel's lock for moving processes between cgroups fast while containers start.
//!
//! ```text
//!  idle ── a request ──▶ kicking: one write at once, one every few milliseconds ── the last request ends ──▶ idle
//!    └── writes are not permitted ──▶ off
//! ```
//! Moving a process takes a lock for writing, and every fork takes it for reading. The first writer after a
//! pause waits for an RCU grace period, about ten milliseconds. A runtime waits for it in its write to
//! `cgroup.procs`.
//!
//! Writing our own pid to our own cgroup takes the same lock, and moves nothing. The first such write is made
//! when a request arrives, so that the grace period passes while the bundle is written and the runtime
//! starts. Repeated writes keep the lock from needing another one. docs/adr/0010 has the measurements.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The time between two writes while there are requests. After one or two grace periods without a write, the
/// next writer waits again.
const AGAIN: Duration = Duration::from_millis(4);

/// The thread that writes.
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
    /// How many requests there were. This shows a request that began and ended during a write.
    begun: u64,
    off: bool,
}

/// A request. It ends when this is dropped.
pub(crate) struct KickGuard(Option<Arc<KickShared>>);

impl Kick {
    /// Starts the thread. `None` if there is no cgroup that this process may write to.
    pub(crate) fn start() -> Option<Self> {
        let file = own_procs().and_then(|file| OpenOptions::new().write(true).open(file).ok())?;
        let shared = Arc::new(KickShared { state: Mutex::default(), changed: Condvar::new() });
        let worker = Arc::clone(&shared);
        thread::Builder::new().name("longshore-kick".into()).spawn(move || worker.work(&file)).ok()?;
        Some(Self { shared })
    }

    /// Begins a request.
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

/// The `cgroup.procs` of this process's cgroup, in the first hierarchy where it can be written.
fn own_procs() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut files = own.lines().filter_map(|line| procs_of(line, &mounts));
    files
        .find(|file| OpenOptions::new().write(true).open(file).is_ok_and(|file| write_own_pid(&file).is_ok()))
}

/// The `cgroup.procs` of a line `number:controllers:path` of `/proc/self/cgroup`. A v1 hierarchy is
/// identified by its controllers. The line of v2 has none.
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
    fn stopping_ends_the_thread() {
        let Some(kick) = Kick::start() else { return };
        let request = kick.request();
        drop(kick.request());
        drop(request);
        assert_eq!(kick.shared.lock().requests, 0);
        kick.stop();
        assert!(kick.request().0.is_none());
    }
}
