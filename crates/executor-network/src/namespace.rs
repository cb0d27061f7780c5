//! Network namespaces that have a name in the file system. They exist without a process in them.

use std::fs::{self, File};
use std::io;
use std::thread;

use executor_core::lifecycle::NetworkUsage;
use executor_disk::Dir;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

/// Makes a namespace whose name is the file `name` in `dir`. The file must not exist.
pub(crate) fn make(dir: &Dir, name: &str) -> io::Result<()> {
    dir.make_file(name, 0o600)?;
    // unshare(2) moves the calling thread to the new namespace, so a thread of its own calls it and ends.
    let named = thread::scope(|scope| {
        let maker = thread::Builder::new().spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(mount_bind("/proc/thread-self/ns/net", dir.by_descriptor(name))?)
        })?;
        maker.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace panicked")))
    });
    if named.is_err() {
        dir.remove_file(name)?;
    }
    named
}

/// Removes the name. The kernel removes the namespace with its last process. A second call does nothing.
pub(crate) fn remove(dir: &Dir, name: &str) -> io::Result<()> {
    match unmount(dir.by_descriptor(name), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // It is not a mount point, or does not exist.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match dir.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The traffic of the namespace's interfaces. `None` if they cannot be read.
pub(crate) fn usage(namespace: File) -> Option<NetworkUsage> {
    let reader = thread::Builder::new().spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).ok()?;
        fs::read_to_string("/proc/thread-self/net/dev").ok()
    });
    let reader = reader.ok()?;
    Some(NetworkUsage::of_interfaces(&reader.join().ok()??))
}
