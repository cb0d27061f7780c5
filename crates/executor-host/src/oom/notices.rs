//! Notices of cgroups: something may have been killed for lack of memory. The counters say what.
//!
//! On v1, an eventfd is registered with each cgroup. It fires when the limit is reached, right before a process is killed,
//! and once when the cgroup is removed. On v2, one inotify watches the counters of every cgroup, which change with the kill.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::inotify;

/// The descriptors that fire, once they are needed.
#[derive(Default)]
pub(crate) struct Notices {
    v1: Option<OwnedFd>,
    v2: Option<OwnedFd>,
}

impl Notices {
    /// Has `epoll` report kills in the memory cgroup `dir` under `number`. Does nothing for another cgroup.
    pub(crate) fn watch(&mut self, epoll: &OwnedFd, number: u64, dir: &Path) -> io::Result<()> {
        let (v1, v2) = (dir.join("memory.oom_control"), dir.join("memory.events"));
        if v1.exists() {
            let make = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            let notice = opened(&mut self.v1, epoll, number, make)?;
            let control = File::open(v1)?;
            let line = format!("{} {}", notice.as_raw_fd(), control.as_raw_fd());
            return fs::write(dir.join("cgroup.event_control"), line);
        }
        if v2.exists() {
            let make = || inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
            let notice = opened(&mut self.v2, epoll, number, make)?;
            // The kernel removes the watch with the file.
            inotify::add_watch(notice, v2, inotify::WatchFlags::MODIFY)?;
        }
        Ok(())
    }

    /// Takes the notices, so that they fire again.
    pub(crate) fn take(&self) {
        for notice in [&self.v1, &self.v2].into_iter().flatten() {
            let mut taken = [0; 4096];
            while rustix::io::read(notice, &mut taken).is_ok_and(|length| length == taken.len()) {}
        }
    }
}

fn opened<'a>(
    slot: &'a mut Option<OwnedFd>,
    epoll: &OwnedFd,
    number: u64,
    make: impl FnOnce() -> rustix::io::Result<OwnedFd>,
) -> io::Result<&'a OwnedFd> {
    match slot {
        Some(notice) => Ok(notice),
        None => {
            let made = make()?;
            epoll::add(epoll, made.as_fd(), epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
            Ok(slot.insert(made))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the file of a v2 cgroup. The kernel's own tells inotify of a change in the same way.
    #[test]
    fn a_change_of_the_counters_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.events"), "oom_kill 0\n").unwrap();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut notices = Notices::default();
        notices.watch(&epoll, 7, dir.path()).unwrap();
        notices.watch(&epoll, 7, dir.path()).unwrap();
        let noticed = || {
            let mut events = Vec::with_capacity(8);
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).unwrap();
            events.iter().map(|event| event.data.u64()).collect::<Vec<_>>()
        };
        assert_eq!(noticed(), [0_u64; 0]);
        fs::write(dir.path().join("memory.events"), "oom_kill 1\n").unwrap();
        assert_eq!(noticed(), [7]);
        notices.take();
        assert_eq!(noticed(), [0_u64; 0]);
    }
}
