//! The root directory: who owns which container, across executors and their deaths.
//!
//! ```text
//! <root>/executors/<executor>   locked (flock) as long as that executor lives; where its cgroups are
//! <root>/containers/<id>/       a container's own directory, its bundle
//!                 ├ owner       the executor it belongs to, and its cgroup
//!                 └ journal     its processes
//! <root>/runtime/               the runtime's state (`--root`), so that it sees only what is ours
//! ```
//! Several executors share a root, and everything in it. A lock on the root directory itself is held while an executor's lock is
//! made or judged, so an executor that is being born is never taken for a dead one, and while directories that all share
//! are removed, which the last executor does. A container's directory appears in one step, with its owner in it.
//!
//! An example. Executor `e` is killed with container `c` running. Executor `f` opens the root: nobody holds the lock of
//! `executors/e`, so `f` takes it, and no third one sweeps the same. `containers/c/owner` names `e`: the processes in `c`'s
//! cgroup and journal are killed, its cgroups, state and files removed, then `executors/e`. What could not be removed keeps
//! `owner` and `executors/e`, and the next sweep tries again.

mod sweep;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use executor_core::lifecycle::{ContainerId, HostPid, Leftover, LeftoverKind};
use executor_core::{CgroupParent, Swept};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use uuid::Uuid;

pub use self::sweep::sweep;
use self::sweep::{leave, records};
use crate::cgroup::place::{self, Place};
use crate::cgroup::{self, Cgroups};
use crate::seam::{Containers, Members};
use crate::{Bundles, Error, Result, journal, lock, procfs, tree};

/// The variable by which the runtimes of an executor are known.
pub const MARK: &str = "LONGSHORE_EXECUTOR";

const OWNER: &str = "owner";

/// What stands there for the cgroup of a container that has none.
const NO_CGROUP: &str = "-";

/// A root directory, in the hands of a live executor.
#[derive(Debug)]
pub struct Root {
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
pub struct Claim {
    /// Its id.
    pub id: ContainerId,
    /// Its own directory, the bundle.
    pub dir: PathBuf,
    /// Its cgroup; none where no cgroups may be made.
    pub cgroup: Option<Place>,
    /// The runtime's own directory for it.
    pub state: PathBuf,
}

impl Root {
    /// Makes `dir` a root if it is none, sweeps it, and enters it as a new executor.
    ///
    /// # Errors
    /// When it cannot be made, read or locked.
    pub fn open(dir: &Path, bundles: &dyn Bundles) -> Result<(Self, Vec<Swept>)> {
        DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(Error::file("make", dir))?;
        let dir = dir.canonicalize().map_err(Error::file("resolve", dir))?;
        cgroup::learn_hierarchies()?;
        let swept = sweep(&dir, bundles)?;
        let judging = lock_root(&dir)?;
        for (part, mode) in [("executors", 0o700), ("containers", 0o711), ("runtime", 0o711)] {
            let part = dir.join(part);
            DirBuilder::new().recursive(true).mode(mode).create(&part).map_err(Error::file("make", &part))?;
        }
        let executor = short_uuid();
        let file = dir.join("executors").join(&executor);
        let alive = File::create_new(&file).map_err(Error::file("make", &file))?;
        flock(&alive, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| Error::file("lock", &file)(error.into()))?;
        drop(judging);
        bundles.open(&dir, &executor).map_err(Error::file("open", &dir))?;
        let parent = place::default_parent();
        let root = Self { dir, executor, parent, parents: Mutex::default(), alive };
        if let Some(parent) = &root.parent {
            root.enter(parent)?;
        }
        Ok((root, swept))
    }

    /// This executor's name.
    pub fn executor(&self) -> &str {
        &self.executor
    }

    /// What says that a process is in a container of this executor.
    pub fn containers(&self) -> Containers {
        match self.parent {
            Some(_) => Containers::Of(self.executor.clone()),
            None => Containers::InNestedNamespaces,
        }
    }

    /// The runtime's `--root`.
    pub fn runtime_state(&self) -> PathBuf {
        self.dir.join("runtime")
    }

    /// Writes down that this executor has a directory among the cgroups below `parent`, and makes it.
    fn enter(&self, parent: &str) -> Result<()> {
        let mut parents = lock(&self.parents);
        if parents.contains(parent) {
            return Ok(());
        }
        let judging = lock_root(&self.dir)?;
        let mut made = place::missing(parent);
        // What another executor on this root has made is the last one's to remove.
        made.extend(
            records(&self.dir)?.into_iter().filter(|(other, _)| other == parent).flat_map(|(_, made)| made),
        );
        made.sort();
        made.dedup_by(|one, other| one.hierarchy == other.hierarchy);
        let fields: String =
            made.iter().map(|made| format!("\t{}\t{}", made.hierarchy, made.topmost)).collect();
        // First: if we die before all of it is made, a sweep knows of it.
        let file = self.dir.join("executors").join(&self.executor);
        (&self.alive)
            .write_all(format!("{parent}{fields}\n").as_bytes())
            .map_err(Error::file("write", &file))?;
        drop(judging);
        place::make_parent(parent, &self.executor);
        parents.insert(parent.to_owned());
        Ok(())
    }

