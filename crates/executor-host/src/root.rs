//! The root directory: which executor owns which container, while executors come and go.
//!
//! ```text
//! <root>/executors/<executor>   locked (flock) while that executor is alive; lists its cgroup parents
//! <root>/containers/<id>/       a container's own directory, its bundle
//!                 ├ owner       the executor that it belongs to, and its cgroup
//!                 └ journal     its processes
//! <root>/kept/<name>/           what outlives the executor of that name
//! <root>/runtime/               the runtime's state (`--root`), so that the runtime lists our containers only
//! ```
//! Several executors share a root. The root is locked, by a lock on `executors`, in two situations. One is while an
//! executor makes its file and locks it, or checks which others are locked: a new executor is thus never
//! taken for a dead one. The other is while the last executor removes the shared directories. A container's
//! directory appears in one step (rename), with `owner` in it. The root may have been made by hand, for other things
//! too: its mode stays as it is.
//!
//! # Example
//! Executor `e` is killed while container `c` runs. Executor `f` opens the root:
//!
//! 1. `executors/e` is not locked. `f` locks it, so that no third executor sweeps the same containers, and marks it as being
//!    swept, so that whoever wants the id `c` or sweeps too knows for what to wait.
//! 2. `containers/c/owner` names `e`. The processes in `c`'s cgroup and journal are killed, then its cgroups, its
//!    runtime state and its files are removed. The directory with `owner` loses the name `c`, and is removed last.
//! 3. `executors/e` is removed.
//!
//! If something of `c` cannot be removed, `owner` and `executors/e` stay, and the next sweep tries again.

mod kept;
mod lock;
mod reservation;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
mod underway;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use executor_core::lifecycle::{ContainerId, Leftover, LeftoverKind};
use executor_core::{CgroupParent, Swept, check_free_descriptors};
use executor_disk::{Dir, write};
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

pub use self::kept::{LedgerFile, forget_name};
use self::lock::lock_root;
pub use self::reservation::Reservation;
pub use self::sweep::sweep;
use self::sweep::{leave_root, records};
use self::underway::ID_PATIENCE;
use crate::cgroup;
use crate::cgroup::place::{self, CgroupPlace, Missing};
use crate::seam::Containers;
use crate::{Bundles, Error, Result, lock};

/// An environment variable of the runtimes that an executor calls. Its value is the executor's [mark](Root::mark).
pub const EXECUTOR_VARIABLE: &str = "LONGSHORE_EXECUTOR";

const EXECUTORS: &str = "executors";
pub(crate) const CONTAINERS: &str = "containers";
const RUNTIME: &str = "runtime";
const KEPT: &str = "kept";

/// What executors make in a root, the networks' directory included.
pub(crate) const ENTRIES: [&str; 5] = [EXECUTORS, CONTAINERS, RUNTIME, KEPT, "networks"];

const OWNER: &str = "owner";

/// The file in a container's directory that says what it is, if its executor is kept. It is there as long as the directory has
/// the id.
pub const RECORD: &str = "container.json";

/// How many file descriptors must be free before anything is made in a root. An executor needs more for its containers.
const DESCRIPTORS: usize = 16;

/// The most bytes of an executor's file, or of `owner`, that are read. An executor writes a line for each cgroup parent.
const RECORD_LIMIT: u64 = 256 << 20;

/// Stands in [`OWNER`] for the cgroup of a container that has none.
const NO_CGROUP: &str = "-";

/// The directories of a root, open.
#[derive(Debug)]
struct RootDirs {
    root: Arc<Dir>,
    executors: Dir,
    containers: Dir,
    runtime: Arc<Dir>,
}

impl RootDirs {
    /// Opens the directories, and makes those that are missing. The caller has locked the root.
    fn make(root: Arc<Dir>) -> Result<Self> {
        let part = |name| root.open_or_make_dir(name).map_err(Error::file("make", &root.path_of(name)));
        let (executors, containers, runtime) = (part(EXECUTORS)?, part(CONTAINERS)?, part(RUNTIME)?);
        Ok(Self { root, executors, containers, runtime: Arc::new(runtime) })
    }
}

/// A root directory that a live executor has entered.
#[derive(Debug)]
pub struct Root {
    dirs: Arc<RootDirs>,
    executor: String,
    mark: String,
    /// The default parent of its cgroups. `None` if this user may make no cgroups.
    parent: Option<String>,
    /// The parents below which it has a directory in the cgroup hierarchies. Its file has a line for each.
    parents: Mutex<BTreeSet<String>>,
    lock_file: File,
    /// The directory of what outlives it, if it is kept.
    kept: Option<Arc<Dir>>,
}

