//! The cgroups of a container: listing their processes, reading usage, killing and removing.
//!
//! Each container has one path, which is the same in every hierarchy ([`place`]). v1, v2 and hybrid hosts
//! differ in the number of hierarchies. The runtime may have put a controller elsewhere (a memory hierarchy
//! that is itself delegated), so the paths in its `state.json` are taken as well.

mod freezer;
pub mod place;
pub(crate) mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{HostPid, Leftover, LeftoverKind, SeenKills, Signal, Usage};
use executor_disk::mount_table;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) use self::freezer::thaw;
use crate::{Error, Result, pidfd, procfs};

/// How long killed processes may take to exit, and directories to become removable.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// One container's (or executor's) directory in each hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroups {
    path: String,
    dirs: BTreeSet<PathBuf>,
}

/// A mounted hierarchy.
struct Hierarchy {
    point: PathBuf,
    /// The controllers of a v1 hierarchy, with its other mount options. `None` for v2, which has all
    /// controllers.
    controllers: Option<Vec<String>>,
}

/// The hierarchies in the process's mount namespace. They are read once, since every end of a container needs
/// them.
static HIERARCHIES: OnceLock<Vec<Hierarchy>> = OnceLock::new();

/// Reads where the hierarchies are mounted, once for the process. Before that, no cgroups are found.
///
/// # Errors
/// When the list of mounts cannot be read.
pub fn learn_hierarchies() -> Result<()> {
    if HIERARCHIES.get().is_some() {
        return Ok(());
    }
    let mut hierarchies = Vec::new();
    for mount in mount_table::mounts().map_err(Error::system("list mounts"))? {
        let controllers = match mount.kind.as_str() {
            "cgroup" => Some(mount.super_options.split(',').map(str::to_owned).collect()),
            "cgroup2" => None,
            _ => continue,
        };
        hierarchies.push(Hierarchy { point: mount.point, controllers });
    }
    // Another thread may have set the same value meanwhile.
    let _already_set = HIERARCHIES.set(hierarchies);
    Ok(())
}

/// Whether a process that is exiting stays in its cgroup. It does in v2 hierarchies; a hybrid host has one.
pub(crate) fn keeps_zombies_in_cgroups() -> bool {
    hierarchies().any(|hierarchy| hierarchy.join("cgroup.controllers").exists())
}

fn hierarchies() -> impl Iterator<Item = &'static PathBuf> {
    HIERARCHIES.get().into_iter().flatten().map(|hierarchy| &hierarchy.point)
}

/// Whether a cgroup in `dir` can have a file of this name, decided by the controllers of its hierarchy. This
/// saves opening files that do not exist.
pub(crate) fn may_have(dir: &Path, file: &str) -> bool {
    let controller = file.split('.').next().unwrap_or_default();
    let hierarchy =
        HIERARCHIES.get().into_iter().flatten().find(|hierarchy| dir.starts_with(&hierarchy.point));
    let controllers = hierarchy.and_then(|hierarchy| hierarchy.controllers.as_ref());
    controllers.is_none_or(|controllers| controllers.iter().any(|one| one == controller))
}

pub(crate) fn in_hierarchies(path: &str) -> BTreeSet<PathBuf> {
    hierarchies().map(|hierarchy| hierarchy.join(path.trim_start_matches('/'))).collect()
}

/// The directories in a runtime's `state.json` that are for the cgroup at `path`.
pub(crate) fn named_by(state: &[u8], path: &str) -> Vec<PathBuf> {
    #[derive(serde::Deserialize)]
    struct State {
        cgroup_paths: BTreeMap<String, PathBuf>,
    }
    let paths = serde_json::from_slice::<State>(state).map(|state| state.cgroup_paths).unwrap_or_default();
    let has_parent_part = |dir: &Path| dir.components().any(|part| part == Component::ParentDir);
    let is_ours = |dir: &PathBuf| {
        dir.is_absolute() && dir.ends_with(path.trim_start_matches('/')) && !has_parent_part(dir)
    };
    paths.into_values().filter(is_ours).collect()
}

