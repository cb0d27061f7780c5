//! The cgroups of a container: who is in them, what was used, ending and removing them.
//!
//! Each container has one path, the same in every hierarchy ([`place`]): v1, v2 and hybrid differ in how many there
//! are. The runtime may have put a controller elsewhere (a memory
//! hierarchy that is itself delegated), so the paths in its `state.json` count too.

pub mod place;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{HostPid, Leftover, LeftoverKind, Signal, Usage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Error, Result, pidfd, procfs};

/// How long processes are given to die, and directories to become removable.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// One container's (or executor's) directory in each hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroups {
    path: String,
    dirs: BTreeSet<PathBuf>,
}

/// A hierarchy, as it is mounted.
struct Hierarchy {
    point: PathBuf,
    /// What a hierarchy of v1 was made for, among its mount options; none for that of v2, which is for all.
    controllers: Option<Vec<String>>,
}

/// Where the hierarchies are mounted is a fact of the process's mount namespace: learned once and never changed, since the
/// end of each container asks for it.
static HIERARCHIES: OnceLock<Vec<Hierarchy>> = OnceLock::new();

/// Learns where the hierarchies are, once for the process: before this nothing is found in them, and
/// afterwards it takes no file to know.
///
/// # Errors
/// When the list of mounts cannot be read.
pub fn learn_hierarchies() -> Result<()> {
    if HIERARCHIES.get().is_none() {
        let mounts = procfs::mounts()?.into_iter();
        let cgroups = mounts.filter(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2");
        let hierarchy = |mount: procfs::MountInfo| {
            let controllers = || mount.super_options.split(',').map(str::to_owned).collect();
            Hierarchy { controllers: (mount.kind == "cgroup").then(controllers), point: mount.point }
        };
        let _first = HIERARCHIES.set(cgroups.map(hierarchy).collect());
    }
    Ok(())
}

/// Whether a process that is ending still is in the cgroup it was in: in those of v2, which a hybrid host has as well.
pub(crate) fn keeps_zombies_in_cgroups() -> bool {
    hierarchies().any(|hierarchy| hierarchy.join("cgroup.controllers").exists())
}

fn hierarchies() -> impl Iterator<Item = &'static PathBuf> {
    HIERARCHIES.get().into_iter().flatten().map(|hierarchy| &hierarchy.point)
}

/// Whether a cgroup in `dir` can have a file of this name, as far as is known without looking: those of v1 have those
/// of their controllers.
fn may_have(dir: &Path, file: &str) -> bool {
    let controller = file.split('.').next().unwrap_or_default();
    let hierarchy =
        HIERARCHIES.get().into_iter().flatten().find(|hierarchy| dir.starts_with(&hierarchy.point));
    let controllers = hierarchy.and_then(|hierarchy| hierarchy.controllers.as_ref());
    controllers.is_none_or(|controllers| controllers.iter().any(|one| one == controller))
}

pub(crate) fn in_hierarchies(path: &str) -> BTreeSet<PathBuf> {
    hierarchies().map(|hierarchy| hierarchy.join(path.trim_start_matches('/'))).collect()
}

/// The directories that a runtime's `state.json` names, if they are for the cgroup at `path`.
pub(crate) fn named_by(state: &[u8], path: &str) -> Vec<PathBuf> {
    #[derive(serde::Deserialize)]
    struct State {
        cgroup_paths: BTreeMap<String, PathBuf>,
    }
    let paths = serde_json::from_slice::<State>(state).map(|state| state.cgroup_paths).unwrap_or_default();
    let climbs = |dir: &Path| dir.components().any(|part| part == Component::ParentDir);
    let ours =
        |dir: &PathBuf| dir.is_absolute() && dir.ends_with(path.trim_start_matches('/')) && !climbs(dir);
    paths.into_values().filter(ours).collect()
}

impl Cgroups {
    /// The cgroups at `path`, which is a container's or an executor's; nothing else is ever touched.
    pub fn at(path: &str) -> Self {
        Self { path: path.to_owned(), dirs: in_hierarchies(path) }.that_exist()
    }

