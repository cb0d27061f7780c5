//! Actors that run processes in containers, and the API to embed them.
//!
//! ```text
//!  embedder's threads          │ the executor's own thread (one actix System)
//!                              │
//!  Executor ───── Run, List ──────▶ ExecutorActor ── owns ──▶ Container ── owns ──▶ Process
//!  ContainerHandle ─ Exec, Cancel ───────────────────────────▲  ▲ Started, Exited ───┘ ▲
//!  ProcessHandle ── Signal, Cancel ─────────────────────────────┼──────────────────────┤
//!                              │                       Runtime ◀┘(port)   Reaper ──────┘ Ended
//!                              │                                            ▲ ExitSource (port)
//! ```
//! All decisions are made in [`executor_lifecycle`]; the actors translate messages into its events and perform its
//! effects. What touches the system is behind two ports, [`Runtime`] and [`ExitSource`]; `runc-driver` and
//! `executor-sim` implement them.
//!
//! Start with [`Executor::builder`], or with the `longshore` crate, which puts everything together.

pub mod actors;
mod clock;
mod config;
mod descriptors;
mod device;
mod error;
mod events;
mod executor;
mod exits;
mod handle;
mod history;
mod id_map;
mod io;
mod kept;
mod kernel;
pub mod messages;
pub mod metrics;
mod mount;
mod names;
mod observe;
mod ports;
mod resources;
mod secret;
mod security;
mod spec;
mod telemetry;
mod usage;

pub use config::{Config, read_whole, without_mark};
pub use descriptors::{SIGNAL_DESCRIPTORS, check_free_descriptors, spawn_without_descriptors};
pub use device::{Device, DeviceRights};
pub use error::{BoxError, Error, InvalidSpec, RuntimeError};
pub use events::{Events, Notice, Snapshot};
pub use executor::{Executor, ExecutorBuilder, ShutdownReport, default_root};
pub use executor_lifecycle as lifecycle;
pub use executor_lifecycle::container::KeepExited;
pub use executor_lifecycle::process::{Kill, TimeLimit};
pub use exits::ExitNotice;
pub use handle::{ContainerHandle, ProcessHandle};
pub use id_map::{IdMap, IdRange};
pub use io::{Attached, ChildFd, ChildStdio, Chunk, Input, Io, Output, ProcessOutput};
pub use kept::{Kept, KeptContainer, KeptStreams, Ledger, StreamKind, Survival, Unadopted};
pub use kernel::{KernelRelease, set_of_status};
pub use mount::{Mount, MountSource};
pub use names::{Dns, ExtraHost};
pub use observe::{Observed, ObservedMessage, Observer};
pub use ports::{BoxFuture, BoxStream, Delivery, ExitQueue, ExitSource, Runtime, Swept};
pub use resources::{CgroupParent, Resources};
pub use secret::Secret;
pub use security::{Capability, ProcessMode, Seccomp, Security, Selinux, Ulimit};
pub use spec::{
    ContainerSpec, ExecSpec, Labels, Network, NetworkAttachment, NetworkNamespace, NetworkTraits,
    ProcessSpec, Rootfs, Stdio, StdioSpec, UpperLayer,
};
pub use telemetry::Telemetry;
pub use usage::{Sample, Samples};
