//! Removing what dead executors left, and leaving a root.

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

/// How often runtimes of a dead executor are looked for, at most.
const MAX_SCANS: usize = 20;

/// Removes what dead executors left under `root`, and only that. What a live one owns, and what is
/// not Longshore's, stays.
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
            tracing::warn!(executor, ?left, "not all of a dead executor could be removed");
        }
        drop(lock);
    }
    Ok(swept)
}

/// Gives back what an executor has beside its containers, and takes it out of the root; answers with what could
/// not be removed. With something left, it stays there.
pub(super) fn leave_root(root: &Path, executor: &str, bundles: &dyn Bundles) -> Result<Vec<Leftover>> {
    let file = root.join("executors").join(executor);
    let text = fs::read_to_string(&file).map_err(Error::file("read", &file))?;
    let mut left: Vec<_> = text
        .lines()
        .filter_map(parse_record)
        .flat_map(|(parent, made)| place::remove_parent(parent, executor, &made))
        .collect();
    left.extend(bundles.close(root, executor));
    let _judging = lock_root(root)?;
    remove_logs(root, executor)?;
    if left.is_empty() && reservations_of(root, executor)?.is_empty() {
        fs::remove_file(&file).map_err(Error::file("remove", &file))?;
        remove_parts_when_last(root);
    }
    Ok(left)
}

/// A line of an executor's file: a parent below which it has a directory among the cgroups, and what was made of that
/// parent in which hierarchy.
fn parse_record(line: &str) -> Option<(&str, Vec<Missing>)> {
    let mut fields = line.split('\t');
    let parent = fields.next()?;
    let path = |path: &str| matches!(path.parse(), Ok(CgroupParent::Path(_)));
    if !parent.is_empty() && !path(parent) {
        return None;
    }
    let fields: Vec<_> = fields.collect();
    let made = fields.chunks_exact(2).filter_map(|pair| match pair {
        [hierarchy, topmost] if path(topmost) => {
            Some(Missing { hierarchy: (*hierarchy).to_owned(), topmost: (*topmost).to_owned() })
        }
        _ => None,
    });
    Some((parent, made.collect()))
}

/// What all executors on this root have written down of the parents of their cgroups.
pub(super) fn records(root: &Path) -> Result<Vec<(String, Vec<Missing>)>> {
    let dir = root.join("executors");
    let texts = names(&dir)?.into_iter().filter_map(|name| fs::read_to_string(dir.join(name)).ok());
    let records = |text: String| {
        text.lines()
            .filter_map(parse_record)
            .map(|(parent, made)| (parent.to_owned(), made))
            .collect::<Vec<_>>()
    };
    Ok(texts.flat_map(records).collect())
}

/// Executors that hold no lock. The locks are ours now, so nobody else sweeps the same.
fn dead_executors(root: &Path) -> Result<Vec<(String, File)>> {
    let _judging = lock_root(root)?;
    let mut dead = Vec::new();
    for name in names(&root.join("executors"))? {
        let file = root.join("executors").join(&name);
        let lock = match File::open(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            lock => lock.map_err(Error::file("open", &file))?,
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => dead.push((name, lock)),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(Error::file("lock", &file)(error.into())),
        }
    }
    Ok(dead)
}

/// The containers of an executor. What it had only begun to reserve is removed at once: nothing of it
/// was in use.
fn reservations_of(root: &Path, executor: &str) -> Result<Vec<Reservation>> {
    let containers = root.join("containers");
    let mut reservations = Vec::new();
    for name in names(&containers)? {
        let dir = containers.join(&name);
        if name.starts_with(&format!(".{executor}.")) {
            for left in tree::remove(&dir, LeftoverKind::File) {
                tracing::warn!(%left, "of a reservation that was only begun");
            }
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
            asked => match CgroupPlace::parse(asked, executor, &id) {
                Some(place) => Some(place),
                None => continue,
            },
        };
        if owner == executor {
            let state = root.join("runtime").join(&name);
            reservations.push(Reservation { id, dir, cgroup, state });
        }
    }
    Ok(reservations)
}

/// Kills runtimes that a dead executor had called and that still work. One that executes another program
/// just now, as runc does with itself, shows no environment: it is looked for until none is found twice.
fn kill_runtimes(executor: &str) {
    let mark = format!("{EXECUTOR_VARIABLE}={executor}");
    let mut clean = 0;
    for _ in 0..MAX_SCANS {
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

fn remove_logs(root: &Path, executor: &str) -> Result<()> {
    let state = root.join("runtime");
    let prefix = log_prefix(executor);
    for log in names(&state)?.into_iter().filter(|name| name.starts_with(&prefix)) {
        let log = state.join(log);
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

/// Removes the directories that all executors share, when no other is there: the root is locked.
fn remove_parts_when_last(root: &Path) {
    if fs::remove_dir(root.join("executors")).is_ok() {
        for part in ["containers", "runtime"] {
            let _not_empty = fs::remove_dir(root.join(part));
        }
    }
}
