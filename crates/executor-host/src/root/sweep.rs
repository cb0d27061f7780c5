//! Removing what dead executors left in a root, and leaving a root.
//!
//! An executor is dead if its file is not locked. The sweep locks the file, kills the executor's runtimes,
//! disposes of its containers and leaves the root on its behalf. The steps are the ones that a live executor
//! takes when it closes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use executor_core::lifecycle::{ContainerId, Leftover, LeftoverKind, Signal};
use executor_core::{CgroupParent, Swept};
use executor_disk::Dir;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::underway::{self, Underway};
use super::{
    CONTAINERS, EXECUTOR_VARIABLE, EXECUTORS, KEPT, NO_CGROUP, OWNER, RECORD_LIMIT, RUNTIME, Reservation,
    RootDirs, is_executor, lock_root, log_prefix,
};
use crate::cgroup::place::{self, CgroupPlace, Missing};
use crate::{Bundles, Error, Result, cgroup, pidfd, procfs};

/// How often a sweep looks for runtimes of a dead executor, at most.
const MAX_SCANS: usize = 20;

/// Why a shared directory is not removed when the last executor leaves.
const ABSENT_OR_OTHERS: [ErrorKind; 3] =
    [ErrorKind::NotFound, ErrorKind::DirectoryNotEmpty, ErrorKind::NotADirectory];

/// The first field of the line in an executor's file that has its mark.
const MARK: &str = "mark";

/// Removes what dead executors left under `root`. Leaves what belongs to live executors, and what is not
/// Longshore's.
///
/// # Errors
/// When the root exists and cannot be read or locked, or is one that somebody else could have prepared: see
/// [`Dir::open_checked`].
pub fn sweep(root: &Path, bundles: &dyn Bundles) -> Result<Vec<Swept>> {
    let root = match Dir::open_checked(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(Error::file("use", root))?,
    };
    cgroup::learn_hierarchies()?;
    let (root, mut all) = (Arc::new(root), Vec::new());
    let deadline = Instant::now() + underway::SWEEP_PATIENCE;
    loop {
        let (swept, others) = sweep_once(&root, bundles)?;
        all.extend(swept);
        if others.is_empty() {
            return Ok(all);
        }
        // Who asks for a sweep wants to know that all is swept. What the other sweep could not remove is tried again.
        let others = underway::wait(others, deadline);
        if !others.is_empty() {
            let _root_lock = lock_root(&root)?;
            let dirs = Arc::new(RootDirs::make(Arc::clone(&root))?);
            all.extend(underway::report(&dirs, &others)?);
            return Ok(all);
        }
    }
}

/// Sweeps the executors that nobody else sweeps. Returns the others as well.
pub(super) fn sweep_once(root: &Arc<Dir>, bundles: &dyn Bundles) -> Result<(Vec<Swept>, Vec<Underway>)> {
    let Some((dirs, Dead { dead, underway })) = dead_executors(root)? else { return Ok(Default::default()) };
    let dirs = Arc::new(dirs);
    let mut swept = Vec::new();
    for (executor, lock) in dead {
        kill_runtimes(&dirs, &executor);
        match reservations_of(&dirs, &executor) {
            Ok(reservations) => swept.extend(reservations.iter().map(|reservation| {
                let (killed, left) = reservation.dispose(bundles);
                Swept::new(reservation.id.to_string(), killed, left)
            })),
            Err(error) => {
                tracing::warn!(executor, %error, "not all containers of a dead executor were found")
            }
        }
        // What cannot be read of one executor does not keep others from being swept.
        match leave_root(&dirs, &executor, bundles) {
            Ok(left) if left.is_empty() => {}
            Ok(left) => tracing::warn!(executor, ?left, "not everything of a dead executor could be removed"),
            Err(error) => tracing::warn!(executor, %error, "a dead executor could not be removed"),
        }
        drop(lock);
    }
    // An executor that could not open the root, or not remove them when it left, has left them empty.
    if root.has(EXECUTORS) {
        let _root_lock = lock_root(root)?;
        remove_shared_dirs_if_last(root);
    }
    Ok((swept, underway))
}

