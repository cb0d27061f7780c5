//! The system calls of the child table: the [`Kernel`] trait, and its implementation for Linux.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use executor_core::Delivery;
use executor_core::lifecycle::{ExitStatus, HostPid, Signal, Timestamp};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use crate::oom::{KernelLog, LogNews, Notices};
use crate::procfs::{self, Stat};
use crate::seam::{Command, ImageFate, Members};
use crate::spawn::{Execution, Program, above, chosen_image, execute, is_of_the_file, path_of, short_name};
use crate::subreaper::{self, Failed, Report, Reports, Started, Subreaper};
use crate::{cgroup, pidfd};

/// A call that was executed.
pub(crate) struct Spawned<P> {
    /// Our child: the runtime, or its subreaper.
    pub(crate) pid: HostPid,
    /// Its pidfd, if it is open already.
    pub(crate) pidfd: Option<P>,
    /// The runtime, which leads a process group.
    pub(crate) runtime: HostPid,
    /// Whether the command's image was executed.
    pub(crate) image: ImageFate,
}

/// How a process was when it was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reaped {
    pub(crate) status: ExitStatus,
    /// Whether it had executed a program, if that is known.
    pub(crate) has_executed: Option<bool>,
    /// When it ended, if that was noted.
    pub(crate) at: Option<Timestamp>,
}

impl Reaped {
    /// Nothing else is known.
    pub(crate) const fn with(status: ExitStatus) -> Self {
        Self { status, has_executed: None, at: None }
    }
}

/// What the child table needs from the kernel. No method blocks.
pub(crate) trait Kernel {
    /// A reference to a process that stays valid when the pid is reused.
    type Pidfd;

    /// Executes a command. `named` is called with the name of each file before it is executed.
    fn spawn(
        &mut self,
        command: &Command,
        fds: &[OwnedFd],
        named: &mut dyn FnMut(String),
    ) -> io::Result<Spawned<Self::Pidfd>>;
    /// What a call has left behind, after its exit. Asked once for each.
    fn report(&mut self, call: HostPid) -> Report<Self::Pidfd>;
    /// Somebody else has reaped a child of this process, and may do so again.
    fn was_robbed(&mut self);
    /// Opens the pidfd of a process that is not reaped yet.
    fn open(&mut self, pid: HostPid) -> io::Result<Self::Pidfd>;
    /// Reports the exit of a process once, under this number.
    fn watch(&mut self, number: u64, pidfd: &Self::Pidfd) -> io::Result<()>;
    /// Reaps a child that has exited. `None` while it is alive, an error if it is not a child.
    fn reap(&mut self, pidfd: &Self::Pidfd) -> io::Result<Option<Reaped>>;
    /// The same by pid, for a child that has no pidfd.
    fn reap_unwatched(&mut self, pid: HostPid) -> io::Result<Option<ExitStatus>>;
    /// How a child ended that was reaped before anybody has asked for it.
    fn recorded(&mut self, pid: HostPid) -> Option<Reaped>;
    /// Nothing is asked about the processes any more that have had these pids.
    fn forget(&mut self, pids: &mut dyn Iterator<Item = HostPid>);
    /// The status of a process that another thread or process has reaped, if the kernel still knows it.
    fn status_of_reaped(&mut self, pidfd: &Self::Pidfd) -> Option<ExitStatus>;
    /// Signals a process.
    fn send(&mut self, pidfd: &Self::Pidfd, signal: Signal) -> io::Result<Delivery>;
    /// Signals a process group.
    fn send_group(&mut self, group: HostPid, signal: Signal) -> io::Result<()>;
    /// Kills a child that has no pidfd. It must not be reaped yet.
    fn kill_unwatched(&mut self, pid: HostPid);
    /// The children of this process, zombies included.
    fn children(&self) -> Vec<HostPid>;
    /// What `/proc/<pid>/stat` says.
    fn stat(&self, pid: HostPid) -> Option<Stat>;
    /// This process's pid.
    fn own_pid(&self) -> HostPid;
    /// The paths of a process's cgroups, one in each hierarchy.
    fn cgroups_of(&self, pid: HostPid) -> Vec<String>;
    /// Whether a process that is exiting stays in its cgroup.
    fn keeps_zombies_in_cgroups(&self) -> bool;
    /// Whether a process is in a pid namespace below this process's.
    fn is_in_nested_pid_namespace(&self, pid: HostPid) -> bool;
    /// The processes of a container that are alive.
    fn members(&self, members: &Members) -> Vec<HostPid>;
    /// Thaws the freezers in these directories and in all below them.
    fn thaw(&mut self, dirs: &[OsString]);
    /// The children of another process, zombies included.
    fn children_of(&self, pid: HostPid) -> Vec<HostPid> {
        procfs::children_of_all_threads(&pid.to_string())
    }
    /// The first child of a process.
    fn first_child(&self, pid: HostPid) -> Option<HostPid>;
    /// The process of a thread, if that still exists.
    fn process_of(&self, thread: HostPid) -> Option<HostPid>;
    /// Opens the kernel's log, whose news are reported under [`OOM`].
    fn open_log(&mut self) -> io::Result<()>;
    /// What is new in the log. `None` if it is not open.
    fn read_log(&mut self) -> Option<LogNews>;
    /// Reports kills in the cgroup in these directories under this number. The counters say what was killed, now or in a
    /// moment.
    fn notice_kills(&mut self, number: u64, dirs: &[OsString]) -> io::Result<()>;
    /// Stops reporting under this number.
    fn ignore_notices(&mut self, number: u64);
    /// Stops reporting kills.
    fn ignore_kills(&mut self);
    /// The counters of processes that were killed for lack of memory, by the inode of each cgroup in these directories. An
    /// error if they cannot be read now.
    fn count_kills(&self, dirs: &[OsString]) -> io::Result<BTreeMap<u64, u64>>;
    /// Whether this process is a child subreaper.
    fn is_subreaper(&self) -> io::Result<bool>;
    /// Makes this process a child subreaper, or stops that.
    fn set_subreaper(&mut self, on: bool) -> io::Result<()>;
}

