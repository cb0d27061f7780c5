//! The embedder's own process as the parent of its runtimes and, as their subreaper, of containers.
//!
//! Runtimes are spawned by one thread that lives as long as the driver, one after the other. Ends are
//! seen by pidfds and reaped one by one with `waitid(P_PIDFD)`: a wait for any child would steal the
//! embedder's own. Reaping and signalling exclude each other, so that no signal can reach a stranger
//! who got the pid, or the process group, of a process that is gone.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, ProcessId, ProcessRef, Signal};
use executor_core::{BoxFuture, ChildFd, Delivery};
use futures::FutureExt;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use tokio::sync::{mpsc, oneshot};

use super::{Call, Parent, RuntimeChild, Spawner, Strays};
use crate::procfs::{self, Stat};
use crate::root::MARK;
use crate::{cgroup, pidfd};

/// What of our environment a runtime gets. Above all not `NOTIFY_SOCKET`, with which runc waits for a
/// message that never comes, nor `LISTEN_FDS`, with which it hands our sockets on.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"];

/// How long a process that a runtime has let go of may take to become our child.
const ADOPTION: Duration = Duration::from_millis(100);

type Spawned = io::Result<(HostPid, OwnedFd)>;

pub(crate) struct LocalSpawner {
    calls: std::sync::mpsc::Sender<(Call, oneshot::Sender<Spawned>)>,
    adopted: Mutex<HashMap<ProcessRef, Arc<Process>>>,
    /// Runtimes at work, which are no strays.
    runtimes: Arc<Mutex<HashMap<HostPid, Arc<Process>>>>,
    exits: mpsc::UnboundedSender<(ProcessRef, ExitStatus)>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<(ProcessRef, ExitStatus)>>>,
}

/// A process that we hold a pidfd of.
struct Process {
    pid: HostPid,
    pidfd: Arc<OwnedFd>,
    /// Set when it is reaped. Its pid and its group are its own only before, and while this is locked.
    reaped: Mutex<bool>,
}

impl LocalSpawner {
    pub(crate) fn start() -> io::Result<Self> {
        let (calls, incoming) = std::sync::mpsc::channel::<(Call, oneshot::Sender<Spawned>)>();
        thread::Builder::new().name("longshore-spawn".into()).spawn(move || {
            for (call, answer) in incoming {
                if let Err(Ok((_, pidfd))) = answer.send(execute(call)) {
                    // Nobody waits any more: the executor's thread has ended.
                    let _gone = pidfd::send(&pidfd, Signal::KILL);
                }
            }
        })?;
        let (exits, receiver) = mpsc::unbounded_channel();
        Ok(Self {
            calls,
            adopted: Mutex::default(),
            runtimes: Arc::default(),
            exits,
            receiver: Mutex::new(Some(receiver)),
        })
    }

    fn adopted(&self, process: &ProcessRef) -> Option<Arc<Process>> {
        lock(&self.adopted).get(process).cloned()
    }

    /// Children of ours that are neither adopted nor runtimes at work.
    fn unknown_children(&self) -> Vec<HostPid> {
        let adopted = lock(&self.adopted);
        let runtimes = lock(&self.runtimes);
        let known: std::collections::HashSet<_> =
            adopted.values().map(|process| process.pid).chain(runtimes.keys().copied()).collect();
        drop((adopted, runtimes));
        procfs::children().into_iter().filter(|pid| !known.contains(pid)).collect()
    }
}

