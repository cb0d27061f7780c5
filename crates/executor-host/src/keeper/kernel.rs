//! What the child table needs from the kernel, where a keeper is the parent. Starting and reaping are the keeper's. Everything
//! else works from any process: it goes to [`Linux`].

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use executor_core::Delivery;
use executor_core::lifecycle::{ExitStatus, HostPid, Signal};
use rustix::io::Errno;

use super::requests::{KeptProgram, Started};
use super::{Keeper, KeeperRecord, Recorded};
use crate::kernel::{Kernel, Linux, Reaped, Spawned, Waits};
use crate::oom::LogNews;
use crate::procfs::{self, Stat};
use crate::seam::{Command, ImageFate, Members, StdioSource};
use crate::spawn::{chosen_image, is_of_the_file, short_name};
use crate::subreaper::Report;
use crate::{null, pidfd};

/// The name of a program in memory: the number under which the keeper's child has it.
const IN_MEMORY: &str = "5";

/// The number under which the end of the keeper itself is reported.
const KEEPER: u64 = u64::MAX - 2;

/// How old the record of a process is that no driver has adopted, when it is forgotten.
const ORPHANS: Duration = Duration::from_secs(60);

/// A keeper's children, seen from the embedder's process.
pub(crate) struct KeeperKernel {
    linux: Linux,
    keeper: Keeper,
    /// Which of the keeper and its replacements is watched.
    watched: Cell<Option<u64>>,
    /// The records that the table has asked for and that are not forgotten yet.
    reaped: HashMap<HostPid, Vec<u64>>,
    /// When orphans were last looked for among the records.
    pruned: Instant,
}

/// A process, by its pidfd and by what the keeper knows it by.
pub(crate) struct KeptPidfd {
    fd: OwnedFd,
    pid: HostPid,
    start: u64,
    was_spawned: bool,
}

impl KeeperKernel {
    pub(crate) fn new(wake: &OwnedFd, keeper: Keeper) -> io::Result<Self> {
        let (linux, watched, pruned) = (Linux::new(wake)?, Cell::new(None), Instant::now());
        let kernel = Self { linux, keeper, watched, reaped: HashMap::new(), pruned };
        kernel.watch_keeper()?;
        Ok(kernel)
    }

    /// Has the end of the keeper reported, also of one that has replaced another.
    fn watch_keeper(&self) -> io::Result<()> {
        let generation = self.keeper.generation();
        if self.watched.get() != Some(generation) {
            self.linux.watch_file(KEEPER, self.keeper.pidfd())?;
            self.watched.set(Some(generation));
        }
        Ok(())
    }

    fn keeper_ended(&self) {
        let pid = self.keeper.pid();
        tracing::error!(%pid, "the keeper has ended: an exit is exact if the kernel knows it by a pidfd (Linux 6.15)");
        self.keeper.reap();
    }