    /// Where a container's cgroups go; `None` where none may be made.
    fn place(&self, parent: Option<&CgroupParent>, id: &ContainerId) -> Result<Option<Place>> {
        let path = match parent {
            None => self.parent.clone(),
            Some(CgroupParent::Slice(_)) => return Ok(Some(Place::new(parent, &self.executor, id))),
            Some(CgroupParent::Path(path)) if place::is_delegated(path) => Some(path.clone()),
            Some(CgroupParent::Path(path)) => return Err(Error::NotDelegated { parent: path.clone() }),
        };
        let Some(path) = path else { return Ok(None) };
        self.enter(&path)?;
        let parent = (!path.is_empty()).then_some(CgroupParent::Path(path));
        Ok(Some(Place::new(parent.as_ref(), &self.executor, id)))
    }

    /// Takes an id, for a container whose cgroups are below `parent`. `None` when it is taken.
    ///
    /// # Errors
    /// When its directory cannot be made, or its cgroup's parent not be used.
    pub fn claim(&self, id: &ContainerId, parent: Option<&CgroupParent>) -> Result<Option<Claim>> {
        let containers = self.dir.join("containers");
        let claim = Claim {
            id: id.clone(),
            dir: containers.join(id.as_str()),
            cgroup: self.place(parent, id)?,
            state: self.runtime_state().join(id.as_str()),
        };
        // Names that begin with a dot are no ids; this one tells whose it is should we die here.
        let new = containers.join(format!(".{}.{}", self.executor, short_uuid()));
        DirBuilder::new().mode(0o711).create(&new).map_err(Error::file("make", &new))?;
        let cgroup = claim.cgroup.as_ref().map_or(NO_CGROUP, |place| &place.asked);
        let claimed = fs::write(new.join(OWNER), format!("{}\n{cgroup}\n", self.executor))
            .and_then(|()| Ok(renameat_with(CWD, &new, CWD, &claim.dir, RenameFlags::NOREPLACE)?));
        let Err(error) = claimed else { return Ok(Some(claim)) };
        for left in tree::remove(&new, LeftoverKind::File) {
            tracing::warn!(%left, "of a claim that failed");
        }
        match Errno::from_io_error(&error) {
            Some(Errno::EXIST) => Ok(None),
            Some(_) | None => Err(Error::file("make", &claim.dir)(error)),
        }
    }

    /// Leaves the root; answers with what could not be removed. With something left, the executor stays
    /// in the root as a dead one, so that the next sweep tries again.
    pub fn close(&self, bundles: &dyn Bundles) -> Vec<Leftover> {
        leave(&self.dir, &self.executor, bundles)
            .unwrap_or_else(|error| vec![Leftover::new(LeftoverKind::File, &self.dir, &error)])
    }
}

impl Claim {
    /// Ends and removes everything the container has: processes, cgroups, the runtime's state, its network, mounts,
    /// files. Answers with how many processes had to be killed and what could not be removed.
    pub fn dispose(&self, bundles: &dyn Bundles) -> (usize, Vec<Leftover>) {
        let (killed, mut left) = self.end(None);
        left.extend(bundles.detach(&self.dir));
        (killed, self.remove(bundles, left))
    }

    /// The first step: processes, cgroups (those that are known, or else looked for) and the runtime's state.
    pub fn end(&self, cgroups: Option<&Cgroups>) -> (usize, Vec<Leftover>) {
        let found;
        let cgroups = match cgroups {
            Some(cgroups) => cgroups,
            None => match self.cgroups() {
                Ok(cgroups) => {
                    found = cgroups;
                    &found
                }
                Err(error) => {
                    return (0, vec![Leftover::new(LeftoverKind::RuntimeState, &self.state, &error)]);
                }
            },
        };
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
        (killed, left)
    }

    /// The last step, after [`end`](Self::end) and [`Bundles::detach`], which have left this: mounts and files. Answers
    /// with all that is left.
    pub fn remove(&self, bundles: &dyn Bundles, mut left: Vec<Leftover>) -> Vec<Leftover> {
        left.extend(bundles.unmake(&self.dir));
        if may_have_mounts(&self.dir) {
            match procfs::mounts_below(&self.dir) {
                Ok(mounts) => {
                    left.extend(mounts.iter().map(|point| {
                        Leftover::new(LeftoverKind::Mount, point, &io::Error::from(Errno::BUSY))
                    }))
                }
                Err(error) => left.push(Leftover::new(LeftoverKind::Mount, &self.dir, &error)),
            }
        }
        // While anything else is left, the directory says whose it is.
        if left.is_empty() {
            left.extend(tree::remove_with_last(&self.dir, LeftoverKind::File, OWNER));
        }
        left
    }

