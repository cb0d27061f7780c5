//! What a bundle is made of, and what comes together on the way to its configuration.

use std::path::{Path, PathBuf};

use executor_core::lifecycle::ContainerId;
use executor_core::{ContainerSpec, IdMap, NetworkNamespace};
use serde_json::Value;

use crate::rootfs::Made;

/// What a bundle is made of.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The container's id.
    pub id: &'a ContainerId,
    /// What it was asked to be.
    pub spec: &'a ContainerSpec,
    /// Its cgroup, as the runtime is told it; none where no cgroups may be made.
    pub cgroup: Option<&'a str>,
}

/// What goes into a configuration beside the specification.
pub(crate) struct BundleContext<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) rootfs: &'a Made,
    /// Files of ours, each with the place where the container finds it.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    /// The mounts asked for.
    pub(crate) mounts: Vec<Value>,
    pub(crate) cgroup: Option<&'a str>,
    pub(crate) network: &'a NetworkNamespace,
    pub(crate) map: Option<&'a IdMap>,
    /// Where the bundle is, for what is put beside it.
    pub(crate) dir: &'a Path,
}
