//! The runtime's command line: what is written, what comes back.
//!
//! Every call has a log of its own, so that nobody reads another's error, and a deadline, so that a
//! runtime that hangs is an error that names the call.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, Signal};
use executor_core::{ChildFd, ChildStdio, RuntimeError};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::failure;
use crate::spawner::{Call, CallEnd, Spawner};

/// The most that is read of what a runtime answers.
const ANSWER_LIMIT: u64 = 16 << 20;

/// A runtime that understands runc's command line, with a state directory.
#[derive(Clone)]
pub struct CommandLine {
    program: PathBuf,
    /// The runtime's `--root`; its own default when absent.
    state: Option<PathBuf>,
    /// The executor the calls are for.
    mark: Option<String>,
    deadline: Duration,
    spawner: Arc<dyn Spawner>,
    calls: Arc<AtomicU64>,
}

/// What `runc state` says of a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Its id.
    pub id: String,
    /// `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// Init's pid on the host; 0 when it has ended.
    #[serde(default)]
    pub pid: u32,
}

/// What `runc features` says; fields that are absent are not told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Features {
    /// The oldest version of the OCI runtime specification it takes.
    pub oci_version_min: String,
    /// The newest.
    pub oci_version_max: String,
    /// Hooks it runs.
    pub hooks: Vec<String>,
}

/// How a container or process is started.
pub(crate) struct Launch<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) kind: LaunchKind<'a>,
    pub(crate) pid_file: &'a Path,
    pub(crate) detach: bool,
    /// Where the runtime is to hand over the terminal of a process that gets one.
    pub(crate) console: Option<String>,
    /// Whether systemd is to make its cgroup.
    pub(crate) systemd: bool,
}

pub(crate) enum LaunchKind<'a> {
    Run { bundle: &'a Path, no_pivot: bool },
    Create { bundle: &'a Path, no_pivot: bool },
    Exec { process: &'a Path },
}

impl Launch<'_> {
    /// The operation, for error messages.
    pub(crate) const fn step(&self) -> &'static str {
        match self.kind {
            LaunchKind::Run { .. } => "run",
            LaunchKind::Create { .. } => "create",
            LaunchKind::Exec { .. } => "exec",
        }
    }

    pub(crate) fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        args.extend(self.systemd.then(|| "--systemd-cgroup".into()));
        args.push(self.step().into());
        // `create` knows no other way.
        if self.detach && !matches!(self.kind, LaunchKind::Create { .. }) {
            args.push("--detach".into());
        }
        args.extend(["--pid-file".into(), self.pid_file.into()]);
        if let Some(console) = &self.console {
            args.extend(["--console-socket".into(), console.into()]);
        }
        match self.kind {
            LaunchKind::Run { bundle, no_pivot } | LaunchKind::Create { bundle, no_pivot } => {
                args.extend(["--bundle".into(), bundle.into()]);
                args.extend(no_pivot.then(|| "--no-pivot".into()));
            }
            LaunchKind::Exec { process } => args.extend(["--process".into(), process.into()]),
        }
        args.extend(["--".into(), self.id.as_str().into()]);
        args
    }
}

impl CommandLine {
    pub(crate) fn new(program: PathBuf, deadline: Duration, spawner: Arc<dyn Spawner>) -> Self {
        Self { program, state: None, mark: None, deadline, spawner, calls: Arc::default() }
    }

    /// The same for containers whose state is in `state`, by an executor of this name.
    pub(crate) fn with_state(&self, state: PathBuf, executor: &str) -> Self {
        Self { state: Some(state), mark: Some(executor.to_owned()), ..self.clone() }
    }