    /// Its cgroups, as they are now.
    ///
    /// # Errors
    /// When the runtime's state cannot be read.
    pub fn cgroups(&self) -> Result<Cgroups> {
        match &self.cgroup {
            Some(place) => Cgroups::find(&place.path, &self.state.join("state.json")),
            None => Ok(Cgroups::none()),
        }
    }

    /// What says that a process is in it: its cgroup, whose directories are given or else where they are by default; its pid
    /// namespace where there is none.
    pub fn members(&self, cgroups: Option<&Cgroups>, init: Option<HostPid>) -> Members {
        let Some(place) = &self.cgroup else { return Members::PidNamespace { init } };
        let dirs = match cgroups {
            Some(cgroups) => cgroups.dirs().map(Into::into).collect(),
            None => cgroup::in_hierarchies(&place.path).into_iter().map(Into::into).collect(),
        };
        Members::Cgroup { path: place.path.clone(), dirs }
    }
}

/// Where the cgroups of containers go that ask for no parent, as a path within each hierarchy; `None` where this
/// user may make none.
///
/// # Errors
/// When the mounts of the hierarchies cannot be read.
pub fn default_cgroup_parent() -> Result<Option<String>> {
    cgroup::learn_hierarchies()?;
    Ok(place::default_parent())
}

/// How the names of an executor's logs begin, in the runtime's state directory. No id begins so.
pub fn log_prefix(executor: &str) -> String {
    format!(".call-{executor}-")
}

/// Locks the root directory itself, waiting for those who hold it: they do so for moments.
fn lock_root(root: &Path) -> Result<File> {
    let lock = File::open(root).map_err(Error::file("open", root))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| Error::file("lock", root)(error.into()))?;
    Ok(lock)
}

/// A runtime that was killed while it had its program mounted read-only, to execute itself from there, has left that
/// in the container's state.
fn remove_state(dir: &Path) -> Vec<Leftover> {
    let left = tree::remove(dir, LeftoverKind::RuntimeState);
    if left.is_empty() {
        return left;
    }
    for mount in procfs::mounts_below(dir).into_iter().flatten() {
        if let Err(error) = unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(mount = %mount.display(), %error, "unmount");
        }
    }
    tree::remove(dir, LeftoverKind::RuntimeState)
}

/// Without a directory in it, nothing below it can be removed by mistake: a file that something is mounted on is one
/// that cannot be.
fn may_have_mounts(dir: &Path) -> bool {
    let is_dir = |entry: io::Result<fs::DirEntry>| {
        entry.and_then(|entry| entry.file_type()).map_or(true, |kind| kind.is_dir())
    };
    fs::read_dir(dir).is_ok_and(|mut entries| entries.any(is_dir))
}

fn short_uuid() -> String {
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(12);
    name
}

#[cfg(test)]
mod tests {
    use super::sweep::names;
    use super::*;
    use crate::bundles::Place;
    use executor_core::lifecycle::StartFailure;
    use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkNamespace, NetworkTraits};

    struct NoBundles;

    impl Bundles for NoBundles {
        fn network(&self, _: &ContainerSpec) -> NetworkTraits {
            NetworkTraits::default()
        }

        fn attach(
            &self,
            _: &Place<'_>,
            _: &ContainerSpec,
        ) -> std::result::Result<NetworkAttachment, StartFailure> {
            Ok(NetworkNamespace::Host.into())
        }

        fn write(
            &self,
            _: &Place<'_>,
            _: &ContainerSpec,
            _: &NetworkAttachment,
        ) -> std::result::Result<Vec<u8>, StartFailure> {
            Ok(Vec::new())
        }

        fn process(
            &self,
            _: &Place<'_>,
            _: &ContainerSpec,
            _: HostPid,
            _: &ExecSpec,
        ) -> std::result::Result<Vec<u8>, StartFailure> {
            Ok(Vec::new())
        }

        fn unmake(&self, _: &Path) -> Vec<Leftover> {
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
        assert_eq!([one.close(&NoBundles), other.close(&NoBundles)], [[], []]);
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
        assert_eq!(live.close(&NoBundles), []);
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
        let missing = |parent: &str| place::missing(parent).iter().any(|missing| missing.topmost == parent);
        assert!(missing(&parent), "a sweep would know nothing of it");
        root.enter(&parent).unwrap();
        assert_eq!(missing(&parent), !place::is_delegated(""), "{parent}");
        assert_eq!(root.close(&NoBundles), []);
        assert!(missing(&parent), "{parent}");
    }

    #[test]
    fn a_root_that_does_not_exist_has_nothing_to_sweep() {
        assert_eq!(sweep(Path::new("/nowhere/longshore"), &NoBundles).unwrap(), []);
    }
}
