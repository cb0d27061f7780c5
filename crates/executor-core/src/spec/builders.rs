//! What people set most, as a chain. Every other field is set by its name.

use std::path::PathBuf;
use std::time::Duration;

use executor_lifecycle::container::KeepExited;
use executor_lifecycle::process::TimeLimit;
use executor_lifecycle::{Cancel, ContainerId, ExecId, TerminalSize};

use super::{ContainerSpec, ExecSpec, Network, Stdio};
use crate::{Device, Mount, Resources};

impl ContainerSpec {
    /// The same with this id.
    #[must_use]
    pub fn id(self, id: ContainerId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// The same with another label; a label of the same name is replaced.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// The same with another variable. The last of a name counts.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.process.env.push((name.into(), value.into()));
        self
    }

    /// The same with this working directory, an absolute path in the container.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.process.cwd = cwd.into();
        self
    }

    /// The same with this user: `user`, `uid`, `user:group` or `uid:gid`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.process.user = Some(user.into());
        self
    }

    /// The same with another mount, after those it has.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// The same with another device, after those it has.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    /// The same with this host name.
    #[must_use]
    pub fn hostname(self, hostname: impl Into<String>) -> Self {
        Self { hostname: Some(hostname.into()), ..self }
    }

    /// The same with this network.
    #[must_use]
    pub fn network(self, network: Network) -> Self {
        Self { network, ..self }
    }

    /// The same with these limits, in place of all it has.
    #[must_use]
    pub fn resources(self, resources: Resources) -> Self {
        Self { resources, ..self }
    }

    /// The same with at most this much memory, in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.resources.memory = Some(bytes);
        self
    }

    /// The same with at most this many CPUs, as in 0.5 for half of one.
    #[must_use]
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.resources.cpus = Some(cpus);
        self
    }

    /// The same with at most this many processes and threads.
    #[must_use]
    pub fn pids(mut self, pids: u32) -> Self {
        self.resources.pids = Some(pids);
        self
    }

    /// The same with a root file system that can only be read.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// The same, reading from `stdin`.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.process.stdio.stdin = stdin;
        self
    }

    /// The same, writing to `stdout`.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.process.stdio.stdout = stdout;
        self
    }

    /// The same, writing errors to `stderr`.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.process.stdio.stderr = stderr;
        self
    }

    /// The same with stdout and stderr as pipes.
    #[must_use]
    pub fn piped(mut self) -> Self {
        self.process.stdio = self.process.stdio.piped();
        self
    }

    /// The same with a terminal of this size in place of the three streams.
    #[must_use]
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.process.terminal = Some(size);
        self
    }

    /// The same with at most this much time, and ended by `cancel` then. It counts from the request to run it, and for a
    /// container that is held at created from the request to start it.
    #[must_use]
    pub fn time_limit(mut self, after: Duration, cancel: Cancel) -> Self {
        self.process.time_limit = Some(TimeLimit { after, cancel });
        self
    }

    /// The same, kept so long once it has exited.
    #[must_use]
    pub fn keep_exited(self, keep_exited: KeepExited) -> Self {
        Self { keep_exited, ..self }
    }

    /// The same, killed when its last handle is dropped.
    #[must_use]
    pub fn cancel_on_drop(self) -> Self {
        Self { cancel_on_drop: true, ..self }
    }
}

impl ExecSpec {
    /// The same with this id.
    #[must_use]
    pub fn id(self, id: ExecId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// The same with another variable. The last of a name counts.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The same with this working directory, an absolute path in the container.
    #[must_use]
    pub fn cwd(self, cwd: impl Into<PathBuf>) -> Self {
        Self { cwd: Some(cwd.into()), ..self }
    }

    /// The same with this user: `user`, `uid`, `user:group` or `uid:gid`.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The same, reading from `stdin`.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdio.stdin = stdin;
        self
    }

    /// The same, writing to `stdout`.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdio.stdout = stdout;
        self
    }

    /// The same, writing errors to `stderr`.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stdio.stderr = stderr;
        self
    }

    /// The same with stdout and stderr as pipes.
    #[must_use]
    pub fn piped(mut self) -> Self {
        self.stdio = self.stdio.piped();
        self
    }

    /// The same with a terminal of this size in place of the three streams.
    #[must_use]
    pub fn terminal(self, size: TerminalSize) -> Self {
        Self { terminal: Some(size), ..self }
    }

    /// The same with at most this much time from the request on, and ended by `cancel` then.
    #[must_use]
    pub fn time_limit(self, after: Duration, cancel: Cancel) -> Self {
        Self { time_limit: Some(TimeLimit { after, cancel }), ..self }
    }

    /// The same, killed when its last handle is dropped.
    #[must_use]
    pub fn cancel_on_drop(self) -> Self {
        Self { cancel_on_drop: true, ..self }
    }
}
