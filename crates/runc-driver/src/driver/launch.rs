//! Starting a process: one call of the runtime, and adopting the process or finding out why it did not start.
//!
//! ```text
//!  call ──▶ the runtime exits with 0 (detached) ─────────────────▶ pid file ▶ adopt ▶ started
//!    │  └─▶ the pid file appears (foreground) ───────────────────▶
//!    └────▶ the runtime exits otherwise, is overdue, is abandoned ▶ kill what it has left ▶ the cause, from its log
//! ```
//! A terminal is received during the call. It has its size before the runtime reports that the process runs.

use std::sync::Arc;

use executor_core::lifecycle::{ExitStatus, HostPid, ProcessId, ProcessRef, StartFailure, StartFailureKind};
use executor_core::metrics::CallOutcome;
use executor_core::{BoxFuture, ChildStdio};
use executor_disk::Dir;
use executor_host::cgroup::PATIENCE;
use executor_host::cgroup::place::CgroupPlace;
use executor_host::{Adopted, CallEnd, Parent};

use super::console::Console;
use super::container::{DriverContainer, PendingStart, stem};
use super::pid_file::{PidFile, read_pid};
use super::pools::Pool;
use super::program::{Stderr, await_program};
use super::{DriverState, Mode, OpenedRoot, gone};
use crate::oci::{Launch, RuntimeCall};
use crate::{Error, failure};

pub(super) type StartResult<T> = std::result::Result<T, StartFailure>;

/// The command of the runtime.
pub(super) enum LaunchKind {
    Create,
    Run,
    /// `process` is the file in the bundle that describes the process. It is removed afterwards.
    Exec {
        process: String,
        program: String,
    },
}

impl LaunchKind {
    const fn command(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Run => "run",
            Self::Exec { .. } => "exec",
        }
    }
}

/// The files of a launch, in the container's directory.
struct LaunchFiles {
    pid: String,
    process: Option<String>,
}

impl LaunchFiles {
    /// Reads the pid, and removes the files. A container with many execs would collect them.
    fn take(&self, dir: &Dir) -> Option<HostPid> {
        let pid = read_pid(dir, &self.pid);
        for file in [Some(&self.pid), self.process.as_ref()].into_iter().flatten() {
            let _left_to_release = dir.remove_file(file);
        }
        pid
    }
}

/// A call that has not started a process.
enum LaunchFailure {
    /// The runtime was not executed.
    NotCalled(StartFailure),
    /// The runtime was killed, because it was overdue or abandoned.
    Killed(StartFailure),
    /// The runtime has failed. Its log has the cause; without a log, `unexplained` is the failure.
    Refused { call: RuntimeCall, unexplained: StartFailure },
}

impl DriverState {
    /// Starts a container's init, as far as `kind` says. Its exit is reported once the [`Adopted`] is dropped.
    pub(super) async fn launch_init(
        self: &Arc<Self>,
        start: &PendingStart,
        kind: LaunchKind,
        stdio: ChildStdio,
    ) -> StartResult<(HostPid, Adopted)> {
        let launched = self.launch(start, kind, stdio).await?;
        // The cgroups are found now, so that the exit does not wait for it.
        let (own, container) = (Arc::clone(self), Arc::clone(&start.container));
        tokio::spawn(async move { own.find_cgroups(container).await });
        Ok(launched)
    }

    pub(super) async fn find_cgroups(&self, container: Arc<DriverContainer>) {
        let own = Arc::clone(&container);
        let _closed = self.pools.run(Pool::Reads, move || drop(own.cgroups())).await;
        self.watch_kills(&container);
        self.thaw_its_exit(container).await;
    }