impl Spawner for LocalSpawner {
    fn spawn(&self, call: Call) -> BoxFuture<'static, io::Result<RuntimeChild>> {
        let (answer, spawned) = oneshot::channel();
        let sent = self.calls.send((call, answer));
        let runtimes = Arc::clone(&self.runtimes);
        async move {
            let gone = || io::Error::other("the spawner's thread has ended");
            sent.map_err(|_| gone())?;
            let (pid, pidfd) = spawned.await.map_err(|_| gone())??;
            let process = Arc::new(Process::new(pid, pidfd));
            lock(&runtimes).insert(pid, Arc::clone(&process));
            let (told, ended) = oneshot::channel();
            let runtime = Arc::clone(&process);
            tokio::spawn(async move {
                let status = runtime.end().await;
                lock(&runtimes).remove(&pid);
                let _nobody_waits = told.send(status);
            });
            let ended = ended.map(|status| status.unwrap_or(ExitStatus::Unknown)).boxed().shared();
            let kill = Arc::new(move || {
                if let Err(error) = process.kill_group() {
                    tracing::warn!(pid = %process.pid, %error, "kill a runtime");
                }
            });
            Ok(RuntimeChild { pid, ended, kill })
        }
        .boxed()
    }

    fn adopt(&self, process: ProcessRef, pid: HostPid, parent: Parent) -> io::Result<()> {
        let exits = self.exits.clone();
        // None when it was reaped already: by its monitor, whose code is what is left of its status,
        // or by someone who waits for any child and has taken the status with them.
        let adopted = match pidfd::open(pid) {
            Ok(pidfd) => Some(Arc::new(Process::new(pid, pidfd))),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => None,
            Err(error) => {
                end_unwatched(pid);
                return Err(error);
            }
        };
        if let Some(adopted) = &adopted {
            lock(&self.adopted).insert(process.clone(), Arc::clone(adopted));
        }
        tokio::spawn(async move {
            let status = match (adopted, parent) {
                (Some(adopted), Parent::Us) => adopted.end().await,
                (adopted, Parent::Runtime(monitor)) => {
                    let told = monitor.ended.await;
                    let known = adopted.and_then(|adopted| {
                        *lock(&adopted.reaped) = true;
                        pidfd::status_of_reaped(adopted.pidfd.as_fd())
                    });
                    known.unwrap_or(told)
                }
                (None, Parent::Us) => ExitStatus::Unknown,
            };
            let _executor_gone = exits.send((process, status));
        });
        Ok(())
    }

    fn signal(&self, process: &ProcessRef, signal: Signal) -> io::Result<Delivery> {
        self.adopted(process).map_or(Ok(Delivery::Gone), |process| process.signal(signal))
    }

    fn kill(&self, process: &ProcessRef) -> io::Result<Delivery> {
        match (self.adopted(process), process.process) {
            (None, _) => Ok(Delivery::Gone),
            (Some(init), ProcessId::Init) => init.signal(Signal::KILL),
            (Some(exec), ProcessId::Exec(_)) => exec.kill_group(),
        }
    }

    fn end_strays(&self, of: &Strays) {
        for pid in self.unknown_children() {
            let Some(stat) = Stat::of(pid) else { continue };
            let runtimes_own = of.runtime.is_some_and(|runtime| runtime.get() == stat.group);
            let in_cgroup = procfs::is_in_cgroup(pid, &of.cgroup);
            // The runtime's helpers are called `runc:[1:CHILD]` and the like until they execute the
            // program. Whatever else is there, and whatever is dead already, may have been started by
            // another call and be adopted in a moment.
            let half_made = stat.state != 'Z' && stat.comm.contains(":[");
            if !(runtimes_own || in_cgroup && (of.all || half_made)) {
                continue;
            }
            let Ok(pidfd) = pidfd::open(pid) else { continue };
            if pidfd::send(&pidfd, Signal::KILL).is_ok() {
                cgroup::wait_for_ends(&[&pidfd], ADOPTION);
                let reaped = pidfd::reap(pidfd.as_fd());
                tracing::debug!(%pid, comm = stat.comm, ?reaped, "a stray of a runtime");
            }
        }
    }

    fn forget(&self, container: &ContainerId) {
        lock(&self.adopted).retain(|process, _| process.container != *container);
    }

    fn exits(&self) -> mpsc::UnboundedReceiver<(ProcessRef, ExitStatus)> {
        lock(&self.receiver).take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    /// Exec'd processes come before inits: the kernel holds an init until they are reaped.
    fn end_all(&self, patience: Duration) {
        let runtimes: Vec<_> = lock(&self.runtimes).drain().map(|(_, runtime)| runtime).collect();
        let mut adopted: Vec<_> = lock(&self.adopted).drain().collect();
        adopted.sort_by_key(|(process, _)| process.process == ProcessId::Init);
        let all: Vec<_> =
            runtimes.into_iter().chain(adopted.into_iter().map(|(_, process)| process)).collect();
        for process in &all {
            let _gone = process.kill_group();
        }
        let deadline = Instant::now() + patience;
        for process in &all {
            cgroup::wait_for_ends(&[&process.pidfd], deadline.saturating_duration_since(Instant::now()));
            let _reaped_before = process.reap();
        }
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

    fn kill_group(&self) -> io::Result<Delivery> {
        let reaped = lock(&self.reaped);
        if *reaped {
            return Ok(Delivery::Gone);
        }
        let delivery = pidfd::send(&self.pidfd, Signal::KILL)?;
        // The leader is a zombie at worst, so the group is still its own. A process that has made
        // no group of its own is in its parent's, which has another number: then there is none.
        match rustix::process::kill_process_group(pidfd::raw(self.pid)?, rustix::process::Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(delivery),
            Err(error) => Err(error.into()),
        }
    }

    fn reap(&self) -> io::Result<Option<ExitStatus>> {
        let mut reaped = lock(&self.reaped);
        let status = pidfd::reap(self.pidfd.as_fd())?;
        *reaped |= status.is_some();
        Ok(status)
    }

    /// Waits for the end and reaps.
    async fn end(&self) -> ExitStatus {
        if let Err(error) = self.readable().await {
            tracing::error!(pid = %self.pid, %error, "a pidfd cannot be waited for");
            return ExitStatus::Unknown;
        }
        let deadline = tokio::time::Instant::now() + ADOPTION;
        loop {
            match self.reap() {
                Ok(Some(status)) => return status,
                // It has ended, and its parent (crun's helper) may not have handed it over yet.
                Ok(None) => {}
                Err(_) if tokio::time::Instant::now() < deadline && self.is_unreaped() => {}
                Err(error) => {
                    *lock(&self.reaped) = true;
                    let known = pidfd::status_of_reaped(self.pidfd.as_fd());
                    tracing::debug!(pid = %self.pid, %error, ?known, "someone else has reaped it");
                    return known.unwrap_or(ExitStatus::Unknown);
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
        let pidfd = pidfd::watch(Arc::clone(&self.pidfd))?;
        pidfd.readable().await.map(|mut ready| ready.retain_ready())
    }
}

/// On the spawner's thread. A process group of its own keeps the terminal's signals from the runtime.
fn execute(call: Call) -> Spawned {
    let Call { program, args, stdio, mark } = call;
    let mut command = Command::new(&program);
    command.args(args).process_group(0).env_clear();
    command.envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(mark.map(|executor| (MARK, executor)));
    command
        .stdin(child_stdio(stdio.stdin)?)
        .stdout(child_stdio(stdio.stdout)?)
        .stderr(child_stdio(stdio.stderr)?);
    let child = command.spawn()?;
    drop(command);
    let pid = HostPid::new(child.id()).ok_or_else(|| io::Error::other("a child without a pid"))?;
    let pidfd = pidfd::open(pid).inspect_err(|_| end_unwatched(pid))?;
    Ok((pid, pidfd))
}

/// Out of files, a child of ours cannot be watched. It is ended while its pid is certainly its own.
fn end_unwatched(pid: HostPid) {
    if let Ok(pid) = pidfd::raw(pid) {
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let _reaped = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    }
}

fn child_stdio(fd: ChildFd) -> io::Result<Stdio> {
    Ok(match fd {
        ChildFd::Null => Stdio::null(),
        ChildFd::Inherit => Stdio::inherit(),
        ChildFd::Fd(fd) => match Arc::try_unwrap(fd) {
            Ok(fd) => fd.into(),
            Err(shared) => shared.try_clone()?.into(),
        },
    })
}

/// Nothing is left half changed under any of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
