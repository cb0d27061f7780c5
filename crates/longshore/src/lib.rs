//! Runs processes in OCI containers, and never loses track of one.
//!
//! An [`Executor`] runs containers on runc, or on another runtime with runc's command line. You embed it in a scheduler, a
//! build system or a CI agent. Inside, it is a system of actix actors.
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
//! The text of an [`Error`] has no causes, because they are its `source`: print [`with_causes`] of it.
//!
//! The [`guide`] explains the concepts, streams, cancels, exits and testing, and has recipes. Its examples are complete, and
//! run without root: on the simulator, which is the module `sim` behind the feature `sim`.
//!
//! | feature | adds |
//! |---|---|
//! | `sim` | `longshore::sim`: the same executor on a simulated runtime and on virtual time, for tests |
//! | `cdi` | devices by their CDI names |
//! | `schema` | JSON Schemas of specifications, events and snapshots |
//! | `metrics` | `longshore::metrics`: counters, gauges and histograms, by the facade crate `metrics` |

#[cfg(any(doc, doctest))]
pub mod guide;
mod sandbox;

use std::path::Path;
use std::sync::Arc;

/// The actix that the actors are made with. Actors of yours that receive messages from Longshore need this version.
pub use actix;
pub use executor_core::lifecycle::container::Phase;
pub use executor_core::lifecycle::{
    Cancel, CancelCause, ContainerId, Event, EventKind, EventOrder, ExecId, Exit, ExitReason, ExitStatus,
    HostPid, InvalidId, InvalidSignal, InvalidTimestamp, IoUsage, Leftover, LeftoverKind, NetworkUsage,
    OomKill, OutOfOrder, Pressure, ProcessId, ProcessRef, Refusal, Refused, Signal, SignalScope, Stall,
    StartFailure, StartFailureKind, TerminalSize, Timestamp, Usage, with_causes, without_names,
};
#[cfg(feature = "metrics")]
pub use executor_core::metrics;
pub use executor_core::{
    Attached, BoxError, Capability, CgroupParent, Chunk, Config, ContainerHandle, ContainerSpec, Device,
    DeviceRights, Dns, Error, Events, ExecSpec, Executor, ExecutorBuilder, ExitNotice, ExtraHost, IdMap,
    IdRange, Input, InvalidSpec, Io, KeepExited, Labels, Mount, MountSource, Network, Notice, Output,
    ProcessHandle, ProcessMode, ProcessOutput, ProcessSpec, Resources, Rootfs, RuntimeError, Sample, Samples,
    Seccomp, Secret, Security, Selinux, ShutdownReport, Snapshot, Stdio, StdioSpec, Survival, Swept,
    Telemetry, TimeLimit, Ulimit, Unadopted, UpperLayer, default_root,
};
#[cfg(feature = "sim")]
#[doc(inline)]
pub use executor_sim as sim;
pub use sandbox::Sandbox;

use self::runtime::{Runc, RuncBuilder};

/// For authors of runtimes: the two ports below an [`Executor`], the types that they use, and the parts of the runtime that
/// [`runc`] makes.
pub mod runtime {
    pub use executor_bundle::has_init;
    pub use executor_core::lifecycle::{OomEvidence, RawExit};
    pub use executor_core::{
        BoxFuture, BoxStream, ChildFd, ChildStdio, Delivery, ExitQueue, ExitSource, KernelRelease, Kill,
        NetworkAttachment, NetworkNamespace, NetworkTraits, Runtime, check_free_descriptors, read_whole,
        set_of_status, without_mark,
    };
    pub use executor_network::Cni;
    pub use runc_driver::{
        Bundles, CANDIDATES, CommandLine, Dir, DriverError, DriverResult, HostClient, KnownVulnerability,
        Launch, Mode, NoRuntime, OciFeatures, OciRuntime, OciState, Place, Runc, RuncBuilder, RuntimeCall,
        RuntimeParts, default_cgroup_parent, find_runtime, known_vulnerabilities,
    };
}

/// For tests and tools: every message that the actors handle, when it is handled.
pub mod observe {
    pub use executor_core::lifecycle::container::ContainerEvent;
    pub use executor_core::lifecycle::exit_router::ExitRouterEvent;
    pub use executor_core::lifecycle::process::ProcessEvent;
    pub use executor_core::lifecycle::registry::RegistryEvent;
    pub use executor_core::{Observed, ObservedMessage, Observer};
}

/// A runtime for an [`Executor`]: runc, or another one with its command line, found on `PATH`. Longshore makes the bundles
/// and networks.
pub fn runc() -> RuncBuilder {
    runc_with(Sandbox::default())
}

/// The same with a sandbox of yours, as one with another directory of CNI plugins.
pub fn runc_with(sandbox: Sandbox) -> RuncBuilder {
    Runc::builder(Arc::new(sandbox))
}

/// Removes the record of an executor that was kept under this name, after its shutdown. The next one of the name begins with event 1.
///
/// # Errors
/// If an executor lives that has the name, or one has ended without a shutdown: then its containers may run. If there is no such name.
pub fn forget_name(root: &Path, name: &str) -> Result<Vec<Leftover>, RuntimeError> {
    runc_driver::forget_name(root, name)
        .map_err(|error| RuntimeError::Root { root: root.to_owned(), source: error.into() })
}

/// Removes what dead executors left under `root`. What live executors own is not touched.
///
/// Building an [`Executor`] does the same for its root.
///
/// # Errors
/// When the root cannot be read or locked.
pub fn sweep(root: &Path) -> Result<Vec<Swept>, RuntimeError> {
    sweep_with(root, &Sandbox::default())
}

/// The same with a sandbox of yours: its CNI plugins give back what dead containers had of their networks.
///
/// # Errors
/// As [`sweep`].
pub fn sweep_with(root: &Path, sandbox: &Sandbox) -> Result<Vec<Swept>, RuntimeError> {
    runc_driver::sweep(root, sandbox)
        .map_err(|error| RuntimeError::Root { root: root.to_owned(), source: error.into() })
}
