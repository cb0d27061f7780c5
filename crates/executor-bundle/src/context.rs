//! What a bundle is made of, and what comes together on the way to its configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::ContainerId;
use executor_core::{Capability, ContainerSpec, IdMap, NetworkNamespace};
use serde_json::Value;

use crate::rootfs::Made;

/// What a bundle is made of.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The container's id.
    pub id: &'a ContainerId,
    /// What it was asked to be.
    pub spec: &'a ContainerSpec,
    /// Its cgroup, as the runtime is given it; none where no cgroups may be made.
    pub cgroup: Option<&'a str>,
}

/// What goes into a configuration.
pub(crate) struct BundleContext<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) spec: &'a ContainerSpec,
    /// Where the bundle is, for what is put beside it.
    pub(crate) dir: &'a Path,
    pub(crate) cgroup: Option<&'a str>,
    pub(crate) rootfs: &'a Made,
    /// The mounts asked for.
    pub(crate) mounts: &'a [Value],
    /// Files of ours, each with the place where the container finds it.
    pub(crate) files: &'a [(PathBuf, PathBuf)],
    pub(crate) network: &'a NetworkNamespace,
    pub(crate) map: Option<&'a IdMap>,
    /// What the processes may do at most.
    pub(crate) capabilities: &'a BTreeSet<Capability>,
}
