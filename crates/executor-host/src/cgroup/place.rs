//! Where a container's cgroups are: below its parent, in a directory of its executor's.
//!
//! ```text
//! <parent>/longshore/<executor>/<id>       in every hierarchy; no parent by default
//! <slice>/longshore-<executor>-<id>.scope  where systemd makes it
//! ```
//! The level of the executor keeps containers of one id apart that are of two executors, and holds the
//! directories above it while the executor lives: nobody else's clean-up can remove them under the runtime's feet.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use executor_core::CgroupParent;
use executor_core::lifecycle::{ContainerId, Leftover};
use rustix::fs::{Access, access};

use super::{Cgroups, hierarchies, in_hierarchies};

/// The directory of all our cgroups, below a parent.
const OURS: &str = "/longshore";

/// A container's place among the cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPlace {
    /// As the runtime is told it: a path, or systemd's slice, prefix and name.
    pub cgroups_path: String,
    /// The directory in each hierarchy.
    pub path: String,
}

impl CgroupPlace {
    /// The place of a container of this executor.
    pub(crate) fn new(parent: Option<&CgroupParent>, executor: &str, id: &ContainerId) -> Self {
        match parent {
            Some(CgroupParent::Slice(slice)) => {
                let cgroups_path = format!("{slice}:longshore:{executor}-{id}");
                Self { cgroups_path, path: format!("{}/longshore-{executor}-{id}.scope", expanded(slice)) }
            }
            Some(CgroupParent::Path(_)) | None => {
                let path = format!("{}/{id}", executor_path(parent_path(parent), executor));
                Self { cgroups_path: path.clone(), path }
            }
        }
    }

    /// Whether systemd makes it.
    pub fn is_made_by_systemd(&self) -> bool {
        !self.cgroups_path.starts_with('/')
    }

    /// Reads what [`new`](Self::new) asked for; it is compared, and not trusted.
    pub(crate) fn parse(asked: &str, executor: &str, id: &ContainerId) -> Option<Self> {
        let parent = match asked.strip_suffix(&format!(":longshore:{executor}-{id}")) {
            Some(slice) => format!("{slice}:"),
            None => asked.strip_suffix(&format!("{}/{id}", executor_path("", executor)))?.to_owned(),
        };
        let parent = if parent.is_empty() { None } else { Some(parent.parse().ok()?) };
        Some(Self::new(parent.as_ref(), executor, id)).filter(|place| place.cgroups_path == asked)
    }
}

/// The `cgroupsPath` of a container of this executor's, below a parent.
pub fn cgroups_path(parent: Option<&CgroupParent>, executor: &str, id: &ContainerId) -> String {
    CgroupPlace::new(parent, executor, id).cgroups_path
}

/// The path of a parent; that of a slice is systemd's to make.
pub(crate) fn parent_path(parent: Option<&CgroupParent>) -> &str {
    match parent {
        Some(CgroupParent::Path(path)) => path,
        Some(CgroupParent::Slice(_)) | None => "",
    }
}

/// systemd nests slices by their names: `a-b.slice` is in `a.slice`.
fn expanded(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = name.match_indices('-').map(|(end, _)| end).chain([name.len()]);
    ends.filter_map(|end| name.get(..end)).map(|outer| format!("/{outer}.slice")).collect()
}

/// Where an executor's containers are, below a parent.
pub(crate) fn executor_path(parent: &str, executor: &str) -> String {
    format!("{parent}{OURS}/{executor}")
}

/// Whether a path within a hierarchy is of a container of this executor's.
pub(crate) fn is_of_executor(path: &str, executor: &str) -> bool {
    path.contains(&format!("{OURS}/{executor}/")) || path.contains(&format!("/longshore-{executor}-"))
}

/// The parent where an executor's cgroups go by default: the root for root; for others what they were given, as
/// systemd gives a user's session; `None` where they were given nothing.
pub(crate) fn default_parent() -> Option<String> {
    if rustix::process::geteuid().is_root() {
        return Some(String::new());
    }
    // The hierarchies of v1 have a place each, and no one ever gives them to a user of himself.
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let [line] = *own.lines().collect::<Vec<_>>() else { return None };
    let own = line.strip_prefix("0::")?.trim_end_matches('/').to_owned();
    is_delegated(&own).then_some(own)
}

/// Whether cgroups may be made below this path, in every hierarchy.
pub(crate) fn is_delegated(parent: &str) -> bool {
    let dirs = in_hierarchies(parent);
    let writable = |dir: &PathBuf| {
        [dir.clone(), dir.join("cgroup.procs")].iter().all(|file| access(file, Access::WRITE_OK).is_ok())
    };
    rustix::process::geteuid().is_root() || !dirs.is_empty() && dirs.iter().all(writable)
}

