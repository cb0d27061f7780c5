//! The runtime's command line: what is written, what comes back.
//!
//! Every call has a log of its own, so that no call reads another's error, and a deadline, so that a
//! runtime that hangs is an error that names the call.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ExitStatus, HostPid, Signal};
use executor_core::{BoxFuture, ChildFd, ChildStdio, Resources};
use executor_host::{Call, CallEnd, Command, HostClient, MARK, StdioSource, log_prefix};
use futures::FutureExt;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::image::Images;
use crate::oci::{Features, Launch, OciRuntime, RuntimeCall, State};
use crate::{Error, Result, failure};

/// The most that is read of what a runtime answers.
const ANSWER_LIMIT: u64 = 16 << 20;

/// What of our environment a runtime gets. Above all not `NOTIFY_SOCKET`, with which runc waits for a
/// message that never comes, nor `LISTEN_FDS`, with which it hands our sockets on.
const KEPT_VARIABLES: [&str; 5] = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"];

/// A runtime that understands runc's command line, with a state directory.
#[derive(Clone)]
pub struct CommandLine {
    program: PathBuf,
    /// The runtime's `--root`; its own default when absent.
    state: Option<PathBuf>,
    /// The executor the calls are for.
    mark: Option<String>,
    no_pivot: bool,
    deadline: Duration,
    host: HostClient,
    /// Where the program is executed from memory.
    images: Option<Arc<Images>>,
    calls: Arc<AtomicU64>,
}

/// What of the command line depends on what is started.
enum Step<'a> {
    Create { bundle: &'a Path },
    Run { bundle: &'a Path },
    Exec { process: &'a Path },
}

impl Step<'_> {
    /// The operation, for error messages.
    const fn name(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Create { .. } => "create",
            Self::Exec { .. } => "exec",
        }
    }

    fn args(&self, id: &ContainerId, launch: &Launch, no_pivot: bool) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        args.extend(launch.systemd_cgroup.then(|| "--systemd-cgroup".into()));
        args.push(self.name().into());
        // `create` knows no other way.
        if launch.detach && !matches!(self, Self::Create { .. }) {
            args.push("--detach".into());
        }
        args.extend(["--pid-file".into(), launch.pid_file.clone().into()]);
        if let Some(console) = &launch.console_socket {
            args.extend(["--console-socket".into(), console.into()]);
        }
        match self {
            Self::Run { bundle } | Self::Create { bundle } => {
                args.extend(["--bundle".into(), bundle.into()]);
                args.extend(no_pivot.then(|| "--no-pivot".into()));
            }
            Self::Exec { process } => args.extend(["--process".into(), process.into()]),
        }
        args.extend(["--".into(), id.as_str().into()]);
        args
    }
}

impl CommandLine {
    pub(crate) fn new(
        program: PathBuf,
        no_pivot: bool,
        in_memory: bool,
        deadline: Duration,
        host: HostClient,
    ) -> Self {
        let images = in_memory.then(|| Arc::new(Images::new(&program)));
        Self { program, state: None, mark: None, no_pivot, deadline, host, images, calls: Arc::default() }
    }

    /// The same for containers whose state is in `state`, by an executor of this name.
    pub(crate) fn with_state(&self, state: PathBuf, executor: &str) -> Self {
        Self { state: Some(state), mark: Some(executor.to_owned()), ..self.clone() }
    }

    /// The runtime's program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The first line of `--version`, as in `runc version 1.1.5`.
    ///
    /// # Errors
    /// When it cannot be executed, fails or hangs.
    pub async fn version(&self) -> Result<String> {
        let text = self.answer(None, &["--version".into()]).await?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// What `features` says; runc knows the command from 1.1 on, crun from 1.8.6 on.
    ///
    /// # Errors
    /// When the runtime does not know the command, fails or hangs.
    pub async fn features(&self) -> Result<Features> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Told {
            oci_version_min: String,
            oci_version_max: String,
            hooks: Vec<String>,
        }
        let Told { oci_version_min, oci_version_max, hooks } = self.json(None, &["features".into()]).await?;
        Ok(Features { oci_version_min, oci_version_max, hooks })
    }

