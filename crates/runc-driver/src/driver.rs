//! The driver: the ports of `executor-core`, implemented with an OCI runtime.
//!
//! ```text
//!  prepare: reserve the id ▶ attach ▶ write the bundle      (pools: bundles, attachments)
//!  run:     run --detach ▶ pid file ▶ adopt               (one call, one log, one deadline)
//!  create:  the same without the program, which start executes
//!  release: kill what is left, cgroups, state ▶ detach ▶ mounts, files  (pools: releases, detachments)
//! ```
//! The runtime's own `delete` is not called. Removing what `state.json` lists takes a tenth of the time,
//! works for half-made containers, and reports what is left.
//!
//! The driver takes no decisions. Signals, kills and thaws are in the host's queue before their methods return.

mod builder;
mod console;
mod container;
mod created;
mod frozen;
mod kept;
mod launch;
mod oom;
mod pid_file;
mod pools;
mod ports;
mod prepare;
mod program;
mod release;
mod update;
mod usage;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ProcessId, StartFailure, StartFailureKind};
use executor_core::metrics::RuntimeCalls;
use executor_core::{BoxFuture, CgroupParent, RuntimeError};
use executor_host::{HostClient, Root};
use futures::FutureExt;
use tokio::sync::watch;

use self::builder::MakeRuntime;
pub use self::builder::RuncBuilder;
use self::container::{DriverContainer, PendingStart};
use self::kept::{KeptHost, LostExits};
use self::pools::Pools;
use crate::command_line::CommandLine;
use crate::kick::{Kick, KickGuard};
use crate::oci::OciRuntime;
use crate::{Bundles, CANDIDATES, Error, Result, lock};

/// How long a runtime may take to start a process, by default.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long any other call of a runtime may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Which process is the parent of containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The runtime exits once the container runs. Init becomes a child of the embedder's process, which is
    /// made a child subreaper for that. No other process is needed.
    #[default]
    Detached,
    /// The runtime stays as the monitor of its container, and the embedder's process is not changed. Before
    /// Linux 6.15, an exit by signal n is then reported as code 128+n, since the runtime reports only that.
    Foreground,
}

/// The driver of an [`Executor`](executor_core::Executor). One driver serves one executor. A clone shares
/// everything with the original; with it you can use the command line while an executor uses the driver.
#[derive(Clone)]
pub struct Runc {
    shared: Arc<DriverState>,
}

struct DriverState {
    command_line: CommandLine,
    make_runtime: MakeRuntime,
    bundles: Arc<dyn Bundles>,
    mode: Mode,
    start_deadline: Duration,
    cgroup_parent: Option<CgroupParent>,
    kick: Option<Kick>,
    /// The host in this process.
    local: HostClient,
    /// The one that outlives this process, once an executor that is kept uses the driver.
    kept: OnceLock<KeptHost>,
    /// Exits of processes that could not be taken up.
    lost: LostExits,
    pools: Pools,
    opened: OnceLock<OpenedRoot>,
    containers: Mutex<HashMap<ContainerId, Arc<DriverContainer>>>,
    /// Ids that are being prepared. Some have no container yet. A preparation is over when its channel is
    /// closed.
    preparing: Mutex<HashMap<ContainerId, watch::Sender<()>>>,
    sockets: AtomicU64,
}

/// What exists once the root is open.
struct OpenedRoot {
    root: Root,
    command_line: CommandLine,
    runtime: Arc<dyn OciRuntime>,
    calls: RuntimeCalls,
}

impl Runc {
    /// Builds a driver that takes its bundles from `bundles`.
    pub fn builder(bundles: Arc<dyn Bundles>) -> RuncBuilder {
        RuncBuilder {
            candidates: CANDIDATES.map(str::to_owned).into(),
            bundles,
            mode: Mode::default(),
            no_pivot: false,
            start_deadline: START_DEADLINE,
            cgroup_parent: None,
            cgroup_kick: true,
            in_memory: true,
            waits_elsewhere: false,
            reap_others: None,
            make_runtime: Arc::new(|parts| Arc::new(parts.command_line)),
        }
    }

    /// The runtime's command line. Once an executor uses the driver, it works on the state of the driver's
    /// containers. Before, it works on the runtime's default state. Its futures need a tokio runtime.
    pub fn command_line(&self) -> CommandLine {
        self.shared
            .opened()
            .map_or_else(|_| self.shared.command_line.clone(), |opened| opened.command_line.clone())
    }

    /// The runtime of the executor that uses this driver.
    fn runtime(&self) -> Result<Arc<dyn OciRuntime>> {
        self.shared.opened().map(|opened| Arc::clone(&opened.runtime))
    }

    /// Has the runtime do `op` to a container.
    fn call(&self, op: &'static str, id: &ContainerId, call: RuntimeOperation) -> RuntimeAnswer {
        let (runtime, id) = (self.runtime(), id.clone());
        async move {
            let failed = |error: Error| error.of(op, &id);
            call(&*runtime.map_err(failed)?, &id).await.map_err(failed)
        }
        .boxed()
    }
}

type RuntimeOperation = fn(&dyn OciRuntime, &ContainerId) -> BoxFuture<'static, Result<()>>;
type RuntimeAnswer = BoxFuture<'static, std::result::Result<(), RuntimeError>>;

impl DriverState {
    /// The parent of the processes.
    fn host(&self) -> &HostClient {
        self.kept.get().map_or(&self.local, |kept| &kept.client)
    }

    fn opened(&self) -> Result<&OpenedRoot> {
        self.opened.get().ok_or(Error::NotOpen)
    }

    /// Keeps the cgroup kick active during a start.
    fn with_kick<T: Send + 'static>(
        &self,
        start: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let kick: Option<KickGuard> = self.kick.as_ref().map(Kick::request);
        async move {
            let _until_it_ends = kick;
            start.await
        }
        .boxed()
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<DriverContainer>> {
        let found = lock(&self.containers).get(id).cloned();
        found.ok_or_else(|| Error::NoContainer(id.to_string()))
    }

    /// Begins the start of a process. From now on it can be abandoned.
    fn begin_start(&self, id: &ContainerId, process: ProcessId) -> Option<PendingStart> {
        self.container(id).ok()?.begin_start(process)
    }

    /// A short name for a console socket. The process's own name may be too long for a socket's path.
    fn next_socket(&self) -> String {
        format!("tty.{}", self.sockets.fetch_add(1, Ordering::Relaxed))
    }
}

fn gone(message: String) -> StartFailure {
    StartFailure::new(StartFailureKind::ContainerGone, message)
}

impl Drop for DriverState {
    /// Stops the thread of a driver that no executor has used.
    fn drop(&mut self) {
        if let Some(kick) = &self.kick {
            kick.stop();
        }
    }
}
