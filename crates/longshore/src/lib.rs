//! Run processes in OCI containers and never lose track of one.
//!
//! This is what an embedder adds: the actors of `executor-core`, wired up with runc, bundles and
//! networks. The `longshore` command is the same in a person's hands.
//!
//! ```no_run
//! use std::time::Duration;
//! use longshore::{ContainerSpec, Executor};
//!
//! # async fn example() -> Result<(), longshore::Error> {
//! let executor = Executor::builder(longshore::runc().build()?).root("/run/longshore").build()?;
//! let container = executor.run(ContainerSpec::host(["echo", "hello"]).piped()).await?;
//! let output = container.io().take_stdout();
//! println!("{}", container.wait().await);
//! if let Some(output) = output {
//!     println!("{}", String::from_utf8_lossy(&output.read_to_end().await));
//! }
//! executor.shutdown(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! What is built on it is tested without root or a runtime, on the simulator of the crate `executor-sim`:
//! the same executor, on virtual time.
//!
//! ```
//! use std::time::Duration;
//! use executor_sim::{SimRuntime, Simulation};
//! use longshore::{Cancel, ContainerSpec};
//!
//! Simulation::new(SimRuntime::new()).run(async |sim| {
//!     let container = sim.executor.run(ContainerSpec::host(["sleep", "1000"])).await?;
//!     container.started().await?;
//!     container.cancel(Cancel::with_grace(Duration::from_secs(60))).await;
//!     assert!(sim.elapsed() >= Duration::from_secs(60), "an init without a handler ignores SIGTERM");
//!     Ok::<(), longshore::Error>(())
//! }).unwrap();
//! ```

mod sandbox;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use executor_core::lifecycle::{
    self, Cancel, CancelCause, ContainerId, Event, EventKind, EventOrder, ExecId, Exit, ExitReason,
    ExitStatus, HostPid, InvalidId, IoUsage, Leftover, LeftoverKind, NetworkUsage, OutOfOrder, Pressure,
    ProcessId, ProcessRef, RawExit, Refusal, Refused, Signal, SignalScope, Stall, StartFailure,
    StartFailureKind, TerminalSize, Timestamp, Usage, with_causes,
};
pub use executor_core::{
    Attached, BoxError, BoxFuture, BoxStream, Capability, CgroupParent, ChildFd, ChildStdio, Chunk, Config,
    ContainerHandle, ContainerSpec, Delivery, Dns, Error, Events, ExecSpec, Executor, ExecutorBuilder,
    ExitQueue, ExitSource, ExtraHost, IdMap, IdRange, Input, InvalidSpec, Io, KeepExited, Kill, Mount,
    MountSource, Network, NetworkAttachment, NetworkNamespace, NetworkTraits, Notice, Observed,
    ObservedMessage, Observer, Output, ProcessHandle, ProcessMode, ProcessSpec, Resources, Rootfs, Runtime,
    RuntimeError, Sample, Samples, Seccomp, Security, Selinux, ShutdownReport, Snapshot, Stdio, StdioSpec,
    Swept, Telemetry, TimeLimit, Ulimit, UpperLayer, actors, messages,
};
pub use executor_network::Cni;
pub use runc_driver::{
    CANDIDATES, CommandLine, Mode, NoRuntime, Runc, RuncBuilder, default_cgroup_parent, find_runtime,
};
pub use sandbox::Sandbox;

/// A runtime to build an [`Executor`] on: runc or what takes its command line, found on `PATH`, with
/// bundles and networks made by Longshore.
pub fn runc() -> RuncBuilder {
    runc_with(Sandbox::default())
}

/// The same with a sandbox that is set up otherwise than usual.
pub fn runc_with(sandbox: Sandbox) -> RuncBuilder {
    Runc::builder(Arc::new(sandbox))
}

/// Removes what dead executors left under `root`, and only that; what live ones own stays.
///
/// Building an [`Executor`] on a root does the same first.
///
/// # Errors
/// When the root cannot be read or locked.
pub fn sweep(root: &Path) -> Result<Vec<Swept>, RuntimeError> {
    runc_driver::sweep(root, &Sandbox::default())
        .map_err(|error| RuntimeError::Root { root: root.to_owned(), source: error.into() })
}

/// The root directory for this user when none is named: `/run/longshore` for root, else
/// `$XDG_RUNTIME_DIR/longshore`, else a directory of the user's in the system's for temporary files.
pub fn default_root() -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return PathBuf::from("/run/longshore");
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    own.map_or_else(
        || std::env::temp_dir().join(format!("longshore-{}", uid.as_raw())),
        |dir| dir.join("longshore"),
    )
}
