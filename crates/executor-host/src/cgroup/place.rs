//! Where a container's cgroups are: below its parent, in a directory of its executor's.
//!
//! ```text
//! <parent>/longshore/<executor>/<id>       in every hierarchy; no parent by default
//! <slice>/longshore-<executor>-<id>.scope  where systemd makes it
//! ```
//! The executor's directory separates containers that have the same id and belong to two executors. It also
//! keeps the directories above it from being removed by another executor while the runtime makes a
//! container's cgroup below it.
//!
//! # Example
//! Executor `e` makes container `c` below the parent `/ci/jobs`, of which only `/ci` exists. Its file in the
//! root gets a line with `/ci/jobs`, and `/ci/jobs` as the topmost missing directory of each hierarchy. Then
//! `/ci/jobs/longshore/e` is made, and the runtime gets `/ci/jobs/longshore/e/c`. When `e` closes,
//! `/ci/jobs/longshore/e` is removed, then `/ci/jobs/longshore` and `/ci/jobs` if no other executor uses
//! them. `/ci` stays.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use executor_core::CgroupParent;
use executor_core::lifecycle::{ContainerId, Leftover};
use rustix::fs::{Access, access};

use super::{Cgroups, hierarchies, in_hierarchies};

/// The directory of all our cgroups below a parent.
const OURS: &str = "/longshore";

/// A container's place among the cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPlace {
    /// The `cgroupsPath` of `config.json`: a path, or systemd's slice, prefix and name.
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

    /// Whether systemd makes the cgroup.
    pub fn is_made_by_systemd(&self) -> bool {
        !self.cgroups_path.starts_with('/')
    }

    /// Parses a `cgroups_path` that [`new`](Self::new) has made for this executor and id. Every other text is
    /// rejected.
    pub(crate) fn parse(cgroups_path: &str, executor: &str, id: &ContainerId) -> Option<Self> {
        let parent = match cgroups_path.strip_suffix(&format!(":longshore:{executor}-{id}")) {
            Some(slice) => format!("{slice}:"),
            None => cgroups_path.strip_suffix(&format!("{}/{id}", executor_path("", executor)))?.to_owned(),
        };
        let parent = if parent.is_empty() { None } else { Some(parent.parse().ok()?) };
        let place = Self::new(parent.as_ref(), executor, id);
        (place.cgroups_path == cgroups_path).then_some(place)
    }
}

/// The `cgroupsPath` of a container of this executor, below a parent.
pub fn cgroups_path(parent: Option<&CgroupParent>, executor: &str, id: &ContainerId) -> String {
    CgroupPlace::new(parent, executor, id).cgroups_path
}

/// The path of a parent. Empty for a slice, which systemd makes.
pub(crate) fn parent_path(parent: Option<&CgroupParent>) -> &str {
    match parent {
        Some(CgroupParent::Path(path)) => path,
        Some(CgroupParent::Slice(_)) | None => "",
    }
}

/// The path of a slice. systemd nests slices by their names: `a-b.slice` is in `a.slice`.
fn expanded(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let ends = name.match_indices('-').map(|(end, _)| end).chain([name.len()]);
    ends.filter_map(|end| name.get(..end)).map(|outer| format!("/{outer}.slice")).collect()
}

/// The directory of an executor's containers below a parent.
pub(crate) fn executor_path(parent: &str, executor: &str) -> String {
    format!("{parent}{OURS}/{executor}")
}

/// The directories above a container's that belong to executors, from the top: all of ours below the parent, and this
/// executor's. None if systemd makes the cgroup, whose slices are not ours.
pub(super) fn ours_above(dir: &Path) -> impl Iterator<Item = &Path> {
    let executor = dir.parent();
    let all = executor.and_then(Path::parent).filter(|all| all.ends_with(OURS.trim_start_matches('/')));
    all.into_iter().chain(executor.filter(|_| all.is_some()))
}

/// Whether a path within a hierarchy belongs to a container of this executor.
pub(crate) fn is_of_executor(path: &str, executor: &str) -> bool {
    path.contains(&format!("{OURS}/{executor}/")) || path.contains(&format!("/longshore-{executor}-"))
}

