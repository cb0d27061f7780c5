//! One container's reservation in a root: where its parts are, and how all of them are removed.
//!
//! ```text
//!  end: processes, cgroups, runtime state ──▶ Bundles::detach: network ──▶ remove: mounts, files, the name, `owner`
//! ```
//! No directory of a container is kept open: a thousand containers would need a thousand descriptors more.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor_core::lifecycle::{ContainerId, HostPid, Leftover, LeftoverKind};
use executor_disk::Dir;
use executor_disk::mount_table::mounts_below;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::{OWNER, RECORD, RootDirs, unnamed};
use crate::cgroup::place::CgroupPlace;
use crate::cgroup::{self, Cgroups};
use crate::seam::Members;
use crate::{Bundles, Error, Place, Result, journal};

/// A container's reservation: its id, and where everything of it is.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The container's id.
    pub id: ContainerId,
    /// The place of its cgroup. `None` if this user may make no cgroups.
    pub cgroup: Option<CgroupPlace>,
    /// The executor that it belongs to.
    pub(super) executor: String,
    pub(super) dirs: Arc<RootDirs>,
}

impl Reservation {
    /// Opens the container's own directory, its bundle.
    ///
    /// # Errors
    /// When it does not exist, or there are no more descriptors.
    pub fn open(&self) -> Result<Dir> {
        self.dirs.containers.open_dir(self.id.as_str()).map_err(Error::file("open", &self.path()))
    }

    /// Opens the runtime's own directory for it.
    ///
    /// # Errors
    /// When it does not exist, or there are no more descriptors.
    pub fn open_state(&self) -> Result<Dir> {
        self.dirs.runtime.open_any_dir(self.id.as_str()).map_err(Error::file("open", &self.state_path()))
    }

    /// The path of the container's own directory, for the runtime and for messages.
    pub fn path(&self) -> PathBuf {
        self.dirs.containers.path_of(self.id.as_str())
    }

    fn state_path(&self) -> PathBuf {
        self.dirs.runtime.path_of(self.id.as_str())
    }

    /// The place of its bundle, whose directory is `dir`.
    pub fn place<'a>(&'a self, dir: &'a Dir) -> Place<'a> {
        let cgroup = self.cgroup.as_ref().map(|place| place.cgroups_path.as_str());
        Place { id: &self.id, root: &self.dirs.root, dir, cgroup }
    }