    /// The runtime's program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The program's name, for messages.
    pub(crate) fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    /// The first line of `--version`, as in `runc version 1.1.5`.
    ///
    /// # Errors
    /// When it cannot be executed, fails or hangs.
    pub async fn version(&self) -> Result<String, RuntimeError> {
        let text = self.answer(None, &["--version".into()]).await?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// What `features` tells; runc knows the command from 1.1 on, crun from 1.8.6 on.
    ///
    /// # Errors
    /// When the runtime does not know the command, fails or hangs.
    pub async fn features(&self) -> Result<Features, RuntimeError> {
        self.json(None, &["features".into()]).await
    }

    /// The state of a container.
    ///
    /// # Errors
    /// When there is no such container, or the runtime fails or hangs.
    pub async fn state(&self, id: &ContainerId) -> Result<State, RuntimeError> {
        self.json(Some(id), &["state".into(), "--".into(), id.as_str().into()]).await
    }

    /// The host pids of all processes in a container.
    ///
    /// # Errors
    /// When there is no such container, or the runtime fails or hangs.
    pub async fn ps(&self, id: &ContainerId) -> Result<Vec<HostPid>, RuntimeError> {
        let args = ["ps", "--format", "json", "--", id.as_str()].map(OsString::from);
        let pids: Option<Vec<u32>> = self.json(Some(id), &args).await?;
        Ok(pids.into_iter().flatten().filter_map(HostPid::new).collect())
    }

    /// Has the runtime send a signal to a container's init.
    ///
    /// # Errors
    /// When there is no such container or it does not run, or the runtime fails or hangs.
    pub async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        let args = ["kill", "--", id.as_str(), &signal.number().to_string()].map(OsString::from);
        self.answer(Some(id), &args).await.map(drop)
    }

