//! Starting a process: one call of the runtime, and what becomes of it.
//!
//! ```text
//!  spawn ──▶ the runtime exits with 0 (detached) ─────────▶ pid file ▶ adopt ▶ it runs
//!    │   └─▶ the pid file appears (foreground) ───────────▶
//!    └─────▶ it exits otherwise, is overdue, is abandoned ▶ end what it left ▶ why, from its log
//! ```
//! A terminal is received while the runtime works, and has its size before the runtime says that the process runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor_core::ChildStdio;
use executor_core::lifecycle::{ExitStatus, HostPid, ProcessId, ProcessRef, StartFailure, StartFailureKind};
use executor_host::cgroup::PATIENCE;
use executor_host::cgroup::place::CgroupPlace;
use executor_host::{Adopted, CallEnd, Parent, journal};

use super::container::{DriverContainer, PendingStart, stem};
use super::pid_file::{PidFile, read_pid};
use super::pools::Pool;
use super::{DriverState, Mode, gone};
use crate::oci::{Launch, RuntimeCall};
use crate::{Error, failure};

pub(super) type StartResult<T> = std::result::Result<T, StartFailure>;

/// What the runtime is to do.
pub(super) enum LaunchKind {
    Create,
    Run,
    /// With the file that describes the process, which goes afterwards.
    Exec {
        process: PathBuf,
    },
}

impl LaunchKind {
    const fn step(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Run => "run",
            Self::Exec { .. } => "exec",
        }
    }
}

impl DriverState {
    /// Starts a container's init, as far as `kind` says; its exit is reported when that is asked for.
    pub(super) async fn launch_init(
        self: &Arc<Self>,
        start: &PendingStart,
        kind: LaunchKind,
        stdio: ChildStdio,
    ) -> StartResult<(HostPid, Adopted)> {
        let launched = self.launch(start, kind, stdio).await?;
        let (shared, found) = (Arc::clone(self), Arc::clone(&start.container));
        tokio::spawn(async move { shared.pools.run(Pool::Reads, move || drop(found.cgroups())).await });
        Ok(launched)
    }

    /// Has the runtime start a process, and takes charge of it.
    pub(super) async fn launch(
        &self,
        start: &PendingStart,
        kind: LaunchKind,
        stdio: ChildStdio,
    ) -> StartResult<(HostPid, Adopted)> {
        let PendingStart { container, process, .. } = start;
        let reservation = &container.reservation;
        let detach = match self.mode {
            Mode::Detached => true,
            Mode::Foreground => {
                possible_in_the_foreground(&kind, &stdio)?;
                false
            }
        };
        let (console, stdio) = self.console(container, process, stdio).await?;
        let launch = Launch {
            pid_file: reservation.dir.join(format!("{}.pid", stem(process))),
            console_socket: console.as_ref().map(|console| console.path.clone()),
            detach,
            systemd_cgroup: reservation.cgroup.as_ref().is_some_and(CgroupPlace::is_made_by_systemd),
        };
        let mut files = vec![launch.pid_file.clone()];
        files.extend(match &kind {
            LaunchKind::Create | LaunchKind::Run => None,
            LaunchKind::Exec { process } => Some(process.clone()),
        });
        match self.call_runtime(start, &kind, launch, stdio).await {
            LaunchOutcome::Started { parent, call } => {
                let adopted = self.adopt(container, process, files, parent).await;
                drop(call);
                let (pid, adopted) = adopted?;
                if let Some(console) = console
                    && let Err(error) = self.receive_terminal(container, console).await
                {
                    // One that has no terminal has not started.
                    adopted.disown(PATIENCE).await;
                    return Err(error.start_failure());
                }
                Ok((pid, adopted))
            }
            LaunchOutcome::Failed { failure, call } => {
                Err(self.clean_up_failed_launch(container, process, files, failure, call).await)
            }
        }
    }

    /// Calls the runtime, and waits until it says that the process runs.
    async fn call_runtime(
        &self,
        start: &PendingStart,
        kind: &LaunchKind,
        launch: Launch,
        stdio: ChildStdio,
    ) -> LaunchOutcome {
        let container = &start.container;
        let not = |failure, call| LaunchOutcome::Failed { failure: Some(failure), call };
        let opened = match self.opened() {
            Ok(opened) => opened,
            Err(error) => return not(error.start_failure(), None),
        };
        let (runtime, id, detach) = (&opened.runtime, &container.reservation.id, launch.detach);
        let step = format!("{} {}", runtime.name(), kind.step());
        let pid_file = launch.pid_file.clone();
        let appears = match detach {
            true => None,
            false => match PidFile::watch(&pid_file) {
                Ok(watched) => Some(watched),
                Err(error) => return not(Error::file("watch", &pid_file)(error).start_failure(), None),
            },
        };
        let called = match kind {
            LaunchKind::Create => runtime.create(id, &container.reservation.dir, launch, stdio),
            LaunchKind::Run => runtime.run(id, &container.reservation.dir, launch, stdio),
            LaunchKind::Exec { process } => runtime.exec(id, process, launch, stdio),
        };
        let call = match called.await {
            Ok(call) => call,
            Err(error) => return not(error.start_failure(), None),
        };
        let ended = call.wait(self.start_deadline, start.abandoned());
        let ended = match appears {
            None => ended.await,
            Some(watched) => tokio::select! {
                Ok(()) = watched.appeared() => {
                    return LaunchOutcome::Started { parent: call.as_parent(), call };
                }
                ended = ended => ended,
            },
        };
        let deadline = self.start_deadline;
        match ended {
            CallEnd::Ended(ExitStatus::Code(0)) if detach => {
                LaunchOutcome::Started { parent: Parent::Us, call }
            }
            // So short a life that the monitor's end came first.
            CallEnd::Ended(_) if !detach && self.is_there(&pid_file).await => {
                LaunchOutcome::Started { parent: call.as_parent(), call }
            }
            CallEnd::Ended(status) => {
                let said_nothing = broken(format!("{step} failed with {status} and did not say why"));
                LaunchOutcome::Failed { failure: None, call: Some((call, said_nothing)) }
            }
            CallEnd::Overdue => {
                timed_out(format!("{step} gave no answer within {deadline:?}; it was killed"), call)
            }
            CallEnd::Abandoned => timed_out(format!("{step} was given up and killed"), call),
        }
    }

