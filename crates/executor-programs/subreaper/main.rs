//! The parent of one call of a runtime, as long as the call lasts.
//!
//! A runtime that detaches leaves its container's process behind, and the kernel gives that to the nearest subreaper. If the
//! embedder ignores SIGCHLD, or has a thread that waits for any child, the process may be reaped there before its pid is known,
//! and its exit status is lost. So this program stands in between. It starts the runtime, waits for it, opens a pidfd of each
//! process that was left behind, sends the pidfds to the embedder, and exits: the processes are the embedder's then, and the
//! kernel tells their exit status by pidfd, whoever reaps them (Linux 6.15).
//!
//! Arguments: the file to execute, the runtime's name, its arguments. Descriptor 3 is a socket for records, descriptor 4 the
//! runtime's file if it is in memory. `executor-host` has the other side, and the meaning of the records.

#![expect(unsafe_code, reason = "system calls that are not in the standard library")]

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{c_int, c_void};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, exit};

const SOCKET: RawFd = 3;
const RUNTIME: RawFd = 4;

/// The kinds of records. Each is followed by a number.
///
/// The number is the runtime's pid, and its process group.
const EXECUTED: i32 = 1;
/// The number is an errno.
const NOT_EXECUTED: i32 = 2;
/// The number is a pid; the record carries its pidfd.
const LEFT: i32 = 3;
/// The number is the runtime's wait status.
const ENDED: i32 = 4;

/// The most processes that are looked for, those nearest to the runtime first.
const MOST: usize = 128;

const PR_SET_CHILD_SUBREAPER: c_int = 36;
const F_SETFD: c_int = 2;
const FD_CLOEXEC: c_int = 1;
const P_PID: c_int = 1;
const WEXITED: c_int = 4;
const WNOWAIT: c_int = 0x0100_0000;
const SYS_PIDFD_OPEN: i64 = 434;
const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;
const MSG_DONTWAIT: c_int = 0x40;
const MSG_NOSIGNAL: c_int = 0x4000;

/// `siginfo_t`.
#[repr(C, align(8))]
struct SignalInfo([u8; 128]);

#[repr(C)]
struct Part {
    base: *const c_void,
    len: usize,
}

/// `struct msghdr` of 64-bit systems with the least significant byte first: where a C library has an `int` and padding, the
/// padding is zero.
#[repr(C)]
struct Message {
    name: *const c_void,
    name_len: usize,
    parts: *const Part,
    part_count: usize,
    control: *const c_void,
    control_len: usize,
    flags: c_int,
}

/// `struct cmsghdr` with one file descriptor.
#[repr(C, align(8))]
struct Rights {
    len: usize,
    level: c_int,
    kind: c_int,
    fd: c_int,
}

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn read(fd: c_int, buffer: *mut c_void, len: usize) -> isize;
    fn waitid(kind: c_int, id: i32, info: *mut SignalInfo, options: c_int) -> c_int;
    fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
    fn syscall(number: i64, ...) -> i64;
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(file), Some(name)) = (args.next(), args.next()) else { return ExitCode::from(125) };
    // SAFETY: these take numbers only.
    unsafe {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        fcntl(SOCKET, F_SETFD, FD_CLOEXEC);
        fcntl(RUNTIME, F_SETFD, FD_CLOEXEC);
    }
    wait_for_the_host();
    // Whoever kills the runtime kills its group: this program is in another, and looks at what is left.
    let mut runtime = match Command::new(file).arg0(name).args(args).process_group(0).spawn() {
        Ok(runtime) => runtime,
        Err(error) => {
            send(NOT_EXECUTED, error.raw_os_error().unwrap_or_default(), None);
            return ExitCode::from(125);
        }
    };
    let pid = runtime.id() as i32;
    send(EXECUTED, pid, None);
    wait_until_it_has_exited(pid);
    for (left, pidfd) in left().into_iter().filter(|(left, _)| *left != pid) {
        send(LEFT, left, Some(&pidfd));
    }
    // As long as it is a zombie, its pid and its process group are nobody else's.
    let Ok(status) = runtime.wait() else { return ExitCode::from(125) };
    send(ENDED, status.into_raw(), None);
    ExitCode::from(u8::from(!status.success()))
}

/// Waits for a record of any kind: the host has a pidfd of this process now. If the host is gone, nobody waits for the runtime.
fn wait_for_the_host() {
    let mut record = [0; 8];
    // SAFETY: `record` is as large as it is said to be.
    if unsafe { read(SOCKET, (&raw mut record).cast(), size_of_val(&record)) } <= 0 {
        exit(125);
    }
}

/// Waits for the runtime and does not reap it.
fn wait_until_it_has_exited(pid: i32) {
    let mut info = SignalInfo([0; 128]);
    // SAFETY: `info` is as large as the C library's struct.
    while unsafe { waitid(P_PID, pid, &raw mut info, WEXITED | WNOWAIT) } != 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// The processes that the runtime has left behind, and those below them: some runtimes leave the container's process with a helper
/// that is about to exit, and that with another. Processes come up while others exit, so this looks until no more are found, or
/// there are [`MOST`]. None of them is reaped here.
fn left() -> Vec<(i32, OwnedFd)> {
    let (mut all, mut known) = (Vec::new(), BTreeSet::new());
    loop {
        let before = known.len();
        let mut next: VecDeque<_> = children_of("thread-self").into();
        let mut looked_at = 0;
        while let Some(pid) = next.pop_front() {
            if known.len() == MOST || looked_at == MOST {
                return all;
            }
            looked_at += 1;
            next.extend(children_of(&format!("{pid}/task/{pid}")));
            if known.insert(pid)
                && let Ok(pidfd) = open(pid)
            {
                all.push((pid, pidfd));
            }
        }
        if known.len() == before {
            return all;
        }
    }
}

/// The children of a thread, by its directory in `/proc`.
fn children_of(thread: &str) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{thread}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: it takes numbers only.
    let fd = unsafe { syscall(SYS_PIDFD_OPEN, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the descriptor is new, and nobody else has it.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a record. If the embedder is gone, there is nobody to tell.
fn send(kind: i32, number: i32, pidfd: Option<&OwnedFd>) {
    let record = [kind, number];
    let part = Part { base: (&raw const record).cast(), len: size_of_val(&record) };
    let fd = pidfd.map_or(-1, AsRawFd::as_raw_fd);
    let len = size_of::<usize>() + 3 * size_of::<c_int>();
    let rights = Rights { len, level: SOL_SOCKET, kind: SCM_RIGHTS, fd };
    let (control, control_len) = match pidfd {
        Some(_) => ((&raw const rights).cast(), size_of_val(&rights)),
        None => (std::ptr::null(), 0),
    };
    let message = Message {
        name: std::ptr::null(),
        name_len: 0,
        parts: &raw const part,
        part_count: 1,
        control,
        control_len,
        flags: 0,
    };
    // SAFETY: every pointer leads to a value of this function, and the lengths are theirs.
    unsafe { sendmsg(SOCKET, &raw const message, MSG_DONTWAIT | MSG_NOSIGNAL) };
}
