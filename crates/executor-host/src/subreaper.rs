//! A process between the embedder's and a runtime, for the time of a call: the program `subreaper` of `executor-programs`.
//!
//! ```text
//!  the embedder's process ──▶ subreaper ──▶ the runtime ──▶ the container's process
//!                               │  the runtime exits, or is killed with its process group: the process is the subreaper's
//!                               ├── its pidfd, the runtime's wait status ──▶ socket ──▶ [`Report`]
//!                               └── exits: the process is the embedder's
//! ```
//! It is needed where somebody else than the host reaps the embedder's children: the kernel, if SIGCHLD is ignored, or a thread of
//! the embedder. A process that has a pidfd before it is reaped keeps its exit status (Linux 6.15). Without the subreaper its pid
//! is known only after its runtime has exited, which is too late for a program that ends at once.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ExitStatus, HostPid, Signal};
use executor_programs::SUBREAPER;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use rustix::process::{WaitId, WaitIdOptions};

use crate::seam::Command;
use crate::spawn::{Execution, Program, above, execute};
use crate::{memory_file, pidfd, procfs};

/// The runtime's file as the subreaper sees it, if that is in memory: its descriptor 4.
pub(crate) const FILE: &str = "/proc/self/fd/4";

const KILL: rustix::process::Signal = rustix::process::Signal::KILL;

/// How long it may take to say whether it has executed the runtime.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a call has left behind.
#[derive(Debug)]
pub(crate) struct Report<P> {
    /// The exit status of the runtime. `None` if the subreaper was killed.
    pub(crate) status: Option<ExitStatus>,
    /// The processes that the runtime has left behind.
    pub(crate) left: Vec<(HostPid, P)>,
}

impl<P> Default for Report<P> {
    fn default() -> Self {
        Self { status: None, left: Vec::new() }
    }
}

/// A record of the program.
enum Record {
    Executed(HostPid),
    NotExecuted(io::Error),
    Left(HostPid, OwnedFd),
    Ended(ExitStatus),
}

/// The program, in memory.
pub(crate) struct Subreaper(OwnedFd);

/// Why a runtime was not executed below a subreaper.
pub(crate) enum Failed {
    /// The subreaper was not executed.
    NoSubreaper(io::Error),
    /// The subreaper has not executed the runtime, or there is too little for both.
    NotExecuted(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::NotExecuted(error)
    }
}

/// A subreaper that has executed its runtime.
pub(crate) struct Started {
    pub(crate) pid: HostPid,
    /// Its own. It was opened before it could exit.
    pub(crate) pidfd: OwnedFd,
    /// The runtime, which leads a process group.
    pub(crate) runtime: HostPid,
    pub(crate) reports: Reports,
}

/// The socket to one subreaper.
pub(crate) struct Reports(OwnedFd);

impl Subreaper {
    /// # Errors
    /// When the library has no such program, or it cannot be kept in memory.
    pub(crate) fn new() -> io::Result<Self> {
        let program = SUBREAPER.ok_or(ErrorKind::Unsupported)?;
        let mut file = File::from(memory_file::create("longshore-subreaper")?);
        file.write_all(program)?;
        Ok(Self(above(memory_file::seal(&file)?)?))
    }

