//! Run processes in OCI containers and never lose track of one.
//!
//! This is what an embedder adds: the actors of `executor-core`, wired up with runc, bundles and
//! networks. The `longshore` command is the same in a person's hands.
//!
//! ```no_run
//! use std::time::Duration;
//! use longshore::{Cancel, ContainerSpec, Executor};
//!
//! # async fn example() -> Result<(), longshore::Error> {
//! let executor = Executor::builder(longshore::runc().build()?).build()?;
//! let container = executor.run(ContainerSpec::host(["echo", "hello"]).piped()).await?;
//! let output = container.output().await?;
//! println!("{}: {}", output.exit, output.stdout_lossy());
//! executor.shutdown(Cancel::with_grace(Duration::from_secs(5)), Duration::from_secs(10)).await;
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

use std::path::Path;
use std::sync::Arc;

/// The actors are actix actors. This is the version that [`actix::Recipient`]s of yours have to be of.
pub use actix;
pub use executor_core::lifecycle::container::Phase;
pub use executor_core::lifecycle::{
    Cancel, CancelCause, ContainerId, Event, EventKind, EventOrder, ExecId, Exit, ExitReason, ExitStatus,
    HostPid, InvalidId, InvalidSignal, InvalidTimestamp, IoUsage, Leftover, LeftoverKind, NetworkUsage,
    OutOfOrder, Pressure, ProcessId, ProcessRef, Refusal, Refused, Signal, SignalScope, Stall, StartFailure,
    StartFailureKind, TerminalSize, Timestamp, Usage, with_causes,
};
#[cfg(feature = "metrics")]
pub use executor_core::metrics;
pub use executor_core::{
    Attached, BoxError, Capability, CgroupParent, Chunk, Config, ContainerHandle, ContainerSpec, Device,
    DeviceRights, Dns, Error, Events, ExecSpec, Executor, ExecutorBuilder, ExitNotice, ExtraHost, IdMap,
    IdRange, Input, InvalidSpec, Io, KeepExited, Labels, Mount, MountSource, Network, Notice, Output,
    ProcessHandle, ProcessMode, ProcessOutput, ProcessSpec, Resources, Rootfs, RuntimeError, Sample, Samples,
    Seccomp, Secret, Security, Selinux, ShutdownReport, Snapshot, Stdio, StdioSpec, Swept, Telemetry,
    TimeLimit, Ulimit, UpperLayer, default_root,
};
#[cfg(feature = "sim")]
pub use executor_sim as sim;
pub use sandbox::Sandbox;

use self::runtime::{Runc, RuncBuilder};

/// For authors of runtimes: the two ports below an [`Executor`], what crosses them, and what the runtime that
/// [`runc`] makes is built of.
pub mod runtime {
    pub use executor_core::lifecycle::RawExit;
    pub use executor_core::{
        BoxFuture, BoxStream, ChildFd, ChildStdio, Delivery, ExitQueue, ExitSource, Kill, NetworkAttachment,
        NetworkNamespace, NetworkTraits, Runtime,
    };
    pub use executor_network::Cni;
    pub use runc_driver::{
        Bundles, CANDIDATES, CommandLine, DriverError, DriverResult, HostClient, Launch, Mode, NoRuntime,
        OciFeatures, OciRuntime, OciState, Place, Runc, RuncBuilder, RuntimeCall, RuntimeParts,
        default_cgroup_parent, find_runtime,
    };
}

/// For tests and tools: every message that the actors take, as it is taken.
pub mod observe {
    pub use executor_core::lifecycle::container::ContainerEvent;
    pub use executor_core::lifecycle::exit_router::ExitRouterEvent;
    pub use executor_core::lifecycle::process::ProcessEvent;
    pub use executor_core::lifecycle::registry::RegistryEvent;
    pub use executor_core::{Observed, ObservedMessage, Observer};
}

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