/// Removes what an executor has besides its containers, and then the executor's file. Returns what could not
/// be removed. If anything is left, the file stays.
pub(super) fn leave_root(
    dirs: &Arc<RootDirs>,
    executor: &str,
    bundles: &dyn Bundles,
) -> Result<Vec<Leftover>> {
    let file = dirs.executors.path_of(executor);
    let text = dirs.executors.read_text(executor, RECORD_LIMIT).map_err(Error::file("read", &file))?;
    let mut left = Vec::new();
    for (parent, made) in text.lines().filter_map(parse_record) {
        left.extend(place::remove_parent(parent, executor, &made));
    }
    left.extend(bundles.close(&dirs.root, executor));
    left.extend(remove_unfinished(dirs, executor)?);
    let _root_lock = lock_root(&dirs.root)?;
    remove_logs(&dirs.runtime, executor)?;
    if left.is_empty() && reservations_of(dirs, executor)?.is_empty() {
        dirs.executors.remove_file(executor).map_err(Error::file("remove", &file))?;
        remove_shared_dirs_if_last(&dirs.root);
    }
    Ok(left)
}

/// The line of an executor's file that has its mark.
pub(super) fn mark_record(mark: &str) -> String {
    format!("{MARK}\t{mark}\n")
}

/// The mark in an executor's file.
pub(super) fn parse_mark(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix(MARK)?.strip_prefix('\t'))
}

/// Parses a line of an executor's file: a cgroup parent, and for each hierarchy the topmost directory of that
/// parent that had to be made.
pub(crate) fn parse_record(line: &str) -> Option<(&str, Vec<Missing>)> {
    // As it was written: `from_str` adds a slash.
    let is_path = |path: &str| matches!(path.parse(), Ok(CgroupParent::Path(parsed)) if parsed == path);
    let mut fields = line.split('\t');
    let parent = fields.next()?;
    if !parent.is_empty() && !is_path(parent) {
        return None;
    }
    let mut made = Vec::new();
    while let (Some(hierarchy), Some(topmost)) = (fields.next(), fields.next()) {
        if is_path(topmost) {
            made.push(Missing { hierarchy: hierarchy.to_owned(), topmost: topmost.to_owned() });
        }
    }
    Some((parent, made))
}

/// The records of all executors on this root.
pub(super) fn records(executors: &Dir) -> Result<Vec<(String, Vec<Missing>)>> {
    let mut records = Vec::new();
    for name in names(executors)? {
        // Its executor may have removed it meanwhile.
        let Ok(text) = executors.read_text(name, RECORD_LIMIT) else { continue };
        let parsed = text.lines().filter_map(parse_record);
        records.extend(parsed.map(|(parent, made)| (parent.to_owned(), made)));
    }
    Ok(records)
}

/// The name of an executor, and the lock on its file.
pub(super) type DeadExecutor = (String, File);

/// The dead executors of a root.
pub(super) struct Dead {
    pub(super) dead: Vec<DeadExecutor>,
    /// Those that somebody else sweeps.
    pub(super) underway: Vec<Underway>,
}

/// Executors whose files are not locked, or are locked by another sweep. This process holds the locks of the former, so no
/// other process sweeps the same. `None` if no executor has ever used the root.
pub(super) fn dead_executors(root: &Arc<Dir>) -> Result<Option<(RootDirs, Dead)>> {
    // Without one, there is nothing to lock. An executor that makes it now is a new one.
    if !root.has(EXECUTORS) {
        return Ok(None);
    }
    let _root_lock = lock_root(root)?;
    let dirs = RootDirs::make(Arc::clone(root))?;
    let (mut dead, mut underway) = (Vec::new(), Vec::new());
    for name in names(&dirs.executors)?.into_iter().filter(|name| is_executor(name)) {
        let path = dirs.executors.path_of(&name);
        let file = match dirs.executors.open_regular(&name) {
            Err(error) if [ErrorKind::NotFound, ErrorKind::InvalidData].contains(&error.kind()) => continue,
            opened => opened.map_err(Error::file("open", &path))?,
        };
        // Not every file system has such locks. Without the mark, others take the executor for a live one.
        if let Err(error) = underway::mark(&file) {
            tracing::debug!(name, %error, "the file of an executor was not marked");
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Whoever has its name takes it up.
            Ok(()) if is_kept_file(&dirs, &name) => {}
            Ok(()) => dead.push((name, file)),
            Err(Errno::WOULDBLOCK) => {
                let _closed_anyway = underway::unmark(&file);
                if underway::is_swept(&file) {
                    underway.push((name, file));
                }
            }
            Err(error) => return Err(Error::file("lock", &path)(error.into())),
        }
    }
    Ok(Some((dirs, Dead { dead, underway })))
}

fn is_kept_file(dirs: &RootDirs, executor: &str) -> bool {
    // What cannot be read is left alone.
    dirs.executors.read_text(executor, RECORD_LIMIT).map_or(true, |text| super::kept::is_kept(&text))
}

/// The reservations of an executor.
pub(super) fn reservations_of(dirs: &Arc<RootDirs>, executor: &str) -> Result<Vec<Reservation>> {
    let mut reservations = Vec::new();
    for name in names(&dirs.containers)? {
        reservations.extend(read_reservation(dirs, &name, executor)?);
    }
    Ok(reservations)
}

