//! The embedder's own process as the parent of its runtimes and, as their subreaper, of containers.
//!
//! Runtimes are spawned by one thread that lives as long as the driver, one after the other. Ends are
//! seen by pidfds and reaped one by one with `waitid(P_PIDFD)`: a wait for any child would steal the
//! embedder's own. Reaping and signalling exclude each other, so that no signal can reach a stranger
//! who got the pid, or the process group, of a process that is gone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessId, ProcessRef, RawExit, Signal};
use executor_core::{BoxFuture, BoxStream, ChildFd, Delivery, ExitQueue};
use futures::FutureExt;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::image::Images;
use super::{Call, Containers, Parent, RuntimeChild, Spawner, Strays};
use crate::cgroup::place::is_of_executor;
use crate::procfs::{self, Stat};
use crate::root::MARK;
use crate::{CANDIDATES, cgroup, lock, pidfd};

/// What of our environment a runtime gets. Above all not `NOTIFY_SOCKET`, with which runc waits for a
/// message that never comes, nor `LISTEN_FDS`, with which it hands our sockets on.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"];

/// How long a process that a runtime has let go of may take to become our child.
const ADOPTION: Duration = Duration::from_millis(100);

/// What the spawner's thread is told.
enum Order {
    /// Execute a runtime.
    Spawn(Call, oneshot::Sender<io::Result<Arc<Process>>>),
    /// Execute nothing more. The sender is dropped when that is so.
    Close(#[expect(dead_code, reason = "its end is the answer")] mpsc::Sender<()>),
}

pub(crate) struct LocalSpawner {
    orders: mpsc::Sender<Order>,
    exits: ExitQueue,
    family: Arc<Family>,
}

/// The children of this process that are known, and what became of some that were not.
#[derive(Default)]
struct Family {
    adopted: Mutex<HashMap<ProcessRef, Arc<Process>>>,
    /// Runtimes at work.
    runtimes: Mutex<HashMap<HostPid, Arc<Process>>>,
    /// The last runtimes that were executed; each led a process group.
    groups: Mutex<VecDeque<HostPid>>,
    /// The names that the runtime's processes have: its program's, and that of the file in memory which is executed in
    /// its place.
    names: Mutex<HashSet<String>>,
    /// Where unknown children are ours to reap.
    containers: OnceLock<Containers>,
}

/// Orphans that are remembered: far more than can be on their way to be adopted at once.
const ORPHANS: usize = 1024;

/// Orphans that were reaped before anyone adopted them, the latest first. One may be a process whose runtime has just
/// said that it runs, and may be another executor's: where only v1 hierarchies are left to ask, nobody can tell whose.
static REAPED: Mutex<VecDeque<(HostPid, ExitStatus)>> = Mutex::new(VecDeque::new());

/// Those of all executors in this process, whose children are its own all together.
static FAMILIES: Mutex<Vec<Weak<Family>>> = Mutex::new(Vec::new());

/// This process as the subreaper of its descendants, for as long as one of these is there.
///
/// The kernel keeps that for the process as a whole, so it is counted for the process as a whole. A
/// process that was one before stays one.
pub(crate) struct Subreaper(());

/// How many there are, and whether the process was one before the first.
static SUBREAPERS: Mutex<(usize, bool)> = Mutex::new((0, false));

impl Subreaper {
    pub(crate) fn become_one() -> io::Result<Self> {
        let mut subreapers = lock(&SUBREAPERS);
        if subreapers.0 == 0 {
            subreapers.1 = rustix::process::child_subreaper()?.is_some();
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        subreapers.0 += 1;
        Ok(Self(()))
    }
}

impl Drop for Subreaper {
    /// Orphans of the embedder's own go to the system's init again.
    fn drop(&mut self) {
        let mut subreapers = lock(&SUBREAPERS);
        subreapers.0 -= 1;
        if *subreapers == (0, false)
            && let Err(error) = rustix::process::set_child_subreaper(None)
        {
            tracing::warn!(%error, "this process stays a subreaper");
        }
    }
}

/// A process that we hold a pidfd of.
struct Process {
    pid: HostPid,
    pidfd: Arc<OwnedFd>,
    /// Set when it is reaped. Its pid and its group are its own only before, and while this is locked.
    reaped: Mutex<bool>,
}

impl LocalSpawner {
    /// With `in_memory`, a runtime that is called again and again is executed from memory.
    pub(crate) fn start(in_memory: bool) -> io::Result<Self> {
        let (orders, incoming) = mpsc::channel();
        let family = Arc::new(Family::default());
        let mut families = lock(&FAMILIES);
        families.retain(|family| family.strong_count() > 0);
        families.push(Arc::downgrade(&family));
        drop(families);
        let spawner = Self { orders, exits: ExitQueue::default(), family: Arc::clone(&family) };
        thread::Builder::new().name("longshore-spawn".into()).spawn(move || {
            let mut images = in_memory.then(Images::default);
            for order in incoming {
                let Order::Spawn(call, answer) = order else { return };
                // It is known before anyone is told of it: whoever waits may be gone.
                let runtime = family.execute(&call, images.as_mut()).map(Arc::new);
                if let Ok(runtime) = &runtime {
                    lock(&family.runtimes).insert(runtime.pid, Arc::clone(runtime));
                    family.remember_group(runtime.pid);
                }
                let _gone = answer.send(runtime);
            }
        })?;
        Ok(spawner)
    }

