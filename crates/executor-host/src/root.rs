//! The root directory: who owns which container, across executors and their deaths.
//!
//! ```text
//! <root>/executors/<executor>   locked (flock) as long as that executor lives; where its cgroups are
//! <root>/containers/<id>/       a container's own directory, its bundle
//!                 ├ owner       the executor it belongs to, and its cgroup
//!                 └ journal     its processes
//! <root>/runtime/               the runtime's state (`--root`), so that it sees only what is ours
//! ```
//! Several executors share a root. Whoever makes or judges a lock holds a lock on the root directory
//! itself meanwhile, so an executor that is being born is never taken for a dead one. A container's
//! directory appears in one step, with its owner in it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use executor_core::lifecycle::{ContainerId, HostPid, Signal};
use executor_core::{CgroupParent, Swept};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount as umount2};
use uuid::Uuid;

use crate::cgroup::place::{self, Place};
use crate::cgroup::{self, Cgroups};
use crate::command_line::log_prefix;
use crate::spawner::{Containers, Strays};
use crate::{Bundles, journal, lock, pidfd, procfs};

/// The variable by which the runtimes of an executor are known.
pub(crate) const MARK: &str = "LONGSHORE_EXECUTOR";

const OWNER: &str = "owner";

/// What stands there for the cgroup of a container that has none.
const NO_CGROUP: &str = "-";

/// How often runtimes of a dead executor are looked for, at most.
const SCANS: usize = 20;

/// A root directory, in the hands of a live executor.
#[derive(Debug)]
pub(crate) struct Root {
    dir: PathBuf,
    executor: String,
    /// Where its cgroups go by default; nowhere where none may be made.
    parent: Option<String>,
    /// The parents below which it has a directory among the cgroups; its file has a line for each.
    parents: Mutex<BTreeSet<String>>,
    alive: File,
}

/// A container's place on disk.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) id: ContainerId,
    pub(crate) dir: PathBuf,
    /// None where no cgroups may be made.
    pub(crate) cgroup: Option<Place>,
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
        bundles.open(&dir, &executor)?;
        let parent = place::default_parent();
        let root = Self { dir, executor, parent, parents: Mutex::default(), alive };
        if let Some(parent) = &root.parent {
            root.enter(parent)?;
        }
        Ok((root, swept))
    }

    /// This executor's name.
    pub(crate) fn executor(&self) -> &str {
        &self.executor
    }

    /// What tells that a process is in a container of this executor.
    pub(crate) fn containers(&self) -> Containers {
        match self.parent {
            Some(_) => Containers::Of(self.executor.clone()),
            None => Containers::InNestedNamespaces,
        }
    }

    /// The runtime's `--root`.
    pub(crate) fn runtime_state(&self) -> PathBuf {
        self.dir.join("runtime")
    }

    /// Writes down that this executor has a directory among the cgroups below `parent`, and makes it.
    fn enter(&self, parent: &str) -> io::Result<()> {
        let mut parents = lock(&self.parents);
        if !parents.contains(parent) {
            let topmost = place::topmost_missing(parent).unwrap_or_default();
            // First: if we die before all of it is made, whoever sweeps knows of it.
            (&self.alive).write_all(format!("{parent}\t{topmost}\n").as_bytes())?;
            place::make_parent(parent, &self.executor);
            parents.insert(parent.to_owned());
        }
        Ok(())
    }

    /// Where a container's cgroups go; `None` where none may be made.
    fn place(&self, parent: Option<&CgroupParent>, id: &ContainerId) -> io::Result<Option<Place>> {
        let path = match parent {
            None => self.parent.clone(),
            Some(CgroupParent::Slice(_)) => return Ok(Some(Place::new(parent, &self.executor, id))),
            Some(CgroupParent::Path(path)) if place::is_delegated(path) => Some(path.clone()),
            Some(CgroupParent::Path(path)) => {
                let message = format!("cgroup parent: {path} is not delegated to this user");
                return Err(io::Error::new(ErrorKind::PermissionDenied, message));
            }
        };
        let Some(path) = path else { return Ok(None) };
        self.enter(&path)?;
        let parent = (!path.is_empty()).then_some(CgroupParent::Path(path));
        Ok(Some(Place::new(parent.as_ref(), &self.executor, id)))
    }

    /// Takes an id, for a container whose cgroups are below `parent`. `None` when it is taken.
    pub(crate) fn claim(&self, id: &ContainerId, parent: Option<&CgroupParent>) -> io::Result<Option<Claim>> {
        let containers = self.dir.join("containers");
        let claim = Claim {
            id: id.clone(),
            dir: containers.join(id.as_str()),
            cgroup: self.place(parent, id)?,
            state: self.runtime_state().join(id.as_str()),
        };
        // Names that begin with a dot are no ids; this one tells whose it is should we die here.
        let new = containers.join(format!(".{}.{}", self.executor, short_uuid()));
        DirBuilder::new().mode(0o711).create(&new)?;
        let cgroup = claim.cgroup.as_ref().map_or(NO_CGROUP, |place| &place.asked);
        let claimed = fs::write(new.join(OWNER), format!("{}\n{cgroup}\n", self.executor))
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
    pub(crate) fn close(&self, bundles: &dyn Bundles) -> Vec<String> {
        leave(&self.dir, &self.executor, bundles)
            .unwrap_or_else(|error| vec![format!("{}: {error}", self.dir.display())])
    }
}

