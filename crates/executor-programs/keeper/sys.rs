//! System calls, with safe signatures. An error is an errno.

#![expect(unsafe_code, reason = "system calls")]

mod files;
mod numbers;
mod polling;
mod sockets;

use core::ffi::CStr;

pub use self::files::{
    discard, enlarge, is_pipe, open_log, pipe, rename, seek_to_end, splice, tee, truncate, waiting,
};
use self::numbers as nr;
pub use self::polling::{
    Event, HUNG_UP, NO_WRITERS, epoll, epoll_add, epoll_add_edge, epoll_remove, epoll_wait, pause, poll,
};
pub use self::sockets::{Received, accept, peer, receive, send};
use crate::arch;

/// A result with an errno.
pub type Result<T> = core::result::Result<T, i32>;

pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const ECHILD: i32 = 10;
pub const EAGAIN: i32 = 11;
pub const EINVAL: i32 = 22;
pub const ENOSPC: i32 = 28;

pub const CLOSE_ON_EXEC: usize = 0o2_000_000;
pub const NONBLOCK: usize = 0o4_000;
const WRITE_ONLY: usize = 1;
const HERE: i32 = -100;
const EMPTY_PATH: usize = 0x1000;

const SIGCHLD: usize = 17;
const WNOHANG: usize = 1;
const WEXITED: usize = 4;
const WNOWAIT: usize = 0x0100_0000;

/// # Safety
/// That of the call.
pub(super) unsafe fn call<const N: usize>(number: usize, args: [usize; N]) -> Result<usize> {
    let mut all = [0; 6];
    for (place, arg) in all.iter_mut().zip(args) {
        *place = arg;
    }
    // SAFETY: the caller's.
    let result = unsafe { arch::syscall(number, all) };
    usize::try_from(result).map_err(|_| (-result) as i32)
}

/// A call that takes numbers only.
pub(super) fn plain<const N: usize>(number: usize, args: [usize; N]) -> Result<usize> {
    // SAFETY: nothing that is passed is a pointer.
    unsafe { call(number, args) }
}

pub fn exit(code: usize) -> ! {
    loop {
        let _never = plain(nr::EXIT_GROUP, [code]);
    }
}

pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the buffer is as long as is said.
    unsafe { call(nr::READ, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len()]) }
}

/// Reads from the beginning of a file. A pipe is refused.
pub fn read_at(fd: i32, buffer: &mut [u8], at: usize) -> Result<usize> {
    // SAFETY: the buffer is as long as is said.
    unsafe { call(nr::PREAD, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len(), at]) }
}

pub fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the bytes are as many as is said.
    unsafe { call(nr::WRITE, [fd as usize, bytes.as_ptr() as usize, bytes.len()]) }
}

pub fn close(fd: i32) {
    let _closed = plain(nr::CLOSE, [fd as usize]);
}

pub fn close_from(first: i32) {
    let _closed = plain(nr::CLOSE_RANGE, [first as usize, u32::MAX as usize, 0]);
}

fn open(path: &CStr, flags: usize) -> Result<i32> {
    // SAFETY: the path has a NUL at its end.
    let fd = unsafe { call(nr::OPENAT, [HERE as usize, path.as_ptr() as usize, flags | CLOSE_ON_EXEC, 0]) };
    fd.map(|fd| fd as i32)
}

/// Reads the beginning of a file.
pub fn read_file(path: &CStr, buffer: &mut [u8]) -> Result<usize> {
    let fd = open(path, 0)?;
    let count = read(fd, buffer);
    close(fd);
    count
}

pub fn write_file(path: &CStr, bytes: &[u8]) -> Result<()> {
    let fd = open(path, WRITE_ONLY)?;
    let written = write(fd, bytes);
    close(fd);
    written.map(|_| ())
}

/// Device and inode of an entry of a directory.
pub fn identity(dir: i32, name: &CStr) -> Result<[u64; 2]> {
    const NO_FOLLOW: usize = 0x100;
    let mut stat = [0_u64; 32];
    // SAFETY: the buffer is larger than the kernel's struct.
    unsafe {
        call(nr::FSTATAT, [dir as usize, name.as_ptr() as usize, stat.as_mut_ptr() as usize, NO_FOLLOW])?;
    }
    Ok([stat[0], stat[1]])
}

pub fn unlink(dir: i32, name: &CStr) -> Result<()> {
    // SAFETY: the name has a NUL at its end.
    unsafe { call(nr::UNLINKAT, [dir as usize, name.as_ptr() as usize, 0]) }.map(|_| ())
}

