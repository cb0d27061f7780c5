//! The file to which a runtime writes the pid of the process that it has started.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use executor_core::lifecycle::HostPid;
use executor_host::procfs;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;

/// A pid file that does not exist yet. Runtimes write it under another name and rename it.
pub(super) struct PidFile {
    name: std::ffi::OsString,
    inotify: Arc<OwnedFd>,
}

impl PidFile {
    /// Begins to watch for the file.
    pub(super) fn watch(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let written = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&inotify, path.parent().unwrap_or(path), written)?;
        Ok(Self { name: path.file_name().unwrap_or_default().to_owned(), inotify: Arc::new(inotify) })
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
                    if name == Some(self.name.as_encoded_bytes()) {
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN) => inotify.readable().await?.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

pub(super) fn read_pid(pid_file: &Path) -> Option<HostPid> {
    procfs::parse_pid(&fs::read_to_string(pid_file).ok()?)
}
