//! An OCI runtime, as the driver needs it: values in, values out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, HostPid, Signal};
use executor_core::{BoxFuture, ChildStdio, Resources};
use executor_host::{Call, CallEnd, Parent};

use crate::Result;

/// A runtime. The futures need a tokio runtime; nothing blocks.
pub trait OciRuntime: Send + Sync + 'static {
    /// What it is called in messages, as in `runc`.
    fn name(&self) -> String;

    /// Begins to make a container of a bundle, up to the point where its program would be executed.
    fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>>;

    /// Has a container that was created execute its program.
    fn start(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>>;

    /// Begins to make a container of a bundle and to execute its program.
    fn run(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>>;

    /// Begins to start a process, which `process` describes, in a container.
    fn exec(
        &self,
        id: &ContainerId,
        process: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>>;

    /// The state of a container.
    fn state(&self, id: &ContainerId) -> BoxFuture<'static, Result<State>>;

    /// Sends a signal to a container's init.
    fn kill(&self, id: &ContainerId, signal: Signal) -> BoxFuture<'static, Result<()>>;

    /// Ends and removes a container, and runs its poststop hooks; one that does not exist is removed already.
    fn delete(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>>;

    /// Freezes a container.
    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>>;

    /// Thaws a container.
    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>>;

    /// Sets limits of a running container; what is absent stays as it is.
    fn update(&self, id: &ContainerId, resources: &Resources) -> BoxFuture<'static, Result<()>>;

    /// What it can do.
    fn features(&self) -> BoxFuture<'static, Result<Features>>;
}

/// How a container or process is started, whichever it is.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Where its pid is to be written.
    pub pid_file: PathBuf,
    /// The socket through which the terminal of a process that gets one is to be handed over.
    pub console_socket: Option<String>,
    /// Whether the runtime ends when the process runs; else it stays as its monitor.
    pub detach: bool,
    /// Whether systemd is to make the cgroup.
    pub systemd_cgroup: bool,
}

/// What a runtime says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its id.
    pub id: String,
    /// `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// Init's pid on the host; none when it has ended.
    pub pid: Option<HostPid>,
}

/// What a runtime says it can do; what it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The oldest version of the OCI runtime specification it takes.
    pub oci_version_min: String,
    /// The newest.
    pub oci_version_max: String,
    /// Hooks it runs.
    pub hooks: Vec<String>,
}

/// A runtime at work on a start.
pub struct RuntimeCall {
    call: Call,
    words: Box<dyn FnOnce() -> BoxFuture<'static, Option<String>> + Send + Sync>,
}

impl RuntimeCall {
    /// A runtime that was executed, and what reads its complaint, which is called when it has failed and dropped otherwise.
    ///
    /// ```
    /// # use executor_host::{Command, HostClient, StdioSource};
    /// # use executor_core::ChildStdio;
    /// # use runc_driver::RuntimeCall;
    /// # use futures::FutureExt;
    /// # async fn start(host: &HostClient, command: Command, stdio: &ChildStdio) -> runc_driver::Result<RuntimeCall> {
    /// let call = host.spawn(command, None, stdio).await?;
    /// Ok(RuntimeCall::new(call, || async { Some("it has no log".to_owned()) }.boxed()))
    /// # }
    /// ```
    pub fn new(
        call: Call,
        words: impl FnOnce() -> BoxFuture<'static, Option<String>> + Send + Sync + 'static,
    ) -> Self {
        Self { call, words: Box::new(words) }
    }

    /// Waits until it has ended, at most until the deadline or until it is abandoned; then it is killed.
    pub async fn wait(&self, deadline: Duration, abandoned: impl Future<Output = ()>) -> CallEnd {
        self.call.wait(deadline, abandoned).await
    }

    /// It, as the parent of what it has started.
    pub const fn as_parent(&self) -> Parent {
        Parent::Call(self.call.id())
    }

    /// What it complained of.
    pub async fn words(self) -> Option<String> {
        (self.words)().await
    }
}
