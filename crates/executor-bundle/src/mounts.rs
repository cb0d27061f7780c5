//! The mounts of a specification, in the form that the runtime takes: sources are checked, selectors are resolved.
//!
//! The kernel resolves a selector once, and never leaves the mount's source. The file or directory that it finds is
//! mounted in the bundle at once, and the runtime is given that mount. So a process that changes the source meanwhile
//! cannot make the runtime mount something else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::Leftover;
use executor_core::{ContainerSpec, Mount, MountSource};
use executor_disk::Dir;
use rustix::fs::FileType;
use rustix::io::Errno;
use serde_json::Value;

use crate::error::Error;
use crate::ids::{self, Ids};
use crate::kernel_fs;
use crate::mount_entry::{
    self, attach, cannot_be_written, copy_mount, mount, read_only_below, unmount_point, withheld,
};
use crate::rootfs_dir::RootfsDir;
use crate::secrets;

/// The directory in the bundle where mounts are prepared: the files that selectors find, and volumes with mounts below.
pub(crate) const SELECTED: &str = "mounts";

/// The mounts of a container, without those that every container has.
pub(crate) struct RequestedMounts {
    /// The mounts that the specification asks for, as entries of `config.json`.
    pub(crate) entries: Vec<Value>,
    /// Their destinations, and those in the caller's own configuration: the root file system does not show what is there.
    pub(crate) covered: Vec<PathBuf>,
}

/// The mounts that a specification asks for. With `dir`, selectors are resolved and mounted there. Without it, as for a
/// preview, a selector is only appended to its source, and a secret is not written.
pub(crate) fn requested(
    dir: Option<&Dir>,
    spec: &ContainerSpec,
    ids: &Ids,
) -> Result<RequestedMounts, Error> {
    let mut requested = RequestedMounts { entries: Vec::new(), covered: Vec::new() };
    for (number, mount) in spec.mounts.iter().enumerate() {
        requested.entries.push(entry(dir, number, mount, spec, ids)?);
        requested.covered.push(mount.destination.clone());
    }
    let callers = spec.config.as_ref().and_then(|config| config.json()["mounts"].as_array());
    for mount in callers.into_iter().flatten() {
        requested.covered.extend(mount["destination"].as_str().map(PathBuf::from));
    }
    Ok(requested)
}

fn entry(
    dir: Option<&Dir>,
    number: usize,
    requested: &Mount,
    spec: &ContainerSpec,
    ids: &Ids,
) -> Result<Value, Error> {
    let mut options: Vec<_> = requested.options.iter().map(String::as_str).collect();
    let access = if requested.read_only { "ro" } else { "rw" };
    // The runtime makes the container's devices there.
    let is_dev = requested.destination.components().eq(Path::new("/dev").components());
    if is_dev && options.contains(&"nodev") {
        return Err(Error::field(
            "mount",
            "/dev: with nodev, the container could open no device; leave that out",
        ));
    }
    if requested.host_path().is_none() {
        kernel_fs::check(spec, ids, requested, None)?;
    }
    Ok(match &requested.source {
        MountSource::Bind { path, selector } => {
            bind(dir, number, (path, selector.as_deref()), requested, spec, ids)?
        }
        MountSource::Tmpfs => {
            let mode = format!("mode={:o}", if is_dev { 0o755 } else { mount_entry::TMPFS_MODE });
            if !options.iter().any(|option| option.starts_with("mode=")) {
                options.push(&mode);
            }
            options.splice(0..0, ["nosuid"].into_iter().chain((!is_dev).then_some("nodev")).chain([access]));
            mount(&requested.destination, "tmpfs", Path::new("tmpfs"), &options)
        }
        MountSource::FileSystem { kind, source } => {
            options.insert(0, access);
            mount(&requested.destination, kind, Path::new(source), &options)
        }
        MountSource::Secret { contents, mode, uid, gid } => {
            let source = match dir {
                Some(dir) => secrets::write(dir, number, contents, *mode, (*uid, *gid), ids)?,
                None => PathBuf::from("secret"),
            };
            mount(&requested.destination, "bind", &source, &["bind", "ro", "nosuid", "nodev", "noexec"])
        }
        other => return Err(Error::field("mount", format!("{other:?} is not known here"))),
    })
}

