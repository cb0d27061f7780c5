//! Pidfds: opening, waiting, signalling, and the exit status of processes that are not our children.
//!
//! A module with `unsafe` in it: `PIDFD_GET_INFO` has no safe wrapper in rustix 1.1 or nix 0.31, neither has looking at the
//! action of a signal, nor a real-time signal, and tokio's `AsyncFd` takes a promise about the file it watches.
#![expect(unsafe_code, reason = "four calls, each with its reason")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use executor_core::Delivery;
use executor_core::lifecycle::{ExitStatus, HostPid, Signal};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Opens the pidfd of a process that is not reaped yet.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub(crate) fn open(pid: HostPid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(raw(pid)?, PidfdFlags::NONBLOCK)?)
}

/// Registers a file with tokio's reactor. A pidfd becomes readable when its process exits.
///
/// # Errors
/// When it cannot be watched.
pub fn watch(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` is open, and has the same number, as long as one `Arc` of it is there; the
    // `AsyncFd` holds one.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

pub(crate) fn raw(pid: HostPid) -> io::Result<Pid> {
    i32::try_from(pid.get()).ok().and_then(Pid::from_raw).ok_or_else(|| Errno::SRCH.into())
}

/// A signal as system calls take it.
pub(crate) const fn number(signal: Signal) -> rustix::process::Signal {
    // SAFETY: the number is from 1 to 64. It is sent to another process, and no action for it is set in this one.
    unsafe { rustix::process::Signal::from_raw_unchecked(signal.number() as i32) }
}

/// Sends a signal. A process that is gone is not an error.
///
/// # Errors
/// When it may not be sent.
pub(crate) fn send(pidfd: impl AsFd, signal: Signal) -> io::Result<Delivery> {
    match rustix::process::pidfd_send_signal(pidfd, number(signal)) {
        Ok(()) => Ok(Delivery::Sent),
        Err(Errno::SRCH) => Ok(Delivery::Gone),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process has exited.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let now = rustix::event::Timespec::default();
    let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|count| count > 0)
}

/// Reaps a child that has exited. `None` while it is alive.
///
/// # Errors
/// `ECHILD` when it is not our child, or another thread has reaped it.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    Ok(rustix::process::waitid(WaitId::PidFd(pidfd), options)?.as_ref().map(status))
}

pub(crate) fn status(status: &WaitIdStatus) -> ExitStatus {
    let number = |value: i32| u8::try_from(value & 0xff).unwrap_or_default();
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(number(code)),
        (None, Some(signal)) => Signal::new(number(signal)).map_or(ExitStatus::Unknown, ExitStatus::Signal),
        (None, None) => ExitStatus::Unknown,
    }
}

/// `struct pidfd_info` of linux/pidfd.h in its first size, `PIDFD_INFO_SIZE_VER0`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

nix::ioctl_readwrite!(pidfd_get_info, 0xFF, 11, PidfdInfo);

/// The status of a process that its parent has reaped.
///
/// Known from Linux 6.15 on, for a pidfd that was opened before the process was reaped.
pub(crate) fn status_of_reaped(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the kernel writes at most the size that is part of the request's number, which is the
    // size of the struct we own.
    unsafe { pidfd_get_info(pidfd.as_raw_fd(), &raw mut info) }.ok()?;
    (info.mask & PIDFD_INFO_EXIT != 0).then(|| wait_status(info.exit_code))
}

/// Decodes a status as wait(2) gives it.
pub(crate) fn wait_status(status: i32) -> ExitStatus {
    let number = |value: i32| u8::try_from(value & 0xff).unwrap_or_default();
    match status & 0x7f {
        0 => ExitStatus::Code(number(status >> 8)),
        signal => Signal::new(number(signal)).map_or(ExitStatus::Unknown, ExitStatus::Signal),
    }
}

/// Whether the kernel reaps the children of this process: SIGCHLD is ignored, or has `SA_NOCLDWAIT`.
pub(crate) fn children_are_reaped_by_the_kernel() -> bool {
    // SAFETY: the struct is plain data, which the call fills. No action is set.
    let (done, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut action), action)
    };
    done == 0 && (action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn ended(script: &str) -> (std::process::Child, OwnedFd) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pidfd = open(HostPid::new(child.id()).unwrap()).unwrap();
        let mut events = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut events, None).unwrap();
        (child, pidfd)
    }

    #[test]
    fn a_childs_status_is_exact() {
        for (script, expected) in [
            ("exit 255", ExitStatus::Code(255)),
            ("exit 137", ExitStatus::Code(137)),
            ("kill -KILL $$", ExitStatus::Signal(Signal::KILL)),
        ] {
            let (_child, pidfd) = ended(script);
            assert_eq!(reap(pidfd.as_fd()).unwrap(), Some(expected));
            assert_eq!(send(&pidfd, Signal::KILL).unwrap(), Delivery::Gone);
            assert!(reap(pidfd.as_fd()).is_err(), "it was reaped");
        }
    }

    #[test]
    fn foreign_wait_takes_the_child_and_not_its_status() {
        let (mut child, pidfd) = ended("exit 7");
        child.wait().unwrap();
        assert_eq!(reap(pidfd.as_fd()).unwrap_err().raw_os_error(), Some(Errno::CHILD.raw_os_error()));
        let known = status_of_reaped(pidfd.as_fd());
        // Before Linux 6.15 it is unknown.
        assert!(known.is_none() || known == Some(ExitStatus::Code(7)), "{known:?}");
    }

    #[test]
    fn wait_statuses() {
        assert_eq!(wait_status(0x0300), ExitStatus::Code(3));
        assert_eq!(wait_status(9), ExitStatus::Signal(Signal::KILL));
        assert_eq!(wait_status(0x80 | 11).to_string(), "killed by SIGSEGV");
    }
}
