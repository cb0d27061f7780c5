//! What the driver runs: a bundle from `executor-bundle`, in a network from `executor-network`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use executor_bundle::Request;
use executor_core::lifecycle::{
    ContainerId, HostPid, Leftover, NetworkUsage, StartFailure, StartFailureKind,
};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkTraits};
use executor_network::{Cni, Networks};
use runc_driver::{Bundles, Dir, Place, cgroups_path};

/// Bundles and networks together. Each executor needs one of its own.
#[derive(Debug, Default)]
pub struct Sandbox {
    networks: Networks,
}

impl Sandbox {
    /// A sandbox with this provider of CNI networks. The default looks for plugins in the usual directories.
    pub fn cni(cni: Cni) -> Self {
        Self { networks: Networks::new(cni) }
    }

    /// The `config.json` for a container of this specification, indented. Nothing is made: if the container needs a network
    /// namespace, its path is `netns`.
    ///
    /// # Errors
    /// If a field cannot be carried out. The error names it.
    pub fn preview(id: &ContainerId, spec: &ContainerSpec) -> Result<String, StartFailure> {
        let cgroup = cgroups_path(spec.cgroup_parent.as_ref(), "executor", id);
        let network = Networks::default().preview(&spec.network);
        // Nothing is made, and so nothing has to be hidden.
        let request = Request { id, spec, cgroup: Some(&cgroup), root: Path::new("") };
        Ok(executor_bundle::preview(&request, &network)?)
    }

    /// Makes a bundle in `dir` that a runtime runs without Longshore, as in `runc run --bundle DIR ID`. The directory is made if
    /// it is missing, with mode 0700, but none above it. No process of an executor's is needed, and nothing has to be swept: it is the caller's.
    ///
    /// With [`Rootfs::Host`](crate::Rootfs::Host), what is written to the view of the host stays in `dir`. Directories of the host
    /// with mounts below them are read-only in it.
    ///
    /// # Errors
    /// As of a start. Layers, selectors, secrets and networks that are made for a container cannot be in such a bundle.
    pub fn export(id: &ContainerId, spec: &ContainerSpec, dir: &Path) -> Result<(), StartFailure> {
        let failed = |source: io::Error| {
            let kind = StartFailureKind::of_io(&source).unwrap_or(StartFailureKind::BadConfig);
            StartFailure::new(kind, format!("bundle: {}: {source}", dir.display()))
        };
        let at = std::path::absolute(dir).map_err(failed)?;
        // A directory above it that is missing is a slip: as with mkdir(1), it is not made.
        at.parent().map_or(Ok(()), |above| std::fs::metadata(above).map(drop)).map_err(failed)?;
        let dir = Dir::make_checked(&at).map_err(failed)?;
        // Nobody removes one above the container's own.
        let own = || format!("/{id}");
        let cgroup =
            spec.cgroup_parent.as_ref().map_or_else(own, |parent| cgroups_path(Some(parent), "executor", id));
        let network = Networks::default().preview(&spec.network);
        let request = Request { id, spec, cgroup: Some(&cgroup), root: &crate::default_root() };
        Ok(executor_bundle::export(&dir, &request, &network)?)
    }
}

impl Bundles for Sandbox {
    fn open(&self, root: &Arc<Dir>, executor: &str) -> io::Result<()> {
        self.networks.open(root, executor)
    }

    fn network(&self, spec: &ContainerSpec) -> NetworkTraits {
        self.networks.traits(&spec.network)
    }

    fn attach(&self, place: &Place<'_>, spec: &ContainerSpec) -> Result<NetworkAttachment, StartFailure> {
        Ok(self.networks.attach(place.root, place.dir, place.id, &spec.network)?)
    }

    fn write(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        network: &NetworkAttachment,
    ) -> Result<Vec<u8>, StartFailure> {
        let &Place { id, dir, cgroup, .. } = place;
        if let Some(group) = executor_bundle::passing_group(spec) {
            let failed = |source| {
                let path = dir.path().to_owned();
                executor_bundle::Error::Io { op: "let the container's root into", path, source }
            };
            place.admit(group).map_err(failed)?;
        }
        Ok(executor_bundle::write(dir, &Request { id, spec, cgroup, root: place.root.path() }, network)?)
    }

    fn process(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        init: HostPid,
        exec: &ExecSpec,
    ) -> Result<Vec<u8>, StartFailure> {
        Ok(executor_bundle::process(place.dir, spec, init, exec)?)
    }

    fn network_usage(&self, place: &Place<'_>) -> Option<NetworkUsage> {
        self.networks.usage(place.root, place.dir)
    }

    fn detach(&self, place: &Place<'_>) -> Vec<Leftover> {
        self.networks.detach(place.root, place.dir)
    }

    fn unmake(&self, place: &Place<'_>) -> Vec<Leftover> {
        executor_bundle::unmake(place.dir)
    }

    fn close(&self, root: &Arc<Dir>, executor: &str) -> Vec<Leftover> {
        self.networks.close(root, executor)
    }
}