    /// The state of a container.
    ///
    /// # Errors
    /// When there is no such container, or the runtime fails or hangs.
    pub async fn state(&self, id: &ContainerId) -> Result<State> {
        self.json(Some(id), &["state".into(), "--".into(), id.as_str().into()]).await.map(ToldState::into)
    }

    /// The host pids of all processes in a container.
    ///
    /// # Errors
    /// When there is no such container, or the runtime fails or hangs.
    pub async fn ps(&self, id: &ContainerId) -> Result<Vec<HostPid>> {
        let args = ["ps", "--format", "json", "--", id.as_str()].map(OsString::from);
        let pids: Option<Vec<u32>> = self.json(Some(id), &args).await?;
        Ok(pids.into_iter().flatten().filter_map(HostPid::new).collect())
    }

    /// Has the runtime send a signal to a container's init.
    ///
    /// # Errors
    /// When there is no such container or it does not run, or the runtime fails or hangs.
    pub async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        let args = ["kill", "--", id.as_str(), &signal.number().to_string()].map(OsString::from);
        self.answer(Some(id), &args).await.map(drop)
    }

    /// Has a container that was created execute its program.
    ///
    /// # Errors
    /// When there is no such container or it is not created, or the runtime fails or hangs.
    pub async fn start(&self, id: &ContainerId) -> Result<()> {
        self.answer(Some(id), &["start".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// When there is no such container or it does not run, or the runtime fails or hangs.
    pub async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.answer(Some(id), &["pause".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// When there is no such container or it is not frozen, or the runtime fails or hangs.
    pub async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.answer(Some(id), &["resume".into(), "--".into(), id.as_str().into()]).await.map(drop)
    }

    /// Sets limits of a running container; what is absent stays as it is.
    ///
    /// # Errors
    /// When there is no such container or it does not run, or the runtime fails or hangs.
    pub async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let mut args = vec!["update".into()];
        args.extend(limits(resources));
        args.extend(["--".into(), id.as_str().into()]);
        self.answer(Some(id), &args).await.map(drop)
    }

    /// Ends and removes a container; one that does not exist is removed already.
    ///
    /// # Errors
    /// When the runtime fails or hangs.
    pub async fn delete(&self, id: &ContainerId) -> Result<()> {
        let args = ["delete", "--force", "--", id.as_str()].map(OsString::from);
        match self.answer(Some(id), &args).await {
            // As runc says it, and as crun does.
            Err(Error::Refused { words, .. })
                if ["does not exist", "/status`: No such file"].iter().any(|known| words.contains(known)) =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// Executes the runtime, with a log of its own.
    fn call(
        &self,
        args: &[OsString],
        stdio: &ChildStdio,
    ) -> (BoxFuture<'static, executor_host::Result<Call>>, Log) {
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
        let kept =
            KEPT_VARIABLES.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        let mark = self.mark.iter().map(|executor| (MARK.into(), executor.into()));
        let command = Command {
            program: self.program.clone().into(),
            image: None,
            args: all,
            env: kept.chain(mark).collect(),
            stdio: [StdioSource::Null; 3],
        };
        let spawned = self.host.spawn(command, self.images.as_ref().and_then(Images::image), stdio);
        let images = self.images.clone();
        let spawned = spawned.inspect(move |call| {
            if let (Some(images), Ok(call)) = (images, call) {
                images.was(call.image());
            }
        });
        (spawned.boxed(), log)
    }

    fn launch(
        &self,
        id: &ContainerId,
        step: &Step<'_>,
        launch: &Launch,
        stdio: &ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>> {
        let (call, log) = self.call(&step.args(id, launch, self.no_pivot), stdio);
        async move { Ok(RuntimeCall::new(call.await?, || log.take().boxed())) }.boxed()
    }

    async fn json<T: for<'a> Deserialize<'a>>(
        &self,
        id: Option<&ContainerId>,
        args: &[OsString],
    ) -> Result<T> {
        let answer = self.answer(id, args).await?;
        let (op, subject) = self.names(id, args);
        serde_json::from_slice(&answer).map_err(|source| Error::Answer { op, subject, source })
    }

    /// Calls the runtime and answers with what it wrote to stdout. The call goes on to its end when
    /// the answer is not waited for any more: half a call would leave a log, or a runtime, behind.
    async fn answer(&self, id: Option<&ContainerId>, args: &[OsString]) -> Result<Vec<u8>> {
        let (call, own_id, own_args) = (self.clone(), id.cloned(), args.to_vec());
        tokio::spawn(async move { call.whole_call(own_id.as_ref(), &own_args).await }).await?
    }

    async fn whole_call(&self, id: Option<&ContainerId>, args: &[OsString]) -> Result<Vec<u8>> {
        let (op, subject) = self.names(id, args);
        let failed = |source| Error::Io { op: op.clone(), subject: subject.clone(), source };
        let (ours, theirs) = std::io::pipe().map_err(failed)?;
        let stdout = ChildFd::Fd(Arc::new(OwnedFd::from(theirs)));
        // A runtime's complaint is in its log; on stderr it only comes again.
        let stdio = ChildStdio { stdout, ..ChildStdio::default() };
        let (call, log) = self.call(args, &stdio);
        drop(stdio);
        let ours = pipe::Receiver::from_owned_fd(ours.into()).map_err(failed)?;
        let runtime = call.await?;
        let mut answer = Vec::new();
        let mut ours = ours.take(ANSWER_LIMIT);
        let read = tokio::time::timeout(self.deadline, ours.read_to_end(&mut answer));
        let (ended, read) = tokio::join!(runtime.wait(self.deadline, std::future::pending()), read);
        let words = log.take().await;
        match (ended, read) {
            (CallEnd::Ended(ExitStatus::Code(0)), Ok(read)) => read.map(|_| answer).map_err(failed),
            (CallEnd::Ended(ExitStatus::Code(0)), Err(_)) | (CallEnd::Overdue | CallEnd::Abandoned, _) => {
                Err(Error::TimedOut { op, subject, after: self.deadline })
            }
            (CallEnd::Ended(status), _) => Err(match words {
                Some(words) => Error::Refused { op, subject, words },
                None => Error::Failed { op, subject, status },
            }),
        }
    }

    /// What was to be done with what, for messages.
    fn names(&self, id: Option<&ContainerId>, args: &[OsString]) -> (String, String) {
        let step = args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
        let subject = id.map_or_else(|| self.program.display().to_string(), ToString::to_string);
        (format!("{} {step}", self.name()), subject)
    }
}

impl OciRuntime for CommandLine {
    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>> {
        self.launch(id, &Step::Create { bundle }, &launch, &stdio)
    }

    fn start(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::start(&own, &id).await }.boxed()
    }

    fn run(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>> {
        self.launch(id, &Step::Run { bundle }, &launch, &stdio)
    }

    fn exec(
        &self,
        id: &ContainerId,
        process: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>> {
        self.launch(id, &Step::Exec { process }, &launch, &stdio)
    }

    fn state(&self, id: &ContainerId) -> BoxFuture<'static, Result<State>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::state(&own, &id).await }.boxed()
    }

    fn kill(&self, id: &ContainerId, signal: Signal) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::kill(&own, &id, signal).await }.boxed()
    }

    fn delete(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::delete(&own, &id).await }.boxed()
    }

    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::pause(&own, &id).await }.boxed()
    }

    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>> {
        let (own, id) = (self.clone(), id.clone());
        async move { Self::resume(&own, &id).await }.boxed()
    }

    fn update(&self, id: &ContainerId, resources: &Resources) -> BoxFuture<'static, Result<()>> {
        let (own, id, resources) = (self.clone(), id.clone(), resources.clone());
        async move { Self::update(&own, &id, &resources).await }.boxed()
    }

    fn features(&self) -> BoxFuture<'static, Result<Features>> {
        let own = self.clone();
        async move { Self::features(&own).await }.boxed()
    }
}

