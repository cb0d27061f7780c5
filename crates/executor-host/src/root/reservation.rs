//! One container's reservation in a root: where its parts are, and how all of them are removed.
//!
//! ```text
//!  end: processes, cgroups, runtime state ──▶ Bundles::detach: network ──▶ remove: mounts, files, `owner` last
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{ContainerId, HostPid, Leftover, LeftoverKind};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::OWNER;
use crate::cgroup::place::CgroupPlace;
use crate::cgroup::{self, Cgroups};
use crate::seam::Members;
use crate::{Bundles, Result, journal, procfs, tree};

/// A container's reservation: its id, and where everything of it is.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The container's id.
    pub id: ContainerId,
    /// The container's own directory, its bundle.
    pub dir: PathBuf,
    /// The place of its cgroup. `None` if this user may make no cgroups.
    pub cgroup: Option<CgroupPlace>,
    /// The runtime's own directory for it.
    pub state: PathBuf,
}

impl Reservation {
    /// Kills and removes everything that the container has: processes, cgroups, runtime state, network,
    /// mounts, files. Returns how many processes were killed, and what could not be removed.
    pub fn dispose(&self, bundles: &dyn Bundles) -> (usize, Vec<Leftover>) {
        let (killed, mut left) = self.end(None);
        left.extend(bundles.detach(&self.dir));
        (killed, self.remove(bundles, left))
    }

    /// The first step: kills the processes, and removes the cgroups and the runtime's state. Looks for the
    /// cgroups if they are not given.
    pub fn end(&self, known: Option<&Cgroups>) -> (usize, Vec<Leftover>) {
        let cgroups = match known {
            Some(known) => known.clone(),
            None => match self.cgroups() {
                Ok(found) => found,
                Err(error) => {
                    return (0, vec![Leftover::new(LeftoverKind::RuntimeState, &self.state, &error)]);
                }
            },
        };
        let (killed_in_cgroups, not_removed) = cgroups.end();
        let killed_by_pid = self.kill_by_pid();
        let mut left = not_removed.remove();
        left.extend(remove_state(&self.state));
        (killed_in_cgroups + killed_by_pid, left)
    }

    /// Kills processes that are in no cgroup. The journal lists them. It lacks an init whose runtime was
    /// killed before it had reported the pid, but the runtime's state has that. Returns how many were killed.
    fn kill_by_pid(&self) -> usize {
        let in_journal = journal::kill(&self.dir);
        cgroup::wait_for_exits(&in_journal, cgroup::PATIENCE);
        // An init that was in the journal has exited by now, and is not counted twice.
        let init = journal::kill_init(&self.state);
        cgroup::wait_for_exits(init.as_slice(), cgroup::PATIENCE);
        in_journal.len() + usize::from(init.is_some())
    }

    /// The last step, after [`end`](Self::end) and [`Bundles::detach`]: removes mounts and files. `left` is
    /// what those could not remove. Returns all that is left.
    pub fn remove(&self, bundles: &dyn Bundles, mut left: Vec<Leftover>) -> Vec<Leftover> {
        left.extend(bundles.unmake(&self.dir));
        left.extend(mounts_left(&self.dir));
        // If anything is left, `owner` must stay: the next sweep reads it.
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

    /// The evidence that a process is in the container: its cgroup, or its pid namespace if it has no cgroup.
    /// If `cgroups` is `None`, the cgroup's default directories are taken.
    pub fn members(&self, cgroups: Option<&Cgroups>, init: Option<HostPid>) -> Members {
        let Some(place) = &self.cgroup else { return Members::PidNamespace { init } };
        let dirs = match cgroups {
            Some(cgroups) => cgroups.dirs().map(Into::into).collect(),
            None => cgroup::in_hierarchies(&place.path).into_iter().map(Into::into).collect(),
        };
        Members::Cgroup { path: place.path.clone(), dirs }
    }
}

/// What is still mounted below a container's directory.
fn mounts_left(dir: &Path) -> Vec<Leftover> {
    if !may_have_mounts(dir) {
        return Vec::new();
    }
    let mounts = match procfs::mounts_below(dir) {
        Ok(mounts) => mounts,
        Err(error) => return vec![Leftover::new(LeftoverKind::Mount, dir, &error)],
    };
    let busy = io::Error::from(Errno::BUSY);
    mounts.iter().map(|point| Leftover::new(LeftoverKind::Mount, point, &busy)).collect()
}

/// Whether the directory has a directory in it. If not, a mount below it can only be on a file. Such a file
/// cannot be unlinked, and nothing behind the mount can be removed by mistake.
fn may_have_mounts(dir: &Path) -> bool {
    let is_dir = |entry: io::Result<fs::DirEntry>| {
        entry.and_then(|entry| entry.file_type()).map_or(true, |kind| kind.is_dir())
    };
    fs::read_dir(dir).is_ok_and(|mut entries| entries.any(is_dir))
}

/// Removes the runtime's state of a container. runc mounts its own program there, read-only, to execute
/// itself from the mount. If it was killed meanwhile, the mount is still there.
fn remove_state(dir: &Path) -> Vec<Leftover> {
    let left = tree::remove(dir, LeftoverKind::RuntimeState);
    if left.is_empty() {
        return left;
    }
    for mount in procfs::mounts_below(dir).into_iter().flatten() {
        if let Err(error) = unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(mount = %mount.display(), %error, "the runtime's mount was not unmounted");
        }
    }
    tree::remove(dir, LeftoverKind::RuntimeState)
}