    /// The same, and those that the runtime has put elsewhere, as `state`, its `state.json`, says if there
    /// is one.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn find(path: &str, state: &Path) -> Result<Self> {
        let json = match fs::read(state) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            json => json.map_err(Error::file("read", state))?,
        };
        let dirs = in_hierarchies(path).into_iter().chain(named_by(&json, path)).collect();
        Ok(Self { path: path.to_owned(), dirs }.that_exist())
    }

    /// Those of a container that has none.
    pub const fn none() -> Self {
        Self { path: String::new(), dirs: BTreeSet::new() }
    }

    fn that_exist(mut self) -> Self {
        self.dirs.retain(|dir| dir.is_dir());
        self
    }

    /// Its directories that were there when it was looked for.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(PathBuf::as_path)
    }

    /// The host pids of all live processes in it.
    pub fn processes(&self) -> BTreeSet<HostPid> {
        processes_in(self.dirs())
    }

    /// Kills everything in it and waits until it is dead; answers with how many there were, and what is still to be
    /// removed. What is empty can be removed at once, which is the quickest way to know that it is.
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
            let ending: Vec<_> = pids.iter().filter_map(|pid| self.kill_one(*pid)).collect();
            killed.extend(pids);
            // Not for long: an init whose exec'd processes are for others to reap, as when their executor
            // is dead, does not end before they are, and is in no cgroup any more meanwhile.
            wait_for_ends(&ending, Duration::from_millis(5));
        }
    }

    /// The pid may belong to someone else by now: what is signalled is looked at first.
    fn kill_one(&self, pid: HostPid) -> Option<std::os::fd::OwnedFd> {
        let pidfd = pidfd::open(pid).ok()?;
        if !procfs::is_in_cgroup(pid, &self.path) {
            return None;
        }
        if let Err(error) = pidfd::send(&pidfd, Signal::KILL) {
            tracing::warn!(%pid, %error, "kill in cgroup");
        }
        Some(pidfd)
    }

    /// Removes it with everything below; answers with what is still there.
    ///
    /// A directory can be busy for a moment after its last process has died.
    pub fn remove(&self) -> Vec<Leftover> {
        let deadline = Instant::now() + PATIENCE;
        let mut left = Vec::new();
        for dir in self.dirs.iter().flat_map(|dir| tree(dir)) {
            loop {
                match fs::remove_dir(&dir) {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    Err(error) if Instant::now() > deadline => {
                        left.push(Leftover::new(LeftoverKind::Cgroup, &dir, &error));
                        break;
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        }
        left
    }

    /// What was used so far, as far as the hierarchies tell.
    pub fn usage(&self) -> Usage {
        usage::read(&self.dirs)
    }
}

/// The host pids of all live processes in these directories of cgroups, and below.
pub(crate) fn processes_in<'a>(dirs: impl Iterator<Item = &'a Path>) -> BTreeSet<HostPid> {
    let mut pids = BTreeSet::new();
    for dir in dirs.flat_map(tree) {
        let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(list.lines().filter_map(procfs::parse_pid));
    }
    pids
}

/// Lets frozen processes run on, so that they can die: those in these directories, and in all cgroups below, which a
/// container may have made and frozen itself. Not being frozen is fine.
pub(crate) fn thaw<'a>(dirs: impl Iterator<Item = &'a Path>) {
    const FREEZERS: [(&str, &str); 2] = [("freezer.state", "THAWED"), ("cgroup.freeze", "0")];
    let with_freezer = dirs.filter(|dir| may_have(dir, "freezer.state"));
    // From the top: what is thawed below a frozen one stays frozen.
    for dir in with_freezer.flat_map(|dir| tree(dir).into_iter().rev()) {
        for (file, thawed) in FREEZERS {
            match OpenOptions::new()
                .write(true)
                .open(dir.join(file))
                .and_then(|mut file| file.write_all(thawed.as_bytes()))
            {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::debug!(dir = %dir.display(), file, %error, "thaw");
                }
                Err(_) | Ok(()) => {}
            }
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

/// Waits until these processes have ended, or `patience` is over.
pub(crate) fn wait_for_ends<Fd: std::os::fd::AsFd>(pidfds: &[Fd], patience: Duration) {
    let deadline = Instant::now() + patience;
    for pidfd in pidfds {
        let rest = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        if let Err(error) = Timespec::try_from(rest)
            .map_err(io::Error::other)
            .and_then(|rest| Ok(poll(&mut fds, Some(&rest))?))
        {
            tracing::debug!(%error, "poll pidfd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_our_own_are_taken_from_the_runtimes_state() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("elsewhere/longshore/e/c");
        fs::create_dir_all(&ours).unwrap();
        let state = dir.path().join("state.json");
        let json =
            serde_json::json!({"cgroup_paths": {"memory": ours, "cpu": dir.path(), "": "/sys/fs/cgroup"}});
        fs::write(&state, json.to_string()).unwrap();
        let cgroups = Cgroups::find("/longshore/e/c", &state).unwrap();
        assert_eq!(cgroups.dirs, BTreeSet::from([ours]));
        assert_eq!(cgroups.remove(), []);
        assert!(cgroups.dirs.iter().all(|dir| !dir.exists()));
    }
}