    async fn is_there(&self, file: &Path) -> bool {
        let file = file.to_owned();
        self.pools.run(Pool::Reads, move || file.exists()).await.unwrap_or(false)
    }

    /// What was started is watched, before its pid can be another's. It is in the journal before anything else.
    async fn adopt(
        &self,
        container: &Arc<DriverContainer>,
        process: &ProcessId,
        files: Vec<PathBuf>,
        parent: Parent,
    ) -> StartResult<(HostPid, Adopted)> {
        let reservation = &container.reservation;
        let (dir, pid_file) = (reservation.dir.clone(), files.first().cloned().unwrap_or_default());
        let read = move || {
            let pid = read_pid(&pid_file);
            if let Some(pid) = pid
                && let Err(error) = journal::record(&dir, pid)
            {
                tracing::warn!(%pid, %error, "a process is not in the journal");
            }
            remove(&files);
            pid.ok_or_else(|| broken(format!("{} has no pid in it", pid_file.display())))
        };
        let pid = self.work(Pool::Reads, read).await?;
        if *process == ProcessId::Init {
            let _first = container.init.set(pid);
        }
        let named = ProcessRef { container: reservation.id.clone(), process: process.clone() };
        let adopted = self.host.adopt(named, pid, parent, container.members()).await;
        let adopted = adopted.map_err(|error| Error::from(error).start_failure())?;
        if *process == ProcessId::Init {
            let _first = container.ended.set(adopted.ended());
        }
        Ok((pid, adopted))
    }

    /// Ends what a runtime has started all the same that says it has not, or did not say anything; and why it did not.
    async fn clean_up_failed_launch(
        &self,
        container: &Arc<DriverContainer>,
        process: &ProcessId,
        files: Vec<PathBuf>,
        failure: Option<StartFailure>,
        call: Option<(RuntimeCall, StartFailure)>,
    ) -> StartFailure {
        let read = move || {
            let pid = files.first().and_then(|pid_file| read_pid(pid_file));
            remove(&files);
            pid
        };
        let started = self.pools.run(Pool::Reads, read).await.ok().flatten();
        if call.is_some()
            && let Err(error) = self.host.end_unadopted(container.members(), false, started).await
        {
            tracing::warn!(container = %container.reservation.id, %error, "end what a runtime has left");
        }
        let (words, said_nothing) = match call {
            Some((call, said_nothing)) => (call.words().await, Some(said_nothing)),
            None => (None, None),
        };
        if let Some(failure) = failure {
            return failure;
        }
        let own = Arc::clone(container);
        let is_exec = *process != ProcessId::Init;
        let container_ended =
            is_exec && self.pools.run(Pool::Reads, move || own.has_ended()).await.unwrap_or(false);
        let said_nothing = said_nothing.unwrap_or_else(|| broken("the runtime was not called".to_owned()));
        match words {
            // Whatever the runtime says of it, there was nothing left to start a process in.
            words if container_ended => {
                gone(format!("the container has ended: {}", words.unwrap_or(said_nothing.message)))
            }
            Some(words) => failure::classify(words),
            None => said_nothing,
        }
    }
}

/// What became of a call that was to start a process.
enum LaunchOutcome {
    /// The call has to be there until the process is adopted.
    Started { parent: Parent, call: RuntimeCall },
    Failed {
        /// Why, if the runtime's log need not be asked.
        failure: Option<StartFailure>,
        /// The call, with what is said of it if the runtime says nothing.
        call: Option<(RuntimeCall, StartFailure)>,
    },
}

fn timed_out(message: String, call: RuntimeCall) -> LaunchOutcome {
    let failure = StartFailure::new(StartFailureKind::RuntimeTimedOut, message);
    LaunchOutcome::Failed { failure: Some(failure.clone()), call: Some((call, failure)) }
}

fn broken(message: String) -> StartFailure {
    StartFailure::new(StartFailureKind::RuntimeBroken, message)
}

/// A container that lives long gets many of them.
fn remove(files: &[PathBuf]) {
    for file in files {
        let _left_to_release = fs::remove_file(file);
    }
}

/// A runtime that stays with its process keeps the terminal for itself, and `create` does not stay. A terminal is what the user
/// asked for: that its container is created first is our own doing.
fn possible_in_the_foreground(kind: &LaunchKind, stdio: &ChildStdio) -> StartResult<()> {
    let what = match (stdio.terminal, kind) {
        (Some(_), _) => "a terminal",
        (None, LaunchKind::Create) => "a container that is created",
        (None, LaunchKind::Run | LaunchKind::Exec { .. }) => return Ok(()),
    };
    let message = format!("{what} needs a runtime that is not kept in the foreground");
    Err(StartFailure::new(StartFailureKind::BadConfig, message))
}
