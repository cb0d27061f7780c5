//! A small process 1. It starts the program that its arguments name, passes signals on to it, reaps orphans, and exits with
//! the program's exit code.
//!
//! The driver learns from its name whether the program was executed, since nothing else of it can be seen from outside, also
//! when it has no streams:
//!
//! ```text
//!  longshore-init ── the program runs ──▶ init
//!        └────────── execve fails ──────▶ no program: ERRNO ── a signal, or 1 s ──▶ says why, and exits
//! ```
//! A process can change its own name only, so the program cannot pretend either.
//!
//! `build.rs` builds it as a static program, because it runs in root file systems that have no libraries. Beside the standard
//! library it needs twelve functions of the C library.

#![expect(unsafe_code, reason = "signals and waiting for any child are not in the standard library")]

use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, exit};
use std::ptr;

/// Large enough for glibc and musl. The kernel's own signal set is smaller.
#[repr(C, align(8))]
struct SignalSet([u8; 128]);

const SIG_SETMASK: i32 = 2;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGTSTP: i32 = 20;
const WNOHANG: i32 = 1;
const WUNTRACED: i32 = 2;
/// In the low byte of a status, if the process was stopped.
const STOPPED: i32 = 0x7f;
const PR_SET_NAME: i32 = 15;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const ENOTDIR: i32 = 20;
const ETIMEDOUT: i32 = 110;
const ESTALE: i32 = 116;

/// Where a program is looked for if there is no PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// How long the driver has to see that there is no program.
const ONE_SECOND: [i64; 2] = [1, 0];

unsafe extern "C" {
    static environ: *const *const c_char;
    fn execve(path: *const c_char, args: *const *const c_char, env: *const *const c_char) -> i32;
    fn prctl(option: i32, name: *const c_char, ...) -> i32;
    fn sigdelset(set: *mut SignalSet, signal: i32) -> i32;
    fn sigtimedwait(set: *const SignalSet, info: *mut u8, timeout: *const [i64; 2]) -> i32;
    fn sigfillset(set: *mut SignalSet) -> i32;
    fn sigprocmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
    fn sigwait(set: *const SignalSet, signal: *mut i32) -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
    fn tcsetpgrp(terminal: i32, group: i32) -> i32;
    fn isatty(fd: i32) -> i32;
    fn getpid() -> i32;
    fn close(fd: i32) -> i32;
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
        sigprocmask(SIG_SETMASK, &raw const all, ptr::null_mut());
    }
    let child = match start(&program, args) {
        Ok(child) => child,
        Err(error) => return no_program(&program, &error, &mut all),
    };
    set_name(c"init");
    // Whoever reads or writes the program's streams sees when the program closes them.
    for stream in 0..3 {
        // SAFETY: nothing of ours uses them from now on.
        unsafe { close(stream) };
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

/// Starts the program. The error is that of execve(2): the standard library hands it over from the child.
///
/// The C library's execvp(3) would give a file of an unknown format to the shell.
fn start(program: &OsStr, args: impl Iterator<Item = OsString>) -> io::Result<i32> {
    let c_string = |word: &OsStr| CString::new(word.as_bytes());
    let all = [program.to_owned()].into_iter().chain(args);
    let words = all.map(|word| c_string(&word)).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr() as usize).collect();
    pointers.push(0);
    let paths = paths_of(program).iter().map(|path| c_string(path)).collect::<Result<Vec<_>, _>>()?;
    // The program gets a process group of its own, so that a terminal's signals reach it only once.
    let mut command = Command::new(program);
    command.process_group(0);
    let execute = move || {
        begin_program();
        let _alive = &words;
        Err(execute(&paths, &pointers))
    };
    // SAFETY: the closure does not allocate, and calls what may be called between fork and exec.
    unsafe { command.pre_exec(execute) };
    Ok(command.spawn()?.id() as i32)
}

/// The paths at which the program may be, as execvp(3) looks for it. An empty element of PATH is the working directory.
fn paths_of(program: &OsStr) -> Vec<OsString> {
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let path = std::env::var_os("PATH").map_or(DEFAULT_PATH.to_vec(), OsString::into_vec);
    let dirs = path.split(|byte| *byte == b':');
    let below = dirs.map(|dir| [dir, if dir.is_empty() { b"" } else { b"/" }, program.as_bytes()].concat());
    below.map(OsString::from_vec).collect()
}

/// Executes the first of these files that can be executed. Returns why there is none. `args` are pointers, and end with 0.
fn execute(paths: &[CString], args: &[usize]) -> io::Error {
    let mut why = io::Error::from_raw_os_error(ENOENT);
    for path in paths {
        // SAFETY: all are strings and lists that end with 0, and that exist until the call has returned.
        unsafe { execve(path.as_ptr(), args.as_ptr().cast(), environ) };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(EACCES) => why = error,
            Some(ENOENT | ENOTDIR | ENODEV | ETIMEDOUT | ESTALE) => {}
            _ => return error,
        }
    }
    why
}

fn set_name(name: &CStr) {
    // SAFETY: the call reads 16 bytes at most, and not beyond the string's end.
    unsafe { prctl(PR_SET_NAME, name.as_ptr()) };
}

/// There is no program to wait for. The driver sees it by our name, and kills us. If nobody does, it is said here.
fn no_program(program: &OsStr, error: &io::Error, signals: &mut SignalSet) -> ExitCode {
    let name = format!("no program: {}\0", error.raw_os_error().unwrap_or_default());
    if let Ok(name) = CStr::from_bytes_with_nul(name.as_bytes()) {
        set_name(name);
    }
    // SAFETY: the set is initialised, and the time is a `timespec` of two longs. No other information is asked for.
    unsafe {
        // The child that could not execute the program has just ended.
        sigdelset(signals, SIGCHLD);
        sigtimedwait(signals, ptr::null_mut(), &ONE_SECOND);
    }
    eprintln!("longshore-init: {}: {error}", program.display());
    ExitCode::from(if error.raw_os_error() == Some(ENOENT) { 127 } else { 126 })
}

/// Puts the program in the foreground of its terminal, before it can read: in the background, a read would stop it. Then
/// clears the signal mask, which it would inherit from us, and which has kept SIGTTOU from stopping it.
fn begin_program() {
    let none = SignalSet([0; 128]);
    // SAFETY: `none` is the empty set, and nothing is written. The others take numbers only.
    unsafe {
        if isatty(0) == 1 {
            tcsetpgrp(0, getpid());
        }
        sigprocmask(SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Reaps all children that have ended. Exits if the program is one of them.
fn reap(child: i32) {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a number of our own.
        match unsafe { waitpid(-1, &raw mut status, WNOHANG | WUNTRACED) } {
            // There is no shell that would continue it: Ctrl-Z is ignored, as process 1 does it.
            pid if status & 0xff == STOPPED => {
                if pid == child && status >> 8 == SIGTSTP {
                    // SAFETY: it takes numbers only. The child has not been reaped, and leads its group.
                    unsafe { kill(-child, SIGCONT) };
                }
            }
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
