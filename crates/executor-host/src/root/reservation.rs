//! The place of one container in a root, and removing all that the container has.

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

/// A container's place on disk.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// Its id.
    pub id: ContainerId,
    /// Its own directory, the bundle.
    pub dir: PathBuf,
    /// Its cgroup; none where no cgroups may be made.
    pub cgroup: Option<CgroupPlace>,
    /// The runtime's own directory for it.
    pub state: PathBuf,
}

impl Reservation {
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
