//! Network namespaces that have a name in the file system. They exist without a process in them.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;

use executor_core::lifecycle::NetworkUsage;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

/// Makes a namespace whose name is `file`. The file must not exist.
pub(crate) fn make(file: &Path) -> io::Result<()> {
    File::create_new(file)?;
    // unshare(2) moves the calling thread to the new namespace, so a thread of its own calls it and ends.
    let named = thread::scope(|scope| {
        let maker = thread::Builder::new().spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(mount_bind("/proc/thread-self/ns/net", file)?)
        })?;
        maker.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace panicked")))
    });
    if named.is_err() {
        fs::remove_file(file)?;
    }
    named
}

/// Removes the name. The kernel removes the namespace with its last process. A second call does nothing.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    match unmount(file, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // It is not a mount point, or does not exist.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The traffic of the namespace's interfaces. `None` if they cannot be read.
pub(crate) fn usage(file: &Path) -> Option<NetworkUsage> {
    let namespace = File::open(file).ok()?;
    let reader = thread::Builder::new().spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).ok()?;
        fs::read_to_string("/proc/thread-self/net/dev").ok()
    });
    let reader = reader.ok()?;
    Some(NetworkUsage::of_interfaces(&reader.join().ok()??))
}
