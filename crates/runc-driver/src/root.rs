//! The root directory: who owns which container, across executors and their deaths.
//!
//! ```text
//! <root>/executors/<executor>   locked (flock) as long as that executor lives
//! <root>/containers/<id>/       a container's own directory, its bundle
//!                 ├ owner       the executor it belongs to, and its cgroup
//!                 └ journal     its processes
//! <root>/runtime/               the runtime's state (`--root`), so that it sees only what is ours
//! ```
//! Several executors share a root. Whoever makes or judges a lock holds a lock on the root directory
//! itself meanwhile, so an executor that is being born is never taken for a dead one. A container's
//! directory appears in one step, with its owner in it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use executor_core::Swept;
use executor_core::lifecycle::{ContainerId, Signal};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use uuid::Uuid;

use crate::cgroup::{self, Cgroups};
use crate::command_line::log_prefix;
use crate::{Bundles, journal, pidfd, procfs};

/// The variable by which the runtimes of an executor are known.
pub(crate) const MARK: &str = "LONGSHORE_EXECUTOR";

const OWNER: &str = "owner";

/// How often runtimes of a dead executor are looked for, at most.
const SCANS: usize = 20;

/// A root directory, in the hands of a live executor.
#[derive(Debug)]
pub(crate) struct Root {
    dir: PathBuf,
    executor: String,
    _alive: File,
}

/// A container's place on disk.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) id: ContainerId,
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: String,
    /// The runtime's own directory for it.
    pub(crate) state: PathBuf,
}

impl Root {
    /// Makes `dir` a root if it is none, sweeps it, and enters it as a new executor.
    pub(crate) fn open(dir: &Path, bundles: &dyn Bundles) -> io::Result<(Self, Vec<Swept>)> {
        DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
        let dir = dir.canonicalize()?;
        cgroup::learn_hierarchies()?;
        let swept = sweep(&dir, bundles)?;
        let _judging = lock_root(&dir)?;
        for (part, mode) in [("executors", 0o700), ("containers", 0o711), ("runtime", 0o711)] {
            DirBuilder::new().recursive(true).mode(mode).create(dir.join(part))?;
        }
        let executor = short_uuid();
        let alive = File::create_new(dir.join("executors").join(&executor))?;
        flock(&alive, FlockOperation::NonBlockingLockExclusive)?;
        cgroup::make_parent(&executor);
        Ok((Self { dir, executor, _alive: alive }, swept))
    }

    /// This executor's name.
    pub(crate) fn executor(&self) -> &str {
        &self.executor
    }

    /// The runtime's `--root`.
    pub(crate) fn runtime_state(&self) -> PathBuf {
        self.dir.join("runtime")
    }

    /// Takes an id. `None` when it is taken.
    pub(crate) fn claim(&self, id: &ContainerId) -> io::Result<Option<Claim>> {
        let containers = self.dir.join("containers");
        let claim = Claim {
            id: id.clone(),
            dir: containers.join(id.as_str()),
            cgroup: format!("{}/{id}", cgroup::executor_path(&self.executor)),
            state: self.runtime_state().join(id.as_str()),
        };
        // Names that begin with a dot are no ids; this one tells whose it is should we die here.
        let new = containers.join(format!(".{}.{}", self.executor, short_uuid()));
        DirBuilder::new().mode(0o711).create(&new)?;
        let claimed = fs::write(new.join(OWNER), format!("{}\n{}\n", self.executor, claim.cgroup))
            .and_then(|()| Ok(renameat_with(CWD, &new, CWD, &claim.dir, RenameFlags::NOREPLACE)?));
        match claimed {
            Ok(()) => Ok(Some(claim)),
            Err(error) => {
                fs::remove_dir_all(&new)?;
                if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) { Ok(None) } else { Err(error) }
            }
        }
    }

    /// Leaves the root; answers with what could not be removed. With something left, the executor stays
    /// in the root as a dead one, so that the next sweep tries again.
    pub(crate) fn close(&self) -> Vec<String> {
        let left = cgroup::remove_parent(&self.executor);
        let closed = lock_root(&self.dir).and_then(|_judging| {
            remove_logs(&self.dir, &self.executor)?;
            if left.is_empty() && claims_of(&self.dir, &self.executor)?.is_empty() {
                fs::remove_file(self.dir.join("executors").join(&self.executor))?;
                remove_empty_parts(&self.dir);
            }
            Ok(())
        });
        let error = closed.err().map(|error| format!("{}: {error}", self.dir.display()));
        left.into_iter().chain(error).collect()
    }
}

