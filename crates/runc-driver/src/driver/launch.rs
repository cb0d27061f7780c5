//! Starting a process: one call of the runtime, and what becomes of it.
//!
//! ```text
//!  spawn ──▶ the runtime exits with 0 (detached) ─────────▶ pid file ▶ adopt ▶ it runs
//!    │   └─▶ the pid file appears (foreground) ───────────▶
//!    └─────▶ it exits otherwise, is overdue, is abandoned ▶ end its strays ▶ why, from its log
//!            or what it waits for cannot be written ──────▶                  why that is so
//! ```
//! A process with a terminal runs when that has come through the console socket as well.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor_core::ChildStdio;
use executor_core::lifecycle::{
    ExitStatus, HostPid, ProcessId, ProcessRef, Signal, StartFailure, StartFailureKind,
};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::sync::watch;

use super::prepare::Written;
use super::{Container, Mode, Shared, broken, from_io, gone};
use crate::cgroup::place::Place;
use crate::command_line::{Launch, LaunchKind, Log};
use crate::root::Claim;
use crate::spawner::{Call, CallEnd, Parent, RuntimeChild};
use crate::terminal::{ConsoleSocket, Terminal, set_size};
use crate::{cgroup, failure, journal, lock, pidfd, procfs};

impl Shared {
    /// Starts a container's init, as far as `kind` says.
    pub(super) async fn launch_init(
        &self,
        container: &Arc<Container>,
        kind: LaunchKind<'_>,
        stdio: ChildStdio,
    ) -> Result<HostPid, StartFailure> {
        let abandoned = container.may_be_abandoned(ProcessId::Init);
        let written = container.written.get().cloned();
        let written = written.ok_or_else(|| broken("the container is not prepared".to_owned()))?;
        let pid = self.launch(container, ProcessId::Init, kind, stdio, written, abandoned).await?;
        let _first = container.init.set(pid);
        let found = Arc::clone(container);
        tokio::task::spawn_blocking(move || drop(found.cgroups()));
        Ok(pid)
    }

    /// Has the runtime start a process, and takes charge of it.
    pub(super) async fn launch(
        &self,
        container: &Container,
        process: ProcessId,
        kind: LaunchKind<'_>,
        stdio: ChildStdio,
        written: Written,
        abandoned: watch::Receiver<bool>,
    ) -> Result<HostPid, StartFailure> {
        let claim = &container.claim;
        let opened = self.opened().map_err(|error| broken(error.message))?;
        let pid_file = claim.dir.join(format!("{process}.pid"));
        let detach = self.mode == Mode::Detached;
        let console = match stdio.terminal {
            Some(_) if !detach => return Err(no_terminal_in_the_foreground()),
            Some(_) => Some(
                ConsoleSocket::listen(&claim.dir, process).map_err(|error| from_io(&claim.dir, &error))?,
            ),
            None => None,
        };
        // What gets a terminal has it for all three: the runtime itself gets nothing.
        let (own, pipes) =
            if console.is_some() { (ChildStdio::default(), stdio) } else { (stdio, ChildStdio::default()) };
        let path = console.as_ref().map(ConsoleSocket::path);
        let systemd = claim.cgroup.as_ref().is_some_and(Place::is_systemds);
        let launch = Launch { id: &claim.id, kind, pid_file: &pid_file, detach, console: path, systemd };
        let (call, log) = opened.command_line.call(&launch.args(), own);
        let in_vain = in_vain(written.clone(), abandoned);
        let started = self.launched(call, &launch, in_vain).await;
        lock(&container.abandon).remove(&process);
        let started = match written.await {
            Ok(()) => started,
            Err(failure) => Launched::Not { kind: Some(failure.kind), message: failure.message },
        };

        match started {
            Launched::Detached => {
                let pid = self.adopt(claim, process, &pid_file, Parent::Us, log).await?;
                if let Some(console) = console {
                    self.take_terminal(container, process, &console, pipes).await?;
                }
                Ok(pid)
            }
            Launched::Monitored(monitor) => {
                self.adopt(claim, process, &pid_file, Parent::Runtime(monitor), log).await
            }
            Launched::Not { kind, message } => {
                let spawner = Arc::clone(&self.spawner);
                let claim = claim.clone();
                let ended = move || {
                    end_started(&pid_file, &claim);
                    if let Some(strays) = claim.strays(false) {
                        spawner.end_strays(&strays);
                    }
                };
                self.blocking(ended).await.ok();
                let words = log.take().await;
                Err(match (kind, words) {
                    // Whatever the runtime says of it, there was nothing left to start a process in.
                    (None, words) if process != ProcessId::Init && container.has_ended() => {
                        gone(format!("the container has ended: {}", words.unwrap_or(message)))
                    }
                    (None, Some(words)) => failure::classify(words),
                    (kind, _) => StartFailure::new(kind.unwrap_or(StartFailureKind::RuntimeBroken), message),
                })
            }
        }
    }

    /// Takes over the terminal of a process that runs. One that cannot be is the end of the process.
    async fn take_terminal(
        &self,
        container: &Container,
        process: ProcessId,
        console: &ConsoleSocket,
        pipes: ChildStdio,
    ) -> Result<(), StartFailure> {
        let ChildStdio { stdin, stdout, terminal, .. } = pipes;
        let master = console.master().await.and_then(|master| {
            set_size(&master, terminal.unwrap_or_default())?;
            Terminal::begin(master, stdin, stdout)
        });
        match master {
            Ok(terminal) => {
                let mut terminals = lock(&container.terminals);
                terminals.retain(|_, terminal| terminal.is_there());
                terminals.insert(process, terminal);
                Ok(())
            }
            Err(error) => {
                let named = ProcessRef { container: container.claim.id.clone(), process };
                if let Err(error) = self.spawner.kill(&named) {
                    tracing::warn!(process = %named, %error, "kill what has no terminal");
                }
                Err(broken(format!("the terminal: {error}")))
            }
        }
    }

