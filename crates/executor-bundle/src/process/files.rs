//! `/etc/passwd` and `/etc/group` as the container will see them. Runtimes read both at every start and exec, to the end, also
//! for users that are numbers. So a FIFO, a device or an endless file of the kernel's there keeps the runtime for ever.
//!
//! How they are found is in `seen`.

use std::io;
use std::path::Path;

use rustix::fs::{FileType, makedev};

use crate::container_files::{ContainerFiles, PathKind};
use crate::error::Error;
use crate::kernel_fs;
use crate::rootfs_dir::{Found, READ_LIMIT, RootfsDir};

const READ: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// Refuses files that a runtime would not come to the end of.
pub(crate) fn check(seen: &ContainerFiles<'_>) -> Result<(), Error> {
    for file in READ {
        let (at, what) = seen.resolve(Path::new(file), &|_| true).map_err(failed(file))?;
        let is_fine = match &what {
            PathKind::Missing | PathKind::Unknown | PathKind::Barred => true,
            PathKind::Runtimes => at == Path::new("/dev/null"),
            PathKind::File(found) => is_fine(found).map_err(failed(file))?,
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