    /// Has a container that was created execute its program.
    ///
    /// # Errors
    /// When there is no such container or it is not created, or the runtime fails or hangs.
    pub async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.answer(Some(id), &["start".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// When there is no such container or it does not run, or the runtime fails or hangs.
    pub async fn pause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.answer(Some(id), &["pause".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// When there is no such container or it is not frozen, or the runtime fails or hangs.
    pub async fn resume(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.answer(Some(id), &["resume".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Ends and removes a container; one that does not exist is removed already.
    ///
    /// # Errors
    /// When the runtime fails or hangs.
    pub async fn delete(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let args = ["delete", "--force", "--", id.as_str()].map(OsString::from);
        match self.answer(Some(id), &args).await {
            // As runc says it, and as crun does.
            Err(error)
                if ["does not exist", "/status`: No such file"]
                    .iter()
                    .any(|words| error.message.contains(words)) =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// A call that is to be spawned, with the log it will write to.
    pub(crate) fn call(&self, args: &[OsString], stdio: ChildStdio) -> (Call, Log) {
        let mut all: Vec<OsString> = Vec::new();
        let mut log = Log(None);
        if let (Some(state), Some(mark)) = (&self.state, &self.mark) {
            let number = self.calls.fetch_add(1, Ordering::Relaxed);
            let file = state.join(format!("{}{number}", log_prefix(mark)));
            all.extend(["--root".into(), state.into()]);
            all.extend(["--log".into(), file.clone().into(), "--log-format".into(), "json".into()]);
            log = Log(Some(file));
        }
        all.extend_from_slice(args);
        (Call { program: self.program.clone(), args: all, stdio, mark: self.mark.clone() }, log)
    }

    async fn json<T: for<'a> Deserialize<'a>>(
        &self,
        id: Option<&ContainerId>,
        args: &[OsString],
    ) -> Result<T, RuntimeError> {
        let answer = self.answer(id, args).await?;
        serde_json::from_slice(&answer).map_err(|error| RuntimeError {
            source: Some(error.into()),
            ..self.error(id, args, "its answer is not what was expected")
        })
    }

    /// Calls the runtime and answers with what it wrote to stdout. The call goes on to its end when
    /// nobody waits for the answer any more: half a call would leave a log, or a runtime, behind.
    async fn answer(&self, id: Option<&ContainerId>, args: &[OsString]) -> Result<Vec<u8>, RuntimeError> {
        let (call, own_id, own_args) = (self.clone(), id.cloned(), args.to_vec());
        let answer = tokio::spawn(async move { call.whole_call(own_id.as_ref(), &own_args).await });
        answer.await.unwrap_or_else(|error| Err(self.error(id, args, &error.to_string())))
    }

    async fn whole_call(&self, id: Option<&ContainerId>, args: &[OsString]) -> Result<Vec<u8>, RuntimeError> {
        let failed = |message: &str| self.error(id, args, message);
        let from_io = |error: io::Error| failed(&error.to_string());
        let (ours, theirs) = io::pipe().map_err(from_io)?;
        let stdout = ChildFd::Fd(Arc::new(OwnedFd::from(theirs)));
        // A runtime's complaint is in its log; on stderr it only comes again.
        let (call, log) = self.call(args, ChildStdio { stdout, ..ChildStdio::default() });
        let ours = pipe::Receiver::from_owned_fd(ours.into()).map_err(from_io)?;
        let runtime = self.spawner.spawn(call).await.map_err(from_io)?;
        let mut answer = Vec::new();
        let mut ours = ours.take(ANSWER_LIMIT);
        let read = tokio::time::timeout(self.deadline, ours.read_to_end(&mut answer));
        let (ended, read) = tokio::join!(runtime.wait(self.deadline, std::future::pending()), read);
        let words = log.take().await;
        match (ended.map_err(from_io)?, read) {
            (CallEnd::Ended(ExitStatus::Code(0)), Ok(read)) => read.map(|_| answer).map_err(from_io),
            (CallEnd::Ended(ExitStatus::Code(0)), Err(_)) => Err(failed("its answer has no end")),
            (CallEnd::Ended(status), _) => {
                Err(failed(&words.unwrap_or_else(|| format!("it failed with {status}"))))
            }
            (CallEnd::Overdue | CallEnd::Abandoned, _) => {
                Err(failed(&format!("no answer within {:?}; it was killed", self.deadline)))
            }
        }
    }

    fn error(&self, id: Option<&ContainerId>, args: &[OsString], message: &str) -> RuntimeError {
        let step = args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
        let error = RuntimeError::new(format!("{} {step}", self.name()), message);
        match id {
            Some(id) => error.of(id),
            None => error,
        }
    }
}

/// How the names of an executor's logs begin, in the runtime's state directory. No id begins so.
pub(crate) fn log_prefix(executor: &str) -> String {
    format!(".call-{executor}-")
}

/// The log of one call; removed when it has been read or is dropped.
pub(crate) struct Log(Option<PathBuf>);

impl Log {
    /// What the runtime complained of.
    pub(crate) async fn take(self) -> Option<String> {
        let read = tokio::task::spawn_blocking(move || self.0.as_ref().map(fs::read));
        failure::words(&read.await.ok()??.ok()?)
    }
}

impl Drop for Log {
    /// A short file, removed in microseconds.
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _never_written = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_after_the_end_of_options() {
        let id = ContainerId::new("c1").unwrap();
        let pid_file = Path::new("/b/init.pid");
        let kind = LaunchKind::Run { bundle: Path::new("/b"), no_pivot: true };
        let run = Launch { id: &id, kind, pid_file, detach: true, console: None, systemd: true }.args();
        assert_eq!(
            run.join(" ".as_ref()),
            "--systemd-cgroup run --detach --pid-file /b/init.pid --bundle /b --no-pivot -- c1"
        );
        let kind = LaunchKind::Exec { process: Path::new("/b/p.json") };
        let exec = Launch { id: &id, kind, pid_file, detach: false, console: None, systemd: false }.args();
        assert_eq!(exec.join(" ".as_ref()), "exec --pid-file /b/init.pid --process /b/p.json -- c1");
    }

    #[test]
    fn answers_of_the_runtime_are_understood() {
        let state: State =
            serde_json::from_str(r#"{"ociVersion":"1.0.2","id":"c","pid":0,"status":"stopped"}"#).unwrap();
        assert_eq!((state.id.as_str(), state.status.as_str(), state.pid), ("c", "stopped", 0));
        let features: Features =
            serde_json::from_str(r#"{"ociVersionMin":"1.0.0","ociVersionMax":"1.0.2-dev"}"#).unwrap();
        assert_eq!(features.oci_version_max, "1.0.2-dev");
    }
}