    /// Has the runtime start a process, and adopts it.
    pub(super) async fn launch(
        &self,
        start: &PendingStart,
        kind: LaunchKind,
        stdio: ChildStdio,
    ) -> StartResult<(HostPid, Adopted)> {
        let PendingStart { container, process, .. } = start;
        let detach = match self.mode {
            Mode::Detached => true,
            Mode::Foreground => {
                check_foreground(&kind, &stdio)?;
                false
            }
        };
        let (console, stdio) = self.console(container, process, stdio).await?;
        let reservation = &container.reservation;
        let pid_file = format!("{}.pid", stem(process));
        let launch = Launch {
            pid_file: reservation.path().join(&pid_file),
            console_socket: console.as_ref().map(|console| console.path.clone()),
            detach,
            systemd_cgroup: reservation.cgroup.as_ref().is_some_and(CgroupPlace::is_made_by_systemd),
        };
        let process_file = match &kind {
            LaunchKind::Exec { process, .. } => Some(process.clone()),
            LaunchKind::Create | LaunchKind::Run => None,
        };
        let files = LaunchFiles { pid: pid_file, process: process_file };
        let stderr = Stderr::of(&stdio);
        self.track_kills(container, process);
        match self.call_runtime(start, &kind, launch, &files.pid, stdio).await {
            Ok((parent, call)) => {
                let adopted = self.adopt(container, process, files, parent).await;
                drop(call);
                let adopted = adopted.inspect_err(|_| self.untrack_kills(container, process))?;
                let adopted = self.with_program(start, &kind, stderr, adopted).await?;
                self.with_terminal(container, console, adopted).await
            }
            Err(failure) => {
                self.untrack_kills(container, process);
                let failure = self.clean_up_failed_launch(start, files, failure).await;
                Err(console.and_then(Console::shortage).unwrap_or(failure))
            }
        }
    }

    /// Waits until a process has executed its program, unless it is held before. Otherwise the process has not started.
    async fn with_program(
        &self,
        start: &PendingStart,
        kind: &LaunchKind,
        stderr: Stderr,
        (pid, adopted): (HostPid, Adopted),
    ) -> StartResult<(HostPid, Adopted)> {
        let program = match kind {
            LaunchKind::Create => return Ok((pid, adopted)),
            LaunchKind::Run => start.container.program(),
            LaunchKind::Exec { program, .. } => program,
        };
        match await_program(start, program, pid, adopted.has_executed(), adopted.ended(), stderr).await {
            Ok(()) => Ok((pid, adopted)),
            Err(failure) => {
                adopted.disown(PATIENCE).await;
                self.untrack_kills(&start.container, &start.process);
                Err(self.gone_instead(start, &failure.message).await.unwrap_or(failure))
            }
        }
    }

    /// Waits for the terminal of a process that runs. Without its terminal, the process has not started, and
    /// is killed.
    async fn with_terminal(
        &self,
        container: &DriverContainer,
        console: Option<Console>,
        (pid, adopted): (HostPid, Adopted),
    ) -> StartResult<(HostPid, Adopted)> {
        let Some(console) = console else { return Ok((pid, adopted)) };
        match self.receive_terminal(container, console).await {
            Ok(()) => Ok((pid, adopted)),
            Err(error) => {
                adopted.disown(PATIENCE).await;
                Err(error.start_failure())
            }
        }
    }

    /// Calls the runtime, and waits until it reports that the process runs. Returns the parent of the
    /// process, and the call, which must be kept until the process is adopted.
    async fn call_runtime(
        &self,
        start: &PendingStart,
        kind: &LaunchKind,
        launch: Launch,
        pid_file: &str,
        stdio: ChildStdio,
    ) -> Result<(Parent, RuntimeCall), LaunchFailure> {
        let not_called = |error: Error| LaunchFailure::NotCalled(error.start_failure());
        let opened = self.opened().map_err(not_called)?;
        let detach = launch.detach;
        let watch = || watch(&start.container, pid_file).map_err(not_called);
        let watched = (!detach).then(watch).transpose()?;
        let measured = opened.calls.begin(kind.command());
        let call = match begin_call(opened, &start.container, kind, launch, stdio).await {
            Ok(call) => call,
            Err(error) => {
                measured.end(CallOutcome::Failed);
                return Err(not_called(error));
            }
        };
        let ended = call.wait(self.start_deadline, start.abandoned());
        let ended = match watched {
            None => ended.await,
            Some(watched) => tokio::select! {
                Ok(()) = watched.appeared() => {
                    measured.end(CallOutcome::Ok);
                    return Ok((call.as_parent(), call));
                }
                ended = ended => ended,
            },
        };
        let command = format!("{} {}", opened.runtime.name(), kind.command());
        let without_process = match ended {
            CallEnd::Ended(_) => CallOutcome::Failed,
            CallEnd::Overdue => CallOutcome::TimedOut,
            CallEnd::Abandoned => CallOutcome::Abandoned,
        };
        let has_pid = || self.has_pid(&start.container, pid_file);
        let outcome = self.outcome(&command, call, ended, detach, has_pid).await;
        measured.end(if outcome.is_ok() { CallOutcome::Ok } else { without_process });
        outcome
    }

