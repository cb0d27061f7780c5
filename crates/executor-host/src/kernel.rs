//! What the child table asks of the kernel, and Linux's answers.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

use executor_core::Delivery;
use executor_core::lifecycle::{ExitStatus, HostPid, Signal};
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{WaitId, WaitIdOptions};

use crate::procfs::{self, Stat};
use crate::seam::{Command, FileIdentity, ImageFate, Members, StdioSource};
use crate::{cgroup, pidfd};

/// The kernel, as far as children are concerned. Nothing here waits.
pub(crate) trait Kernel {
    /// What holds on to a process.
    type Pidfd;

    /// Executes a command; answers with the pid and with what became of its image. `named` is called with the name of
    /// each file that is about to be executed.
    fn spawn(
        &mut self,
        command: &Command,
        fds: &[OwnedFd],
        named: &mut dyn FnMut(String),
    ) -> io::Result<(HostPid, ImageFate)>;
    /// Opens the pidfd of a process that has not been reaped.
    fn open(&mut self, pid: HostPid) -> io::Result<Self::Pidfd>;
    /// Reports the end of a process once, under this number.
    fn watch(&mut self, number: u64, pidfd: &Self::Pidfd) -> io::Result<()>;
    /// Reaps a child that has ended; `None` while it runs, an error when it is no child.
    fn reap(&mut self, pidfd: &Self::Pidfd) -> io::Result<Option<ExitStatus>>;
    /// The same by its pid, for a child that has no pidfd.
    fn reap_unwatched(&mut self, pid: HostPid) -> io::Result<Option<ExitStatus>>;
    /// How a process has ended that someone else has reaped, if the kernel still knows.
    fn status_of_reaped(&mut self, pidfd: &Self::Pidfd) -> Option<ExitStatus>;
    /// Signals a process.
    fn send(&mut self, pidfd: &Self::Pidfd, signal: Signal) -> io::Result<Delivery>;
    /// Signals a process group.
    fn send_group(&mut self, group: HostPid, signal: Signal) -> io::Result<()>;
    /// Kills a child that has no pidfd, while its pid is certainly its own.
    fn kill_unwatched(&mut self, pid: HostPid);
    /// The children of this process, zombies included.
    fn children(&self) -> Vec<HostPid>;
    /// What `/proc/<pid>/stat` says.
    fn stat(&self, pid: HostPid) -> Option<Stat>;
    /// This process's pid.
    fn own_pid(&self) -> HostPid;
    /// The paths of a process's cgroups, one in each hierarchy.
    fn cgroups_of(&self, pid: HostPid) -> Vec<String>;
    /// Whether a process that is ending still is in the cgroup it was in.
    fn keeps_zombies_in_cgroups(&self) -> bool;
    /// Whether a process is in a pid namespace below this process's.
    fn is_in_nested_pid_namespace(&self, pid: HostPid) -> bool;
    /// The live processes of a container.
    fn members(&self, members: &Members) -> Vec<HostPid>;
    /// Thaws the freezers in these directories and in all below them.
    fn thaw(&mut self, dirs: &[OsString]);
    /// Whether this process is a child subreaper.
    fn is_subreaper(&self) -> io::Result<bool>;
    /// Makes it one, or not.
    fn set_subreaper(&mut self, on: bool) -> io::Result<()>;
}

/// Linux, with an epoll for pidfds and for the eventfd that wakes the host's thread.
pub(crate) struct Linux {
    epoll: OwnedFd,
}

/// The number under which the eventfd is watched.
const WAKE: u64 = u64::MAX;

impl Linux {
    pub(crate) fn new(wake: &OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self { epoll })
    }

    /// Waits until processes that are watched have ended, or the thread is woken, or the time is over.
    pub(crate) fn wait(&self, wake: &OwnedFd, most: Option<Duration>) -> Vec<u64> {
        let mut events = Vec::with_capacity(64);
        // Rounded up: what is due then shall be due when it is over.
        let most = most.map(|most| {
            Duration::from_millis(u64::try_from(most.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
        });
        let most = most.and_then(|most| Timespec::try_from(most).ok());
        if let Err(error) =
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), most.as_ref())
            && error != Errno::INTR
        {
            tracing::error!(%error, "epoll");
        }
        let mut ended = Vec::with_capacity(events.len());
        for event in events {
            match event.data.u64() {
                WAKE => {
                    let _how_often = rustix::io::read(wake, &mut [0; 8]);
                }
                number => ended.push(number),
            }
        }
        ended
    }
}

impl Kernel for Linux {
    type Pidfd = OwnedFd;