/// Another descriptor of the same file, with this number or a higher one. It is closed on execution.
pub fn duplicate(fd: i32, least: usize) -> Result<i32> {
    const DUPFD_CLOEXEC: usize = 1030;
    plain(nr::FCNTL, [fd as usize, DUPFD_CLOEXEC, least]).map(|fd| fd as i32)
}

/// Gives a descriptor this number as well. It is not closed on execution.
pub fn duplicate_to(fd: i32, number: i32, flags: usize) -> Result<()> {
    plain(nr::DUP3, [fd as usize, number as usize, flags]).map(|_| ())
}

pub fn set_close_on_exec(fd: i32, is_closed: bool) -> Result<()> {
    const SETFD: usize = 2;
    plain(nr::FCNTL, [fd as usize, SETFD, usize::from(is_closed)]).map(|_| ())
}

/// Whether a file is in memory, and neither its length nor its contents can change.
pub fn is_sealed(fd: i32) -> bool {
    const GET_SEALS: usize = 1034;
    const SHRINK_AND_WRITE: usize = 2 | 8;
    plain(nr::FCNTL, [fd as usize, GET_SEALS]).is_ok_and(|seals| seals & SHRINK_AND_WRITE == SHRINK_AND_WRITE)
}

/// A file in memory.
pub fn memory_file(name: &CStr) -> Result<i32> {
    // SAFETY: the name has a NUL at its end. 1 is close-on-exec.
    unsafe { call(nr::MEMFD_CREATE, [name.as_ptr() as usize, 1]) }.map(|fd| fd as i32)
}

/// Memory of that many bytes, all zero.
pub fn map(bytes: usize) -> Result<*mut u8> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    // SAFETY: the memory is new.
    unsafe { call(nr::MMAP, [0, bytes, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0]) }
        .map(|at| at as *mut u8)
}

/// Makes mapped memory longer or shorter. It may be elsewhere then.
///
/// # Safety
/// It is memory of [`map`]'s of `before` bytes, and no reference into it is alive.
pub unsafe fn remap(at: *mut u8, before: usize, after: usize) -> Result<*mut u8> {
    const MAY_MOVE: usize = 1;
    // SAFETY: the caller's.
    unsafe { call(nr::MREMAP, [at as usize, before, after, MAY_MOVE]) }.map(|at| at as *mut u8)
}

/// # Safety
/// As [`remap`].
pub unsafe fn unmap(at: *mut u8, bytes: usize) {
    // SAFETY: the caller's.
    let _unmapped = unsafe { call(nr::MUNMAP, [at as usize, bytes]) };
}

/// The default action of every signal, and all of them blocked.
pub fn block_signals() {
    for signal in 1..=64 {
        let action = [0_usize; 4];
        // SAFETY: the struct of zeroes is the default action. SIGKILL and SIGSTOP are refused.
        let _set = unsafe { call(nr::SIGACTION, [signal, (&raw const action) as usize, 0, 8]) };
    }
    set_mask(u64::MAX);
}

/// No signal is blocked any more.
pub fn unblock_signals() {
    set_mask(0);
}

fn set_mask(set: u64) {
    const SET_MASK: usize = 2;
    // SAFETY: the set is as large as is said.
    let _set = unsafe { call(nr::SIGPROCMASK, [SET_MASK, (&raw const set) as usize, 0, 8]) };
}

/// A descriptor that can be read when a child has ended.
pub fn watch_children() -> Result<i32> {
    let set = 1_u64 << (SIGCHLD - 1);
    // SAFETY: the set is as large as is said.
    let fd =
        unsafe { call(nr::SIGNALFD, [usize::MAX, (&raw const set) as usize, 8, CLOSE_ON_EXEC | NONBLOCK]) };
    fd.map(|fd| fd as i32)
}

/// How a child has ended.
pub struct Ended {
    pub status: i32,
    pub times: [u64; 2],
    pub memory: u64,
}

/// A child that has ended and is not reaped. An error if there are no children.
pub fn next_ended() -> Result<Option<u32>> {
    wait_info(0, 0)
}

/// Whether a process is a child that is not reaped.
pub fn is_child(pid: u32) -> bool {
    wait_info(1, pid).is_ok()
}

fn wait_info(kind: usize, pid: u32) -> Result<Option<u32>> {
    let mut info = [0_u32; 32];
    let options = WEXITED | WNOHANG | WNOWAIT;
    // SAFETY: the buffer is as large as the kernel's struct.
    unsafe { call(nr::WAITID, [kind, pid as usize, info.as_mut_ptr() as usize, options, 0])? };
    Ok((info[4] != 0).then_some(info[4]))
}

