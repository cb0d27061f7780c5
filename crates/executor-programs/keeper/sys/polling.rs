//! Waiting for descriptors.

use super::numbers as nr;
use super::{CLOSE_ON_EXEC, Result, call, plain};

#[derive(Clone, Copy, Default)]
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
pub struct Event {
    pub events: u32,
    pub number: u64,
}

pub fn epoll() -> Result<i32> {
    plain(nr::EPOLL_CREATE, [CLOSE_ON_EXEC]).map(|fd| fd as i32)
}

/// Reports under this number when a descriptor can be read, or was hung up.
pub fn epoll_add(epoll: i32, fd: i32, number: u64) -> Result<()> {
    const ADD: usize = 1;
    let event = Event { events: 1, number };
    // SAFETY: the struct is the kernel's.
    unsafe { call(nr::EPOLL_CTL, [epoll as usize, ADD, fd as usize, (&raw const event) as usize]) }
        .map(|_| ())
}

/// Reports under this number each time that there is more to be read than before.
pub fn epoll_add_edge(epoll: i32, fd: i32, number: u64) -> Result<()> {
    const ADD: usize = 1;
    let event = Event { events: 0x8000_0001, number };
    // SAFETY: the struct is the kernel's.
    unsafe { call(nr::EPOLL_CTL, [epoll as usize, ADD, fd as usize, (&raw const event) as usize]) }
        .map(|_| ())
}

pub fn epoll_remove(epoll: i32, fd: i32) {
    const REMOVE: usize = 2;
    let _removed = plain(nr::EPOLL_CTL, [epoll as usize, REMOVE, fd as usize, 0]);
}

/// Waits for at most that many milliseconds, or without a limit if it is negative. Returns how many events there are.
pub fn epoll_wait(epoll: i32, events: &mut [Event], timeout: i32) -> usize {
    let (place, len) = (events.as_mut_ptr() as usize, events.len());
    // SAFETY: there is room for as many as is said.
    unsafe { call(nr::EPOLL_WAIT, [epoll as usize, place, len, timeout as usize, 0, 8]) }.unwrap_or(0)
}

/// Waits until a descriptor can be read or was hung up. Returns what it is of both.
pub fn poll(fd: i32, milliseconds: i64) -> u16 {
    const IN_AND_HANGUP: u32 = 0x2001;
    let mut poll = [fd as u32, IN_AND_HANGUP];
    let timeout = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    let (poll_at, timeout_at) = (poll.as_mut_ptr() as usize, timeout.as_ptr() as usize);
    // SAFETY: both are the kernel's structs, and of one descriptor.
    match unsafe { call(nr::PPOLL, [poll_at, 1, timeout_at, 0, 8]) } {
        Ok(1) => (poll[1] >> 16) as u16,
        _ => 0,
    }
}

/// Waits for ten milliseconds.
pub fn pause() {
    poll(-1, 10);
}

/// The peer has closed its end.
pub const HUNG_UP: u16 = 0x2010;

/// Nobody can write to the pipe.
pub const NO_WRITERS: u16 = 0x10;