    fn execute(
        &self,
        command: &Command,
        fds: &[OwnedFd],
        program: KeptProgram<'_>,
        image: ImageFate,
    ) -> io::Result<Spawned<KeptPidfd>> {
        let null = null::open()?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let own = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let streams = command.stdio.iter().zip(own).map(|(source, own)| match source {
            StdioSource::Null => Ok(null.as_fd()),
            StdioSource::Inherit => Ok(own),
            StdioSource::Fd(index) => fds.get(*index).map(AsFd::as_fd).ok_or(Errno::BADF),
        });
        let inherited = streams.collect::<rustix::io::Result<Vec<_>>>()?;
        let args: Vec<&OsStr> =
            [&*command.program].into_iter().chain(command.args.iter().map(|arg| &**arg)).collect();
        let variable =
            |(name, value): &(OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
        let variables: Vec<_> = command.env.iter().map(variable).collect();
        let (args, variables, inherited) = (&args[..], &variables[..], &inherited[..]);
        let process = self.keeper.start_process(&Started { program, args, variables, inherited })?;
        let (pid, start) = (process.pid, process.start);
        let pidfd = process.pidfd.map(|fd| KeptPidfd { fd, pid, start, was_spawned: true });
        Ok(Spawned { pid, pidfd, runtime: pid, image })
    }

    /// The end of a process, whose record is kept until the table forgets the process.
    fn reaped(&mut self, record: &KeeperRecord) -> Reaped {
        if record.was_spawned {
            self.forget_records(&[record.number]);
        } else {
            let numbers = self.reaped.entry(record.pid).or_default();
            if !numbers.contains(&record.number) {
                numbers.push(record.number);
            }
        }
        Reaped { status: record.status, has_executed: Some(record.has_executed), at: Some(record.at) }
    }

    fn forget_records(&self, numbers: &[u64]) {
        if let Err(error) = self.keeper.forget(numbers) {
            tracing::debug!(%error, "records are not forgotten");
        }
    }

    /// Forgets the orphans' records that nobody has asked for in time.
    fn prune(&mut self) {
        if self.pruned.elapsed() < ORPHANS {
            return;
        }
        self.pruned = Instant::now();
        let Ok(records) = self.keeper.records(0) else { return };
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let is_of_nobody = |record: &&KeeperRecord| {
            let asked_for = self.reaped.get(&record.pid).is_some_and(|of| of.contains(&record.number));
            !asked_for && !record.is_marked && now.saturating_sub(record.at.since_epoch()) > ORPHANS
        };
        let numbers: Vec<_> = records.iter().filter(is_of_nobody).map(|record| record.number).collect();
        self.forget_records(&numbers);
    }
}

impl Waits for KeeperKernel {
    fn wait(&self, wake: &OwnedFd, timeout: Option<Duration>) -> Vec<u64> {
        if let Err(error) = self.watch_keeper() {
            tracing::warn!(%error, "the end of the keeper will not be seen");
        }
        let mut ended = self.linux.wait(wake, timeout);
        if ended.extract_if(.., |number| *number == KEEPER).next().is_some() {
            self.keeper_ended();
        }
        ended
    }
}

impl Kernel for KeeperKernel {
    type Pidfd = KeptPidfd;

    fn spawn(
        &mut self,
        command: &Command,
        fds: &[OwnedFd],
        named: &mut dyn FnMut(String),
    ) -> io::Result<Spawned<KeptPidfd>> {
        let program = Path::new(&command.program);
        let path = KeptProgram::Path(&command.program);
        let (image, fate) = chosen_image(command, fds)?;
        let Some(image) = image else {
            named(short_name(program));
            return self.execute(command, fds, path, fate);
        };
        named(IN_MEMORY.to_owned());
        match self.execute(command, fds, KeptProgram::File(image.as_fd()), fate) {
            Err(error) if self.keeper.is_alive() && is_of_the_file(&error) => {
                tracing::debug!(%error, "the runtime cannot be executed from memory");
                named(short_name(program));
                self.execute(command, fds, path, ImageFate::Unfit)
            }
            executed => executed,
        }
    }

    fn report(&mut self, _call: HostPid) -> Report<KeptPidfd> {
        Report::default()
    }

    fn was_robbed(&mut self) {}

    fn open(&mut self, pid: HostPid) -> io::Result<KeptPidfd> {
        let fd = pidfd::open(pid)?;
        // The keeper reaps it the moment it ends.
        let start = Stat::read(pid)?.ok_or(Errno::SRCH)?.start;
        Ok(KeptPidfd { fd, pid, start, was_spawned: false })
    }

    fn watch(&mut self, number: u64, pidfd: &KeptPidfd) -> io::Result<()> {
        self.linux.watch(number, &pidfd.fd)?;
        if !pidfd.was_spawned
            && let Err(error) = self.keeper.mark(pidfd.pid, pidfd.start)
        {
            // It may become the keeper's child in a moment.
            tracing::trace!(%error, pid = %pidfd.pid, "not marked");
        }
        Ok(())
    }

    fn reap(&mut self, pidfd: &KeptPidfd) -> io::Result<Option<Reaped>> {
        match self.keeper.record(pidfd.pid, Some(pidfd.start)) {
            Ok(Recorded::Ended(record)) => Ok(Some(self.reaped(&record))),
            Ok(Recorded::Alive) => Ok(None),
            // The keeper's children are ours after its end if this process is a subreaper.
            Ok(Recorded::Unknown) | Err(_) => self.linux.reap(&pidfd.fd),
        }
    }