impl Cgroups {
    /// The cgroups at `path`, which must be a container's or an executor's.
    pub fn at(path: &str) -> Self {
        Self { path: path.to_owned(), dirs: in_hierarchies(path) }.that_exist()
    }

    /// The same, and those that the runtime has put elsewhere. `state` is the runtime's `state.json`, which may
    /// be empty.
    pub fn find(path: &str, state: &[u8]) -> Self {
        let dirs = in_hierarchies(path).into_iter().chain(named_by(state, path)).collect();
        Self { path: path.to_owned(), dirs }.that_exist()
    }

    /// The value for a container without cgroups.
    pub const fn none() -> Self {
        Self { path: String::new(), dirs: BTreeSet::new() }
    }

    fn that_exist(mut self) -> Self {
        self.dirs.retain(|dir| dir.is_dir());
        self
    }

    /// The directories that existed when this value was made.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(PathBuf::as_path)
    }

    /// Whether its processes are frozen by its own freezer. Blocks for a moment.
    pub fn is_frozen(&self) -> bool {
        freezer::is_frozen(self.dirs())
    }

    /// The host pids of all processes in it that are alive.
    pub fn processes(&self) -> BTreeSet<HostPid> {
        processes_in(self.dirs())
    }

    /// The same.
    ///
    /// # Errors
    /// When there are too few resources to list them all.
    pub fn list_processes(&self) -> io::Result<BTreeSet<HostPid>> {
        let mut pids = BTreeSet::new();
        for dir in &self.dirs {
            list_below(dir, &mut pids)?;
        }
        Ok(pids)
    }

    /// Kills everything in it and waits for the exits. Returns how many processes there were, and the
    /// directories that are still to be removed. An empty directory is removed right away, which is also the
    /// quickest test for being empty.
    pub fn end(&self) -> (usize, Self) {
        let mut rest = self.clone();
        rest.dirs.retain(|dir| fs::remove_dir(dir).is_err());
        let killed = if rest.dirs.is_empty() { 0 } else { rest.kill() };
        (killed, rest)
    }

    fn kill(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let mut killed = BTreeSet::new();
        loop {
            let pids = self.processes();
            if pids.is_empty() || Instant::now() > deadline {
                return killed.len();
            }
            thaw(self.dirs());
            kill_at_once(self.dirs());
            let ending: Vec<_> = pids.iter().filter_map(|pid| self.kill_one(*pid)).collect();
            killed.extend(pids);
            // The wait is short, because an init may exit late. It exits only after the processes in its pid
            // namespace are reaped, and if their executor is dead, another process reaps them. Such an init
            // is in no cgroup any more.
            wait_for_exits(&ending, Duration::from_millis(5));
        }
    }

    /// The pid may have been reused since it was listed, so the process is checked again once its pidfd is
    /// open.
    fn kill_one(&self, pid: HostPid) -> Option<std::os::fd::OwnedFd> {
        let pidfd = pidfd::open(pid).ok()?;
        if !procfs::is_in_cgroup(pid, &self.path) {
            return None;
        }
        if let Err(error) = pidfd::send(&pidfd, Signal::KILL) {
            tracing::warn!(%pid, %error, "a process in a cgroup was not killed");
        }
        Some(pidfd)
    }

    /// Removes it with everything below. Returns what could not be removed. A directory may be busy for a
    /// moment after its last process has exited.
    pub fn remove(&self) -> Vec<Leftover> {
        let deadline = Instant::now() + PATIENCE;
        let mut left = Vec::new();
        for dir in self.dirs.iter().flat_map(|dir| tree(dir)) {
            loop {
                match fs::remove_dir(&dir) {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    Err(error) if Instant::now() > deadline => {
                        let error = freezer::explained(&dir, error);
                        left.push(Leftover::new(LeftoverKind::Cgroup, &dir, &error));
                        break;
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        }
        left
    }

    /// How many processes it has, and how many it may have, if a fork has failed in it for that reason, and a runtime that
    /// starts another process may have failed too: it needs a few threads.
    pub fn full_of_processes(&self) -> Option<(u64, u64)> {
        const THREADS: u64 = 16;
        let dir = self.dirs().find(|dir| may_have(dir, "pids.max") && dir.join("pids.max").exists())?;
        let number = |file: &str| -> Option<u64> {
            let text = fs::read_to_string(dir.join(file)).ok()?;
            text.split_whitespace().last()?.parse().ok()
        };
        let (current, most, failed) = (number("pids.current")?, number("pids.max")?, number("pids.events")?);
        (failed > 0 && current + THREADS >= most).then_some((current, most))
    }

    /// The usage so far, as far as the hierarchies have it. `seen` is what was seen of the kills before.
    ///
    /// # Errors
    /// When there are too few resources to read it.
    pub fn usage(&self, seen: &mut SeenKills) -> io::Result<Usage> {
        usage::read(&self.dirs, seen)
    }
}

/// The host pids of the processes that are alive in these cgroup directories and below.
pub(crate) fn processes_in<'a>(dirs: impl Iterator<Item = &'a Path>) -> BTreeSet<HostPid> {
    let mut pids = BTreeSet::new();
    for dir in dirs.flat_map(tree) {
        let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(list.lines().filter_map(procfs::parse_pid));
    }
    pids
}

fn list_below(dir: &Path, pids: &mut BTreeSet<HostPid>) -> io::Result<()> {
    let list = procfs::present(fs::read_to_string(dir.join("cgroup.procs")))?;
    pids.extend(list.iter().flat_map(|list| list.lines()).filter_map(procfs::parse_pid));
    let entries = procfs::present(fs::read_dir(dir))?;
    let below: Vec<_> = entries.into_iter().flatten().flatten().collect();
    for entry in below.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        list_below(&entry.path(), pids)?;
    }
    Ok(())
}

