//! Building a [`Runc`].

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use executor_core::{CgroupParent, RuntimeError};
use executor_host::HostClient;

use super::kept::LostExits;
use super::pools::Pools;
use super::{CALL_DEADLINE, DriverState, Mode, Runc};
use crate::command_line::CommandLine;
use crate::kick::Kick;
use crate::oci::{OciRuntime, RuntimeParts};
use crate::{Bundles, Error, find_runtime};

/// Makes the runtime of an executor.
pub(super) type MakeRuntime = Arc<dyn Fn(RuntimeParts) -> Arc<dyn OciRuntime> + Send + Sync>;

/// Builds a [`Runc`].
pub struct RuncBuilder {
    pub(super) candidates: Vec<String>,
    pub(super) bundles: Arc<dyn Bundles>,
    pub(super) mode: Mode,
    pub(super) no_pivot: bool,
    pub(super) start_deadline: Duration,
    pub(super) cgroup_parent: Option<CgroupParent>,
    pub(super) cgroup_kick: bool,
    pub(super) in_memory: bool,
    pub(super) waits_elsewhere: bool,
    pub(super) reap_others: Option<Duration>,
    pub(super) make_runtime: MakeRuntime,
}

impl RuncBuilder {
    /// The runtime's name on `PATH`, or its path. By default, the first of [`CANDIDATES`](crate::CANDIDATES)
    /// on `PATH` is used.
    #[must_use]
    pub fn runtime(mut self, command: impl Into<String>) -> Self {
        self.candidates = vec![command.into()];
        self
    }

    /// Which process is the parent of containers.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Has the runtime use `MS_MOVE` instead of `pivot_root`. Needed on a host whose root is a ramdisk.
    #[must_use]
    pub fn no_pivot(self, no_pivot: bool) -> Self {
        Self { no_pivot, ..self }
    }

    /// How long the runtime may take to start a process before it is killed. The default is 60 s.
    #[must_use]
    pub fn start_deadline(self, start_deadline: Duration) -> Self {
        Self { start_deadline, ..self }
    }

    /// The cgroup parent of containers whose specification has none. By default, this is the root of the
    /// hierarchies, or for an ordinary user the cgroup that systemd has delegated.
    #[must_use]
    pub fn cgroup_parent(self, parent: CgroupParent) -> Self {
        Self { cgroup_parent: Some(parent), ..self }
    }

    /// Whether a thread writes this process's pid to the process's own cgroup while containers are being
    /// started. This moves nothing, and saves the runtime about ten milliseconds of waiting for the kernel.
    /// If it is not permitted, the thread stops. Enabled by default.
    #[must_use]
    pub fn cgroup_kick(self, cgroup_kick: bool) -> Self {
        Self { cgroup_kick, ..self }
    }

    /// Whether a runtime that is called repeatedly is executed from a sealed copy of its program in memory.
    /// Without it, runc and crun make such a copy at every start. The driver keeps one copy, of about ten
    /// megabytes. Enabled by default.
    #[must_use]
    pub fn in_memory(self, in_memory: bool) -> Self {
        Self { in_memory, ..self }
    }

    /// Says whether other code of this process waits for any child, as `waitpid(-1)` does, and so may reap the processes of
    /// containers. Then each call of the runtime has a small process as its parent, which takes half a millisecond, and every
    /// exit is exact on Linux 6.15 and later. Before, an exit that was stolen is
    /// [`Lost`](executor_core::lifecycle::ExitReason::Lost).
    ///
    /// Without this, the same is done from the first exit on that was stolen. Programs that had ended by then, and whose pid was
    /// not known yet, are `Lost`. It is also done as long as this process ignores SIGCHLD or has set `SA_NOCLDWAIT`.
    #[must_use]
    pub fn waits_elsewhere(self, waits_elsewhere: bool) -> Self {
        Self { waits_elsewhere, ..self }
    }

    /// Also reaps children of this process that belong to no container, that long after their exit.
    ///
    /// With [`Mode::Detached`] this process is a child subreaper: when a program of the embedder's own exits and leaves a
    /// process behind, that becomes a child of this process, and a zombie when it exits. By default such children are left to the
    /// embedder. The kernel does not tell them from children that the embedder has started itself, so `age` must be longer than
    /// the embedder ever takes to wait for one of those. If it is not, the embedder's wait fails with `ECHILD`.
    #[must_use]
    pub fn reap_others(self, age: Duration) -> Self {
        Self { reap_others: Some(age), ..self }
    }

    /// Uses another implementation of [`OciRuntime`], as one that wraps the command line. `make` is called when an executor
    /// begins to use the driver. By default, the command line itself is used.
    ///
    /// The runtime's program is still looked for, since the command line needs it.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use runc_driver::{Bundles, CommandLine, OciRuntime, Runc, RuncBuilder};
    /// fn driver<R: OciRuntime>(bundles: Arc<dyn Bundles>, wrap: fn(CommandLine) -> R) -> RuncBuilder {
    ///     Runc::builder(bundles).oci_runtime(move |parts| Arc::new(wrap(parts.command_line)))
    /// }
    /// ```
    #[must_use]
    pub fn oci_runtime(
        self,
        make: impl Fn(RuntimeParts) -> Arc<dyn OciRuntime> + Send + Sync + 'static,
    ) -> Self {
        Self { make_runtime: Arc::new(make), ..self }
    }

    /// Finds the runtime and connects to this process's host.
    ///
    /// # Errors
    /// When there is no runtime, or the host's thread cannot be started.
    pub fn build(self) -> std::result::Result<Runc, RuntimeError> {
        let Self {
            candidates,
            bundles,
            mode,
            no_pivot,
            start_deadline,
            cgroup_parent,
            cgroup_kick,
            in_memory,
            waits_elsewhere,
            reap_others,
            make_runtime,
        } = self;
        // A runtime that stays as a monitor keeps its own name in process lists.
        let in_memory = in_memory && mode == Mode::Detached;
        let program =
            find_runtime(&candidates).map_err(|error| Error::from(error).of("find", "a runtime"))?;
        let host = HostClient::local()
            .map_err(|error| RuntimeError::failed("connect to", "the process host", error))?;
        if waits_elsewhere {
            host.waits_elsewhere();
        }
        if let Some(age) = reap_others {
            host.reap_others(age);
        }
        let command_line = CommandLine::new(program, no_pivot, in_memory, CALL_DEADLINE, host.clone());
        Ok(Runc {
            shared: Arc::new(DriverState {
                command_line,
                make_runtime,
                bundles,
                mode,
                start_deadline,
                cgroup_parent,
                kick: cgroup_kick.then(Kick::start).flatten(),
                local: host,
                kept: OnceLock::new(),
                lost: LostExits::default(),
                pools: Pools::new(),
                opened: OnceLock::new(),
                containers: Mutex::default(),
                preparing: Mutex::default(),
                sockets: AtomicU64::new(0),
            }),
        })
    }
}