impl Claim {
    /// Ends and removes everything the container has: processes, cgroups, the runtime's state, mounts,
    /// files. Answers with how many processes had to be killed and what could not be removed.
    pub(crate) fn dispose(&self, bundles: &dyn Bundles) -> (usize, Vec<String>) {
        match self.cgroups() {
            Ok(cgroups) => self.dispose_with(&cgroups, bundles),
            Err(error) => (0, vec![format!("{}: {error}", self.state.display())]),
        }
    }

    /// The same for one whose cgroups are known.
    pub(crate) fn dispose_with(&self, cgroups: &Cgroups, bundles: &dyn Bundles) -> (usize, Vec<String>) {
        let (killed, cgroups) = cgroups.end();
        // A runtime may have been killed between starting init and telling us.
        let in_journal = journal::kill(&self.dir);
        cgroup::wait_for_ends(&in_journal, cgroup::PATIENCE);
        // One that is in the journal as well has ended by now, and does not count twice.
        let init = journal::kill_init(&self.state);
        cgroup::wait_for_ends(init.as_slice(), cgroup::PATIENCE);
        let killed = killed + in_journal.len() + usize::from(init.is_some());
        let mut left = cgroups.remove();
        left.extend(remove_state(&self.state));
        left.extend(bundles.unmake(&self.dir));
        if may_have_mounts(&self.dir) {
            match procfs::mounts_below(&self.dir) {
                Ok(mounts) => left.extend(mounts.iter().map(|point| format!("mount {}", point.display()))),
                Err(error) => left.push(format!("mounts below {}: {error}", self.dir.display())),
            }
        }
        // While anything else is left, the directory says whose it is.
        if left.is_empty() {
            left.extend(remove_all(&self.dir));
        }
        (killed, left)
    }

    pub(crate) fn cgroups(&self) -> io::Result<Cgroups> {
        match &self.cgroup {
            Some(place) => Cgroups::find(&place.path, &self.state.join("state.json")),
            None => Ok(Cgroups::none()),
        }
    }

    /// What tells a stray of its; nothing does where there are no cgroups.
    pub(crate) fn strays(&self, all: bool) -> Option<Strays> {
        self.cgroup.as_ref().map(|place| Strays { cgroup: place.path.clone(), all })
    }

    /// Whether a process that a runtime says it has started can be this container's. Where there are no cgroups,
    /// it is in a pid namespace below ours.
    pub(crate) fn may_own(&self, pid: HostPid) -> bool {
        match &self.cgroup {
            Some(place) => procfs::is_in_cgroup(pid, &place.path),
            None => procfs::is_in_nested_pid_namespace(pid),
        }
    }
}

/// Where the cgroups of containers go that ask for no parent, as a path within each hierarchy; `None` where this
/// user may make none.
///
/// # Errors
/// When the mounts of the hierarchies cannot be read.
pub fn default_cgroup_parent() -> io::Result<Option<String>> {
    cgroup::learn_hierarchies()?;
    Ok(place::default_parent())
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
        let left = leave(&root, &executor, bundles)?;
        if !left.is_empty() {
            tracing::warn!(executor, ?left, "not all of a dead executor could be removed");
        }
        drop(lock);
    }
    Ok(swept)
}