/// The `State` of the OCI specification, as far as it is used.
#[derive(Deserialize)]
pub(crate) struct ToldState {
    id: String,
    status: String,
    #[serde(default)]
    pid: u32,
}

impl From<ToldState> for State {
    fn from(told: ToldState) -> Self {
        let ToldState { id, status, pid } = told;
        Self { id, status, pid: HostPid::new(pid) }
    }
}

/// Limits as options of `update`. No limit is -1 there.
fn limits(resources: &Resources) -> Vec<OsString> {
    let Resources {
        memory,
        memory_swap,
        cpus,
        cpu_quota,
        cpu_period,
        cpu_shares,
        cpuset_cpus,
        cpuset_mems,
        pids,
    } = resources;
    let micros = |cpus: f64| (cpus * Resources::CPU_PERIOD as f64).round() as i64;
    let (quota, period) = match cpus {
        Some(cpus) => (Some(micros(*cpus).to_string()), Some(Resources::CPU_PERIOD.to_string())),
        None => (cpu_quota.map(|quota| quota.to_string()), cpu_period.map(|period| period.to_string())),
    };
    let swap = memory_swap.map(|both| if both == u64::MAX { "-1".to_owned() } else { both.to_string() });
    let options = [
        ("--memory", memory.map(|bytes| bytes.to_string())),
        ("--memory-swap", swap),
        ("--cpu-quota", quota),
        ("--cpu-period", period),
        ("--cpu-share", cpu_shares.map(|shares| shares.to_string())),
        ("--cpuset-cpus", cpuset_cpus.clone()),
        ("--cpuset-mems", cpuset_mems.clone()),
        ("--pids-limit", pids.map(|pids| pids.to_string())),
    ];
    let given = options.into_iter().filter_map(|(option, value)| Some([option.into(), value?.into()]));
    given.flatten().collect()
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
        let launch = |detach| Launch {
            pid_file: pid_file.to_owned(),
            console_socket: None,
            detach,
            systemd_cgroup: detach,
        };
        let run = Step::Run { bundle: Path::new("/b") }.args(&id, &launch(true), true);
        assert_eq!(
            run.join(" ".as_ref()),
            "--systemd-cgroup run --detach --pid-file /b/init.pid --bundle /b --no-pivot -- c1"
        );
        let exec = Step::Exec { process: Path::new("/b/p.json") }.args(&id, &launch(false), true);
        assert_eq!(exec.join(" ".as_ref()), "exec --pid-file /b/init.pid --process /b/p.json -- c1");
    }

    #[test]
    fn answers_of_the_runtime_are_understood() {
        let state: ToldState =
            serde_json::from_str(r#"{"ociVersion":"1.0.2","id":"c","pid":0,"status":"stopped"}"#).unwrap();
        assert_eq!(State::from(state), State { id: "c".into(), status: "stopped".into(), pid: None });
    }

    #[test]
    fn limits_are_options_and_what_is_absent_is_not_mentioned() {
        let resources = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(u64::MAX),
            cpus: Some(0.5),
            pids: Some(7),
            ..Resources::default()
        };
        assert_eq!(
            limits(&resources).join(" ".as_ref()),
            "--memory 67108864 --memory-swap -1 --cpu-quota 50000 --cpu-period 100000 --pids-limit 7"
        );
        assert!(limits(&Resources::default()).is_empty());
    }
}