/// The wait of the host's thread.
pub(crate) trait Waits {
    /// Waits until watched processes have exited, the thread is woken, or the timeout has passed. Returns the
    /// numbers of the exited processes and of notices, and perhaps [`OOM`].
    fn wait(&self, wake: &OwnedFd, timeout: Option<Duration>) -> Vec<u64>;
}

/// Linux, with an epoll for pidfds and for the eventfd that wakes the host's thread.
pub(crate) struct Linux {
    epoll: OwnedFd,
    /// Whether somebody else has reaped a child of this process.
    was_robbed: bool,
    /// The program that is the parent of calls where children are reaped by somebody else.
    subreaper: Option<Subreaper>,
    /// The calls that are below a subreaper.
    reports: HashMap<HostPid, Reports>,
    log: Option<KernelLog>,
    notices: Notices,
}

/// The number under which the eventfd is watched.
const WAKE: u64 = u64::MAX;

/// The number under which [`Linux::wait`] reports that there is news in the kernel's log.
pub(crate) const OOM: u64 = u64::MAX - 1;

impl Linux {
    pub(crate) fn new(wake: &OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            was_robbed: false,
            subreaper: None,
            reports: HashMap::new(),
            log: None,
            notices: Notices::default(),
        })
    }

    /// Reports under this number when a file can be read.
    pub(crate) fn watch_file(&self, number: u64, file: impl AsFd) -> io::Result<()> {
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        Ok(epoll::add(&self.epoll, file, epoll::EventData::new_u64(number), once)?)
    }
}

impl Waits for Linux {
    fn wait(&self, wake: &OwnedFd, timeout: Option<Duration>) -> Vec<u64> {
        let mut events = Vec::with_capacity(64);
        let timeout = timeout.and_then(|timeout| Timespec::try_from(whole_milliseconds(timeout)).ok());
        let waited = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
        if let Err(error) = waited
            && error != Errno::INTR
        {
            tracing::error!(%error, "epoll_wait failed");
        }
        let mut ended = Vec::with_capacity(events.len());
        for event in events {
            match event.data.u64() {
                WAKE => {
                    let _how_often = rustix::io::read(wake, &mut [0; 8]);
                }
                number => ended.extend(self.notices.take(number)),
            }
        }
        ended
    }
}

impl Linux {
    /// Executes a program as the command says, below a subreaper if children may be reaped by somebody else.
    fn execute(
        &mut self,
        command: &Command,
        fds: &[OwnedFd],
        program: Program<'_>,
        named: &mut dyn FnMut(String),
        image: ImageFate,
    ) -> io::Result<Spawned<OwnedFd>> {
        let file = match program {
            Program::Path(path) => path.to_owned(),
            Program::Memory(file) => path_of(file),
        };
        named(short_name(&file));
        if self.was_robbed || pidfd::children_are_reaped_by_the_kernel() {
            named(short_name(Path::new(subreaper::FILE)));
            let executed = self.subreaper().map_err(Failed::NoSubreaper);
            match executed.and_then(|subreaper| subreaper.execute(command, fds, &program)) {
                Ok(Started { pid, pidfd, runtime, reports }) => {
                    self.reports.insert(pid, reports);
                    return Ok(Spawned { pid, pidfd: Some(pidfd), runtime, image });
                }
                Err(Failed::NoSubreaper(error)) if is_of_the_file(&error) => {
                    tracing::warn!(%error, "exit statuses may be lost: somebody else reaps children");
                }
                Err(Failed::NoSubreaper(error) | Failed::NotExecuted(error)) => return Err(error),
            }
        }
        let args = iter::once(&*command.program).chain(command.args.iter().map(|arg| &**arg)).collect();
        let pid = execute(&Execution { program, args, command, more: Vec::new() }, fds)?;
        Ok(Spawned { pid, pidfd: None, runtime: pid, image })
    }