/// Removes an executor's directories that were not renamed to an id yet, or have lost it: nothing in them is in use. Returns
/// what could not be removed.
pub(super) fn remove_unfinished(dirs: &RootDirs, executor: &str) -> Result<Vec<Leftover>> {
    let prefix = format!(".{executor}.");
    let unfinished = names(&dirs.containers)?.into_iter().filter(|name| name.starts_with(&prefix));
    Ok(unfinished.flat_map(|name| dirs.containers.remove_tree(&name, LeftoverKind::File)).collect())
}

/// Reads a container's `owner` file. `None` if the container is not this executor's. What cannot be read may be: then the
/// executor is not forgotten.
fn read_reservation(dirs: &Arc<RootDirs>, name: &str, executor: &str) -> Result<Option<Reservation>> {
    let Ok(id) = ContainerId::new(name) else { return Ok(None) };
    let opened = dirs.containers.open_dir(name);
    let text = match opened.and_then(|dir| dir.read_text(OWNER, RECORD_LIMIT)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::file("read the owner of", &dirs.containers.path_of(name)))?,
    };
    let reservation = |cgroup| {
        let (executor, dirs) = (executor.to_owned(), Arc::clone(dirs));
        Reservation { id: id.clone(), cgroup, executor, dirs }
    };
    Ok(parse_owner(&text, executor, &id).map(reservation))
}

/// Parses a container's `owner` file: where its cgroups are, if it has some. `None` if the container is not this
/// executor's.
pub(crate) fn parse_owner(text: &str, executor: &str, id: &ContainerId) -> Option<Option<CgroupPlace>> {
    let mut lines = text.lines();
    let (owner, cgroups_path) = (lines.next()?, lines.next()?);
    if owner != executor {
        return None;
    }
    match cgroups_path {
        NO_CGROUP => Some(None),
        path => CgroupPlace::parse(path, executor, id).map(Some),
    }
}

/// Kills the runtimes that a dead executor has called. They have its mark in their environment, which only this
/// user and root can read. A runtime that is just executing another program, as runc executes itself, shows no
/// environment for a moment. Therefore the scan is repeated until two scans in a row find none.
fn kill_runtimes(dirs: &RootDirs, executor: &str) {
    let text = dirs.executors.read_text(executor, RECORD_LIMIT).unwrap_or_default();
    let Some(mark) = parse_mark(&text) else { return };
    let variable = format!("{EXECUTOR_VARIABLE}={mark}");
    let mut clean_scans = 0;
    for _ in 0..MAX_SCANS {
        let mut killed = Vec::new();
        for pid in procfs::processes() {
            let Ok(pidfd) = pidfd::open(pid) else { continue };
            let is_runtime = procfs::is_like_us(pid) && procfs::has_variable(pid, &variable);
            if is_runtime && pidfd::send(&pidfd, Signal::KILL).is_ok() {
                killed.push(pidfd);
            }
        }
        cgroup::wait_for_exits(&killed, cgroup::PATIENCE);
        clean_scans = if killed.is_empty() { clean_scans + 1 } else { 0 };
        if clean_scans == 2 {
            return;
        }
    }
}

pub(super) fn remove_logs(state: &Dir, executor: &str) -> Result<()> {
    let prefix = log_prefix(executor);
    for name in names(state)?.into_iter().filter(|name| name.starts_with(&prefix)) {
        state.remove_file(&name).map_err(Error::file("remove", &state.path_of(&name)))?;
    }
    Ok(())
}

pub(super) fn names(dir: &Dir) -> Result<BTreeSet<String>> {
    let names = dir.names().map_err(Error::file("list", dir.path()))?;
    Ok(names.into_iter().collect())
}

/// Removes the directories that all executors share, if there is no other executor. The caller has locked the
/// root. The directory of the executors goes last: as long as it is there, a sweep tries again.
pub(super) fn remove_shared_dirs_if_last(root: &Dir) {
    let executors = root.open_dir(EXECUTORS).and_then(|executors| executors.names());
    if !executors.is_ok_and(|names| names.is_empty()) {
        return;
    }
    for part in [CONTAINERS, RUNTIME, KEPT, EXECUTORS] {
        match root.remove_dir(part) {
            Ok(()) => {}
            // What else is in it, or has its name, is not ours.
            Err(error) if ABSENT_OR_OTHERS.contains(&error.kind()) => {}
            Err(error) => return tracing::warn!(part, %error, "an empty directory was not removed"),
        }
    }
}
