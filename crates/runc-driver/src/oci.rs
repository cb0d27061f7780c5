//! The interface of an OCI runtime, as the driver uses it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, HostPid, Signal};
use executor_core::{BoxFuture, ChildStdio, Resources};
use executor_host::{Call, CallEnd, HostClient, Parent};

use crate::{CommandLine, Result};

/// An OCI runtime. The futures need a tokio runtime. No method blocks.
pub trait OciRuntime: Send + Sync + 'static {
    /// Its name in messages, as in `runc`.
    fn name(&self) -> String;

    /// Begins to make a container from a bundle, up to the point where its program would be executed.
    fn create(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>>;

    /// Executes the program of a created container.
    fn start(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>>;

    /// Begins to make a container from a bundle and to execute its program.
    fn run(
        &self,
        id: &ContainerId,
        bundle: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>>;

    /// Begins to start a process in a container. `process` is the file that describes it.
    fn exec(
        &self,
        id: &ContainerId,
        process: &Path,
        launch: Launch,
        stdio: ChildStdio,
    ) -> BoxFuture<'static, Result<RuntimeCall>>;

    /// The state of a container.
    fn state(&self, id: &ContainerId) -> BoxFuture<'static, Result<OciState>>;

    /// Sends a signal to a container's init.
    fn kill(&self, id: &ContainerId, signal: Signal) -> BoxFuture<'static, Result<()>>;

    /// Kills and removes a container, and runs its poststop hooks. A container that does not exist is not an
    /// error.
    fn delete(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>>;

    /// Freezes a container.
    fn pause(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>>;

    /// Thaws a container.
    fn resume(&self, id: &ContainerId) -> BoxFuture<'static, Result<()>>;

    /// Changes the limits of a container that is created, running or paused. Absent fields keep their value.
    fn update(&self, id: &ContainerId, resources: &Resources) -> BoxFuture<'static, Result<()>>;

    /// Its features.
    fn features(&self) -> BoxFuture<'static, Result<OciFeatures>>;
}

/// What an [`OciRuntime`] can build on. [`RuncBuilder::oci_runtime`](crate::RuncBuilder::oci_runtime) gets it when an
/// executor begins to use the driver.
#[non_exhaustive]
pub struct RuntimeParts {
    /// The command line of the runtime that was found, for the containers of this executor.
    pub command_line: CommandLine,
    /// The connection to the process host. The calls of [`RuntimeCall::new`] must be spawned with it: the driver adopts
    /// the processes that they start by the same connection.
    pub host: HostClient,
    /// The directory of the runtime's state, its `--root`. The driver expects a container's state in the directory of its
    /// id, and removes that when the container is released.
    pub state: PathBuf,
    /// The executor's mark. Every call must have it in the variable
    /// [`EXECUTOR_VARIABLE`](executor_host::EXECUTOR_VARIABLE): by that, a sweep finds the calls of a dead executor. It is
    /// secret, since a sweep kills whoever has it.
    pub mark: String,
}

/// How a container or a process is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The file to which the runtime writes the pid.
    pub pid_file: PathBuf,
    /// The socket through which the runtime sends the terminal, for a process that has one.
    pub console_socket: Option<String>,
    /// Whether the runtime exits once the process runs. Otherwise it stays as its monitor.
    pub detach: bool,
    /// Whether systemd makes the cgroup.
    pub systemd_cgroup: bool,
}

/// The state of a container, as the runtime reports it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciState {
    /// Its id.
    pub id: String,
    /// `created`, `running`, `paused` or `stopped`.
    pub status: String,
    /// Init's pid on the host. `None` if it has exited.
    pub pid: Option<HostPid>,
}

/// The features that a runtime reports. What it does not report is empty.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OciFeatures {
    /// The oldest version of the OCI runtime specification that it accepts.
    pub oci_version_min: String,
    /// The newest version that it accepts.
    pub oci_version_max: String,
    /// The hooks that it runs.
    pub hooks: Vec<String>,
}

/// A call of a runtime that starts a process.
pub struct RuntimeCall {
    call: Call,
    words: Box<dyn FnOnce() -> BoxFuture<'static, Option<String>> + Send + Sync>,
}

impl RuntimeCall {
    /// A runtime that was executed. `words` reads its error message. It is called if the runtime has failed,
    /// and dropped otherwise.
    ///
    /// ```
    /// # use executor_host::{Command, HostClient, StdioSource};
    /// # use executor_core::ChildStdio;
    /// # use runc_driver::RuntimeCall;
    /// # use futures::FutureExt;
    /// # async fn start(host: &HostClient, command: Command, stdio: &ChildStdio) -> runc_driver::DriverResult<RuntimeCall> {
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

    /// Waits until the call ends. Kills it at the deadline, or when `abandoned` completes.
    pub async fn wait(&self, deadline: Duration, abandoned: impl Future<Output = ()>) -> CallEnd {
        self.call.wait(deadline, abandoned).await
    }

    /// The parent of the process that this call has started and left behind.
    pub const fn left_behind(&self) -> Parent {
        Parent::LeftBy(self.call.id())
    }

    /// This call as the parent of the process that it has started.
    pub const fn as_parent(&self) -> Parent {
        Parent::Call(self.call.id())
    }

    /// The runtime's words about its failure.
    pub async fn words(self) -> Option<String> {
        (self.words)().await
    }
}
