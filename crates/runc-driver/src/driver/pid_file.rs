//! The file to which a runtime writes the pid of the process that it has started.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use executor_core::lifecycle::HostPid;
use executor_disk::Dir;
use executor_host::procfs;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;

/// The most bytes of a pid file that are read.
const LIMIT: u64 = 64;

/// A pid file that does not exist yet. Runtimes write it under another name and rename it.
pub(super) struct PidFile {
    name: String,
    inotify: Arc<OwnedFd>,
}

impl PidFile {
    /// Begins to watch for the file `name` in `dir`.
    pub(super) fn watch(dir: &Dir, name: &str) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let written = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&inotify, dir.by_descriptor("."), written)?;
        Ok(Self { name: name.to_owned(), inotify: Arc::new(inotify) })
    }

    /// Waits until the file has appeared.
    pub(super) async fn appeared(&self) -> io::Result<()> {
        let inotify = executor_host::watch(Arc::clone(&self.inotify), Interest::READABLE)?;
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes());
                    if name == Some(self.name.as_bytes()) {
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN) => inotify.readable().await?.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The pid in the file `name` in `dir`.
pub(super) fn read_pid(dir: &Dir, name: &str) -> Option<HostPid> {
    procfs::parse_pid(&dir.read_text(name, LIMIT).ok()?)
}
