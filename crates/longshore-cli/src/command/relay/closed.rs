//! What happens to a program whose reader has gone.
//!
//! Its pipe is closed, and the kernel sends SIGPIPE to whatever process writes to it. But process 1 of a container does not get
//! signals that it does not handle: it would see an error instead, where the same program in a shell's pipeline ends. So
//! the pipe is kept for a moment, and read no more. If process 1 waits there to write, and SIGPIPE would end any
//! other process in its place, it is ended as if by SIGPIPE. Any other process cannot be in its place, because we look at
//! the very call that it is in. A program behind an init is not process 1, and needs nothing of this.

use std::fs;
use std::io::PipeReader;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use longshore::HostPid;
use longshore::runtime::set_of_status;
use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_setpipe_size;
use tokio::sync::mpsc::UnboundedSender;

use super::copy::poll_for;

/// How long process 1 has to fill the pipe. Who writes less often sees the pipe closed.
const MOMENT: Duration = Duration::from_millis(100);

/// How large the pipe is meanwhile: a page.
const SMALL: usize = 4096;

/// How often it is looked whether it waits.
const PERIOD: Duration = Duration::from_millis(2);

/// How long the pipe is kept for a program that is being ended.
const ENDING: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Bit of SIGPIPE, which is 13, in the sets of `/proc/PID/status`.
const SIGPIPE: u64 = 1 << 12;

/// Keeps the pipe of a program whose reader has gone, until it may be closed. `broken` is sent to if process 1 is to end,
/// before it can see an error.
pub(super) fn wait(pipe: &PipeReader, init: HostPid, ended: &PipeReader, broken: &UnboundedSender<()>) {
    let deadline = Instant::now() + MOMENT;
    let process = format!("/proc/{}", init.get());
    let _it_takes_longer_to_fill = shrink(pipe, deadline);
    while Instant::now() < deadline {
        if waits_to_write(Path::new(&process), pipe) {
            if !survives(&fs::read_to_string(format!("{process}/status")).unwrap_or_default()) {
                let _over = broken.send(());
                let _ended = poll_for(&mut [PollFd::new(ended, PollFlags::IN)], Some(ENDING));
            }
            return;
        }
        thread::sleep(PERIOD);
    }
}

/// Empties the pipe and makes it small, so that a writer of single lines soon waits.
fn shrink(pipe: &PipeReader, deadline: Instant) -> rustix::io::Result<()> {
    let mut bytes = vec![0; super::PIPE];
    while fcntl_setpipe_size(pipe, SMALL).is_err() && ioctl_fionread(pipe)? > 0 && Instant::now() < deadline {
        rustix::io::read(pipe, &mut *bytes)?;
    }
    Ok(())
}

/// Whether a thread of the process is in a system call that writes to this pipe.
fn waits_to_write(process: &Path, pipe: &PipeReader) -> bool {
    let Ok(stat) = rustix::fs::fstat(pipe) else { return false };
    let name = format!("pipe:[{}]", stat.st_ino);
    let is_pipe = |fd| fs::read_link(process.join(format!("fd/{fd}"))).is_ok_and(|link| link == *name);
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let calls = threads.filter_map(|thread| fs::read_to_string(thread.path().join("syscall")).ok());
    let mut descriptors = calls.filter_map(|call| written_to(&call));
    descriptors.any(is_pipe)
}

/// The descriptor that a system call writes to. The call is that of a `/proc/PID/syscall`: its number, and its arguments. Of a
/// program of another architecture, such as a 32-bit one, it is not known.
fn written_to(call: &str) -> Option<u32> {
    let mut fields = call.split(' ');
    let argument = match fields.next()?.parse().ok()? {
        libc::SYS_write | libc::SYS_writev | libc::SYS_sendfile | libc::SYS_vmsplice => 0,
        libc::SYS_tee => 1,
        libc::SYS_splice => 2,
        _ => return None,
    };
    u32::from_str_radix(fields.nth(argument)?.strip_prefix("0x")?, 16).ok()
}

/// Whether the process handles SIGPIPE, ignores it, or is not known.
fn survives(status: &str) -> bool {
    match (set_of_status(status, "SigIgn:"), set_of_status(status, "SigCgt:")) {
        (Some(ignored), Some(caught)) => (ignored | caught) & SIGPIPE != 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn calls_and_signals_are_read() {
        let call =
            |number: i64, arguments: &str| written_to(&format!("{number} {arguments} 0x7ffc 0x7fc7\n"));
        assert_eq!(call(libc::SYS_write, "0x1 0x7fc7c82d3000 0x20000 0x0 0x0 0x0"), Some(1));
        assert_eq!(call(libc::SYS_splice, "0x3 0x0 0x2 0x0 0x1000 0x0"), Some(2));
        assert_eq!(call(libc::SYS_clock_nanosleep, "0x1 0x0 0x7fc7c82d3000 0x0 0x0 0x0"), None);
        assert_eq!(written_to("running\n"), None);
        let status =
            |ignored, caught| format!("SigBlk:\t0\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n");
        assert!(!survives(&status(!SIGPIPE, !SIGPIPE)));
        assert!(survives(&status(SIGPIPE, 0)) && survives(&status(0, SIGPIPE)) && survives(""));
    }

    #[test]
    fn a_writer_that_waits_is_seen() {
        let (pipe, mut writer) = std::io::pipe().unwrap();
        let own = Path::new("/proc/self");
        assert!(!waits_to_write(own, &pipe));
        let writing = thread::spawn(move || writer.write_all(&[0; 1 << 20]));
        while !waits_to_write(own, &pipe) {
            thread::sleep(PERIOD);
        }
        drop(pipe);
        assert!(writing.join().unwrap().is_err());
    }
}
