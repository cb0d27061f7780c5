//! The files of a container as it will see them, before it exists.
//!
//! Nothing shows them together then. So links are followed here, through the root file system and the mounts on it. That need
//! not be safe against changes meanwhile: whoever can make them can do it later as well.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use serde_json::Value;

use crate::error::Error;
use crate::json::strings;
use crate::rootfs_dir::{Found, RootfsDir};

/// How many links are followed; as the kernel does.
const LINKS: usize = 40;

/// The files of a container.
pub(crate) struct Seen<'a> {
    view: &'a RootfsDir,
    /// Whether the container runs, so that `view` has its mounts.
    pub(crate) is_running: bool,
    /// In the order in which they are made, with their mount points, in which no links are left.
    mounts: Vec<(PathBuf, &'a Value)>,
}

/// What is at a path.
pub(crate) enum What {
    Missing,
    /// The runtime or the kernel will make it, if it is there at all.
    Runtimes,
    /// It is on a file system that cannot be looked at before it is mounted.
    Unknown,
    /// A directory on the way may not be searched.
    Barred,
    File(Found),
}

impl<'a> Seen<'a> {
    /// The files of a container that does not exist yet. `view` has those of the root file system, `mounts` are the entries of
    /// `config.json`, but for those that `view` shows already.
    pub(crate) fn of_new(
        view: &'a RootfsDir,
        mounts: impl Iterator<Item = &'a Value>,
    ) -> Result<Self, Error> {
        let mut seen = Self { view, is_running: false, mounts: Vec::new() };
        for mount in mounts {
            let Some(destination) = mount["destination"].as_str() else { continue };
            let place = Path::new(destination);
            let resolved = seen.resolve(place, &|_| true);
            let (point, _) = resolved.map_err(Error::io("find the mount point", place))?;
            seen.mounts.push((point, mount));
        }
        Ok(seen)
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
    ) -> io::Result<(PathBuf, What)> {
        let mut left = parts(path);
        let (mut at, mut what, mut links) = (PathBuf::from("/"), What::Runtimes, 0);
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            at.push(part);
            what = self.lookup(&at)?;
            match &what {
                What::File(found) if found.is(FileType::Symlink) => {
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
                What::File(_) if left.is_empty() => {}
                What::File(found) if found.is(FileType::Directory) && may_search(found) => {}
                What::File(found) if found.is(FileType::Directory) => return Ok((at, What::Barred)),
                What::Runtimes => {}
                What::File(_) | What::Missing | What::Unknown | What::Barred => {
                    at.extend(left.into_iter().rev());
                    return Ok((at, if matches!(what, What::Unknown) { what } else { What::Missing }));
                }
            }
        }
        Ok((at, what))
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
    fn lookup(&self, path: &Path) -> io::Result<What> {
        let what = match self.mount_at(path) {
            Some((inside, mount)) => lookup_in(path, inside, mount)?,
            None => self.view.find_itself(path)?.map_or(What::Missing, What::File),
        };
        // The runtime makes what leads to a mount point.
        let leads_on = || self.mounts.iter().any(|(point, _)| point != path && point.starts_with(path));
        Ok(if matches!(what, What::Missing) && leads_on() { What::Runtimes } else { what })
    }
}

/// What is at `inside` a mount, whose path in the container is `path`.
fn lookup_in(path: &Path, inside: &Path, mount: &Value) -> io::Result<What> {
    let of = |found: Option<Found>| found.map_or(What::Missing, What::File);
    let has = |wanted: &[&str]| strings(&mount["options"]).any(|option| wanted.contains(&option));
    let is_mapped = mount.get("uidMappings").is_some() || has(&["idmap", "ridmap"]);
    if is_mapped {
        return Ok(What::Unknown);
    }
    if mount["type"] != "bind" && !has(&["bind", "rbind"]) {
        // Another file system is new. Only in these does the runtime or the kernel make something.
        let is_made = ["/dev", "/proc", "/sys"].iter().any(|own| path.starts_with(own));
        let is_empty = mount["type"] == "tmpfs" && !has(&["tmpcopyup"]);
        return Ok(match (is_made, is_empty) {
            (true, _) => What::Runtimes,
            (false, true) if inside.as_os_str().is_empty() => What::Runtimes,
            (false, true) => What::Missing,
            (false, false) => What::Unknown,
        });
    }
    let source = Path::new(mount["source"].as_str().unwrap_or_default());
    if inside.as_os_str().is_empty() {
        return Ok(of(Found::on_the_host(source)?));
    }
    match RootfsDir::at(source) {
        Ok(volume) => Ok(of(volume.find_itself(&Path::new("/").join(inside))?)),
        Err(error) if [io::ErrorKind::NotADirectory, io::ErrorKind::NotFound].contains(&error.kind()) => {
            Ok(What::Missing)
        }
        Err(error) => Err(error),
    }
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let is_part = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(is_part).map(|part| part.as_os_str().to_owned()).collect()
}