    fn spawn(
        &mut self,
        command: &Command,
        fds: &[OwnedFd],
        named: &mut dyn FnMut(String),
    ) -> io::Result<(HostPid, ImageFate)> {
        let mut execute = |file: &Path| {
            named(short_name(file));
            execute(command, fds, file)
        };
        let program = Path::new(&command.program);
        let Some(image) = command.image else { return Ok((execute(program)?, ImageFate::None)) };
        if FileIdentity::of(&fs::metadata(program)?) != image.of {
            return Ok((execute(program)?, ImageFate::Outdated));
        }
        // In a child, 0 to 2 are others.
        let file = fcntl_dupfd_cloexec(fd(fds, image.fd)?, 3)?;
        match execute(&path_of(&file)) {
            Ok(pid) => Ok((pid, ImageFate::Executed)),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) =>
            {
                tracing::debug!(%error, "the runtime cannot be executed from memory");
                Ok((execute(program)?, ImageFate::Unfit))
            }
            Err(error) => Err(error),
        }
    }

    fn open(&mut self, pid: HostPid) -> io::Result<OwnedFd> {
        pidfd::open(pid)
    }

    fn watch(&mut self, number: u64, pidfd: &OwnedFd) -> io::Result<()> {
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        Ok(epoll::add(&self.epoll, pidfd, epoll::EventData::new_u64(number), once)?)
    }

    fn reap(&mut self, pidfd: &OwnedFd) -> io::Result<Option<ExitStatus>> {
        pidfd::reap(pidfd.as_fd())
    }

    fn reap_unwatched(&mut self, pid: HostPid) -> io::Result<Option<ExitStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::Pid(pidfd::raw(pid)?), options)?;
        Ok(status.as_ref().map(pidfd::status))
    }

    fn status_of_reaped(&mut self, pidfd: &OwnedFd) -> Option<ExitStatus> {
        pidfd::status_of_reaped(pidfd.as_fd())
    }

    fn send(&mut self, pidfd: &OwnedFd, signal: Signal) -> io::Result<Delivery> {
        pidfd::send(pidfd, signal)
    }

    fn send_group(&mut self, group: HostPid, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process_group(pidfd::raw(group)?, pidfd::number(signal)?)?)
    }

    fn kill_unwatched(&mut self, pid: HostPid) {
        if let Ok(pid) = pidfd::raw(pid) {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    fn children(&self) -> Vec<HostPid> {
        procfs::children()
    }

    fn stat(&self, pid: HostPid) -> Option<Stat> {
        Stat::of(pid)
    }

    fn own_pid(&self) -> HostPid {
        procfs::own_pid()
    }

    fn cgroups_of(&self, pid: HostPid) -> Vec<String> {
        procfs::cgroups_of(pid).collect()
    }

    fn keeps_zombies_in_cgroups(&self) -> bool {
        cgroup::keeps_zombies_in_cgroups()
    }

    fn is_in_nested_pid_namespace(&self, pid: HostPid) -> bool {
        procfs::is_in_nested_pid_namespace(pid)
    }

    fn members(&self, members: &Members) -> Vec<HostPid> {
        match members {
            Members::Cgroup { dirs, .. } => {
                cgroup::processes_in(dirs.iter().map(Path::new)).into_iter().collect()
            }
            Members::PidNamespace { init } => {
                init.iter().flat_map(|init| procfs::in_pid_namespace_of(*init)).collect()
            }
        }
    }

    fn thaw(&mut self, dirs: &[OsString]) {
        cgroup::thaw(dirs.iter().map(Path::new));
    }

    fn is_subreaper(&self) -> io::Result<bool> {
        Ok(rustix::process::child_subreaper()?.is_some())
    }

    fn set_subreaper(&mut self, on: bool) -> io::Result<()> {
        Ok(rustix::process::set_child_subreaper(on.then(rustix::process::getpid))?)
    }
}

/// Executes `file`, which is the command's program or stands for it. A process group of its own keeps the terminal's
/// signals from the runtime.
fn execute(command: &Command, fds: &[OwnedFd], file: &Path) -> io::Result<HostPid> {
    let Command { program, image: _, args, env, stdio: [stdin, stdout, stderr] } = command;
    let mut child = process::Command::new(file);
    child
        .arg0(program)
        .args(args)
        .process_group(0)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)));
    child.stdin(stream(*stdin, fds)?).stdout(stream(*stdout, fds)?).stderr(stream(*stderr, fds)?);
    let child = child.spawn()?;
    HostPid::new(child.id()).ok_or_else(|| Errno::SRCH.into())
}

fn stream(source: StdioSource, fds: &[OwnedFd]) -> io::Result<Stdio> {
    Ok(match source {
        StdioSource::Null => Stdio::null(),
        StdioSource::Inherit => Stdio::inherit(),
        StdioSource::Fd(index) => fd(fds, index)?.try_clone()?.into(),
    })
}

fn fd(fds: &[OwnedFd], index: usize) -> io::Result<&OwnedFd> {
    fds.get(index).ok_or_else(|| Errno::BADF.into())
}

/// A program's name as the kernel keeps it: no more than 15 bytes.
fn short_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.chars().take(15).collect()
}

/// The path of an open file, for this process's children.
fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