    /// From now on nothing is executed.
    fn close(&self, patience: Duration) {
        let (closed, answer) = mpsc::channel();
        if self.orders.send(Order::Close(closed)).is_ok() {
            let _nobody_answers = answer.recv_timeout(patience);
        }
    }
}

impl Family {
    fn execute(&self, call: &Call, images: Option<&mut Images>) -> io::Result<Process> {
        let executed = |program: &Path| {
            lock(&self.names).insert(short_name(program));
            execute(call, program)
        };
        if let Some(images) = images
            && let Some(image) = images.of(&call.program)
        {
            match executed(&image.path()) {
                Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => {
                    tracing::debug!(%error, "the runtime cannot be executed from memory");
                    images.is_no_good(&image);
                }
                executed => return executed,
            }
        }
        executed(&call.program)
    }

    fn adopted(&self, process: &ProcessRef) -> Option<Arc<Process>> {
        lock(&self.adopted).get(process).cloned()
    }

    /// Children of this process that are neither adopted nor runtimes at work, of any executor in it.
    fn unknown_children() -> Vec<HostPid> {
        // Asked first: one that is adopted meanwhile is known below.
        let children = procfs::children();
        let mut known: HashSet<HostPid> = HashSet::new();
        for family in lock(&FAMILIES).iter().filter_map(Weak::upgrade) {
            known.extend(lock(&family.adopted).values().map(|process| process.pid));
            known.extend(lock(&family.runtimes).keys());
        }
        children.into_iter().filter(|pid| !known.contains(pid)).collect()
    }

    /// Reaps unknown children that have ended in one of our containers, or on their way into one. The
    /// kernel holds an init until all of its pid namespace are reaped, so one that is forgotten is a
    /// container that never ends. Children of the embedder's own are neither, and are left to it.
    fn reap_orphans(&self) {
        let Some(containers) = self.containers.get() else { return };
        for pid in Self::unknown_children() {
            let Some(stat) = Stat::of(pid) else { continue };
            let is_ours = || {
                is_helper(&stat)
                    || self.is_of_runtime(&stat)
                    || containers.have(pid, &stat)
                    || self.is_in_a_known_session(&stat)
            };
            if stat.state == 'Z' && is_ours() {
                Self::reap_orphan(pid);
            }
        }
    }

    fn remember_group(&self, leader: HostPid) {
        let mut groups = lock(&self.groups);
        groups.truncate(ORPHANS - 1);
        groups.push_front(leader);
    }

    /// Whether it is what a runtime has left behind under its own name: crun forks a helper for each container that it
    /// starts, and when it fails what it has forked comes to us. It is in a session of its own by then, or still in the
    /// group of a runtime of ours, whose leader has ended. A child of the embedder's that has the same name is in the
    /// embedder's session.
    fn is_of_runtime(&self, stat: &Stat) -> bool {
        // The runtime may be called by way of a program of another name.
        let name = &stat.comm;
        if !lock(&self.names).contains(name) && !CANDIDATES.contains(&name.as_str()) {
            return false;
        }
        let of_ours = |leader: HostPid| lock(&self.groups).contains(&leader) && Stat::of(leader).is_none();
        stat.session != own_session() || HostPid::new(stat.group).is_some_and(of_ours)
    }

    /// Whether it is in the session of a process that we know: where a pid namespace does not keep them together, and
    /// only v1 hierarchies are left to ask, which forget whom an ending process belongs to.
    fn is_in_a_known_session(&self, stat: &Stat) -> bool {
        lock(&self.adopted).values().any(|process| process.pid.get() == stat.session)
    }