    /// The outcome of a call that has ended.
    async fn outcome(
        &self,
        command: &str,
        call: RuntimeCall,
        ended: CallEnd,
        detach: bool,
        has_pid: impl AsyncFnOnce() -> bool,
    ) -> Result<(Parent, RuntimeCall), LaunchFailure> {
        let killed = |message| {
            Err(LaunchFailure::Killed(StartFailure::new(StartFailureKind::RuntimeTimedOut, message)))
        };
        let deadline = self.start_deadline;
        match ended {
            CallEnd::Ended(ExitStatus::Code(0)) if detach => Ok((call.left_behind(), call)),
            // The process has exited already, and its monitor with it.
            CallEnd::Ended(_) if !detach && has_pid().await => Ok((call.as_parent(), call)),
            CallEnd::Ended(status) => {
                let unexplained = broken(format!("{command} failed with {status} and did not say why"));
                Err(LaunchFailure::Refused { call, unexplained })
            }
            CallEnd::Overdue => {
                killed(format!("{command} gave no answer within {deadline:?}; it was killed"))
            }
            CallEnd::Abandoned => killed(format!("{command} was abandoned and killed")),
        }
    }

    async fn has_pid(&self, container: &Arc<DriverContainer>, pid_file: &str) -> bool {
        let (own, name) = (Arc::clone(container), pid_file.to_owned());
        let has = move || own.reservation.open().is_ok_and(|dir| dir.has(name));
        self.pools.run(Pool::Reads, has).await.unwrap_or(false)
    }

    /// Adopts the process that a runtime has started. It is recorded in the journal first: if this process
    /// dies now, a sweep kills it.
    async fn adopt(
        &self,
        container: &Arc<DriverContainer>,
        process: &ProcessId,
        files: LaunchFiles,
        parent: Parent,
    ) -> StartResult<(HostPid, Adopted)> {
        let reservation = &container.reservation;
        let (own, name) = (Arc::clone(container), process.clone());
        let read_and_record = move || {
            let dir = own.reservation.open().map_err(|error| Error::from(error).start_failure())?;
            let pid = files.take(&dir);
            if let Some(pid) = pid
                && let Err(error) = own.journal.record(&dir, &name, pid)
            {
                tracing::warn!(%pid, %error, "a process is not in the journal");
            }
            pid.ok_or_else(|| broken(NO_PROCESS.to_owned()))
        };
        let pid = self.work(Pool::Reads, read_and_record).await?;
        if *process == ProcessId::Init {
            let _first = container.init.set(pid);
        }
        let named = ProcessRef { container: reservation.id.clone(), process: process.clone() };
        let adopted = self.host().adopt(named, pid, parent, container.members()).await;
        let adopted = adopted.map_err(|error| Error::from(error).start_failure())?;
        if *process == ProcessId::Init {
            let _first = container.ended.set(adopted.ended());
        }
        Ok((pid, adopted))
    }

