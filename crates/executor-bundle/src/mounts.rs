//! The mounts of a specification, as the runtime is told them: sources looked at, selectors resolved.
//!
//! A selector is resolved once, by the kernel and below its source alone, and what it leads to is mounted below
//! the bundle at once. The runtime is given that mount: what others do to the source meanwhile does not matter.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::StartFailure;
use executor_core::{ContainerSpec, MountSource};
use rustix::fs::{CWD, FileType, StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use serde_json::Value;

use crate::error::{bad, from_io};
use crate::ids;
use crate::mount_entry::mount;
use crate::rootfs_dir::RootfsDir;

/// Where what selectors lead to is mounted, below the bundle.
const SELECTED: &str = "mounts";

/// The mounts that a specification asks for. With `dir`, selectors are resolved and mounted below it; without, as
/// for a look at the configuration alone, they are only said.
pub(crate) fn asked(
    dir: Option<&Path>,
    spec: &ContainerSpec,
    mapped: bool,
) -> Result<Vec<Value>, StartFailure> {
    let mut all = Vec::new();
    for (number, asked) in spec.mounts.iter().enumerate() {
        let mut options: Vec<_> = asked.options.iter().map(String::as_str).collect();
        let access = if asked.read_only { "ro" } else { "rw" };
        let value = match &asked.source {
            MountSource::Bind { path, selector } => {
                fs::metadata(path).map_err(|error| from_io("mount source:", path, &error))?;
                let source = match (selector, dir) {
                    (None, _) => path.clone(),
                    (Some(selector), None) => path.join(selector.strip_prefix("/").unwrap_or(selector)),
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
        };
        all.push(value);
    }
    Ok(all)
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

fn select(dir: &Path, number: usize, source: &Path, selector: &Path) -> Result<PathBuf, StartFailure> {
    if ids::rootless() {
        return Err(bad("mount selector", "resolving it takes a mount, which an ordinary user cannot make"));
    }
    let shown = source.join(selector.strip_prefix("/").unwrap_or(selector));
    let failed = |error: io::Error| from_io("mount selector:", &shown, &error);
    let found = RootfsDir::open(source)?.find(selector).map_err(failed)?;
    let found = found.ok_or_else(|| failed(Errno::NOENT.into()))?;
    let selected = dir.join(SELECTED);
    let point = selected.join(number.to_string());
    let made = match (found.is(FileType::Directory), fs::create_dir_all(&selected)) {
        (_, Err(error)) => Err(error),
        (true, Ok(())) => fs::create_dir(&point),
        (false, Ok(())) => File::create_new(&point).map(drop),
    };
    made.map_err(|error| from_io("make", &point, &error))?;
    // As with the source itself, what is mounted below comes along.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = flags | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let moved = open_tree(found.as_fd(), "", flags)
        .and_then(|tree| move_mount(tree.as_fd(), "", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH));
    moved.map_err(|error| failed(error.into()))?;
    Ok(point)
}

/// Unmounts what selectors had led to; answers with what is still there.
pub(crate) fn unmount_selected(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join(SELECTED)).into_iter().flatten().flatten();
    let unmounted = entries.map(|entry| {
        let point = entry.path();
        match unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Not a mount point.
            Ok(()) | Err(Errno::INVAL) => None,
            Err(error) => Some(format!("mount {}: {}", point.display(), io::Error::from(error))),
        }
    });
    unmounted.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::Mount;
    use serde_json::json;

    #[test]
    fn each_kind_is_said_as_the_runtime_takes_it() {
        let mut spec = ContainerSpec::host(["true"]);
        let mut proc = Mount::from_words("type=proc,dst=/p,noexec").unwrap();
        proc.read_only = true;
        spec.mounts = vec![
            Mount::bind("/etc", "/a").read_only(),
            Mount { options: vec!["size=1m".into()], ..Mount::tmpfs("/t") },
            proc,
        ];
        let all = asked(None, &spec, false).unwrap();
        assert_eq!(
            all,
            [
                json!({"destination": "/a", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]}),
                json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "rw", "size=1m"]}),
                json!({"destination": "/p", "type": "proc", "source": "proc", "options": ["ro", "noexec"]}),
            ]
        );
        spec.mounts = vec![Mount::bind("/no/such/source", "/a")];
        assert!(asked(None, &spec, false).unwrap_err().message.contains("/no/such/source"));
    }
}