impl Claim {
    /// Ends and removes everything the container has: processes, cgroups, the runtime's state, mounts,
    /// files. Answers with how many processes had to be killed and what could not be removed.
    pub(crate) fn dispose(&self, bundles: &dyn Bundles) -> (usize, Vec<String>) {
        let cgroups = match self.cgroups() {
            Ok(cgroups) => cgroups,
            Err(error) => return (0, vec![format!("{}: {error}", self.state.display())]),
        };
        let killed = cgroups.kill();
        let in_none = journal::kill(&self.dir);
        cgroup::wait_for_ends(&in_none, cgroup::PATIENCE);
        let killed = killed + in_none.len();
        let mut left = cgroups.remove();
        left.extend(remove_all(&self.state));
        left.extend(bundles.unmake(&self.dir));
        match procfs::mounts_below(&self.dir) {
            Ok(mounts) => left.extend(mounts.iter().map(|point| format!("mount {}", point.display()))),
            Err(error) => left.push(format!("mounts below {}: {error}", self.dir.display())),
        }
        // While anything else is left, the directory says whose it is.
        if left.is_empty() {
            left.extend(remove_all(&self.dir));
        }
        (killed, left)
    }

    pub(crate) fn cgroups(&self) -> io::Result<Cgroups> {
        Cgroups::find(&self.cgroup, &self.state.join("state.json"))
    }
}

/// Removes what dead executors left under `root`, and only that. What a live one owns, and what is
/// not Longshore's, stays.
///
/// # Errors
/// When the root exists and cannot be read or locked.
pub fn sweep(root: &Path, bundles: &dyn Bundles) -> io::Result<Vec<Swept>> {
    let root = match root.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        root => root?,
    };
    cgroup::learn_hierarchies()?;
    let dead = dead_executors(&root)?;
    let mut swept = Vec::new();
    for (executor, lock) in dead {
        end_runtimes(&executor);
        for claim in claims_of(&root, &executor)? {
            let (killed, left) = claim.dispose(bundles);
            swept.push(Swept { container: claim.id.to_string(), killed, left });
        }
        remove_logs(&root, &executor)?;
        let left = cgroup::remove_parent(&executor);
        if left.is_empty() && claims_of(&root, &executor)?.is_empty() {
            let _judging = lock_root(&root)?;
            fs::remove_file(root.join("executors").join(&executor))?;
            remove_empty_parts(&root);
        }
        drop(lock);
    }
    Ok(swept)
}

