//! The files of a container that does not exist yet, and where its mounts are among them.
//!
//! Before the container exists, nothing shows its files together. So links are followed here, through the root file system
//! and the mounts on it. That need not be safe against changes meanwhile: whoever can make them can do it later as well.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::error::Error;
use crate::json::strings;
use crate::kernel_fs;
use crate::mount_entry;
use crate::rootfs_dir::{Found, RootfsDir};

/// How many links are followed; as the kernel does.
const LINKS: usize = 40;

/// Replaces the destinations of mounts by their mount points, in which no links are left. Otherwise a mount point that a
/// link leads to would be made by the runtime, and a mount could hide another one although neither is named below the other.
///
/// `view` has the files of the root file system, with the mounts for which `is_shown`. Returns the mount points of those
/// with a destination in `asked`. In an `ordered` list, which the caller has written, the order stays. `check` gets each
/// destination with its mount point, before one mount replaces another.
pub(crate) fn resolve_points(
    view: &RootfsDir,
    mounts: &mut Vec<Value>,
    is_shown: impl Fn(&Value) -> bool,
    asked: &[PathBuf],
    ordered: bool,
    check: impl Fn(&Path, &Path) -> Result<(), Error>,
) -> Result<Vec<PathBuf>, Error> {
    let named = std::mem::take(mounts);
    let shown: Vec<_> = named.iter().map(by_links).collect();
    let mut seen = ContainerFiles::of(view);
    let mut points = Vec::new();
    for (mount, shown) in named.iter().zip(&shown) {
        let destination = mount_entry::destination(mount);
        let found = match is_shown(mount) {
            true => destination.clone(),
            false => seen.mount(&destination, shown)?,
        };
        check(&destination, &found)?;
        // A path through something that is missing stays as it is: the runtime says what is wrong with it.
        let is_clear =
            found.to_str().is_some() && !found.components().any(|part| part == Component::ParentDir);
        let point = if is_clear { found } else { destination.clone() };
        if asked.iter().any(|asked| asked.components().eq(destination.components())) {
            points.push(point.clone());
        }
        let mut entry = mount.clone();
        if point != destination {
            entry["destination"] = json!(point);
        }
        match ordered {
            true => mounts.push(entry),
            false => mount_entry::put(mounts, entry),
        }
    }
    Ok(points)
}

/// A mount as far as its links matter: an id map changes owners only.
fn by_links(mount: &Value) -> Value {
    let mut mount = mount.clone();
    if let Some(fields) = mount.as_object_mut() {
        fields.remove("uidMappings");
    }
    if let Some(options) = mount["options"].as_array_mut() {
        options.retain(|option| option != "idmap" && option != "ridmap");
    }
    mount
}

/// The files of a container.
pub(crate) struct ContainerFiles<'a> {
    view: &'a RootfsDir,
    /// Whether the container runs, so that `view` has its mounts.
    pub(crate) is_running: bool,
    /// In the order in which they are made, with their mount points, in which no links are left.
    mounts: Vec<(PathBuf, &'a Value)>,
}

/// What is at a path.
pub(crate) enum PathKind {
    Missing,
    /// The runtime or the kernel will make it, if it is there at all.
    Runtimes,
    /// It is on a file system that cannot be looked at before it is mounted.
    Unknown,
    /// A directory on the way may not be searched.
    Barred,
    File(Found),
}

impl<'a> ContainerFiles<'a> {
    /// The files of a container that does not exist yet: so far those of the root file system, without mounts on it.
    pub(crate) const fn of(view: &'a RootfsDir) -> Self {
        Self { view, is_running: false, mounts: Vec::new() }
    }

    /// With these mounts, which are entries of `config.json`.
    pub(crate) fn with_mounts(mut self, mounts: impl Iterator<Item = &'a Value>) -> Result<Self, Error> {
        for mount in mounts {
            let Some(destination) = mount["destination"].as_str().map(Path::new) else { continue };
            self.mount(destination, mount)?;
        }
        Ok(self)
    }