/// Gives back what an executor has beside its containers, and takes it out of the root; answers with what could
/// not be removed. With something left, it stays there.
fn leave(root: &Path, executor: &str, bundles: &dyn Bundles) -> io::Result<Vec<String>> {
    let file = root.join("executors").join(executor);
    let parents = fs::read_to_string(&file)?;
    let parents = parents.lines().filter_map(|line| line.split_once('\t'));
    let mut left: Vec<_> = parents
        .filter(|(parent, _)| parent.is_empty() || matches!(parent.parse(), Ok(CgroupParent::Path(_))))
        .flat_map(|(parent, topmost)| {
            place::remove_parent(parent, executor, Some(topmost).filter(|topmost| !topmost.is_empty()))
        })
        .collect();
    left.extend(bundles.close(root, executor));
    let _judging = lock_root(root)?;
    remove_logs(root, executor)?;
    if left.is_empty() && claims_of(root, executor)?.is_empty() {
        fs::remove_file(file)?;
        remove_empty_parts(root);
    }
    Ok(left)
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
        let cgroup = match cgroup {
            NO_CGROUP => None,
            asked => match Place::parse(asked, executor, &id) {
                Some(place) => Some(place),
                None => continue,
            },
        };
        if owner == executor {
            let state = root.join("runtime").join(&name);
            claims.push(Claim { id, dir, cgroup, state });
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

/// A runtime that was killed while it had its program mounted read-only, to execute itself from there, has left that
/// in the container's state.
fn remove_state(dir: &Path) -> Option<String> {
    remove_all(dir)?;
    for mount in procfs::mounts_below(dir).into_iter().flatten() {
        if let Err(error) = umount2(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(mount = %mount.display(), %error, "unmount");
        }
    }
    remove_all(dir)
}

/// Without a directory in it, nothing below it can be removed by mistake: a file that something is mounted on is one
/// that cannot be.
fn may_have_mounts(dir: &Path) -> bool {
    let is_dir = |entry: io::Result<fs::DirEntry>| {
        entry.and_then(|entry| entry.file_type()).map_or(true, |kind| kind.is_dir())
    };
    fs::read_dir(dir).is_ok_and(|mut entries| entries.any(is_dir))
}

fn remove_all(dir: &Path) -> Option<String> {
    let mut removed = fs::remove_dir_all(dir);
    if removed.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
        // An ordinary user's container, or the kernel for its overlay, may have closed directories of his.
        open_all(dir);
        removed = fs::remove_dir_all(dir);
    }
    match removed {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(format!("{}: {error}", dir.display())),
    }
}

/// Lets their owner into directories, the topmost first.
fn open_all(dir: &Path) {
    let _not_ours = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.for_each(|entry| open_all(&entry.path()));
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
        fn write(&self, _: &Place<'_>, _: &ContainerSpec) -> Result<Vec<u8>, StartFailure> {
            Ok(Vec::new())
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
        let claim = one.claim(&id("a"), None).unwrap().unwrap();
        fs::write(claim.dir.join("mine"), "").unwrap();
        assert!(other.claim(&id("a"), None).unwrap().is_none());
        assert!(claim.dir.join("mine").exists());
        assert_eq!(names(&dir.path().join("containers")).unwrap(), ["a"]);
        assert_eq!(claim.dispose(&NoBundles), (0, vec![]));
        let claim = other.claim(&id("a"), None).unwrap().unwrap();
        assert_eq!(claim.dispose(&NoBundles), (0, vec![]));
        assert_eq!([one.close(&NoBundles), other.close(&NoBundles)], [vec![], Vec::<String>::new()]);
    }

    #[test]
    fn what_dead_executors_left_is_swept_and_only_that() {
        let dir = tempfile::tempdir().unwrap();
        let (live, _) = Root::open(dir.path(), &NoBundles).unwrap();
        let (dead, _) = Root::open(dir.path(), &NoBundles).unwrap();
        let kept = live.claim(&id("kept"), None).unwrap().unwrap();
        let gone = dead.claim(&id("gone"), None).unwrap().unwrap();
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
        assert_eq!(live.close(&NoBundles), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_written_down_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let (root, _) = Root::open(dir.path(), &NoBundles).unwrap();
        let parent = format!("/{}", root.executor());
        let mute = Root {
            alive: File::open(dir.path().join("executors").join(root.executor())).unwrap(),
            dir: root.dir.clone(),
            executor: root.executor.clone(),
            parent: None,
            parents: Mutex::default(),
        };
        assert!(mute.enter(&parent).is_err());
        let missing = |parent: &str| place::topmost_missing(parent) == Some(parent);
        assert!(missing(&parent), "a sweep would know nothing of it");
        root.enter(&parent).unwrap();
        assert_eq!(missing(&parent), !place::is_delegated(""), "{parent}");
        assert_eq!(root.close(&NoBundles), Vec::<String>::new());
        assert!(missing(&parent), "{parent}");
    }

    #[test]
    fn a_root_that_does_not_exist_has_nothing_to_sweep() {
        assert_eq!(sweep(Path::new("/nowhere/longshore"), &NoBundles).unwrap(), []);
    }
}
