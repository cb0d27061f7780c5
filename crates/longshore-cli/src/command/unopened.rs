//! Streams of ours that were closed when the command was started, as by `>&-`.
//!
//! std opens `/dev/null` in their place before `main`. What the program writes would be lost there without a word, with the
//! exit code of success. So a constructor looks at them before std does, and [`keep_closed`] has each attempt fail as it does on
//! a closed descriptor: the wrong end of a pipe can neither be written nor read. (A runtime would open a
//! `/dev/null` that is read-only anew, for writing.)
#![expect(unsafe_code, reason = "a constructor, and a system call before std is there")]

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use rustix::pipe::{PipeFlags, pipe_with};

static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

extern "C" fn look() {
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: it takes numbers only.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        closed.store(flags < 0, Ordering::Relaxed);
    }
}

// SAFETY: the C library calls what is in this section, one function after the other, before `main`. It needs nothing of std.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;

/// Makes the streams that were closed fail again.
pub(crate) fn keep_closed() {
    for (fd, closed) in (0..).zip(&CLOSED) {
        if closed.load(Ordering::Relaxed)
            && let Ok((reader, writer)) = pipe_with(PipeFlags::CLOEXEC)
        {
            let wrong_end = if fd == libc::STDIN_FILENO { writer } else { reader };
            // SAFETY: it replaces what std has opened, and nothing has used that yet.
            let _as_it_was = unsafe { libc::dup2(wrong_end.as_raw_fd(), fd) };
        }
    }
}