    /// Adds a mount. Returns its mount point. An error if that is found through a process in a procfs: its links lead to
    /// what the process sees, and the runtime would make the mount point there.
    pub(crate) fn mount(&mut self, destination: &Path, mount: &'a Value) -> Result<PathBuf, Error> {
        let mut through = None;
        let mut visit = |at: &Path, what: &PathKind| {
            if through.is_none() && self.is_of_process(at, what) {
                through = Some(at.to_owned());
            }
        };
        let (point, _) = self
            .follow(destination, &|_| true, &mut visit)
            .map_err(Error::io("find the mount point", destination))?;
        if let Some(through) = through {
            let why = "a process of the container, which is not there yet; give a path without such a link";
            let said = format!("{}: it leads through {}, {why}", destination.display(), through.display());
            return Err(Error::field("mount destination", said));
        }
        self.mounts.push((point.clone(), mount));
        Ok(point)
    }

    /// Those of a container that runs, whose root directory, with all mounts, is `view`.
    pub(crate) const fn of_running(view: &'a RootfsDir) -> Self {
        Self { view, is_running: true, mounts: Vec::new() }
    }

    /// Follows all links. Returns the path without them, and what is there.
    pub(crate) fn resolve(
        &self,
        path: &Path,
        may_search: &dyn Fn(&Found) -> bool,
    ) -> io::Result<(PathBuf, PathKind)> {
        self.follow(path, may_search, &mut |_, _| {})
    }

    /// As [`Self::resolve`]. `visit` gets each path on the way, without links before its end, and what is there.
    fn follow(
        &self,
        path: &Path,
        may_search: &dyn Fn(&Found) -> bool,
        visit: &mut dyn FnMut(&Path, &PathKind),
    ) -> io::Result<(PathBuf, PathKind)> {
        let mut left = parts(path);
        let (mut at, mut what, mut links) = (PathBuf::from("/"), PathKind::Runtimes, 0);
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            at.push(part);
            what = self.lookup(&at)?;
            visit(&at, &what);
            match &what {
                PathKind::File(found) if found.is(FileType::Symlink) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = found.target()?;
                    at.pop();
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    left.extend(parts(&target));
                }
                PathKind::File(_) if left.is_empty() => {}
                PathKind::File(found) if found.is(FileType::Directory) && may_search(found) => {}
                PathKind::File(found) if found.is(FileType::Directory) => return Ok((at, PathKind::Barred)),
                PathKind::Runtimes => {}
                PathKind::File(_) | PathKind::Missing | PathKind::Unknown | PathKind::Barred => {
                    at.extend(left.into_iter().rev());
                    visit(&at, &what);
                    let is_unknown = matches!(what, PathKind::Unknown);
                    return Ok((at, if is_unknown { what } else { PathKind::Missing }));
                }
            }
        }
        Ok((at, what))
    }

    /// Whether a path is that of a link to a process in a procfs, or of something in its directory.
    fn is_of_process(&self, at: &Path, what: &PathKind) -> bool {
        if let PathKind::File(found) = what {
            return found.is(FileType::Symlink) && kernel_fs::is_proc(found.as_fd());
        }
        let Some((inside, _)) = self.mount_at(at).filter(|(_, mount)| mount["type"] == "proc") else {
            return false;
        };
        let mut names = inside.iter().filter_map(OsStr::to_str);
        let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        match names.next() {
            Some("self" | "thread-self") => true,
            Some(name) => is_pid(name) && names.next().is_some(),
            None => false,
        }
    }

    /// Whether the mount at a path without links is one of those that the container asks for, and refuses programs.
    pub(crate) fn is_without_exec(&self, at: &Path) -> bool {
        let Some((_, mount)) = self.mount_at(at) else { return false };
        let last = strings(&mount["options"]).filter(|option| ["exec", "noexec"].contains(option)).last();
        last == Some("noexec")
    }

    /// The mount at a path without links, and the rest of the path in it.
    fn mount_at<'p>(&self, path: &'p Path) -> Option<(&'p Path, &'a Value)> {
        self.mounts.iter().rev().find_map(|(point, mount)| Some((path.strip_prefix(point).ok()?, *mount)))
    }

    /// What is at a path whose directories are no links.
    fn lookup(&self, path: &Path) -> io::Result<PathKind> {
        let what = match self.mount_at(path) {
            Some((inside, mount)) => lookup_in(path, inside, mount)?,
            None => self.view.find_itself(path)?.map_or(PathKind::Missing, PathKind::File),
        };
        // The runtime makes what leads to a mount point.
        let leads_on = || self.mounts.iter().any(|(point, _)| point != path && point.starts_with(path));
        Ok(if matches!(what, PathKind::Missing) && leads_on() { PathKind::Runtimes } else { what })
    }
}

