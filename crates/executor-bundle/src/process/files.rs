//! `/etc/passwd` and `/etc/group` as the container will see them. Runtimes read both at every start and exec, to the end, also
//! for users that are numbers. So a FIFO, a device or an endless file of the kernel's there keeps the runtime for ever.
//!
//! Before the container exists, nothing shows its files together. So links are followed here, through the root file system
//! and the mounts on it. That need not be safe against changes meanwhile: whoever can make them can do it later as well.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, makedev};
use rustix::io::Errno;
use serde_json::Value;

use crate::error::Error;
use crate::kernel_fs;
use crate::rootfs_dir::{Found, READ_LIMIT, RootfsDir};

const READ: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// How many links are followed; as the kernel does.
const LINKS: usize = 40;

/// Refuses files that a runtime would not come to the end of. `view` has the files of the root file system, `mounts` are the
/// entries of `config.json`, but for those that `view` shows already.
pub(crate) fn check(view: &RootfsDir, mounts: &[&Value]) -> Result<(), Error> {
    let mut seen = Seen { view, mounts: Vec::new() };
    for mount in mounts {
        let Some(destination) = mount["destination"].as_str() else { continue };
        let (point, _) = seen.resolve(Path::new(destination)).map_err(failed(destination))?;
        seen.mounts.push((point, mount));
    }
    for file in READ {
        let (at, what) = seen.resolve(Path::new(file)).map_err(failed(file))?;
        let is_fine = match &what {
            What::Missing => true,
            What::Runtimes => at == Path::new("/dev/null"),
            What::File(found) => is_fine(found).map_err(failed(file))?,
        };
        if !is_fine {
            return Err(unsuitable(file, &at));
        }
    }
    Ok(())
}

/// The same for a container that runs, whose root directory, with all mounts, is `root`.
pub(crate) fn check_running(root: &RootfsDir) -> Result<(), Error> {
    for file in READ {
        let path = Path::new(file);
        match root.find(path) {
            Ok(None) => {}
            Ok(Some(found)) if is_fine(&found).map_err(failed(file))? => {}
            Ok(Some(found)) => return Err(unsuitable(file, &root.path_of(&found).unwrap_or(path.into()))),
            Err(error) => return Err(failed(file)(error)),
        }
    }
    Ok(())
}

fn failed(file: &str) -> impl Fn(io::Error) -> Error {
    move |error| Error::io("user: cannot find the container's", Path::new(file))(error)
}

fn unsuitable(file: &str, at: &Path) -> Error {
    let leads =
        if at == Path::new(file) { String::new() } else { format!(" leads to {}, which", at.display()) };
    let size = READ_LIMIT >> 20;
    let why = format!("the container's {file}{leads} is not a regular file of at most {size} MiB");
    Error::field("user", format!("{why}, and the runtime would read it"))
}

fn is_fine(found: &Found) -> io::Result<bool> {
    let is_null = found.is(FileType::CharacterDevice) && found.stat.st_rdev == makedev(1, 3);
    let is_small = u64::try_from(found.stat.st_size).is_ok_and(|size| size <= READ_LIMIT);
    Ok(is_null || found.is(FileType::RegularFile) && is_small && !kernel_fs::is_kernel(found.as_fd())?)
}

/// The files of a container that does not exist yet.
struct Seen<'a> {
    view: &'a RootfsDir,
    /// In the order in which they are made, with their mount points, in which no links are left.
    mounts: Vec<(PathBuf, &'a Value)>,
}

enum What {
    Missing,
    /// The runtime or the kernel will make it, if it is there at all.
    Runtimes,
    File(Found),
}

impl Seen<'_> {
    /// Follows all links. Returns the path without them, and what is there.
    fn resolve(&self, path: &Path) -> io::Result<(PathBuf, What)> {
        let mut left = parts(path);
        let (mut at, mut what, mut links) = (PathBuf::from("/"), What::Missing, 0);
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
                What::File(found) if left.is_empty() || found.is(FileType::Directory) => {}
                What::Runtimes => {}
                What::File(_) | What::Missing => {
                    at.extend(left.into_iter().rev());
                    return Ok((at, What::Missing));
                }
            }
        }
        Ok((at, what))
    }

    /// What is at a path whose directories are no links.
    fn lookup(&self, path: &Path) -> io::Result<What> {
        let on =
            self.mounts.iter().rev().find_map(|(point, mount)| Some((path.strip_prefix(point).ok()?, mount)));
        let of = |found: Option<Found>| found.map_or(What::Missing, What::File);
        let Some((inside, mount)) = on else { return Ok(of(self.view.find_itself(path)?)) };
        let source = Path::new(mount["source"].as_str().unwrap_or_default());
        if mount["type"] != "bind" {
            // Another file system is new. Only in these does the runtime or the kernel make something.
            let is_made = ["/dev", "/proc", "/sys"].iter().any(|own| path.starts_with(own));
            return Ok(if is_made { What::Runtimes } else { What::Missing });
        }
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
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let is_part = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().rev().filter(is_part).map(|part| part.as_os_str().to_owned()).collect()
}
