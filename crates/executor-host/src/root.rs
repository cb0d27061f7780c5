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

mod reservation;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use executor_core::lifecycle::{ContainerId, Leftover, LeftoverKind};
use executor_core::{CgroupParent, Swept};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use uuid::Uuid;

pub use self::reservation::Reservation;
pub use self::sweep::sweep;
use self::sweep::{leave_root, records};
use crate::cgroup::place::{self, CgroupPlace};
use crate::cgroup::{self};
use crate::seam::Containers;
use crate::{Bundles, Error, Result, lock, tree};

/// The variable by which the runtimes of an executor are known.
pub const EXECUTOR_VARIABLE: &str = "LONGSHORE_EXECUTOR";

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
    lock_file: File,
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
        let root_lock = lock_root(&dir)?;
        for (part, mode) in [("executors", 0o700), ("containers", 0o711), ("runtime", 0o711)] {
            let part = dir.join(part);
            DirBuilder::new().recursive(true).mode(mode).create(&part).map_err(Error::file("make", &part))?;
        }
        let executor = short_uuid();
        let file = dir.join("executors").join(&executor);
        let lock_file = File::create_new(&file).map_err(Error::file("make", &file))?;
        flock(&lock_file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| Error::file("lock", &file)(error.into()))?;
        drop(root_lock);
        bundles.open(&dir, &executor).map_err(Error::file("open", &dir))?;
        let parent = place::default_parent();
        let root = Self { dir, executor, parent, parents: Mutex::default(), lock_file };
        if let Some(parent) = &root.parent {
            root.enter_parent(parent)?;
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
    fn enter_parent(&self, parent: &str) -> Result<()> {
        let mut parents = lock(&self.parents);
        if parents.contains(parent) {
            return Ok(());
        }
        let root_lock = lock_root(&self.dir)?;
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
        (&self.lock_file)
            .write_all(format!("{parent}{fields}\n").as_bytes())
            .map_err(Error::file("write", &file))?;
        drop(root_lock);
        place::make_parent(parent, &self.executor);
        parents.insert(parent.to_owned());
        Ok(())
    }

    /// Where a container's cgroups go; `None` where none may be made.
    fn place(&self, parent: Option<&CgroupParent>, id: &ContainerId) -> Result<Option<CgroupPlace>> {
        let path = match parent {
            None => self.parent.clone(),
            Some(CgroupParent::Slice(_)) => return Ok(Some(CgroupPlace::new(parent, &self.executor, id))),
            Some(CgroupParent::Path(path)) if place::is_delegated(path) => Some(path.clone()),
            Some(CgroupParent::Path(path)) => return Err(Error::NotDelegated { parent: path.clone() }),
        };
        let Some(path) = path else { return Ok(None) };
        self.enter_parent(&path)?;
        let parent = (!path.is_empty()).then_some(CgroupParent::Path(path));
        Ok(Some(CgroupPlace::new(parent.as_ref(), &self.executor, id)))
    }

    /// Takes an id, for a container whose cgroups are below `parent`. `None` when it is taken.
    ///
    /// # Errors
    /// When its directory cannot be made, or its cgroup's parent not be used.
    pub fn reserve(&self, id: &ContainerId, parent: Option<&CgroupParent>) -> Result<Option<Reservation>> {
        let containers = self.dir.join("containers");
        let reservation = Reservation {
            id: id.clone(),
            dir: containers.join(id.as_str()),
            cgroup: self.place(parent, id)?,
            state: self.runtime_state().join(id.as_str()),
        };
        // Names that begin with a dot are no ids; this one tells whose it is should we die here.
        let new = containers.join(format!(".{}.{}", self.executor, short_uuid()));
        DirBuilder::new().mode(0o711).create(&new).map_err(Error::file("make", &new))?;
        let cgroup = reservation.cgroup.as_ref().map_or(NO_CGROUP, |place| &place.cgroups_path);
        let reserved = fs::write(new.join(OWNER), format!("{}\n{cgroup}\n", self.executor))
            .and_then(|()| Ok(renameat_with(CWD, &new, CWD, &reservation.dir, RenameFlags::NOREPLACE)?));
        let Err(error) = reserved else { return Ok(Some(reservation)) };
        for left in tree::remove(&new, LeftoverKind::File) {
            tracing::warn!(%left, "of a reservation that failed");
        }
        match Errno::from_io_error(&error) {
            Some(Errno::EXIST) => Ok(None),
            Some(_) | None => Err(Error::file("make", &reservation.dir)(error)),
        }
    }

    /// Leaves the root; answers with what could not be removed. With something left, the executor stays
    /// in the root as a dead one, so that the next sweep tries again.
    pub fn close(&self, bundles: &dyn Bundles) -> Vec<Leftover> {
        leave_root(&self.dir, &self.executor, bundles)
            .unwrap_or_else(|error| vec![Leftover::new(LeftoverKind::File, &self.dir, &error)])
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

fn short_uuid() -> String {
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(12);
    name
}
