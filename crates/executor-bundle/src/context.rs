//! The values that a bundle, and its configuration, are made from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::ContainerId;
use executor_core::{Capability, ContainerSpec, IdMap, NetworkNamespace};
use serde_json::Value;

use crate::rootfs::BundleRootfs;

/// What a bundle is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The container's id.
    pub id: &'a ContainerId,
    /// The container's specification.
    pub spec: &'a ContainerSpec,
    /// The container's cgroup, in the form of `cgroupsPath`. `None` where we may not make cgroups.
    pub cgroup: Option<&'a str>,
    /// The executor's root directory. No view of the host shows it.
    pub root: &'a Path,
}

/// What a configuration is made from.
pub(crate) struct BundleContext<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) spec: &'a ContainerSpec,
    /// The bundle's directory.
    pub(crate) dir: &'a Path,
    pub(crate) cgroup: Option<&'a str>,
    pub(crate) rootfs: &'a BundleRootfs,
    /// The mounts that the specification asks for.
    pub(crate) mounts: &'a [Value],
    /// Files that we write, each with its path in the container.
    pub(crate) files: &'a [(PathBuf, PathBuf)],
    pub(crate) network: &'a NetworkNamespace,
    pub(crate) map: Option<&'a IdMap>,
    /// The most that the container's processes may do.
    pub(crate) capabilities: &'a BTreeSet<Capability>,
}