    /// Ends and reaps those of the unknown children that are strays.
    fn end_unknown(&self, is_stray: impl Fn(HostPid, &Stat) -> bool) {
        for pid in Self::unknown_children() {
            if !Stat::of(pid).is_some_and(|stat| is_stray(pid, &stat)) {
                continue;
            }
            let Ok(pidfd) = pidfd::open(pid) else { continue };
            if pidfd::send(&pidfd, Signal::KILL).is_ok() {
                cgroup::wait_for_ends(&[&pidfd], ADOPTION);
                Self::reap_orphan(pid);
            }
        }
    }

    fn reap_orphan(pid: HostPid) {
        let mut orphans = lock(&REAPED);
        if let Ok(Some(status)) = pidfd::open(pid).and_then(|pidfd| pidfd::reap(pidfd.as_fd())) {
            tracing::debug!(%pid, %status, "an orphan");
            orphans.truncate(ORPHANS - 1);
            orphans.push_front((pid, status));
        }
    }

    /// How an orphan ended that is being adopted after all.
    fn take_orphan(pid: HostPid) -> Option<ExitStatus> {
        let mut orphans = lock(&REAPED);
        let index = orphans.iter().position(|(orphan, _)| *orphan == pid)?;
        orphans.remove(index).map(|(_, status)| status)
    }
}

impl Containers {
    fn have(&self, pid: HostPid, stat: &Stat) -> bool {
        match self {
            Self::Of(executor) if cgroup::remembers_the_dead() => {
                procfs::cgroups_of(pid).any(|path| is_of_executor(&path, executor))
            }
            // Of an ending process v1 hierarchies say that it is in none. One in a pid namespace that is not ours
            // is a container's; those that the embedder has made itself are in its session.
            Self::Of(_) => stat.session != own_session() && procfs::is_in_nested_pid_namespace(pid),
            Self::InNestedNamespaces => procfs::is_in_nested_pid_namespace(pid),
        }
    }
}

fn own_session() -> u32 {
    static OWN: OnceLock<u32> = OnceLock::new();
    let own = || HostPid::new(std::process::id()).and_then(Stat::of).map_or(0, |stat| stat.session);
    *OWN.get_or_init(own)
}

/// A program's name as the kernel keeps it: no more than 15 bytes.
fn short_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.chars().take(15).collect()
}

/// Whether it is a runtime on its way to become a container's process: it is called `runc:[2:INIT]` or
/// the like until it executes the program.
fn is_helper(stat: &Stat) -> bool {
    stat.comm.contains(":[")
}

impl Spawner for LocalSpawner {
    fn spawn(&self, call: Call) -> BoxFuture<'static, io::Result<RuntimeChild>> {
        let (answer, spawned) = oneshot::channel();
        let sent = self.orders.send(Order::Spawn(call, answer));
        let family = Arc::clone(&self.family);
        async move {
            let gone = || io::Error::other("the spawner's thread has ended");
            sent.map_err(|_| gone())?;
            let process = spawned.await.map_err(|_| gone())??;
            let pid = process.pid;
            let (told, ended) = oneshot::channel();
            let runtime = Arc::clone(&process);
            tokio::spawn(async move {
                let status = runtime.end().await.unwrap_or(ExitStatus::Unknown);
                if status != ExitStatus::Code(0) {
                    let worker = Arc::clone(&family);
                    let end_rest = move || worker.end_unknown(|_, stat| stat.group == pid.get());
                    let _panicked = tokio::task::spawn_blocking(end_rest).await;
                }
                lock(&family.runtimes).remove(&pid);
                let _nobody_waits = told.send(status);
            });
            let ended = ended.map(|status| status.unwrap_or(ExitStatus::Unknown)).boxed().shared();
            let kill = Arc::new(move || {
                if let Err(error) = process.signal_group(Signal::KILL) {
                    tracing::warn!(pid = %process.pid, %error, "kill a runtime");
                }
            });
            Ok(RuntimeChild { ended, kill })
        }
        .boxed()
    }