/// Reaps a child that has ended.
pub fn reap(pid: u32) -> Result<Ended> {
    let (mut status, mut usage) = (0_i32, [0_u64; 18]);
    let places = [(&raw mut status) as usize, usage.as_mut_ptr() as usize];
    // SAFETY: both buffers are as large as the kernel's structs.
    let reaped = unsafe { call(nr::WAIT4, [pid as usize, places[0], WNOHANG, places[1]])? };
    if reaped == 0 {
        return Err(EAGAIN);
    }
    let [seconds, micros, kernel_seconds, kernel_micros, memory, ..] = usage;
    let micro = |seconds: u64, micros: u64| seconds.wrapping_mul(1_000_000).wrapping_add(micros);
    Ok(Ended { status, times: [micro(seconds, micros), micro(kernel_seconds, kernel_micros)], memory })
}

/// The time since 1970, in nanoseconds.
pub fn now() -> u64 {
    clock(0)
}

/// A time that never jumps, in nanoseconds.
pub fn uptime() -> u64 {
    clock(1)
}

fn clock(clock: usize) -> u64 {
    let mut time = [0_u64; 2];
    // SAFETY: the buffer is the kernel's struct.
    let _known = unsafe { call(nr::CLOCK_GETTIME, [clock, time.as_mut_ptr() as usize]) };
    time[0].wrapping_mul(1_000_000_000).wrapping_add(time[1])
}

pub fn own_pid() -> u32 {
    plain(nr::GETPID, []).unwrap_or(0) as u32
}

pub fn own_user() -> u32 {
    plain(nr::GETEUID, []).unwrap_or(0) as u32
}

/// Starts a copy of this process. Returns 0 in the copy.
pub fn fork() -> Result<usize> {
    plain(nr::CLONE, [SIGCHLD, 0, 0, 0, 0])
}

/// A session of its own, the directory `/`, a name, and every orphan below it as its child.
pub fn settle(name: &CStr) -> Result<()> {
    const SET_NAME: usize = 15;
    const SET_SUBREAPER: usize = 36;
    let _leads_already = plain(nr::SETSID, []);
    // SAFETY: both texts have a NUL at their end.
    unsafe {
        call(nr::CHDIR, [c"/".as_ptr() as usize])?;
        call(nr::PRCTL, [SET_NAME, name.as_ptr() as usize])?;
    }
    plain(nr::PRCTL, [SET_SUBREAPER, 1]).map(|_| ())
}

pub fn lead_group() -> Result<()> {
    plain(nr::SETPGID, [0, 0]).map(|_| ())
}

pub fn set_umask(mask: u32) {
    let _former = plain(nr::UMASK, [mask as usize]);
}

/// The soft and the hard limit of descriptors.
pub fn descriptor_limit() -> [u64; 2] {
    let mut limit = [0; 2];
    // SAFETY: the buffer is the kernel's struct.
    let _known = unsafe { call(nr::PRLIMIT, [0, 7, 0, limit.as_mut_ptr() as usize]) };
    limit
}

pub fn set_descriptor_limit(limit: [u64; 2]) -> Result<()> {
    // SAFETY: the buffer is the kernel's struct.
    unsafe { call(nr::PRLIMIT, [0, 7, limit.as_ptr() as usize, 0]) }.map(|_| ())
}

/// Executes a program. Returns the errno if it was not executed.
///
/// # Safety
/// `args` and `variables` are lists of pointers to texts with a NUL at their end, and end with a null pointer.
pub unsafe fn execute(path: *const u8, args: *const usize, variables: *const usize) -> i32 {
    // SAFETY: the caller's.
    match unsafe { call(nr::EXECVE, [path as usize, args as usize, variables as usize]) } {
        Err(errno) => errno,
        Ok(_) => EINVAL,
    }
}

/// The same with an open file.
///
/// # Safety
/// As [`execute`].
pub unsafe fn execute_file(file: i32, args: *const usize, variables: *const usize) -> i32 {
    let path = c"".as_ptr() as usize;
    // SAFETY: the caller's.
    match unsafe { call(nr::EXECVEAT, [file as usize, path, args as usize, variables as usize, EMPTY_PATH]) }
    {
        Err(errno) => errno,
        Ok(_) => EINVAL,
    }
}

/// Ends a process that a pidfd is of.
pub fn kill(pidfd: i32) {
    let _gone = plain(nr::PIDFD_SEND_SIGNAL, [pidfd as usize, 9, 0, 0]);
}
