//! How a [`Runc`] is made.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use executor_core::{CgroupParent, RuntimeError};
use executor_host::HostClient;

use super::pools::Pools;
use super::{CALL_DEADLINE, DriverState, Mode, Runc};
use crate::command_line::CommandLine;
use crate::kick::Kick;
use crate::{Bundles, Error, find_runtime};

/// Makes a [`Runc`].
pub struct RuncBuilder {
    pub(super) candidates: Vec<String>,
    pub(super) bundles: Arc<dyn Bundles>,
    pub(super) mode: Mode,
    pub(super) no_pivot: bool,
    pub(super) start_deadline: Duration,
    pub(super) cgroup_parent: Option<CgroupParent>,
    pub(super) cgroup_kick: bool,
    pub(super) in_memory: bool,
}

impl RuncBuilder {
    /// The runtime's name on `PATH`, or its path, in place of the usual candidates.
    #[must_use]
    pub fn runtime(mut self, command: impl Into<String>) -> Self {
        self.candidates = vec![command.into()];
        self
    }

    /// How containers are kept.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Has the runtime use `MS_MOVE` in place of `pivot_root`, for a host whose root is a ramdisk.
    #[must_use]
    pub fn no_pivot(self, no_pivot: bool) -> Self {
        Self { no_pivot, ..self }
    }

    /// How long the runtime may take to start a process before it is killed; 60 s by default.
    #[must_use]
    pub fn start_deadline(self, start_deadline: Duration) -> Self {
        Self { start_deadline, ..self }
    }

    /// The cgroup that those of containers lie in which ask for no other; by default the root of the hierarchies,
    /// or what systemd has given to an ordinary user.
    #[must_use]
    pub fn cgroup_parent(self, parent: CgroupParent) -> Self {
        Self { cgroup_parent: Some(parent), ..self }
    }

    /// Whether a thread of ours writes this process's pid to the cgroup it is in, while requests are under way. It moves
    /// nothing, and saves a runtime about ten milliseconds of waiting for the kernel; where it is not permitted it
    /// stops. By default it does.
    #[must_use]
    pub fn cgroup_kick(self, cgroup_kick: bool) -> Self {
        Self { cgroup_kick, ..self }
    }

    /// Whether a runtime that is called again and again is executed from a sealed copy of its program in memory, which
    /// is what runc and crun make for themselves at every start where it is not there. It takes the program's size of
    /// memory, ten megabytes, once for the driver. By default it is.
    #[must_use]
    pub fn in_memory(self, in_memory: bool) -> Self {
        Self { in_memory, ..self }
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
        } = self;
        // A monitor that stays is better called what it is.
        let in_memory = in_memory && mode == Mode::Detached;
        let program =
            find_runtime(&candidates).map_err(|error| Error::from(error).of("find", "a runtime"))?;
        let host = HostClient::local()
            .map_err(|error| RuntimeError::failed("connect to", "the process host", error))?;
        let command_line = CommandLine::new(program, no_pivot, in_memory, CALL_DEADLINE, host.clone());
        Ok(Runc {
            shared: Arc::new(DriverState {
                command_line,
                bundles,
                mode,
                start_deadline,
                cgroup_parent,
                kick: cgroup_kick.then(Kick::start).flatten(),
                host,
                pools: Pools::new(),
                opened: OnceLock::new(),
                containers: Mutex::default(),
                preparing: Mutex::default(),
                sockets: AtomicU64::new(0),
            }),
        })
    }
}
