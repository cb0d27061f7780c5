//! The socket to the client: messages with descriptors.

use super::numbers as nr;
use super::{CLOSE_ON_EXEC, NONBLOCK, Result, call, close, plain};
use crate::wire::MOST_DESCRIPTORS;

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;

#[repr(C)]
struct Part {
    base: usize,
    len: usize,
}

#[repr(C)]
struct Message {
    name: usize,
    name_len: usize,
    parts: *const Part,
    part_count: usize,
    control: usize,
    control_len: usize,
    flags: i32,
}

/// `struct cmsghdr` with descriptors.
#[repr(C, align(8))]
struct Rights {
    len: usize,
    level: i32,
    kind: i32,
    descriptors: [i32; MOST_DESCRIPTORS + 1],
}

impl Rights {
    const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

    fn new() -> Self {
        Self { len: 0, level: 0, kind: 0, descriptors: [-1; MOST_DESCRIPTORS + 1] }
    }
}

/// The descriptors of a message. They are closed with it, but for those that were taken.
pub struct Received {
    descriptors: [i32; MOST_DESCRIPTORS],
    count: usize,
    /// Whether the message had no room.
    pub was_cut: bool,
    /// Whether there was no room, or no number, for a descriptor.
    pub lost_descriptors: bool,
}

impl Received {
    pub fn as_slice(&self) -> &[i32] {
        self.descriptors.get(..self.count).unwrap_or_default()
    }

    /// Takes a descriptor out, which is not closed then.
    pub fn take(&mut self, index: usize) -> Option<i32> {
        let place = self.descriptors.get_mut(index).filter(|fd| **fd >= 0)?;
        Some(core::mem::replace(place, -1))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.as_slice().iter().filter(|fd| **fd >= 0).for_each(|fd| close(*fd));
    }
}

/// Accepts a connection.
pub fn accept(listener: i32) -> Result<i32> {
    plain(nr::ACCEPT4, [listener as usize, 0, 0, CLOSE_ON_EXEC | NONBLOCK]).map(|fd| fd as i32)
}

/// The pid and the user of the process that has connected.
pub fn peer(socket: i32) -> Result<[u32; 2]> {
    const PEERCRED: usize = 17;
    let (mut peer, mut len) = ([0_u32; 3], 12_u32);
    let places = [peer.as_mut_ptr() as usize, (&raw mut len) as usize];
    // SAFETY: the buffer is as large as is said.
    unsafe { call(nr::GETSOCKOPT, [socket as usize, SOL_SOCKET as usize, PEERCRED, places[0], places[1]])? };
    Ok([peer[0], peer[1]])
}

/// Receives a message, if there is one. Returns how many bytes it has in `buffer`; 0 at the end.
pub fn receive(socket: i32, buffer: &mut [u8]) -> Result<(usize, Received)> {
    const CLOEXEC_AND_DONTWAIT: usize = 0x4000_0040;
    const TRUNC: i32 = 0x20;
    const CTRUNC: i32 = 8;
    let mut rights = Rights::new();
    let part = Part { base: buffer.as_mut_ptr() as usize, len: buffer.len() };
    let mut message = Message {
        name: 0,
        name_len: 0,
        parts: &raw const part,
        part_count: 1,
        control: (&raw mut rights) as usize,
        control_len: size_of::<Rights>(),
        flags: 0,
    };
    // SAFETY: every pointer leads to a value of this function or its caller, and the lengths are theirs.
    let count =
        unsafe { call(nr::RECVMSG, [socket as usize, (&raw mut message) as usize, CLOEXEC_AND_DONTWAIT])? };
    let mut received = Received {
        descriptors: [-1; MOST_DESCRIPTORS],
        count: 0,
        was_cut: message.flags & TRUNC != 0,
        lost_descriptors: message.flags & CTRUNC != 0,
    };
    if message.control_len >= Rights::HEADER && (rights.level, rights.kind) == (SOL_SOCKET, SCM_RIGHTS) {
        let present = (rights.len.saturating_sub(Rights::HEADER) / size_of::<i32>()).min(MOST_DESCRIPTORS);
        received.count = present;
        let places = received.descriptors.iter_mut().zip(rights.descriptors);
        places.take(present).for_each(|(place, fd)| *place = fd);
    }
    Ok((count, received))
}

/// Sends a message, and does not wait for room.
pub fn send(socket: i32, bytes: &[u8], descriptor: Option<i32>) -> Result<()> {
    const DONTWAIT_AND_NOSIGNAL: usize = 0x4040;
    let mut rights = Rights::new();
    let part = Part { base: bytes.as_ptr() as usize, len: bytes.len() };
    let mut message = Message {
        name: 0,
        name_len: 0,
        parts: &raw const part,
        part_count: 1,
        control: 0,
        control_len: 0,
        flags: 0,
    };
    if let Some(fd) = descriptor {
        let len = Rights::HEADER + size_of::<i32>();
        (rights.len, rights.level, rights.kind, rights.descriptors[0]) = (len, SOL_SOCKET, SCM_RIGHTS, fd);
        (message.control, message.control_len) = ((&raw const rights) as usize, len.next_multiple_of(8));
    }
    // SAFETY: every pointer leads to a value of this function or its caller, and the lengths are theirs.
    unsafe { call(nr::SENDMSG, [socket as usize, (&raw const message) as usize, DONTWAIT_AND_NOSIGNAL]) }
        .map(|_| ())
}