    /// Kills and removes everything that the container has: processes, cgroups, runtime state, network,
    /// mounts, files. Returns how many processes were killed, and what could not be removed.
    pub fn dispose(&self, bundles: &dyn Bundles) -> (usize, Vec<Leftover>) {
        let (killed, mut left) = self.end(None);
        left.extend(self.detach(bundles));
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
                    let left = Leftover::new(LeftoverKind::RuntimeState, self.state_path(), &error);
                    return (0, vec![left]);
                }
            },
        };
        let (killed_in_cgroups, not_removed) = cgroups.end();
        let killed_by_pid = self.kill_by_pid();
        let mut left = not_removed.remove();
        left.extend(self.remove_state());
        (killed_in_cgroups + killed_by_pid, left)
    }

    /// Kills processes that are in no cgroup. The journal lists them. It lacks an init whose runtime was
    /// killed before it had reported the pid, but the runtime's state has that. Returns how many were killed.
    fn kill_by_pid(&self) -> usize {
        let in_journal = self.open().map(|dir| journal::kill(&dir)).unwrap_or_default();
        cgroup::wait_for_exits(&in_journal, cgroup::PATIENCE);
        // An init that was in the journal has exited by now, and is not counted twice.
        let init = self.open_state().ok().and_then(|state| journal::kill_init(&state));
        cgroup::wait_for_exits(init.as_slice(), cgroup::PATIENCE);
        in_journal.len() + usize::from(init.is_some())
    }

    /// The second step: removes the network.
    pub fn detach(&self, bundles: &dyn Bundles) -> Vec<Leftover> {
        self.with_dir(|dir| bundles.detach(&self.place(dir)))
    }

    /// The last step: removes mounts and files. `left` is what the former steps could not remove. Returns all
    /// that is left.
    pub fn remove(&self, bundles: &dyn Bundles, mut left: Vec<Leftover>) -> Vec<Leftover> {
        left.extend(self.with_dir(|dir| {
            let mut left = bundles.unmake(&self.place(dir));
            left.extend(mounts_left(dir));
            left
        }));
        // If anything is left, `owner` must stay: the next sweep reads it.
        if left.is_empty() {
            left.extend(self.dirs.containers.clear_tree(
                self.id.as_str(),
                LeftoverKind::File,
                &[OWNER, RECORD],
            ));
        }
        if left.is_empty() {
            left.extend(self.remove_dir());
        }
        left
    }

    /// Removes the directory, in which there is only `owner` by now. It is given another name first, by which a sweep knows
    /// whose it is without `owner`: this process may die half way, and the disk may fail.
    fn remove_dir(&self) -> Vec<Leftover> {
        let (containers, unnamed) = (&self.dirs.containers, unnamed(&self.executor));
        match containers.rename_new(self.id.as_str(), &unnamed) {
            Ok(()) => containers.remove_tree(&unnamed, LeftoverKind::File),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => vec![Leftover::new(LeftoverKind::File, self.path(), &error)],
        }
    }

    /// Calls `remove` with the container's directory, unless that is gone.
    fn with_dir(&self, remove: impl FnOnce(&Dir) -> Vec<Leftover>) -> Vec<Leftover> {
        match self.dirs.containers.open_dir(self.id.as_str()) {
            Ok(dir) => remove(&dir),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => vec![Leftover::new(LeftoverKind::File, self.path(), &error)],
        }
    }

    /// Its cgroups, as they are now.
    ///
    /// # Errors
    /// When the runtime's state cannot be read.
    pub fn cgroups(&self) -> Result<Cgroups> {
        const FILE: &str = "state.json";
        let Some(place) = &self.cgroup else { return Ok(Cgroups::none()) };
        let opened = self.dirs.runtime.open_any_dir(self.id.as_str());
        match opened.and_then(|state| state.read(FILE, journal::STATE_LIMIT)) {
            Ok(json) => Ok(Cgroups::find(&place.path, &json)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Cgroups::find(&place.path, &[])),
            Err(error) => Err(Error::file("read", &self.state_path())(error)),
        }
    }

    /// Whether the file system of the executor's root has too little space left for the runtime's state, which has the
    /// whole filter of system calls in it.
    pub fn has_no_space(&self) -> bool {
        const STATE: u64 = 256 << 10;
        rustix::fs::fstatvfs(&*self.dirs.root).is_ok_and(|stat| {
            stat.f_bavail.saturating_mul(stat.f_frsize) < STATE || stat.f_files > 0 && stat.f_favail == 0
        })
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

    /// Removes the runtime's state of the container. runc mounts its own program there, on a file, to execute itself from
    /// the mount. If it was killed meanwhile, the mount is still there. Any other mount is somebody else's, and is left.
    fn remove_state(&self) -> Vec<Leftover> {
        let remove = || self.dirs.runtime.remove_tree(self.id.as_str(), LeftoverKind::RuntimeState);
        let left = remove();
        if left.is_empty() {
            return left;
        }
        for mount in
            mounts_below(&self.state_path()).into_iter().flatten().filter(|mount| self.is_runcs(mount))
        {
            if let Err(error) = unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                tracing::warn!(mount = %mount.display(), %error, "the runtime's mount was not unmounted");
            }
        }
        remove()
    }

    fn is_runcs(&self, mount: &Path) -> bool {
        let name = mount.strip_prefix(self.state_path()).ok().and_then(Path::to_str);
        let Some(name) = name.filter(|name| !name.contains('/')) else { return false };
        self.open_state()
            .is_ok_and(|state| state.stat_of(name).is_ok_and(|stat| stat.is_some_and(|stat| !is_dir(&stat))))
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// What is still mounted below a container's directory.
fn mounts_left(dir: &Dir) -> Vec<Leftover> {
    if !may_have_mounts(dir) {
        return Vec::new();
    }
    let mounts = match mounts_below(dir.path()) {
        Ok(mounts) => mounts,
        Err(error) => return vec![Leftover::new(LeftoverKind::Mount, dir.path(), &error)],
    };
    let busy = io::Error::from(Errno::BUSY);
    let leftover = |point: &PathBuf| Leftover::new(LeftoverKind::Mount, Path::new(point), &busy);
    mounts.iter().map(leftover).collect()
}

/// Whether the directory has a directory in it. If not, a mount below it can only be on a file. Such a file
/// cannot be unlinked, and nothing behind the mount can be removed by mistake.
fn may_have_mounts(dir: &Dir) -> bool {
    let is_dir = |name: &String| {
        let stat = dir.stat_of(name).ok().flatten();
        stat.is_none_or(|stat| is_dir(&stat))
    };
    dir.names().is_ok_and(|names| names.iter().any(is_dir))
}
