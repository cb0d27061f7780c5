//! Notices of cgroups: something may have been killed for lack of memory. The counters say what.
//!
//! On v1, each cgroup has an eventfd. It fires when the limit is reached, right before a process is killed, and once when the
//! cgroup is removed. On v2, one inotify watches the counters of every cgroup, which change with the kill. Both say which
//! cgroup it was, so that the counters of the others need not be read.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::inotify;

/// The number under which `epoll` reports the inotify.
const INOTIFY: u64 = u64::MAX - 2;

/// The descriptors that fire, once they are needed.
#[derive(Default)]
pub(crate) struct Notices {
    v1: HashMap<u64, OwnedFd>,
    v2: Option<Inotify>,
}

struct Inotify {
    fd: OwnedFd,
    /// The number of each watch.
    numbers: HashMap<i32, u64>,
}

impl Notices {
    /// Has `epoll` report kills in the memory cgroup `dir`, by `number` or [`INOTIFY`]. Does nothing for another cgroup.
    pub(crate) fn watch(&mut self, epoll: &OwnedFd, number: u64, dir: &Path) -> io::Result<()> {
        let (v1, v2) = (dir.join("memory.oom_control"), dir.join("memory.events"));
        if v1.exists() {
            let notice = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            add(epoll, &notice, number)?;
            let control = File::open(v1)?;
            let line = format!("{} {}", notice.as_raw_fd(), control.as_raw_fd());
            fs::write(dir.join("cgroup.event_control"), line)?;
            self.v1.insert(number, notice);
        } else if v2.exists() {
            let inotify = match &mut self.v2 {
                Some(inotify) => inotify,
                None => {
                    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                    add(epoll, &fd, INOTIFY)?;
                    self.v2.insert(Inotify { fd, numbers: HashMap::new() })
                }
            };
            let watch = inotify::add_watch(&inotify.fd, v2, inotify::WatchFlags::MODIFY)?;
            inotify.numbers.insert(watch, number);
        }
        Ok(())
    }

    /// Ends the watch of this number.
    pub(crate) fn ignore(&mut self, number: u64) {
        self.v1.remove(&number);
        if let Some(Inotify { fd, numbers }) = &mut self.v2 {
            for (watch, _) in numbers.extract_if(|_, own| *own == number) {
                // The kernel has removed it with the file if that is gone.
                let _removed = inotify::remove_watch(&*fd, watch);
            }
        }
    }

    /// Takes the notices that `epoll` has reported under `reported`, so that they fire again. Returns the numbers of the
    /// cgroups.
    pub(crate) fn take(&self, reported: u64) -> Vec<u64> {
        if let Some(notice) = self.v1.get(&reported) {
            let _how_often = rustix::io::read(notice, &mut [0; 8]);
        }
        match &self.v2 {
            Some(inotify) if reported == INOTIFY => inotify.take(),
            Some(_) | None => vec![reported],
        }
    }
}

impl Inotify {
    fn take(&self) -> Vec<u64> {
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut events = inotify::Reader::new(&self.fd, &mut buffer);
        let mut taken = Vec::new();
        while let Ok(event) = events.next() {
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                taken.extend(self.numbers.values());
            }
            taken.extend(self.numbers.get(&event.wd()));
        }
        taken.sort_unstable();
        taken.dedup();
        taken
    }
}

fn add(epoll: &OwnedFd, notice: &OwnedFd, number: u64) -> io::Result<()> {
    Ok(epoll::add(epoll, notice.as_fd(), epoll::EventData::new_u64(number), epoll::EventFlags::IN)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories with the file of a v2 cgroup. The kernel's own tells inotify of a change in the same way.
    #[test]
    fn a_change_of_the_counters_is_noticed() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let write = |of: usize, kills| {
            fs::write(dirs[of].path().join("memory.events"), format!("oom_kill {kills}\n")).unwrap();
        };
        write(0, 0);
        write(1, 0);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut notices = Notices::default();
        notices.watch(&epoll, 7, dirs[0].path()).unwrap();
        notices.watch(&epoll, 8, dirs[1].path()).unwrap();
        let noticed = |notices: &Notices| {
            let mut events = Vec::with_capacity(8);
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).unwrap();
            events.iter().flat_map(|event| notices.take(event.data.u64())).collect::<Vec<_>>()
        };
        assert_eq!(noticed(&notices), [0_u64; 0]);
        write(1, 1);
        assert_eq!(noticed(&notices), [8]);
        assert_eq!(noticed(&notices), [0_u64; 0]);
        write(0, 1);
        write(1, 2);
        assert_eq!(noticed(&notices), [7, 8]);
        notices.ignore(8);
        noticed(&notices);
        write(1, 3);
        assert_eq!(noticed(&notices), [0_u64; 0]);
    }
}
