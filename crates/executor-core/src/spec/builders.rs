//! Methods that set the usual fields, to be chained. The other fields are set by name.

use std::path::PathBuf;
use std::time::Duration;

use executor_lifecycle::container::KeepExited;
use executor_lifecycle::process::TimeLimit;
use executor_lifecycle::{Cancel, ContainerId, ExecId, TerminalSize};

use super::{ContainerSpec, ExecSpec, Network, Stdio};
use crate::{Capability, Device, Mount, Resources, Ulimit};

impl ContainerSpec {
    /// Sets the id.
    #[must_use]
    pub fn id(self, id: ContainerId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Adds a label. It replaces a label of the same name.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Adds an environment variable. Of two with the same name, the last one counts.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.process.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory, an absolute path in the container. It is created if it does not exist.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.process.cwd = cwd.into();
        self
    }

    /// Sets the user: `user`, `uid`, `user:group` or `uid:gid`. Names are those of the container.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.process.user = Some(user.into());
        self
    }

    /// Adds a mount. There may be one at each destination.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Adds a device after the others.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    /// Sets the host name.
    #[must_use]
    pub fn hostname(self, hostname: impl Into<String>) -> Self {
        Self { hostname: Some(hostname.into()), ..self }
    }

    /// Sets the network.
    #[must_use]
    pub fn network(self, network: Network) -> Self {
        Self { network, ..self }
    }

    /// Sets all limits, in place of the former ones.
    #[must_use]
    pub fn resources(self, resources: Resources) -> Self {
        Self { resources, ..self }
    }

    /// Limits the memory, in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.resources.memory = Some(bytes);
        self
    }

    /// Limits the CPU time, in CPUs: 0.5 is half of one.
    #[must_use]
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.resources.cpus = Some(cpus);
        self
    }

    /// Limits the number of processes and threads. `u64::MAX` is no limit; the default is 4096.
    #[must_use]
    pub fn pids(mut self, pids: u64) -> Self {
        self.resources.pids = Some(pids);
        self
    }

    /// Sets the size of `/dev/shm`, in bytes.
    #[must_use]
    pub fn shm_size(self, bytes: u64) -> Self {
        Self { shm_size: Some(bytes), ..self }
    }

    /// Sets a parameter of the kernel that the container has for itself, as in `net.core.somaxconn`.
    #[must_use]
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctls.insert(name.into(), value.into());
        self
    }

    /// Makes the root file system read-only.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Puts a small process 1 in front of the program, which forwards signals to it and reaps orphans.
    #[must_use]
    pub fn init(self) -> Self {
        Self { init: true, ..self }
    }

    /// Adds an exit code that counts as success.
    #[must_use]
    pub fn valid_exit_code(mut self, code: u8) -> Self {
        self.process.valid_exit_codes.insert(code);
        self
    }

    /// Adds a limit of the process, as in `"nofile=1024".parse()?`.
    #[must_use]
    pub fn ulimit(mut self, ulimit: Ulimit) -> Self {
        self.process.ulimits.push(ulimit);
        self
    }

    /// Adds a capability, as in `"NET_ADMIN".parse()?`.
    #[must_use]
    pub fn cap_add(mut self, capability: Capability) -> Self {
        self.process.cap_add.push(capability);
        self
    }

    /// Takes a capability away. That outweighs [`cap_add`](Self::cap_add).
    #[must_use]
    pub fn cap_drop(mut self, capability: Capability) -> Self {
        self.process.cap_drop.push(capability);
        self
    }

    /// Sets where the process reads from.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.process.stdio.stdin = stdin;
        self
    }

    /// Sets where stdout goes.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.process.stdio.stdout = stdout;
        self
    }

    /// Sets where stderr goes.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.process.stdio.stderr = stderr;
        self
    }

    /// Makes stdout and stderr pipes. The first handle gives out their other ends.
    #[must_use]
    pub fn piped(mut self) -> Self {
        self.process.stdio = self.process.stdio.piped();
        self
    }

    /// Gives the process a terminal of this size instead of the three streams.
    #[must_use]
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.process.terminal = Some(size);
        self
    }

    /// Limits the time; after it, the process is cancelled as `cancel` says. The time counts from the call of
    /// [`Executor::run`](crate::Executor::run), or from [`ContainerHandle::start`](crate::ContainerHandle::start) for
    /// a container that is held at created.
    #[must_use]
    pub fn time_limit(mut self, after: Duration, cancel: Cancel) -> Self {
        self.process.time_limit = Some(TimeLimit { after, cancel });
        self
    }

    /// Sets how long the container is kept after its exit.
    #[must_use]
    pub fn keep_exited(self, keep_exited: KeepExited) -> Self {
        Self { keep_exited, ..self }
    }

    /// Kills the process when the last handle is dropped.
    #[must_use]
    pub fn cancel_on_drop(self) -> Self {
        Self { cancel_on_drop: true, ..self }
    }
}

impl ExecSpec {
    /// Sets the id.
    #[must_use]
    pub fn id(self, id: ExecId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Adds an environment variable. Of two with the same name, the last one counts.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory, an absolute path in the container.
    #[must_use]
    pub fn cwd(self, cwd: impl Into<PathBuf>) -> Self {
        Self { cwd: Some(cwd.into()), ..self }
    }

    /// Adds an exit code that counts as success.
    #[must_use]
    pub fn valid_exit_code(mut self, code: u8) -> Self {
        self.valid_exit_codes.insert(code);
        self
    }

    /// Sets the user: `user`, `uid`, `user:group` or `uid:gid`. Names are those of the container.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// Sets where the process reads from.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdio.stdin = stdin;
        self
    }

    /// Sets where stdout goes.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdio.stdout = stdout;
        self
    }

    /// Sets where stderr goes.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stdio.stderr = stderr;
        self
    }

    /// Makes stdout and stderr pipes. The first handle gives out their other ends.
    #[must_use]
    pub fn piped(mut self) -> Self {
        self.stdio = self.stdio.piped();
        self
    }

    /// Gives the process a terminal of this size instead of the three streams.
    #[must_use]
    pub fn terminal(self, size: TerminalSize) -> Self {
        Self { terminal: Some(size), ..self }
    }

    /// Limits the time; after it, the process is cancelled as `cancel` says. The time counts from the call of
    /// [`ContainerHandle::exec`](crate::ContainerHandle::exec).
    #[must_use]
    pub fn time_limit(self, after: Duration, cancel: Cancel) -> Self {
        Self { time_limit: Some(TimeLimit { after, cancel }), ..self }
    }

    /// Kills the process when the last handle is dropped.
    #[must_use]
    pub fn cancel_on_drop(self) -> Self {
        Self { cancel_on_drop: true, ..self }
    }
}
