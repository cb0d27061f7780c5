//! Removing what dead executors left in a root, and leaving a root.
//!
//! An executor is dead if its file is not locked. The sweep locks the file, kills the executor's runtimes,
//! disposes of its containers and leaves the root on its behalf. The steps are the ones that a live executor
//! takes when it closes.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use executor_core::lifecycle::{ContainerId, Leftover, LeftoverKind, Signal};
use executor_core::{CgroupParent, Swept};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{EXECUTOR_VARIABLE, NO_CGROUP, OWNER, Reservation, lock_root, log_prefix};
use crate::cgroup::place::{self, CgroupPlace, Missing};
use crate::{Bundles, Error, Result, cgroup, pidfd, procfs, tree};

/// How often a sweep looks for runtimes of a dead executor, at most.
const MAX_SCANS: usize = 20;

/// Removes what dead executors left under `root`. Leaves what belongs to live executors, and what is not
/// Longshore's.
///
/// # Errors
/// When the root exists and cannot be read or locked.
pub fn sweep(root: &Path, bundles: &dyn Bundles) -> Result<Vec<Swept>> {
    let root = match root.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        resolved => resolved.map_err(Error::file("resolve", root))?,
    };
    cgroup::learn_hierarchies()?;
    let dead = dead_executors(&root)?;
    let mut swept = Vec::new();
    for (executor, lock) in dead {
        kill_runtimes(&executor);
        for reservation in reservations_of(&root, &executor)? {
            let (killed, left) = reservation.dispose(bundles);
            swept.push(Swept::new(reservation.id.to_string(), killed, left));
        }
        let left = leave_root(&root, &executor, bundles)?;
        if !left.is_empty() {
            tracing::warn!(executor, ?left, "not everything of a dead executor could be removed");
        }
        drop(lock);
    }
    Ok(swept)
}

/// Removes what an executor has besides its containers, and then the executor's file. Returns what could not
/// be removed. If anything is left, the file stays.
pub(super) fn leave_root(root: &Path, executor: &str, bundles: &dyn Bundles) -> Result<Vec<Leftover>> {
    let file = root.join("executors").join(executor);
    let text = fs::read_to_string(&file).map_err(Error::file("read", &file))?;
    let mut left = Vec::new();
    for (parent, made) in text.lines().filter_map(parse_record) {
        left.extend(place::remove_parent(parent, executor, &made));
    }
    left.extend(bundles.close(root, executor));
    let _root_lock = lock_root(root)?;
    remove_logs(root, executor)?;
    if left.is_empty() && reservations_of(root, executor)?.is_empty() {
        fs::remove_file(&file).map_err(Error::file("remove", &file))?;
        remove_shared_dirs_if_last(root);
    }
    Ok(left)
}

/// Parses a line of an executor's file: a cgroup parent, and for each hierarchy the topmost directory of that
/// parent that had to be made.
fn parse_record(line: &str) -> Option<(&str, Vec<Missing>)> {
    let is_path = |path: &str| matches!(path.parse(), Ok(CgroupParent::Path(_)));
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
pub(super) fn records(root: &Path) -> Result<Vec<(String, Vec<Missing>)>> {
    let dir = root.join("executors");
    let mut records = Vec::new();
    for name in names(&dir)? {
        // Its executor may have removed it meanwhile.
        let Ok(text) = fs::read_to_string(dir.join(name)) else { continue };
        let parsed = text.lines().filter_map(parse_record);
        records.extend(parsed.map(|(parent, made)| (parent.to_owned(), made)));
    }
    Ok(records)
}

/// Executors whose files are not locked. This process holds the returned locks, so no other process sweeps
/// the same.
fn dead_executors(root: &Path) -> Result<Vec<(String, File)>> {
    let _root_lock = lock_root(root)?;
    let mut dead = Vec::new();
    for name in names(&root.join("executors"))? {
        let path = root.join("executors").join(&name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.map_err(Error::file("open", &path))?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => dead.push((name, file)),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(Error::file("lock", &path)(error.into())),
        }
    }
    Ok(dead)
}

/// The reservations of an executor. Removes directories that were not renamed to an id yet: nothing in them
/// was in use.
fn reservations_of(root: &Path, executor: &str) -> Result<Vec<Reservation>> {
    let containers = root.join("containers");
    let mut reservations = Vec::new();
    for name in names(&containers)? {
        let dir = containers.join(&name);
        if name.starts_with(&format!(".{executor}.")) {
            for left in tree::remove(&dir, LeftoverKind::File) {
                tracing::warn!(%left, "part of an unfinished reservation was not removed");
            }
        } else if let Some(reservation) = read_reservation(root, &name, executor) {
            reservations.push(reservation);
        }
    }
    Ok(reservations)
}

/// Reads a container's `owner` file. `None` if the container is not this executor's.
fn read_reservation(root: &Path, name: &str, executor: &str) -> Option<Reservation> {
    let id = ContainerId::new(name).ok()?;
    let dir = root.join("containers").join(name);
    let text = fs::read_to_string(dir.join(OWNER)).ok()?;
    let mut lines = text.lines();
    let (owner, cgroups_path) = (lines.next()?, lines.next()?);
    if owner != executor {
        return None;
    }
    let cgroup = match cgroups_path {
        NO_CGROUP => None,
        path => Some(CgroupPlace::parse(path, executor, &id)?),
    };
    Some(Reservation { id, dir, cgroup, state: root.join("runtime").join(name) })
}

/// Kills the runtimes that a dead executor has called. A runtime that is just executing another program, as
/// runc executes itself, shows no environment for a moment. Therefore the scan is repeated until two scans in
/// a row find none.
fn kill_runtimes(executor: &str) {
    let variable = format!("{EXECUTOR_VARIABLE}={executor}");
    let mut clean_scans = 0;
    for _ in 0..MAX_SCANS {
        let mut killed = Vec::new();
        for pid in procfs::processes() {
            let Ok(pidfd) = pidfd::open(pid) else { continue };
            if procfs::has_variable(pid, &variable) && pidfd::send(&pidfd, Signal::KILL).is_ok() {
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

fn remove_logs(root: &Path, executor: &str) -> Result<()> {
    let state = root.join("runtime");
    let prefix = log_prefix(executor);
    for name in names(&state)?.into_iter().filter(|name| name.starts_with(&prefix)) {
        let log = state.join(name);
        fs::remove_file(&log).map_err(Error::file("remove", &log))?;
    }
    Ok(())
}

pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::file("list", dir))?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<io::Result<_>>().map_err(Error::file("list", dir))
}

/// Removes the directories that all executors share, if there is no other executor. The caller has locked the
/// root.
fn remove_shared_dirs_if_last(root: &Path) {
    if fs::remove_dir(root.join("executors")).is_ok() {
        for part in ["containers", "runtime"] {
            let _not_empty = fs::remove_dir(root.join(part));
        }
    }
}