    fn subreaper(&mut self) -> io::Result<&Subreaper> {
        if self.subreaper.is_none() {
            self.subreaper = Some(Subreaper::new()?);
        }
        self.subreaper.as_ref().ok_or_else(|| Errno::NOENT.into())
    }
}

impl Kernel for Linux {
    type Pidfd = OwnedFd;

    fn spawn(
        &mut self,
        command: &Command,
        fds: &[OwnedFd],
        named: &mut dyn FnMut(String),
    ) -> io::Result<Spawned<OwnedFd>> {
        let program = Path::new(&command.program);
        let (image, fate) = chosen_image(command, fds)?;
        let Some(image) = image else {
            return self.execute(command, fds, Program::Path(program), named, fate);
        };
        let file = above(image)?;
        match self.execute(command, fds, Program::Memory(&file), named, fate) {
            Err(error) if is_of_the_file(&error) => {
                tracing::debug!(%error, "the runtime cannot be executed from memory");
                self.execute(command, fds, Program::Path(program), named, ImageFate::Unfit)
            }
            executed => executed,
        }
    }

    fn report(&mut self, call: HostPid) -> Report<OwnedFd> {
        self.reports.remove(&call).map(Reports::read).unwrap_or_default()
    }

    fn was_robbed(&mut self) {
        self.was_robbed = true;
    }

    fn open(&mut self, pid: HostPid) -> io::Result<OwnedFd> {
        pidfd::open(pid)
    }

    fn watch(&mut self, number: u64, pidfd: &OwnedFd) -> io::Result<()> {
        self.watch_file(number, pidfd)
    }

    fn reap(&mut self, pidfd: &OwnedFd) -> io::Result<Option<Reaped>> {
        let status = pidfd::reap(pidfd.as_fd())?;
        Ok(status.map(Reaped::with))
    }

    fn reap_unwatched(&mut self, pid: HostPid) -> io::Result<Option<ExitStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::Pid(pidfd::raw(pid)?), options)?;
        Ok(status.as_ref().map(pidfd::status))
    }

    fn recorded(&mut self, _pid: HostPid) -> Option<Reaped> {
        None
    }

    fn forget(&mut self, _pids: &mut dyn Iterator<Item = HostPid>) {}

    fn status_of_reaped(&mut self, pidfd: &OwnedFd) -> Option<ExitStatus> {
        pidfd::status_of_reaped(pidfd.as_fd())
    }

    fn send(&mut self, pidfd: &OwnedFd, signal: Signal) -> io::Result<Delivery> {
        pidfd::send(pidfd, signal)
    }

    fn send_group(&mut self, group: HostPid, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process_group(pidfd::raw(group)?, pidfd::number(signal))?)
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

    fn first_child(&self, pid: HostPid) -> Option<HostPid> {
        procfs::first_child(pid)
    }

    fn process_of(&self, thread: HostPid) -> Option<HostPid> {
        procfs::process_of(thread)
    }

    fn open_log(&mut self) -> io::Result<()> {
        let log = KernelLog::open()?;
        epoll::add(&self.epoll, &log, epoll::EventData::new_u64(OOM), epoll::EventFlags::IN)?;
        self.log = Some(log);
        Ok(())
    }

    fn read_log(&mut self) -> Option<LogNews> {
        let news = self.log.as_mut()?.read();
        if news.has_ended {
            self.log = None;
        }
        Some(news)
    }

    fn notice_kills(&mut self, number: u64, dirs: &[OsString]) -> io::Result<()> {
        let mut dirs = dirs.iter().map(Path::new).filter(|dir| cgroup::may_have(dir, "memory.events"));
        dirs.try_for_each(|dir| self.notices.watch(&self.epoll, number, dir))
    }

    fn ignore_notices(&mut self, number: u64) {
        self.notices.ignore(number);
    }

    fn ignore_kills(&mut self) {
        (self.log, self.notices) = (None, Notices::default());
    }

    fn count_kills(&self, dirs: &[OsString]) -> io::Result<BTreeMap<u64, u64>> {
        cgroup::usage::oom_kills(dirs.iter().map(Path::new))
    }

    fn is_subreaper(&self) -> io::Result<bool> {
        Ok(rustix::process::child_subreaper()?.is_some())
    }

    fn set_subreaper(&mut self, on: bool) -> io::Result<()> {
        Ok(rustix::process::set_child_subreaper(on.then(rustix::process::getpid))?)
    }
}

/// Rounds up, so that what is due at the timeout is due when the wait returns.
fn whole_milliseconds(timeout: Duration) -> Duration {
    Duration::from_millis(u64::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}