impl Root {
    /// Makes `dir` a root if it is none, sweeps it, and enters it as a new executor.
    ///
    /// # Errors
    /// When it cannot be made, read or locked. When somebody else could change what is in it: see
    /// [`Dir::open_checked`].
    pub fn open(dir: &Path, bundles: &dyn Bundles) -> Result<(Self, Vec<Swept>)> {
        check_free_descriptors(DESCRIPTORS).map_err(Error::file("use", dir))?;
        let root = Dir::make_checked(dir).map_err(Error::file("use", dir))?;
        let root = Arc::new(root);
        cgroup::learn_hierarchies()?;
        // An id that another sweep is about to free is waited for when it is reserved, and not before.
        let (swept, _by_others) = sweep::sweep_once(&root, bundles)?;
        let executor = short_uuid();
        let mark = format!("{executor}.{}", Uuid::new_v4().simple());
        let (dirs, lock_file) = register_executor(root, &executor, &mark)?;
        let parent = place::default_parent();
        let root = Self {
            dirs: Arc::new(dirs),
            executor,
            mark,
            parent,
            parents: Mutex::default(),
            lock_file,
            kept: None,
        };
        let Err(error) = root.enter(bundles) else { return Ok((root, swept)) };
        for left in root.close(bundles) {
            tracing::warn!(%left, "part of an executor that was not opened was not removed");
        }
        Err(error)
    }

    fn enter(&self, bundles: &dyn Bundles) -> Result<()> {
        let root = &self.dirs.root;
        bundles.open(root, &self.executor).map_err(Error::file("open", root.path()))?;
        self.parent.as_ref().map_or(Ok(()), |parent| self.enter_parent(parent))
    }

