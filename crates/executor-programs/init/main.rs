//! A small process 1. It starts the program that its arguments name, passes signals on to it, reaps orphans, and exits with
//! the program's exit code.
//!
//! `build.rs` builds it as a static program, because it runs in root file systems that have no libraries. Beside the standard
//! library it needs seven functions of the C library.

#![expect(unsafe_code, reason = "signals and waiting for any child are not in the standard library")]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, exit};

/// Large enough for glibc and musl. The kernel's own signal set is smaller.
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
        eprintln!("longshore-init: no program was given");
        return ExitCode::from(125);
    };
    let mut all = SignalSet([0; 128]);
    // SAFETY: `all` is as large as the C library's sets; both calls write no more than that.
    unsafe {
        sigfillset(&raw mut all);
        sigprocmask(SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    // The program gets a process group of its own, so that a terminal's signals reach it only once.
    let mut command = Command::new(&program);
    command.args(args).process_group(0);
    // SAFETY: the function does not allocate, and sigprocmask(2) may be called between fork and exec.
    unsafe { command.pre_exec(unblock_signals) };
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
            // SAFETY: it takes numbers only. The child has not been reaped: we exit as soon as it is.
            unsafe { kill(child, signal) };
        }
    }
}

/// Clears the signal mask, which the program would inherit from us.
fn unblock_signals() -> std::io::Result<()> {
    let none = SignalSet([0; 128]);
    // SAFETY: `none` is the empty set, and nothing is written.
    unsafe { sigprocmask(SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
    Ok(())
}

/// Reaps all children that have ended. Exits if the program is one of them.
fn reap(child: i32) {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a number of our own.
        match unsafe { waitpid(-1, &raw mut status, WNOHANG) } {
            pid if pid == child => match status & 0x7f {
                0 => exit(status >> 8 & 0xff),
                // Process 1 cannot kill itself by a signal, so a signal becomes an exit code, as in a shell.
                signal => exit(128 + signal),
            },
            1.. => {}
            _ => return,
        }
    }
}