    /// Spawns the runtime, and waits until it says that the process runs.
    async fn launched(&self, call: Call, launch: &Launch<'_>, in_vain: impl Future<Output = ()>) -> Launched {
        let step = format!("{} {}", self.command_line.name(), launch.step());
        let not = |kind, message| Launched::Not { kind, message };
        let appears = match launch.detach {
            true => None,
            false => match PidFile::watch(launch.pid_file) {
                Ok(watched) => Some(watched),
                Err(error) => {
                    return not(Some(StartFailureKind::NoResources), format!("inotify: {error}"));
                }
            },
        };
        let runtime = match self.spawner.spawn(call).await {
            Ok(runtime) => runtime,
            Err(error) => {
                let failure = from_io(self.command_line.program(), &error);
                return not(Some(failure.kind), failure.message);
            }
        };
        let ended = runtime.wait(self.start_deadline, in_vain);
        let ended = match appears {
            None => ended.await,
            Some(watched) => tokio::select! {
                Ok(()) = watched.appeared() => return Launched::Monitored(runtime),
                ended = ended => ended,
            },
        };
        match ended {
            Ok(CallEnd::Ended(ExitStatus::Code(0))) if launch.detach => Launched::Detached,
            // So short a life that the monitor's end came first.
            Ok(CallEnd::Ended(_)) if !launch.detach && launch.pid_file.exists() => {
                Launched::Monitored(runtime)
            }
            Ok(CallEnd::Ended(status)) => {
                not(None, format!("{step} failed with {status} and did not say why"))
            }
            Ok(CallEnd::Overdue) => {
                let message =
                    format!("{step} gave no answer within {:?}; it was killed", self.start_deadline);
                not(Some(StartFailureKind::RuntimeTimedOut), message)
            }
            Ok(CallEnd::Abandoned) => {
                not(Some(StartFailureKind::RuntimeTimedOut), format!("{step} was given up and killed"))
            }
            Err(error) => not(None, format!("{step}: {error}")),
        }
    }

    /// Opens the pidfd of what was started, while nobody can have reaped it.
    async fn adopt(
        &self,
        claim: &Claim,
        process: ProcessId,
        pid_file: &Path,
        parent: Parent,
        log: Log,
    ) -> Result<HostPid, StartFailure> {
        let (file, dir) = (pid_file.to_owned(), claim.dir.clone());
        let read = move || {
            let pid = procfs::parse_pid(&fs::read_to_string(&file).ok()?)?;
            if let Err(error) = journal::record(&dir, pid) {
                tracing::warn!(%pid, %error, "a process is not in the journal");
            }
            // A container that lives long gets many of them.
            let _left_to_release = fs::remove_file(&file);
            Some(pid)
        };
        let pid = self.blocking(read).await.map_err(broken)?;
        let pid = pid.ok_or_else(|| broken(format!("{} has no pid in it", pid_file.display())))?;
        let adopted = ProcessRef { container: claim.id.clone(), process };
        let reaped_by_others = self.spawner.adopt(adopted, pid, parent);
        drop(log);
        reaped_by_others.map_err(|error| broken(format!("the process {pid} cannot be watched: {error}")))?;
        Ok(pid)
    }
}

/// Until a start is given up, or what its runtime waits for cannot be had.
async fn in_vain(written: Written, mut abandoned: watch::Receiver<bool>) {
    let unwritten = async {
        if written.await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        Ok(_) = abandoned.wait_for(|abandoned| *abandoned) => {}
        () = unwritten => {}
    }
}

/// Ends what a runtime has started all the same that says it has not, or did not say anything.
fn end_started(pid_file: &Path, claim: &Claim) {
    let pid = fs::read_to_string(pid_file).ok().as_deref().and_then(procfs::parse_pid);
    let _mostly_not_there = fs::remove_file(pid_file);
    let Some((pid, Ok(pidfd))) = pid.map(|pid| (pid, pidfd::open(pid))) else { return };
    if claim.may_own(pid) && pidfd::send(&pidfd, Signal::KILL).is_ok() {
        cgroup::wait_for_ends(&[&pidfd], cgroup::PATIENCE);
        // Unreaped, it would hold its container's init.
        let _not_our_child = pidfd::reap(pidfd.as_fd());
    }
}

fn no_terminal_in_the_foreground() -> StartFailure {
    let message = "a terminal needs a runtime that is not kept in the foreground";
    StartFailure::new(StartFailureKind::BadConfig, message)
}

/// What became of a call that was to start a process.
enum Launched {
    Detached,
    Monitored(RuntimeChild),
    /// With the kind of failure if the runtime's log need not be asked.
    Not {
        kind: Option<StartFailureKind>,
        message: String,
    },
}

/// A pid file that is to appear. Runtimes write it beside its place and rename it there.
struct PidFile {
    path: PathBuf,
    inotify: Arc<OwnedFd>,
}

impl PidFile {
    fn watch(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &inotify,
            path.parent().unwrap_or(path),
            WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE,
        )?;
        Ok(Self { path: path.to_owned(), inotify: Arc::new(inotify) })
    }

    async fn appeared(&self) -> io::Result<()> {
        let inotify = pidfd::watch(Arc::clone(&self.inotify), Interest::READABLE)?;
        while !self.path.exists() {
            let mut ready = inotify.readable().await?;
            let mut events = [0; 4096];
            let _what_it_was = rustix::io::read(&self.inotify, &mut events);
            ready.clear_ready();
        }
        Ok(())
    }
}
