//! Log files and pipes.

use core::ffi::CStr;

use super::numbers as nr;
use super::{CLOSE_ON_EXEC, NONBLOCK, Result, call, plain};

/// Neither waits for a pipe.
const DONT_WAIT: usize = 2;

/// Opens a file for writing, and makes it if there is none. A link is not followed.
pub fn open_log(directory: i32, name: &CStr) -> Result<i32> {
    const WRITE_CREATE_NOFOLLOW: usize = if cfg!(target_arch = "x86_64") { 0o400_101 } else { 0o100_101 };
    let flags = WRITE_CREATE_NOFOLLOW | CLOSE_ON_EXEC | NONBLOCK;
    // SAFETY: the name has a NUL at its end.
    let fd = unsafe { call(nr::OPENAT, [directory as usize, name.as_ptr() as usize, flags, 0o600]) };
    fd.map(|fd| fd as i32)
}

/// Returns where the end is.
pub fn seek_to_end(fd: i32) -> Result<u64> {
    plain(nr::LSEEK, [fd as usize, 0, 2]).map(|end| end as u64)
}

pub fn truncate(fd: i32, size: u64) -> Result<()> {
    plain(nr::FTRUNCATE, [fd as usize, size as usize]).map(|_| ())
}

pub fn rename(directory: i32, from: &CStr, to: &CStr) -> Result<()> {
    let (from, to) = (from.as_ptr() as usize, to.as_ptr() as usize);
    // SAFETY: both names have a NUL at their end.
    unsafe { call(nr::RENAMEAT2, [directory as usize, from, directory as usize, to, 0]) }.map(|_| ())
}

/// A pipe: its end for reading, and its end for writing.
pub fn pipe() -> Result<[i32; 2]> {
    let mut ends = [-1; 2];
    // SAFETY: there is room for two numbers.
    unsafe { call(nr::PIPE2, [ends.as_mut_ptr() as usize, CLOSE_ON_EXEC | NONBLOCK])? };
    Ok(ends)
}

pub fn is_pipe(fd: i32) -> bool {
    const GET_SIZE: usize = 1032;
    plain(nr::FCNTL, [fd as usize, GET_SIZE]).is_ok()
}

/// Gives a pipe room for that many bytes, if this user may have so many.
pub fn enlarge(pipe: i32, bytes: usize) {
    const SET_SIZE: usize = 1031;
    let _as_it_was = plain(nr::FCNTL, [pipe as usize, SET_SIZE, bytes]);
}

/// How many bytes are in a pipe.
pub fn waiting(pipe: i32) -> usize {
    const READABLE: usize = 0x541b;
    let mut count = 0_i32;
    // SAFETY: there is room for the number.
    let asked = unsafe { call(nr::IOCTL, [pipe as usize, READABLE, (&raw mut count) as usize]) };
    asked.map_or(0, |_| usize::try_from(count).unwrap_or(0))
}

/// Copies what is in a pipe to another one, and leaves it there.
pub fn tee(from: i32, to: i32, count: usize) -> Result<usize> {
    plain(nr::TEE, [from as usize, to as usize, count, DONT_WAIT])
}

/// Moves bytes from a pipe to a file.
pub fn splice(pipe: i32, file: i32, count: usize) -> Result<usize> {
    plain(nr::SPLICE, [pipe as usize, 0, file as usize, 0, count, DONT_WAIT])
}

/// Takes that many bytes out of a pipe, which has them.
pub fn discard(pipe: i32, count: usize) {
    const NULL: i32 = 1;
    let mut left = count;
    while let Ok(moved @ 1..) = splice(pipe, NULL, left) {
        left -= moved.min(left);
        if left == 0 {
            return;
        }
    }
}