/// What is made of a parent in one hierarchy, where it is not there as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missing {
    /// The hierarchy's mount point.
    pub(crate) hierarchy: String,
    /// The topmost directory of the parent that is not there, as a path within the hierarchy.
    pub(crate) topmost: String,
}

/// What will be made of a parent together with our own directory below it.
pub(crate) fn missing(parent: &str) -> Vec<Missing> {
    let above = || parent.match_indices('/').skip(1).map(|(end, _)| end).chain([parent.len()]);
    let topmost = |hierarchy: &Path| {
        let mut paths = above().filter_map(|end| parent.get(..end)).filter(|path| !path.is_empty());
        paths.find(|path| !hierarchy.join(path.trim_start_matches('/')).exists()).map(str::to_owned)
    };
    let missing = hierarchies().filter_map(|hierarchy| {
        Some(Missing { hierarchy: hierarchy.to_str()?.to_owned(), topmost: topmost(hierarchy)? })
    });
    missing.collect()
}

/// Makes an executor's own directory below a parent in every hierarchy, where that is permitted.
pub(crate) fn make_parent(parent: &str, executor: &str) {
    for dir in in_hierarchies(&executor_path(parent, executor)) {
        // Between the levels another executor may remove the upper ones, when it was their last.
        let made = (0..100).find_map(|_| match make(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            done => Some(done),
        });
        if let Some(Err(error)) = made {
            tracing::debug!(dir = %dir.display(), %error, "cgroup parent");
        }
    }
}

/// As the runtime would make it: a cpuset is of no use before it has CPUs.
fn make(dir: &Path) -> io::Result<()> {
    if let Some(above) = dir.parent().filter(|above| !above.exists()) {
        make(above)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made?,
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
        let above =
            dir.parent().and_then(|above| fs::read_to_string(above.join(file)).ok()).unwrap_or_default();
        // On v2 what is empty is inherited, and stays so.
        if own.trim().is_empty() && !above.trim().is_empty() && dir.join("tasks").exists() {
            fs::write(dir.join(file), above.trim())?;
        }
    }
    Ok(())
}

/// Removes an executor's own directory below a parent, and those above it that nobody else uses: `/longshore`, and
/// what was made of the parent with it.
pub(crate) fn remove_parent(parent: &str, executor: &str, made: &[Missing]) -> Vec<Leftover> {
    let left = Cgroups::at(&executor_path(parent, executor)).remove();
    let ours = format!("{parent}{OURS}");
    for hierarchy in hierarchies() {
        let _others_use_it = fs::remove_dir(hierarchy.join(ours.trim_start_matches('/')));
        // What was there before us in this hierarchy stays, whatever it is in others.
        let Some(made) = made.iter().find(|made| Path::new(&made.hierarchy) == hierarchy) else { continue };
        let own = Path::new(parent).ancestors().take_while(|path| path.starts_with(&made.topmost));
        for path in own {
            let _others_use_it = fs::remove_dir(hierarchy.join(path.strip_prefix("/").unwrap_or(path)));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_again_and_nothing_else() {
        let id = ContainerId::new("c").unwrap();
        let place = |parent: Option<&str>| {
            CgroupPlace::new(parent.map(|parent| parent.parse().unwrap()).as_ref(), "e", &id)
        };
        for (parent, asked, path) in [
            (None, "/longshore/e/c", "/longshore/e/c"),
            (Some("/ci/jobs"), "/ci/jobs/longshore/e/c", "/ci/jobs/longshore/e/c"),
            (
                Some("ci-jobs.slice:"),
                "ci-jobs.slice:longshore:e-c",
                "/ci.slice/ci-jobs.slice/longshore-e-c.scope",
            ),
        ] {
            let place = place(parent);
            assert_eq!((place.cgroups_path.as_str(), place.path.as_str()), (asked, path));
            assert_eq!(CgroupPlace::parse(asked, "e", &id), Some(place));
            assert!(is_of_executor(&format!("{path}/below"), "e"));
            assert!(!is_of_executor(path, "f"));
        }
        for other in [
            "/",
            "",
            "/longshore/f/c",
            "/longshore/e/d",
            "/../longshore/e/c",
            "x/longshore/e/c",
            ":longshore:e-c",
        ] {
            assert_eq!(CgroupPlace::parse(other, "e", &id), None, "{other:?}");
        }
    }
}
