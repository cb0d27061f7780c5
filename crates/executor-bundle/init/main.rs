//! A small process 1: it starts the program it is given, hands signals on to it, reaps whatever is left to it, and
//! ends as the program did.
//!
//! Built by `build.rs` as a static program of its own, for it runs in root file systems that have no libraries.
//! What it needs beyond the standard library is seven functions of the C library.

#![expect(unsafe_code, reason = "signals and waiting for any child are not in the standard library")]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, exit};

/// glibc's and musl's are of this size; the kernel's is smaller.
#[repr(C, align(8))]
struct SignalSet([u8; 128]);

const SIG_SETMASK: i32 = 2;
const SIGCHLD: i32 = 17;
const WNOHANG: i32 = 1;

unsafe extern "C" {
    fn sigfillset(set: *mut SignalSet) -> i32;
    fn sigprocmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
    fn sigwait(set: *const SignalSet, signal: *mut i32) -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
    fn tcsetpgrp(terminal: i32, group: i32) -> i32;
    fn isatty(fd: i32) -> i32;
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        eprintln!("longshore-init: there is no program to start");
        return ExitCode::from(125);
    };
    let mut all = SignalSet([0; 128]);
    // SAFETY: `all` is as large as the C library's sets; both calls write no more than that.
    unsafe {
        sigfillset(&raw mut all);
        sigprocmask(SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    // A group of its own, so that a terminal's signals reach the program once.
    let mut command = Command::new(&program);
    command.args(args).process_group(0);
    // SAFETY: it allocates nothing, and the call is one that may be made between fork and exec.
    unsafe { command.pre_exec(let_signals_through) };
    let child = match command.spawn() {
        Ok(child) => child.id() as i32,
        Err(error) => {
            eprintln!("longshore-init: {}: {error}", program.display());
            return ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    // SAFETY: these take numbers only.
    unsafe {
        if isatty(0) == 1 {
            tcsetpgrp(0, child);
        }
    }
    loop {
        let mut signal = 0;
        // SAFETY: `all` is an initialised set, `signal` a number of our own.
        if unsafe { sigwait(&raw const all, &raw mut signal) } != 0 {
            continue;
        }
        if signal == SIGCHLD {
            reap(child);
        } else {
            // SAFETY: it takes numbers only, and the child is not reaped: then we would have ended.
            unsafe { kill(child, signal) };
        }
    }
}

/// The program does not inherit our mask.
fn let_signals_through() -> std::io::Result<()> {
    let none = SignalSet([0; 128]);
    // SAFETY: `none` is the empty set, and nothing is written.
    unsafe { sigprocmask(SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
    Ok(())
}

/// Reaps all that have ended, and ends with the program.
fn reap(child: i32) {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a number of our own.
        match unsafe { waitpid(-1, &raw mut status, WNOHANG) } {
            pid if pid == child => match status & 0x7f {
                0 => exit(status >> 8 & 0xff),
                // Process 1 cannot end by a signal of its own.
                signal => exit(128 + signal),
            },
            1.. => {}
            _ => return,
        }
    }
}