/// What is at `inside` a mount, whose path in the container is `path`.
fn lookup_in(path: &Path, inside: &Path, mount: &Value) -> io::Result<PathKind> {
    let of = |found: Option<Found>| found.map_or(PathKind::Missing, PathKind::File);
    let has = |wanted: &[&str]| strings(&mount["options"]).any(|option| wanted.contains(&option));
    let is_mapped = mount.get("uidMappings").is_some() || has(&["idmap", "ridmap"]);
    if is_mapped {
        return Ok(PathKind::Unknown);
    }
    if mount["type"] != "bind" && !has(&["bind", "rbind"]) {
        // Another file system is new. Only in these does the runtime or the kernel make something.
        let is_made = ["/dev", "/proc", "/sys"].iter().any(|own| path.starts_with(own));
        let is_empty = mount["type"] == "tmpfs" && !has(&["tmpcopyup"]);
        return Ok(match (is_made, is_empty) {
            (true, _) => PathKind::Runtimes,
            (false, true) if inside.as_os_str().is_empty() => PathKind::Runtimes,
            (false, true) => PathKind::Missing,
            (false, false) => PathKind::Unknown,
        });
    }
    let source = Path::new(mount["source"].as_str().unwrap_or_default());
    if inside.as_os_str().is_empty() {
        return Ok(of(Found::on_the_host(source)?));
    }
    match RootfsDir::at(source) {
        Ok(volume) => Ok(of(volume.find_itself(&Path::new("/").join(inside))?)),
        Err(error) if [io::ErrorKind::NotADirectory, io::ErrorKind::NotFound].contains(&error.kind()) => {
            Ok(PathKind::Missing)
        }
        Err(error) => Err(error),
    }
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let is_part = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(is_part).map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mount point of a destination, below a volume that has an id map.
    fn point(destination: &str) -> Result<String, String> {
        let (root, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = |target: &str, dir: &Path, name: &str| {
            std::os::unix::fs::symlink(target, dir.join(name)).unwrap();
        };
        link("/proc", root.path(), "pp");
        link("pp/self/cwd", root.path(), "cw");
        link("/p/1/root", root.path(), "elsewhere");
        link("/proc", volume.path(), "pp");
        let mapped = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let mut mounts = vec![
            mount_entry::mount(Path::new("/proc"), "proc", Path::new("proc"), &[]),
            mount_entry::mount(Path::new("/p"), "proc", Path::new("proc"), &[]),
            json!({"destination": "/v", "type": "bind", "source": volume.path(), "options": ["rbind"], "uidMappings": mapped}),
            mount_entry::mount(Path::new(destination), "tmpfs", Path::new("tmpfs"), &[]),
        ];
        let view = RootfsDir::open(root.path()).unwrap();
        let asked = [PathBuf::from(destination)];
        resolve_points(&view, &mut mounts, |_| false, &asked, true, |_, _| Ok(()))
            .map(|points| points[0].display().to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn points_behind_links() {
        for (destination, expected) in [
            ("/pp/sys", "/proc/sys"),
            ("/pp", "/proc"),
            ("/v/pp", "/proc"),
            ("/v/x", "/v/x"),
            ("/pp/1", "/proc/1"),
        ] {
            assert_eq!(point(destination).as_deref(), Ok(expected), "{destination}");
        }
        for destination in ["/cw", "/cw/x", "/elsewhere/x", "/proc/1/root", "/v/pp/thread-self"] {
            let said = point(destination).unwrap_err();
            let named = format!("mount destination: {destination}: it leads through /p");
            assert!(said.starts_with(&named), "{said}");
        }
    }
}