    /// The path of a container's own directory.
    pub fn path_of(&self, id: &ContainerId) -> std::path::PathBuf {
        self.dirs.containers.path_of(id.as_str())
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

    /// The path of the keeper's cgroups, within each hierarchy. `None` if this user may make no cgroups.
    pub fn keeper_cgroup(&self) -> Option<String> {
        let parent = self.parent.as_ref()?;
        Some(format!("{}/.keeper", place::executor_path(parent, &self.executor)))
    }

    /// What the runtimes of this executor have in their environment, as the value of [`EXECUTOR_VARIABLE`]. It
    /// is secret: a sweep kills whoever has the mark of a dead executor.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The runtime's `--root`.
    pub fn runtime_state(&self) -> &Arc<Dir> {
        &self.dirs.runtime
    }

    /// Makes this executor's directory below a cgroup parent. The executor's file lists the parent first: if
    /// this process dies half way, a sweep finds the directory.
    fn enter_parent(&self, parent: &str) -> Result<()> {
        let mut parents = lock(&self.parents);
        if parents.contains(parent) {
            return Ok(());
        }
        let root_lock = lock_root(&self.dirs.root)?;
        let mut line = parent.to_owned();
        for missing in self.missing_of(parent)? {
            line += &format!("\t{}\t{}", missing.hierarchy, missing.topmost);
        }
        line.push('\n');
        let path = self.dirs.executors.path_of(&self.executor);
        let written = write(&self.lock_file, &path, line.as_bytes());
        written.map_err(Error::file("write", &path))?;
        drop(root_lock);
        place::make_parent(parent, &self.executor);
        parents.insert(parent.to_owned());
        Ok(())
    }

    /// The directories of a cgroup parent that are missing now, or that another executor on this root has
    /// made. The last executor removes them, whichever has made them.
    fn missing_of(&self, parent: &str) -> Result<Vec<Missing>> {
        let mut missing = place::missing(parent);
        for (other, made) in records(&self.dirs.executors)? {
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

    /// Reserves an id for a container whose cgroups are below `parent`. `None` if the id is taken. Dead executors are swept first if
    /// one of them may have it.
    ///
    /// # Errors
    /// When its directory cannot be made, or this user may make no cgroups below `parent`. [`Error::BeingSwept`] if a sweep does
    /// not free the id in time.
    pub fn reserve(
        &self,
        id: &ContainerId,
        parent: Option<&CgroupParent>,
        bundles: &dyn Bundles,
    ) -> Result<Option<Reservation>> {
        self.reserve_with(id, parent, None, bundles)
    }

    /// The same, with this text in [`RECORD`].
    ///
    /// # Errors
    /// As for [`reserve`](Self::reserve).
    pub fn reserve_with(
        &self,
        id: &ContainerId,
        parent: Option<&CgroupParent>,
        record: Option<&[u8]>,
        bundles: &dyn Bundles,
    ) -> Result<Option<Reservation>> {
        let (cgroup, dirs) = (self.place(parent, id)?, Arc::clone(&self.dirs));
        let reservation = Reservation { id: id.clone(), cgroup, executor: self.executor.clone(), dirs };
        let containers = &self.dirs.containers;
        let path = reservation.path();
        let failed = Error::file("make", &path);
        let unnamed = unnamed(&self.executor);
        let made = match containers.make_dir(&unnamed, 0o700) {
            Ok(made) => made,
            Err(error) => return Err(failed(error)),
        };
        let cgroup = reservation.cgroup.as_ref().map_or(NO_CGROUP, |place| &place.cgroups_path);
        let owner = format!("{}\n{cgroup}\n", self.executor);
        let written = made.write_new(OWNER, owner.as_bytes(), 0o600);
        let recorded = written.and_then(|_| match record {
            Some(record) => made.write_new(RECORD, record, 0o600).map(drop),
            None => Ok(()),
        });
        let named = recorded.and_then(|()| self.name_when_swept(&unnamed, id, bundles));
        let Err(error) = named else { return Ok(Some(reservation)) };
        for left in containers.remove_tree(&unnamed, LeftoverKind::File) {
            tracing::warn!(%left, "part of a failed reservation was not removed");
        }
        if error.kind() == ErrorKind::WouldBlock {
            return Err(Error::BeingSwept { id: id.clone() });
        }
        if error.kind() == ErrorKind::AlreadyExists { Ok(None) } else { Err(failed(error)) }
    }

    /// Gives a container's directory the name `id`. Sweeps the dead executor that may have it, or waits for a sweep that is about
    /// to free it.
    fn name_when_swept(&self, unnamed: &str, id: &ContainerId, bundles: &dyn Bundles) -> io::Result<()> {
        let (containers, deadline) = (&self.dirs.containers, Instant::now() + ID_PATIENCE);
        loop {
            match containers.rename_new(unnamed, id.as_str()) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let Some(sweeper) = self.sweeper_of(id) else {
                        self.sweep_for(id, bundles);
                        // Another executor may have begun to sweep the same meanwhile.
                        if self.sweeper_of(id).is_none() {
                            return containers.rename_new(unnamed, id.as_str());
                        }
                        continue;
                    };
                    if !underway::wait(vec![sweeper], deadline).is_empty() || Instant::now() > deadline {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                }
                named => return named,
            }
        }
    }

    /// Sweeps the dead executors, one of which may have the id.
    fn sweep_for(&self, id: &ContainerId, bundles: &dyn Bundles) {
        match sweep::sweep_once(&self.dirs.root, bundles) {
            Ok((swept, _by_others)) => {
                for Swept { container, killed, left, .. } in swept {
                    tracing::info!(container, killed, ?left, "a container of a dead executor was swept");
                }
            }
            Err(error) => tracing::warn!(%error, %id, "the executor that may have the id was not swept"),
        }
    }

    /// The dead executor of a container, if somebody sweeps it.
    fn sweeper_of(&self, id: &ContainerId) -> Option<underway::Underway> {
        let owner =
            self.dirs.containers.open_dir(id.as_str()).and_then(|dir| dir.read_text(OWNER, RECORD_LIMIT));
        let executor = owner.ok()?.lines().next()?.to_owned();
        let file = self.dirs.executors.open_regular(&executor).ok().filter(|_| is_executor(&executor))?;
        underway::is_swept(&file).then_some((executor, file))
    }

    /// Leaves the root. Returns what could not be removed. If anything is left, the executor's file stays in
    /// the root, and the next sweep tries again.
    pub fn close(&self, bundles: &dyn Bundles) -> Vec<Leftover> {
        leave_root(&self.dirs, &self.executor, bundles)
            .unwrap_or_else(|error| vec![Leftover::new(LeftoverKind::File, self.dirs.root.path(), &error)])
    }
}

/// Makes and locks the file of a new executor, and the directories that all executors share. The first line of
/// the file is the executor's mark.
fn register_executor(root: Arc<Dir>, executor: &str, mark: &str) -> Result<(RootDirs, File)> {
    let _root_lock = lock_root(&root)?;
    let registered = RootDirs::make(Arc::clone(&root)).and_then(|dirs| {
        let file = register(&dirs, executor, mark)?;
        Ok((dirs, file))
    });
    if registered.is_err() {
        sweep::remove_shared_dirs_if_last(&root);
    }
    registered
}

fn register(dirs: &RootDirs, executor: &str, mark: &str) -> Result<File> {
    let path = dirs.executors.path_of(executor);
    let made = dirs.executors.make_file(executor, 0o600);
    let file = made.map_err(Error::file("make", &path))?;
    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from);
    let written = locked.and_then(|()| write(&file, &path, sweep::mark_record(mark).as_bytes()));
    if let Err(error) = written {
        let _stays_for_a_sweep = dirs.executors.remove_file(executor);
        return Err(Error::file("write", &path)(error));
    }
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

/// How many hexadecimal digits an executor's name has.
const NAME_LENGTH: usize = 12;

/// The name of a container's directory before it has the id, and when it loses it. No id begins with a dot. The executor's name
/// in it lets a sweep remove it if this process dies.
fn unnamed(executor: &str) -> String {
    format!(".{executor}.{}", short_uuid())
}

fn short_uuid() -> String {
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(NAME_LENGTH);
    name
}

/// Whether an executor can have this name. Other files among those of executors are not ours.
fn is_executor(name: &str) -> bool {
    name.len() == NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