fn bind(
    dir: Option<&Dir>,
    number: usize,
    (path, selector): (&Path, Option<&Path>),
    requested: &Mount,
    spec: &ContainerSpec,
    ids: &Ids,
) -> Result<Value, Error> {
    fs::metadata(path).map_err(Error::file("mount source", path))?;
    let source = match (selector, dir) {
        (None, _) => path.to_owned(),
        (Some(selector), None) => below(path, selector),
        (Some(selector), Some(dir)) => select(dir, number, path, selector)?,
    };
    kernel_fs::check(spec, ids, requested, Some(&source))?;
    // Setting flags is a remount, which would make a source writable that is mounted read-only.
    let is_read_only = requested.read_only || cannot_be_written(&source);
    let mut options = if is_read_only { vec!["rbind", "ro"] } else { vec!["rbind", "rw"] };
    // Nothing is below a file, and crun takes the option for directories only.
    let is_dir = fs::metadata(&source).is_ok_and(|meta| meta.is_dir());
    // What a bundle is made of has the option always: `nested` makes of it what the kernel knows.
    let below = if dir.is_some() { Some("rro") } else { read_only_below() };
    options.extend(below.filter(|_| requested.read_only && is_dir));
    options.extend(requested.options.iter().map(String::as_str));
    for flag in withheld(&source) {
        // The option that clears it, as in `exec`, is an answer. In a user namespace the kernel does not let it be cleared.
        let is_cleared = flag.strip_prefix("no").is_some_and(|cleared| options.contains(&cleared));
        if !options.contains(&flag) && (ids.map.is_some() || !is_cleared) {
            options.push(flag);
        }
    }
    Ok(mount(&requested.destination, "bind", &source, &options))
}

fn below(source: &Path, selector: &Path) -> PathBuf {
    source.join(selector.strip_prefix("/").unwrap_or(selector))
}

/// Finds the file or directory of a selector, and mounts it in the bundle. Returns the mount point.
fn select(dir: &Dir, number: usize, source: &Path, selector: &Path) -> Result<PathBuf, Error> {
    if ids::rootless() {
        let why = "to resolve it takes a mount, which an ordinary user cannot make";
        return Err(Error::field("mount selector", why));
    }
    let shown = below(source, selector);
    let failed = || Error::file::<io::Error>("mount selector", &shown);
    let found = match RootfsDir::open(source)?.find(selector).map_err(failed())? {
        Some(found) => found,
        None => return Err(failed()(Errno::NOENT.into())),
    };
    let selected = dir.open_or_make_dir(SELECTED).map_err(Error::io("make", &dir.path_of(SELECTED)))?;
    let name = number.to_string();
    let made = match found.is(FileType::Directory) {
        true => selected.make_dir(&name, 0o700).map(drop),
        false => selected.make_file(&name, 0o600).map(drop),
    };
    made.map_err(Error::io("make", &selected.path_of(&name)))?;
    // Recursive, like the bind mount of a source without a selector.
    copy_mount(found.as_fd(), Path::new(""))
        .and_then(|copy| attach(&copy, &selected, &name))
        .map_err(Error::file("mount selector", &shown))?;
    Ok(selected.path_of(&name))
}

/// Unmounts what was mounted for selectors. Returns what is still mounted.
pub(crate) fn unmount_selected(dir: &Dir) -> Vec<Leftover> {
    let Ok(selected) = dir.open_dir(SELECTED) else { return Vec::new() };
    let names = selected.names().unwrap_or_default();
    names.iter().filter_map(|name| unmount_point(&selected, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_has_the_form_that_the_runtime_takes() {
        let mut spec = ContainerSpec::host(["true"]);
        let mut proc = Mount::from_words("type=mqueue,dst=/p,noexec").unwrap();
        proc.read_only = true;
        spec.mounts = vec![Mount::bind("/etc", "/a").read_only(), Mount::tmpfs("/t").option("size=1m"), proc];
        let all = requested(None, &spec, &Ids::of(&spec)).unwrap().entries;
        assert_eq!(
            all,
            [
                json!({"destination": "/a", "type": "bind", "source": "/etc", "options": ["rbind", "ro", "rro"]}),
                json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "rw", "size=1m", "mode=1777"]}),
                json!({"destination": "/p", "type": "mqueue", "source": "mqueue", "options": ["ro", "noexec"]}),
            ]
        );
        spec.mounts = vec![Mount::bind("/no/such/source", "/a")];
        assert!(
            requested(None, &spec, &Ids::of(&spec))
                .is_err_and(|error| error.to_string().contains("/no/such/source"))
        );
    }
}
