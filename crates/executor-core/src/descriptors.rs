//! What a program inherits that we execute: stdin, stdout and stderr, no other file descriptor, and no blocked signal.
//!
//! An embedder may have descriptors without close-on-exec. A runtime that inherits a directory of the host carries it
//! into the container, and the program can leave by it (the kind of CVE-2024-21626). The flag is not set on the
//! embedder's own descriptors, because another thread may need them as they are. A program is executed by a
//! thread that lives for a moment, has a copy of the table of descriptors, and sets the flag there.
//!
//! std's `Command` uses `posix_spawn` there, as elsewhere. `pre_exec` would make it fork, which copies the page tables: in a
//! process with 2 GiB of memory, an execution took 756 ms by that, 0.9 ms by this thread, and 1.1 ms without it.
//!
//! The closure must not drop a descriptor of the process: only the copy would be closed.
#![expect(unsafe_code, reason = "two system calls that have no safe wrapper")]

use std::io;
use std::os::fd::RawFd;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

/// The first descriptor that is not inherited.
const FIRST: RawFd = 3;

/// Calls `spawn` where every file descriptor from 3 on has close-on-exec.
///
/// # Errors
/// Those of `spawn`, and when no thread can be started or the descriptors cannot be listed.
pub fn spawn_without_descriptors<T: Send>(spawn: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let spawn = || {
        clear_signal_mask();
        set_flags_at_once().or_else(|_old_kernel| set_flags_one_by_one())?;
        spawn()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("longshore-spawn".into()).spawn_scoped(scope, spawn)?;
        thread.join().unwrap_or_else(|_panic| Err(io::Error::other("the thread that executes has panicked")))
    })
}

/// Checks that this process can open that many more file descriptors.
///
/// tokio panics if it has none left when a runtime of it is made, or listens for its first signal. So this is called before.
///
/// # Errors
/// That of the system, as `EMFILE`.
pub fn check_free_descriptors(count: usize) -> io::Result<()> {
    let new = || eventfd(0, EventfdFlags::CLOEXEC);
    let _held = (0..count).map(|_| new()).collect::<rustix::io::Result<Vec<_>>>()?;
    Ok(())
}

/// How many descriptors tokio needs to listen for its first signal.
pub const SIGNAL_DESCRIPTORS: usize = 4;

/// Has this thread block no signal. A program inherits what the thread blocks that executes it.
fn clear_signal_mask() {
    // SAFETY: a set of signals is plain data, which `sigemptyset` fills. The call changes this thread only.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Gives this thread a table of its own and sets the flags in it (Linux 5.11).
fn set_flags_at_once() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_UNSHARE | libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: it takes numbers only. It closes nothing, and leaves the other threads' table as it is.
    let done = unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The same on older kernels.
fn set_flags_one_by_one() -> io::Result<()> {
    // SAFETY: the closure of `spawn_without_descriptors` closes nothing that is the process's.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // It is read to its end before, because reading it has a descriptor itself.
    let entries = std::fs::read_dir("/proc/thread-self/fd")?.collect::<io::Result<Vec<_>>>()?;
    for fd in entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok()) {
        if fd >= FIRST {
            // SAFETY: it sets a flag in the table of this thread. A descriptor that is closed by now is an error.
            let _closed = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::process::Command;

    fn inheritable() -> File {
        let dir = File::open("/").unwrap();
        rustix::io::fcntl_setfd(&dir, rustix::io::FdFlags::empty()).unwrap();
        dir
    }

    /// The descriptors of a child that `spawn` has executed, but for the one by which it lists them.
    fn listed(spawn: impl FnOnce(Command) -> io::Result<std::process::Output>) -> Vec<RawFd> {
        let mut list = Command::new("sh");
        list.args(["-c", "for fd in /proc/self/fd/*; do [ -e $fd ] && echo ${fd##*/}; done"]);
        let output = spawn(list).unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(|fd| fd.parse().unwrap()).collect()
    }

    #[test]
    fn a_child_inherits_three_descriptors() {
        let dir = inheritable();
        let unflagged = listed(|mut list| list.output());
        assert!(unflagged.contains(&dir.as_raw_fd()), "the test sees it: {unflagged:?}");
        assert_eq!(listed(|mut list| spawn_without_descriptors(move || list.output())), [0, 1, 2]);
        let older = |mut list: Command| {
            let thread = thread::spawn(move || {
                set_flags_one_by_one()?;
                list.output()
            });
            thread.join().unwrap()
        };
        assert_eq!(listed(older), [0, 1, 2]);
        assert!(rustix::io::fcntl_getfd(&dir).unwrap().is_empty(), "the embedder's own is as it was");
    }
}