    fn reap_unwatched(&mut self, pid: HostPid) -> io::Result<Option<ExitStatus>> {
        match self.keeper.record(pid, None) {
            Ok(Recorded::Ended(record)) => Ok(Some(self.reaped(&record).status)),
            Ok(Recorded::Alive) => Ok(None),
            Ok(Recorded::Unknown) | Err(_) => self.linux.reap_unwatched(pid),
        }
    }

    fn recorded(&mut self, pid: HostPid) -> Option<Reaped> {
        match self.keeper.record(pid, None) {
            Ok(Recorded::Ended(record)) => Some(self.reaped(&record)),
            Ok(Recorded::Alive | Recorded::Unknown) => None,
            Err(error) => {
                tracing::warn!(%pid, %error, "the exit status of a process is not known");
                None
            }
        }
    }

    fn forget(&mut self, pids: &mut dyn Iterator<Item = HostPid>) {
        let numbers: Vec<_> = pids.filter_map(|pid| self.reaped.remove(&pid)).flatten().collect();
        if !numbers.is_empty() {
            self.forget_records(&numbers);
        }
        self.prune();
    }

    fn status_of_reaped(&mut self, pidfd: &KeptPidfd) -> Option<ExitStatus> {
        self.linux.status_of_reaped(&pidfd.fd)
    }

    fn send(&mut self, pidfd: &KeptPidfd, signal: Signal) -> io::Result<Delivery> {
        self.linux.send(&pidfd.fd, signal)
    }

    fn send_group(&mut self, group: HostPid, signal: Signal) -> io::Result<()> {
        self.linux.send_group(group, signal)
    }

    fn kill_unwatched(&mut self, pid: HostPid) {
        self.linux.kill_unwatched(pid);
    }

    fn children(&self) -> Vec<HostPid> {
        if self.keeper.is_alive() { procfs::children_of(self.keeper.pid()) } else { Vec::new() }
    }

    fn stat(&self, pid: HostPid) -> Option<Stat> {
        self.linux.stat(pid)
    }

    fn own_pid(&self) -> HostPid {
        self.keeper.pid()
    }

    fn cgroups_of(&self, pid: HostPid) -> Vec<String> {
        self.linux.cgroups_of(pid)
    }

    fn keeps_zombies_in_cgroups(&self) -> bool {
        self.linux.keeps_zombies_in_cgroups()
    }

    fn is_in_nested_pid_namespace(&self, pid: HostPid) -> bool {
        self.linux.is_in_nested_pid_namespace(pid)
    }

    fn members(&self, members: &Members) -> Vec<HostPid> {
        self.linux.members(members)
    }

    fn thaw(&mut self, dirs: &[OsString]) {
        self.linux.thaw(dirs);
    }

    fn first_child(&self, pid: HostPid) -> Option<HostPid> {
        self.linux.first_child(pid)
    }

    fn process_of(&self, thread: HostPid) -> Option<HostPid> {
        self.linux.process_of(thread)
    }

    fn open_log(&mut self) -> io::Result<()> {
        self.linux.open_log()
    }

    fn read_log(&mut self) -> Option<LogNews> {
        self.linux.read_log()
    }

    fn notice_kills(&mut self, number: u64, dirs: &[OsString]) -> io::Result<()> {
        self.linux.notice_kills(number, dirs)
    }

    fn ignore_notices(&mut self, number: u64) {
        self.linux.ignore_notices(number);
    }

    fn ignore_kills(&mut self) {
        self.linux.ignore_kills();
    }

    fn count_kills(&self, dirs: &[OsString]) -> io::Result<BTreeMap<u64, u64>> {
        self.linux.count_kills(dirs)
    }

    /// The keeper always is one.
    fn is_subreaper(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn set_subreaper(&mut self, _on: bool) -> io::Result<()> {
        Ok(())
    }
}