    fn adopt(&self, process: ProcessRef, pid: HostPid, parent: Parent) -> io::Result<()> {
        let (family, exits) = (Arc::clone(&self.family), self.exits.clone());
        // None when it was reaped already: as an orphan, by its monitor, or by someone who waits for
        // any child and has taken the status with them.
        let adopted = match pidfd::open(pid) {
            Ok(pidfd) => Some(Arc::new(Process::new(pid, pidfd))),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => None,
            Err(error) => {
                end_unwatched(pid);
                return Err(error);
            }
        };
        if let Some(adopted) = &adopted {
            lock(&family.adopted).insert(process.clone(), Arc::clone(adopted));
        }
        tokio::spawn(async move {
            let told = match parent {
                Parent::Us => match &adopted {
                    Some(adopted) => adopted.end().await.or_else(|| Family::take_orphan(pid)),
                    None => Family::take_orphan(pid),
                },
                Parent::Runtime(monitor) => Some(monitor.ended.await),
            };
            let known = adopted.and_then(|adopted| {
                let reaped_by_us = std::mem::replace(&mut *lock(&adopted.reaped), true);
                (!reaped_by_us).then(|| pidfd::status_of_reaped(adopted.pidfd.as_fd())).flatten()
            });
            exits.tell(process, RawExit::with(known.or(told).unwrap_or(ExitStatus::Unknown)));
        });
        Ok(())
    }

    fn lives(&self, process: &ProcessRef) -> bool {
        // Unreaped, its pid is its own.
        let lives = |process: Arc<Process>| {
            let reaped = lock(&process.reaped);
            !*reaped && Stat::of(process.pid).is_some_and(|stat| !stat.is_ending())
        };
        self.family.adopted(process).is_some_and(lives)
    }

    fn signal(&self, process: &ProcessRef, signal: Signal) -> io::Result<Delivery> {
        self.family.adopted(process).map_or(Ok(Delivery::Gone), |process| process.signal(signal))
    }

    fn signal_group(&self, process: &ProcessRef, signal: Signal) -> io::Result<Delivery> {
        self.family.adopted(process).map_or(Ok(Delivery::Gone), |process| process.signal_group(signal))
    }

    fn kill(&self, process: &ProcessRef) -> io::Result<Delivery> {
        match (self.family.adopted(process), process.process) {
            (None, _) => Ok(Delivery::Gone),
            (Some(init), ProcessId::Init) => init.signal(Signal::KILL),
            (Some(exec), ProcessId::Exec(_)) => exec.signal_group(Signal::KILL),
        }
    }

    fn end_strays(&self, of: &Strays) {
        self.family.end_unknown(|pid, stat| {
            // Whatever else is there may have been started by another call, and be adopted in a moment.
            (of.all || is_helper(stat)) && procfs::is_in_cgroup(pid, &of.cgroup)
        });
        self.family.reap_orphans();
    }

    fn reap(&self, orphans: &[(HostPid, OwnedFd)]) {
        let known: HashSet<_> = lock(&self.family.adopted).values().map(|process| process.pid).collect();
        for (_, orphan) in orphans.iter().filter(|(pid, _)| !known.contains(pid)) {
            let _not_our_child = pidfd::reap(orphan.as_fd());
        }
    }

    fn forget(&self, container: &ContainerId) {
        lock(&self.family.adopted).retain(|process, _| process.container != *container);
    }

    fn exits(&self) -> BoxStream<'static, (ProcessRef, RawExit)> {
        self.exits.take()
    }

    fn reap_orphans(&self, containers: Containers) -> io::Result<()> {
        let _once = self.family.containers.set(containers);
        let mut ended = signal(SignalKind::child())?;
        let family = Arc::downgrade(&self.family);
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                let Some(family) = family.upgrade() else { return };
                // Signals that come meanwhile are one when it is done.
                let _panicked = tokio::task::spawn_blocking(move || family.reap_orphans()).await;
            }
        });
        Ok(())
    }

    /// Exec'd processes come before inits: the kernel holds an init until they are reaped.
    fn end_all(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.close(patience);
        let runtimes: Vec<_> = lock(&self.family.runtimes).drain().map(|(_, runtime)| runtime).collect();
        let groups: HashSet<_> = runtimes.iter().map(|runtime| runtime.pid.get()).collect();
        let mut adopted: Vec<_> = lock(&self.family.adopted).drain().collect();
        adopted.sort_by_key(|(process, _)| process.process == ProcessId::Init);
        let all: Vec<_> =
            runtimes.into_iter().chain(adopted.into_iter().map(|(_, process)| process)).collect();
        for process in &all {
            let _gone = process.signal_group(Signal::KILL);
        }
        for process in &all {
            cgroup::wait_for_ends(&[&process.pidfd], deadline.saturating_duration_since(Instant::now()));
            let _reaped_before = process.reap();
        }
        // What the runtimes had begun came to us with their ends.
        self.family.end_unknown(|_, stat| groups.contains(&stat.group));
    }
}

