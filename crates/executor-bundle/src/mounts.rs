//! The mounts of a specification, as the runtime is given them: sources looked at, selectors resolved.
//!
//! A selector is resolved once, by the kernel and below its source alone, and what it leads to is mounted below
//! the bundle at once. The runtime is given that mount: what others do to the source meanwhile does not matter.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{Leftover, LeftoverKind};
use executor_core::{ContainerSpec, Mount, MountSource};
use rustix::fs::{CWD, FileType, StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use serde_json::Value;

use crate::error::Error;
use crate::ids;
use crate::mount_entry::mount;
use crate::rootfs_dir::RootfsDir;

/// Where what selectors lead to is mounted, below the bundle.
const SELECTED: &str = "mounts";

/// The mounts of a container beside those that all have.
pub(crate) struct Asked {
    /// Those that the specification asks for, as the runtime takes them.
    pub(crate) entries: Vec<Value>,
    /// Their places, and those of a configuration of the caller's: the root file system does not show what is there.
    pub(crate) covered: Vec<PathBuf>,
}

impl Asked {
    /// Whether something else than the root file system is at this place.
    pub(crate) fn cover(&self, place: &Path) -> bool {
        let own = ["/proc", "/dev", "/sys"].map(Path::new);
        self.covered.iter().map(PathBuf::as_path).chain(own).any(|covered| place.starts_with(covered))
    }
}

/// The mounts that a specification asks for. With `dir`, selectors are resolved and mounted below it; without, as
/// for a look at the configuration alone, they are only said.
pub(crate) fn asked(dir: Option<&Path>, spec: &ContainerSpec, mapped: bool) -> Result<Asked, Error> {
    let theirs = spec.config.as_ref().and_then(|config| config.json()["mounts"].as_array());
    let theirs = theirs.into_iter().flatten().filter_map(|mount| mount["destination"].as_str());
    let own = spec.mounts.iter().map(|mount| mount.destination.clone());
    let covered = own.chain(theirs.map(PathBuf::from)).collect();
    let entries = spec.mounts.iter().enumerate().map(|(number, asked)| entry(dir, number, asked, mapped));
    Ok(Asked { entries: entries.collect::<Result<_, _>>()?, covered })
}

fn entry(dir: Option<&Path>, number: usize, asked: &Mount, mapped: bool) -> Result<Value, Error> {
    let mut options: Vec<_> = asked.options.iter().map(String::as_str).collect();
    let access = if asked.read_only { "ro" } else { "rw" };
    Ok(match &asked.source {
        MountSource::Bind { path, selector } => {
            fs::metadata(path).map_err(Error::file("mount source", path))?;
            let source = match (selector, dir) {
                (None, _) => path.clone(),
                (Some(selector), None) => below(path, selector),
                (Some(selector), Some(dir)) => select(dir, number, path, selector)?,
            };
            if mapped {
                for flag in locked_flags(&source) {
                    if !options.contains(&flag) {
                        options.push(flag);
                    }
                }
            }
            options.splice(0..0, ["rbind", access]);
            mount(&asked.destination, "bind", &source, &options)
        }
        MountSource::Tmpfs => {
            options.splice(0..0, ["nosuid", "nodev", access]);
            mount(&asked.destination, "tmpfs", Path::new("tmpfs"), &options)
        }
        MountSource::FileSystem { kind, source } => {
            options.insert(0, access);
            mount(&asked.destination, kind, Path::new(source), &options)
        }
        other => return Err(Error::field("mount", format!("{other:?} is not known here"))),
    })
}

fn below(source: &Path, selector: &Path) -> PathBuf {
    source.join(selector.strip_prefix("/").unwrap_or(selector))
}

/// What a file system is mounted with cannot be taken from it in a user namespace, and has to be said again when
/// the access is.
fn locked_flags(source: &Path) -> impl Iterator<Item = &'static str> {
    let flags = statvfs(source).map_or(StatVfsMountFlags::empty(), |stat| stat.f_flag);
    let names = [
        (StatVfsMountFlags::NOSUID, "nosuid"),
        (StatVfsMountFlags::NODEV, "nodev"),
        (StatVfsMountFlags::NOEXEC, "noexec"),
    ];
    names.into_iter().filter(move |(flag, _)| flags.contains(*flag)).map(|(_, name)| name)
}

/// Finds what a selector leads to, and mounts it below the bundle.
fn select(dir: &Path, number: usize, source: &Path, selector: &Path) -> Result<PathBuf, Error> {
    if ids::rootless() {
        let why = "resolving it takes a mount, which an ordinary user cannot make";
        return Err(Error::field("mount selector", why));
    }
    let shown = below(source, selector);
    let found = RootfsDir::open(source)?.find(selector).map_err(Error::file("mount selector", &shown))?;
    let found = found.ok_or_else(|| Error::file("mount selector", &shown)(Errno::NOENT))?;
    let selected = dir.join(SELECTED);
    fs::create_dir_all(&selected).map_err(Error::io("make", &selected))?;
    let point = selected.join(number.to_string());
    let made = match found.is(FileType::Directory) {
        true => fs::create_dir(&point),
        false => File::create_new(&point).map(drop),
    };
    made.map_err(Error::io("make", &point))?;
    // As with the source itself, what is mounted below comes along.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = flags | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    open_tree(found.as_fd(), "", flags)
        .and_then(|tree| move_mount(tree.as_fd(), "", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH))
        .map_err(Error::file("mount selector", &shown))?;
    Ok(point)
}

/// Unmounts what selectors had led to; answers with what is still there.
pub(crate) fn unmount_selected(dir: &Path) -> Vec<Leftover> {
    let entries = fs::read_dir(dir.join(SELECTED)).into_iter().flatten().flatten();
    entries.filter_map(|entry| unmount_point(&entry.path())).collect()
}

/// Unmounts what is mounted at `point` itself, wherever a link there may lead; answers with it when it stays.
///
/// Detached mounts are gone from sight at once and from the kernel with their last user. By now there is none, but for
/// the moment that a new container takes to leave the host's mounts behind.
pub(crate) fn unmount_point(point: &Path) -> Option<Leftover> {
    match unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not a mount point, or not there at all.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => None,
        Err(error) => Some(Leftover::new(LeftoverKind::Mount, point, &io::Error::from(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_is_said_as_the_runtime_takes_it() {
        let mut spec = ContainerSpec::host(["true"]);
        let mut proc = Mount::from_words("type=proc,dst=/p,noexec").unwrap();
        proc.read_only = true;
        spec.mounts = vec![Mount::bind("/etc", "/a").read_only(), Mount::tmpfs("/t").option("size=1m"), proc];
        let all = asked(None, &spec, false).unwrap().entries;
        assert_eq!(
            all,
            [
                json!({"destination": "/a", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]}),
                json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "rw", "size=1m"]}),
                json!({"destination": "/p", "type": "proc", "source": "proc", "options": ["ro", "noexec"]}),
            ]
        );
        spec.mounts = vec![Mount::bind("/no/such/source", "/a")];
        assert!(asked(None, &spec, false).is_err_and(|error| error.to_string().contains("/no/such/source")));
    }
}