    /// Kills what a failed call has left, and returns why the process did not start.
    async fn clean_up_failed_launch(
        &self,
        start: &PendingStart,
        files: LaunchFiles,
        failure: LaunchFailure,
    ) -> StartFailure {
        let container = &start.container;
        let own = Arc::clone(container);
        let read = move || files.take(&own.reservation.open().ok()?);
        let started = self.pools.run(Pool::Reads, read).await.ok().flatten();
        let was_called = !matches!(failure, LaunchFailure::NotCalled(_));
        if was_called && let Err(error) = self.host().end_unadopted(container.members(), false, started).await
        {
            let id = &container.reservation.id;
            tracing::warn!(container = %id, %error, "what a runtime has left was not killed");
        }
        match failure {
            LaunchFailure::NotCalled(failure) | LaunchFailure::Killed(failure) => failure,
            LaunchFailure::Refused { call, unexplained } => self.explain(start, call, unexplained).await,
        }
    }

    /// An exec in a container that has ended fails with one of many messages. `None` if that is not the reason.
    async fn gone_instead(&self, start: &PendingStart, words: &str) -> Option<StartFailure> {
        let own = Arc::clone(&start.container);
        let has_ended = move || own.has_ended().unwrap_or(false);
        let is_exec = start.process != ProcessId::Init;
        let is_gone = is_exec && self.pools.run(Pool::Reads, has_ended).await.unwrap_or(false);
        is_gone.then(|| gone(format!("the container has ended: {words}")))
    }

    /// Why the runtime has failed, from its log.
    async fn explain(
        &self,
        start: &PendingStart,
        call: RuntimeCall,
        unexplained: StartFailure,
    ) -> StartFailure {
        let words = call.words().await;
        if let Some(gone) = self.gone_instead(start, words.as_ref().unwrap_or(&unexplained.message)).await {
            return gone;
        }
        let failure = words.map_or(unexplained, failure::classify);
        if failure.kind != StartFailureKind::RuntimeBroken {
            return failure;
        }
        let own = Arc::clone(&start.container);
        match self.pools.run(Pool::Reads, move || own.exhausted()).await {
            Ok(Some(what)) => {
                StartFailure::new(StartFailureKind::NoResources, format!("{}: {what}", failure.message))
            }
            Ok(None) | Err(_) => failure,
        }
    }
}

/// Begins to watch for the pid file of a runtime that stays.
fn watch(container: &DriverContainer, pid_file: &str) -> crate::Result<PidFile> {
    let dir = container.reservation.open()?;
    PidFile::watch(&dir, pid_file).map_err(Error::file("watch", &dir.path_of(pid_file)))
}

/// Executes the runtime.
fn begin_call(
    opened: &OpenedRoot,
    container: &DriverContainer,
    kind: &LaunchKind,
    launch: Launch,
    stdio: ChildStdio,
) -> BoxFuture<'static, crate::Result<RuntimeCall>> {
    let (id, bundle) = (&container.reservation.id, &container.reservation.path());
    match kind {
        LaunchKind::Create => opened.runtime.create(id, bundle, launch, stdio),
        LaunchKind::Run => opened.runtime.run(id, bundle, launch, stdio),
        LaunchKind::Exec { process, .. } => opened.runtime.exec(id, &bundle.join(process), launch, stdio),
    }
}

/// Checks that a start is possible with a runtime that stays as the monitor. Such a runtime keeps the
/// terminal for itself, and after `create` it does not stay. The terminal is checked first, because the user
/// has asked for it, and not for `create`.
fn check_foreground(kind: &LaunchKind, stdio: &ChildStdio) -> StartResult<()> {
    let what = match (stdio.terminal, kind) {
        (Some(_), _) => "a terminal",
        (None, LaunchKind::Create) => "a container that is created",
        (None, LaunchKind::Run | LaunchKind::Exec { .. }) => return Ok(()),
    };
    let message = format!("{what} needs a runtime that is not kept in the foreground");
    Err(StartFailure::new(StartFailureKind::BadConfig, message))
}

/// A program that succeeds at everything, such as `true`, is not the only one: a wrapper may lose the runtime's options.
const NO_PROCESS: &str =
    "the runtime said that it had started a process, and named none: it is no OCI runtime";

fn broken(message: String) -> StartFailure {
    StartFailure::new(StartFailureKind::RuntimeBroken, message)
}