impl Process {
    fn new(pid: HostPid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd: Arc::new(pidfd), reaped: Mutex::new(false) }
    }

    fn signal(&self, signal: Signal) -> io::Result<Delivery> {
        match *lock(&self.reaped) {
            true => Ok(Delivery::Gone),
            false => pidfd::send(&self.pidfd, signal),
        }
    }

    /// It is a zombie at worst, so it is still in its group: the one it leads, or the one that crun's helper has made for
    /// it. In our own it is signalled alone.
    fn signal_group(&self, signal: Signal) -> io::Result<Delivery> {
        let reaped = lock(&self.reaped);
        if *reaped {
            return Ok(Delivery::Gone);
        }
        let own = u32::try_from(rustix::process::getpgrp().as_raw_pid()).ok();
        let group = Stat::of(self.pid).map(|stat| stat.group).filter(|group| Some(*group) != own);
        let Some(group) = group.and_then(HostPid::new) else { return pidfd::send(&self.pidfd, signal) };
        match rustix::process::kill_process_group(pidfd::raw(group)?, pidfd::number(signal)?) {
            Ok(()) => Ok(Delivery::Sent),
            Err(Errno::SRCH) => pidfd::send(&self.pidfd, signal),
            Err(error) => Err(error.into()),
        }
    }

    fn reap(&self) -> io::Result<Option<ExitStatus>> {
        let mut reaped = lock(&self.reaped);
        let status = pidfd::reap(self.pidfd.as_fd())?;
        *reaped |= status.is_some();
        Ok(status)
    }

    /// Waits for the end and reaps; `None` when someone else has done so.
    async fn end(&self) -> Option<ExitStatus> {
        if let Err(error) = self.readable().await {
            tracing::error!(pid = %self.pid, %error, "a pidfd cannot be waited for");
            return None;
        }
        let deadline = tokio::time::Instant::now() + ADOPTION;
        loop {
            match self.reap() {
                Ok(Some(status)) => return Some(status),
                // It has ended, and its parent (crun's helper) may not have handed it over yet.
                Ok(None) => {}
                Err(_) if tokio::time::Instant::now() < deadline && self.is_unreaped() => {}
                Err(error) => {
                    tracing::debug!(pid = %self.pid, %error, "someone else has reaped it");
                    return None;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether it is still a zombie, waiting for its parent or for us.
    fn is_unreaped(&self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.state == 'Z')
    }

    async fn readable(&self) -> io::Result<()> {
        let pidfd = pidfd::watch(Arc::clone(&self.pidfd), Interest::READABLE)?;
        pidfd.readable().await.map(|mut ready| ready.retain_ready())
    }
}

/// On the spawner's thread: `file`, which is the call's program or stands for it. A process group of its own keeps the
/// terminal's signals from the runtime.
fn execute(call: &Call, file: &Path) -> io::Result<Process> {
    let Call { program, args, stdio, mark } = call;
    let mut command = Command::new(file);
    command.arg0(program).args(args).process_group(0).env_clear();
    command.envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(mark.as_ref().map(|executor| (MARK, executor)));
    command
        .stdin(child_stdio(&stdio.stdin)?)
        .stdout(child_stdio(&stdio.stdout)?)
        .stderr(child_stdio(&stdio.stderr)?);
    let child = command.spawn()?;
    drop(command);
    let pid = HostPid::new(child.id()).ok_or_else(|| io::Error::other("a child without a pid"))?;
    let pidfd = pidfd::open(pid).inspect_err(|_| end_unwatched(pid))?;
    Ok(Process::new(pid, pidfd))
}

/// Out of files, a child of ours cannot be watched. It is ended while its pid is certainly its own.
fn end_unwatched(pid: HostPid) {
    if let Ok(pid) = pidfd::raw(pid) {
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let _reaped = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    }
}

fn child_stdio(fd: &ChildFd) -> io::Result<Stdio> {
    Ok(match fd {
        ChildFd::Null => Stdio::null(),
        ChildFd::Inherit => Stdio::inherit(),
        ChildFd::Fd(fd) => fd.try_clone()?.into(),
    })
}
