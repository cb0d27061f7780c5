//! The ports of `executor-core`, on a real runtime.
//!
//! ```text
//!  prepare: claim the id ▶ attach ▶ write the bundle      (pools: bundles, attachments)
//!  run:     run --detach ▶ pid file ▶ adopt               (one call, one log, one deadline)
//!  create:  the same without the program, which start executes
//!  release: end what is left, cgroups, state ▶ detach ▶ mounts, files   (pools: releases, detachments)
//! ```
//! The runtime's own `delete` is not called: removing what `state.json` names takes a tenth of the
//! time, works on containers that were only half made, and tells what is left.
//!
//! Nothing is decided here. Signals, kills and thaws enter the host's queue before their methods return.

mod builder;
mod console;
mod container;
mod created;
mod launch;
mod pid_file;
mod pools;
mod ports;
mod prepare;
mod release;
mod usage;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use executor_core::lifecycle::{ContainerId, ProcessId, StartFailure, StartFailureKind};
use executor_core::{BoxFuture, CgroupParent};
use executor_host::{HostClient, Root};
use futures::FutureExt;
use tokio::sync::watch;

pub use self::builder::RuncBuilder;
use self::container::{DriverContainer, PendingStart};
use self::pools::Pools;
use crate::command_line::CommandLine;
use crate::kick::{Kick, KickGuard};
use crate::oci::OciRuntime;
use crate::{Bundles, CANDIDATES, Error, Result, lock};

/// How long a runtime may take to start a process, by default.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a runtime may take for anything else.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How containers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The runtime exits when the container runs, and its init becomes a child of the embedder's
    /// process, which is made a child subreaper for that. No process is needed besides.
    #[default]
    Detached,
    /// The runtime stays as the monitor of its container; the embedder's process is left as it is.
    /// Before Linux 6.15 an end by signal n is then told as code 128+n: the runtime says no more.
    Foreground,
}

/// A runtime for an [`Executor`](executor_core::Executor). One is good for one executor; a clone is the
/// same one, to ask its command line while an executor uses it.
#[derive(Clone)]
pub struct Runc {
    shared: Arc<DriverState>,
}

struct DriverState {
    command_line: CommandLine,
    bundles: Arc<dyn Bundles>,
    mode: Mode,
    start_deadline: Duration,
    cgroup_parent: Option<CgroupParent>,
    kick: Option<Kick>,
    host: HostClient,
    pools: Pools,
    opened: OnceLock<OpenedRoot>,
    containers: Mutex<HashMap<ContainerId, Arc<DriverContainer>>>,
    /// Ids that are being prepared, some of which have no container yet. Each is over when its channel is closed.
    preparing: Mutex<HashMap<ContainerId, watch::Sender<()>>>,
    sockets: AtomicU64,
}

/// What is known once the root is.
struct OpenedRoot {
    root: Root,
    command_line: CommandLine,
    runtime: Arc<dyn OciRuntime>,
}

impl Runc {
    /// A runtime that takes its bundles from `bundles`.
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
        }
    }

    /// The runtime's command line: with the state of this driver's containers once an executor was
    /// built on it, with the runtime's default before. Its futures need a tokio runtime.
    pub fn command_line(&self) -> CommandLine {
        self.shared
            .opened()
            .map_or_else(|_| self.shared.command_line.clone(), |opened| opened.command_line.clone())
    }

    /// The runtime of an executor.
    fn runtime(&self) -> Result<Arc<dyn OciRuntime>> {
        self.shared.opened().map(|opened| Arc::clone(&opened.runtime))
    }
}

impl DriverState {
    fn opened(&self) -> Result<&OpenedRoot> {
        self.opened.get().ok_or(Error::NotOpen)
    }

    /// Something is being started until this is over.
    fn with_kick<T: Send + 'static>(
        &self,
        start: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let request: Option<KickGuard> = self.kick.as_ref().map(Kick::request);
        async move {
            let _until_it_is_over = request;
            start.await
        }
        .boxed()
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<DriverContainer>> {
        let found = lock(&self.containers).get(id).cloned();
        found.ok_or_else(|| Error::NoContainer(id.to_string()))
    }

    /// The start of a process, which can be given up from now on.
    fn begin_start(&self, id: &ContainerId, process: ProcessId) -> Option<PendingStart> {
        self.container(id).ok()?.begin_start(process)
    }

    /// A name for a console socket: short, since a process's own may be too long for a socket's path.
    fn next_socket(&self) -> String {
        format!("tty.{}", self.sockets.fetch_add(1, Ordering::Relaxed))
    }
}

fn gone(message: String) -> StartFailure {
    StartFailure::new(StartFailureKind::ContainerGone, message)
}

impl Drop for DriverState {
    /// A driver that no executor was built on, or that was closed before: the thread ends with it.
    fn drop(&mut self) {
        if let Some(kick) = &self.kick {
            kick.stop();
        }
    }
}