/// Kills everything in these cgroup directories and below, also what is forked meanwhile. v2 hierarchies can, from Linux
/// 5.14 on. Elsewhere this does nothing, and each process is killed by itself.
fn kill_at_once<'a>(dirs: impl Iterator<Item = &'a Path>) {
    for dir in dirs.filter(|dir| may_have(dir, "cgroup.kill")) {
        let opened = OpenOptions::new().write(true).open(dir.join("cgroup.kill"));
        let written = opened.and_then(|mut file| file.write_all(b"1"));
        if let Err(error) = written
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(dir = %dir.display(), %error, "a cgroup was not killed at once");
        }
    }
}

/// `dir` and every directory below it, the deepest first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<_> = dirs.flat_map(|entry| tree(&entry.path())).collect();
    all.push(dir.to_owned());
    all
}

/// Waits until these processes have exited, for `patience` at most.
pub(crate) fn wait_for_exits<Fd: std::os::fd::AsFd>(pidfds: &[Fd], patience: Duration) {
    let deadline = Instant::now() + patience;
    for pidfd in pidfds {
        let rest = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        let Ok(timeout) = Timespec::try_from(rest) else { continue };
        if let Err(error) = poll(&mut fds, Some(&timeout)) {
            tracing::debug!(%error, "a pidfd was not polled");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_can_be_killed_at_once_is() {
        let dir = tempfile::tempdir().unwrap();
        let (v2, v1) = (dir.path().join("v2"), dir.path().join("v1"));
        for dir in [&v2, &v1] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(v2.join("cgroup.kill"), "").unwrap();
        kill_at_once([v2.as_path(), &v1].into_iter());
        assert_eq!(fs::read_to_string(v2.join("cgroup.kill")).unwrap(), "1");
        assert_eq!(fs::read_dir(v1).unwrap().count(), 0, "a file was made");
    }

    #[test]
    fn only_paths_of_our_own_are_taken_from_the_runtimes_state() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("elsewhere/longshore/e/c");
        fs::create_dir_all(&ours).unwrap();
        let json =
            serde_json::json!({"cgroup_paths": {"memory": ours, "cpu": dir.path(), "": "/sys/fs/cgroup"}});
        let cgroups = Cgroups::find("/longshore/e/c", json.to_string().as_bytes());
        assert_eq!(cgroups.dirs, BTreeSet::from([ours]));
        assert_eq!(cgroups.remove(), []);
        assert!(cgroups.dirs.iter().all(|dir| !dir.exists()));
    }
}