/// Executors that hold no lock. The locks are ours now, so nobody else sweeps the same.
fn dead_executors(root: &Path) -> io::Result<Vec<(String, File)>> {
    let _judging = lock_root(root)?;
    let mut dead = Vec::new();
    for name in names(&root.join("executors"))? {
        let lock = match File::open(root.join("executors").join(&name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            lock => lock?,
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => dead.push((name, lock)),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(dead)
}

/// The containers of an executor. What it had only begun to claim is removed at once: nothing of it
/// was in use.
fn claims_of(root: &Path, executor: &str) -> io::Result<Vec<Claim>> {
    let containers = root.join("containers");
    let mut claims = Vec::new();
    for name in names(&containers)? {
        let dir = containers.join(&name);
        if name.starts_with(&format!(".{executor}.")) {
            fs::remove_dir_all(&dir)?;
            continue;
        }
        let owner = fs::read_to_string(dir.join(OWNER)).unwrap_or_default();
        let mut lines = owner.lines();
        let (Ok(id), Some(owner), Some(cgroup)) =
            (ContainerId::new(name.as_str()), lines.next(), lines.next())
        else {
            continue;
        };
        // The cgroup is read to be compared, not to be trusted.
        if owner == executor && cgroup == format!("{}/{id}", cgroup::executor_path(executor)) {
            let state = root.join("runtime").join(&name);
            claims.push(Claim { id, dir, cgroup: cgroup.to_owned(), state });
        }
    }
    Ok(claims)
}

/// Kills runtimes that a dead executor had called and that still work. One that executes another program
/// just now, as runc does with itself, shows no environment: it is looked for until none is found twice.
fn end_runtimes(executor: &str) {
    let mark = format!("{MARK}={executor}");
    let mut clean = 0;
    for _ in 0..SCANS {
        let marked = procfs::processes().filter_map(|pid| {
            let pidfd = pidfd::open(pid).ok()?;
            procfs::has_variable(pid, &mark).then_some(pidfd)
        });
        let ending: Vec<_> = marked.filter(|pidfd| pidfd::send(pidfd, Signal::KILL).is_ok()).collect();
        cgroup::wait_for_ends(&ending, cgroup::PATIENCE);
        clean = if ending.is_empty() { clean + 1 } else { 0 };
        if clean == 2 {
            return;
        }
    }
}

fn remove_logs(root: &Path, executor: &str) -> io::Result<()> {
    let state = root.join("runtime");
    let prefix = log_prefix(executor);
    let mut logs = names(&state)?.into_iter().filter(|name| name.starts_with(&prefix));
    logs.try_for_each(|log| fs::remove_file(state.join(log)))
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

/// Locks the root directory itself, waiting for those who hold it: they do so for moments.
fn lock_root(root: &Path) -> io::Result<File> {
    let lock = File::open(root)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

fn remove_empty_parts(root: &Path) {
    for part in ["executors", "containers", "runtime"] {
        let _others_use_it = fs::remove_dir(root.join(part));
    }
}

fn remove_all(dir: &Path) -> Option<String> {
    match fs::remove_dir_all(dir) {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(format!("{}: {error}", dir.display())),
    }
}

fn short_uuid() -> String {
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(12);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;
    use executor_core::lifecycle::{HostPid, StartFailure};
    use executor_core::{ContainerSpec, ExecSpec};

    struct NoBundles;

    impl Bundles for NoBundles {
        fn write(&self, _: &Place<'_>, _: &ContainerSpec) -> Result<(), StartFailure> {
            Ok(())
        }

        fn process(
            &self,
            _: &Place<'_>,
            _: &ContainerSpec,
            _: HostPid,
            _: &ExecSpec,
        ) -> Result<Vec<u8>, StartFailure> {
            Ok(Vec::new())
        }

        fn unmake(&self, _: &Path) -> Vec<String> {
            Vec::new()
        }
    }

    fn id(name: &str) -> ContainerId {
        ContainerId::new(name).unwrap()
    }

    #[test]
    fn a_taken_id_is_not_given_twice_and_nothing_of_it_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (one, _) = Root::open(dir.path(), &NoBundles).unwrap();
        let (other, swept) = Root::open(dir.path(), &NoBundles).unwrap();
        assert_eq!(swept, [], "a live executor was swept");
        let claim = one.claim(&id("a")).unwrap().unwrap();
        fs::write(claim.dir.join("mine"), "").unwrap();
        assert!(other.claim(&id("a")).unwrap().is_none());
        assert!(claim.dir.join("mine").exists());
        assert_eq!(names(&dir.path().join("containers")).unwrap(), ["a"]);
        assert_eq!(claim.dispose(&NoBundles), (0, vec![]));
        let claim = other.claim(&id("a")).unwrap().unwrap();
        assert_eq!(claim.dispose(&NoBundles), (0, vec![]));
        assert_eq!([one.close(), other.close()], [vec![], Vec::<String>::new()]);
    }

    #[test]
    fn what_dead_executors_left_is_swept_and_only_that() {
        let dir = tempfile::tempdir().unwrap();
        let (live, _) = Root::open(dir.path(), &NoBundles).unwrap();
        let (dead, _) = Root::open(dir.path(), &NoBundles).unwrap();
        let kept = live.claim(&id("kept")).unwrap().unwrap();
        let gone = dead.claim(&id("gone")).unwrap().unwrap();
        fs::create_dir(dir.path().join("containers/strangers")).unwrap();
        fs::create_dir(dir.path().join(format!("containers/.{}.x", dead.executor()))).unwrap();
        fs::create_dir_all(&gone.state).unwrap();
        drop(dead);

        let swept = sweep(dir.path(), &NoBundles).unwrap();
        assert_eq!(swept, [Swept { container: "gone".into(), killed: 0, left: vec![] }]);
        assert!(kept.dir.exists() && dir.path().join("containers/strangers").exists());
        assert!(!gone.dir.exists() && !gone.state.exists());
        assert_eq!(names(&dir.path().join("executors")).unwrap(), [live.executor()]);
        assert_eq!(sweep(dir.path(), &NoBundles).unwrap(), []);
        assert_eq!(kept.dispose(&NoBundles), (0, vec![]));
        assert_eq!(live.close(), Vec::<String>::new());
    }

    #[test]
    fn a_root_that_does_not_exist_has_nothing_to_sweep() {
        assert_eq!(sweep(Path::new("/nowhere/longshore"), &NoBundles).unwrap(), []);
    }
}
