//! The root directory: which executor owns which container, while executors come and go.
//!
//! ```text
//! <root>/executors/<executor>   locked (flock) while that executor is alive; lists its cgroup parents
//! <root>/containers/<id>/       a container's own directory, its bundle
//!                 ├ owner       the executor that it belongs to, and its cgroup
//!                 └ journal     its processes
//! <root>/runtime/               the runtime's state (`--root`), so that the runtime lists our containers only
//! ```
//! Several executors share a root. The root directory itself is locked in two situations. One is while an
//! executor makes its file and locks it, or checks which others are locked: a new executor is thus never
//! taken for a dead one. The other is while the last executor removes the shared directories. A container's
//! directory appears in one step (rename), with `owner` in it.
//!
//! # Example
//! Executor `e` is killed while container `c` runs. Executor `f` opens the root:
//!
//! 1. `executors/e` is not locked. `f` locks it, so that no third executor sweeps the same containers.
//! 2. `containers/c/owner` names `e`. The processes in `c`'s cgroup and journal are killed, then its cgroups, its
//!    runtime state and its files are removed, `owner` last.
//! 3. `executors/e` is removed.
//!
//! If something of `c` cannot be removed, `owner` and `executors/e` stay, and the next sweep tries again.

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
use crate::cgroup;
use crate::cgroup::place::{self, CgroupPlace, Missing};
use crate::seam::Containers;
use crate::{Bundles, Error, Result, lock, tree};

/// An environment variable of the runtimes that an executor calls. Its value is the executor's name.
pub const EXECUTOR_VARIABLE: &str = "LONGSHORE_EXECUTOR";

const OWNER: &str = "owner";

/// Stands in [`OWNER`] for the cgroup of a container that has none.
const NO_CGROUP: &str = "-";

/// A root directory that a live executor has entered.
#[derive(Debug)]
pub struct Root {
    dir: PathBuf,
    executor: String,
    /// The default parent of its cgroups. `None` if this user may make no cgroups.
    parent: Option<String>,
    /// The parents below which it has a directory in the cgroup hierarchies. Its file has a line for each.
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
        let executor = short_uuid();
        let lock_file = register_executor(&dir, &executor)?;
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

    /// The evidence that a process is in a container of this executor.
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

    /// Makes this executor's directory below a cgroup parent. The executor's file lists the parent first: if
    /// this process dies half way, a sweep finds the directory.
    fn enter_parent(&self, parent: &str) -> Result<()> {
        let mut parents = lock(&self.parents);
        if parents.contains(parent) {
            return Ok(());
        }
        let root_lock = lock_root(&self.dir)?;
        let mut line = parent.to_owned();
        for missing in self.missing_of(parent)? {
            line += &format!("\t{}\t{}", missing.hierarchy, missing.topmost);
        }
        line.push('\n');
        let file = self.dir.join("executors").join(&self.executor);
        (&self.lock_file).write_all(line.as_bytes()).map_err(Error::file("write", &file))?;
        drop(root_lock);
        place::make_parent(parent, &self.executor);
        parents.insert(parent.to_owned());
        Ok(())
    }

    /// The directories of a cgroup parent that are missing now, or that another executor on this root has
    /// made. The last executor removes them, whichever has made them.
    fn missing_of(&self, parent: &str) -> Result<Vec<Missing>> {
        let mut missing = place::missing(parent);
        for (other, made) in records(&self.dir)? {
            if other == parent {
                missing.extend(made);
            }
        }
        missing.sort();
        missing.dedup_by(|one, other| one.hierarchy == other.hierarchy);
        Ok(missing)
    }

    /// The place of a container's cgroups. `None` if this user may make no cgroups.
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

    /// Reserves an id for a container whose cgroups are below `parent`. `None` if the id is taken.
    ///
    /// # Errors
    /// When its directory cannot be made, or this user may make no cgroups below `parent`.
    pub fn reserve(&self, id: &ContainerId, parent: Option<&CgroupParent>) -> Result<Option<Reservation>> {
        let containers = self.dir.join("containers");
        let reservation = Reservation {
            id: id.clone(),
            dir: containers.join(id.as_str()),
            cgroup: self.place(parent, id)?,
            state: self.runtime_state().join(id.as_str()),
        };
        // No id begins with a dot. The executor's name in it lets a sweep remove it if this process dies
        // before the rename.
        let unnamed = containers.join(format!(".{}.{}", self.executor, short_uuid()));
        DirBuilder::new().mode(0o711).create(&unnamed).map_err(Error::file("make", &unnamed))?;
        let cgroup = reservation.cgroup.as_ref().map_or(NO_CGROUP, |place| &place.cgroups_path);
        let named = fs::write(unnamed.join(OWNER), format!("{}\n{cgroup}\n", self.executor))
            .and_then(|()| Ok(renameat_with(CWD, &unnamed, CWD, &reservation.dir, RenameFlags::NOREPLACE)?));
        let Err(error) = named else { return Ok(Some(reservation)) };
        for left in tree::remove(&unnamed, LeftoverKind::File) {
            tracing::warn!(%left, "part of a failed reservation was not removed");
        }
        match Errno::from_io_error(&error) {
            Some(Errno::EXIST) => Ok(None),
            Some(_) | None => Err(Error::file("make", &reservation.dir)(error)),
        }
    }

    /// Leaves the root. Returns what could not be removed. If anything is left, the executor's file stays in
    /// the root, and the next sweep tries again.
    pub fn close(&self, bundles: &dyn Bundles) -> Vec<Leftover> {
        leave_root(&self.dir, &self.executor, bundles)
            .unwrap_or_else(|error| vec![Leftover::new(LeftoverKind::File, &self.dir, &error)])
    }
}

/// Makes and locks the file of a new executor, and the directories that all executors share.
fn register_executor(root: &Path, executor: &str) -> Result<File> {
    let _root_lock = lock_root(root)?;
    for (part, mode) in [("executors", 0o700), ("containers", 0o711), ("runtime", 0o711)] {
        let part = root.join(part);
        DirBuilder::new().recursive(true).mode(mode).create(&part).map_err(Error::file("make", &part))?;
    }
    let path = root.join("executors").join(executor);
    let file = File::create_new(&path).map_err(Error::file("make", &path))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| Error::file("lock", &path)(error.into()))?;
    Ok(file)
}

/// The default parent of containers' cgroups, as a path within each hierarchy. `None` if this user may make
/// no cgroups.
///
/// # Errors
/// When the mounts of the hierarchies cannot be read.
pub fn default_cgroup_parent() -> Result<Option<String>> {
    cgroup::learn_hierarchies()?;
    Ok(place::default_parent())
}

/// The prefix of an executor's log files in the runtime's state directory. No id begins with it.
pub fn log_prefix(executor: &str) -> String {
    format!(".call-{executor}-")
}

/// Locks the root directory itself. Blocks while another executor has it locked, which is for moments only.
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