    /// Executes a command below a subreaper.
    pub(crate) fn execute(
        &self,
        command: &Command,
        fds: &[OwnedFd],
        program: &Program<'_>,
    ) -> Result<Started, Failed> {
        // The subreaper waits for its first record: its end must block.
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(io::Error::from)?;
        let mut more = vec![&theirs];
        let file = match program {
            Program::Path(path) => path,
            Program::Memory(file) => {
                more.push(file);
                Path::new(FILE)
            }
        };
        let mut args = vec![OsStr::new("longshore-subreaper"), file.as_os_str(), &command.program];
        args.extend(command.args.iter().map(|arg| &**arg));
        let execution = Execution { program: Program::Memory(&self.0), args, command, more };
        let pid = execute(&execution, fds).map_err(Failed::NoSubreaper)?;
        drop(theirs);
        let pidfd = match pidfd::open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // It exits when our end is closed before it has read its first record.
                drop(ours);
                let _reaped = rustix::process::waitid(WaitId::Pid(pidfd::raw(pid)?), WaitIdOptions::EXITED);
                return Err(Failed::NotExecuted(error));
            }
        };
        let reports = Reports(ours);
        match reports.executed() {
            Ok(runtime) => Ok(Started { pid, pidfd, runtime, reports }),
            Err(error) => {
                // Nobody else knows of it. If it has not exited by itself, it may have executed the runtime.
                for child in procfs::children_of(pid).into_iter().filter_map(|child| pidfd::raw(child).ok()) {
                    let _gone = rustix::process::kill_process_group(child, KILL);
                }
                let _gone = pidfd::send(&pidfd, Signal::KILL);
                let _ended = wait_for(&pidfd, Instant::now() + PATIENCE);
                let _reaped = pidfd::reap(pidfd.as_fd());
                Err(Failed::NotExecuted(error))
            }
        }
    }
}

impl Reports {
    /// Has it execute the runtime, and waits for that. Returns the runtime's pid.
    fn executed(&self) -> io::Result<HostPid> {
        rustix::net::send(&self.0, &[0; 8], SendFlags::NOSIGNAL)?;
        wait_for(&self.0, Instant::now() + PATIENCE)?;
        match self.next()? {
            Some(Record::Executed(pid)) => Ok(pid),
            Some(Record::NotExecuted(error)) => Err(error),
            Some(Record::Left(..) | Record::Ended(_)) | None => Err(Errno::CHILD.into()),
        }
    }

    /// What it has sent, once it has exited.
    pub(crate) fn read(self) -> Report<OwnedFd> {
        let mut report = Report::default();
        loop {
            match self.next() {
                Ok(Some(Record::Left(pid, pidfd))) => report.left.push((pid, pidfd)),
                Ok(Some(Record::Ended(status))) => report.status = Some(status),
                Ok(Some(Record::Executed(_) | Record::NotExecuted(_))) => {}
                Ok(None) => return report,
                Err(error) => {
                    tracing::warn!(%error, "what a runtime has left behind is not known");
                    return report;
                }
            }
        }
    }

    /// The next record. `None` if there is none.
    fn next(&self) -> io::Result<Option<Record>> {
        let mut bytes = [0; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT) {
            Ok(received) if received.bytes == 0 => return Ok(None),
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut fds = control.drain().flat_map(|message| {
            let RecvAncillaryMessage::ScmRights(fds) = message else { return Vec::new() };
            fds.collect()
        });
        record(bytes, fds.next()).map(Some)
    }
}

/// Waits until a file can be read.
fn wait_for(fd: impl AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            // A handler of the embedder's has run on this thread, as that of SIGCHLD.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Decodes a record.
fn record(bytes: [u8; 8], fd: Option<OwnedFd>) -> io::Result<Record> {
    let [k0, k1, k2, k3, n0, n1, n2, n3] = bytes;
    let (kind, number) = (i32::from_ne_bytes([k0, k1, k2, k3]), i32::from_ne_bytes([n0, n1, n2, n3]));
    let pid = || u32::try_from(number).ok().and_then(HostPid::new).ok_or(Errno::SRCH);
    match (kind, fd) {
        (1, _) => Ok(Record::Executed(pid()?)),
        (2, _) => Ok(Record::NotExecuted(io::Error::from_raw_os_error(number))),
        (3, Some(pidfd)) => Ok(Record::Left(pid()?, pidfd)),
        // The kernel drops a descriptor that this process has no number for.
        (3, None) => Err(Errno::MFILE.into()),
        (4, _) => Ok(Record::Ended(pidfd::wait_status(number))),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}