/// The default parent of an executor's cgroups. For root, this is the root of each hierarchy. For an ordinary
/// user, it is the user's own cgroup if that is delegated, as systemd does for a session. Otherwise it is
/// `None`.
pub(crate) fn default_parent() -> Option<String> {
    if rustix::process::geteuid().is_root() {
        return Some(String::new());
    }
    // A process has one line per v1 hierarchy, and v1 hierarchies are never delegated. One line means v2 only.
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let [line] = *own.lines().collect::<Vec<_>>() else { return None };
    let own = line.strip_prefix("0::")?.trim_end_matches('/').to_owned();
    is_delegated(&own).then_some(own)
}

/// Whether this user may make cgroups below this path in every hierarchy.
pub(crate) fn is_delegated(parent: &str) -> bool {
    let dirs = in_hierarchies(parent);
    let writable = |dir: &PathBuf| {
        [dir.clone(), dir.join("cgroup.procs")].iter().all(|file| access(file, Access::WRITE_OK).is_ok())
    };
    rustix::process::geteuid().is_root() || !dirs.is_empty() && dirs.iter().all(writable)
}

/// A part of a parent that does not exist in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missing {
    /// The hierarchy's mount point.
    pub(crate) hierarchy: String,
    /// The topmost missing directory of the parent, as a path within the hierarchy.
    pub(crate) topmost: String,
}

/// What has to be made of a parent before our own directory below it can be made.
pub(crate) fn missing(parent: &str) -> Vec<Missing> {
    let mut missing = Vec::new();
    for hierarchy in hierarchies() {
        if let (Some(topmost), Some(hierarchy)) = (topmost_missing(parent, hierarchy), hierarchy.to_str()) {
            missing.push(Missing { hierarchy: hierarchy.to_owned(), topmost: topmost.to_owned() });
        }
    }
    missing
}

/// For `/a/b/c`, the first of `/a`, `/a/b` and `/a/b/c` that does not exist in the hierarchy.
fn topmost_missing<'a>(parent: &'a str, hierarchy: &Path) -> Option<&'a str> {
    let ends = parent.match_indices('/').skip(1).map(|(end, _)| end).chain([parent.len()]);
    let mut paths = ends.filter_map(|end| parent.get(..end)).filter(|path| !path.is_empty());
    paths.find(|path| !hierarchy.join(path.trim_start_matches('/')).exists())
}

/// Makes an executor's own directory below a parent, in every hierarchy that permits it.
pub(crate) fn make_parent(parent: &str, executor: &str) {
    make_at(&executor_path(parent, executor));
}

/// The place of an executor's keeper, beside its containers'. No container's id begins with a dot.
pub fn keeper_path(parent: &str, executor: &str) -> String {
    format!("{}/.keeper", executor_path(parent, executor))
}

/// Makes a directory and those above it, in every hierarchy that permits it.
pub(crate) fn make_at(path: &str) {
    for dir in in_hierarchies(path) {
        // Another executor that was the last in an upper directory may remove it before the next level is made.
        let made = (0..100).find_map(|_| match make(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            done => Some(done),
        });
        if let Some(Err(error)) = made {
            tracing::debug!(dir = %dir.display(), %error, "a cgroup parent was not made");
        }
    }
}

/// Makes a directory and its parents, as the runtime would. A v1 cpuset is unusable until it has CPUs and
/// memory nodes, so they are copied from the parent.
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
        // On v2, an empty file means that the parent's value is inherited. `tasks` exists on v1 only.
        if own.trim().is_empty() && !above.trim().is_empty() && dir.join("tasks").exists() {
            fs::write(dir.join(file), above.trim())?;
        }
    }
    Ok(())
}

/// Removes an executor's own directory below a parent. Then removes the directories above it that no other
/// executor uses: `/longshore`, and the part of the parent that was made for it.
pub(crate) fn remove_parent(parent: &str, executor: &str, made: &[Missing]) -> Vec<Leftover> {
    let left = Cgroups::at(&executor_path(parent, executor)).remove();
    let ours = format!("{parent}{OURS}");
    for hierarchy in hierarchies() {
        let _others_use_it = fs::remove_dir(hierarchy.join(ours.trim_start_matches('/')));
        // What existed before in this hierarchy stays, even if it was made in another one.
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
            let above: Vec<_> = ours_above(Path::new(path)).collect();
            let ours = path.strip_suffix("/longshore/e/c").map(|parent| format!("{parent}/longshore"));
            let expected =
                ours.map_or(Vec::new(), |ours| vec![PathBuf::from(&ours), format!("{ours}/e").into()]);
            assert_eq!(above, expected);
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
