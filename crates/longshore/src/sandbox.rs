//! What the driver runs: a bundle from `executor-bundle`, in a network from `executor-network`.

use std::io;
use std::path::Path;

use executor_bundle::Request;
use executor_core::lifecycle::{ContainerId, HostPid, Leftover, NetworkUsage, StartFailure};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkTraits};
use executor_network::{Cni, Networks};
use runc_driver::{Bundles, Place, cgroups_path};

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
        Ok(executor_bundle::preview(&Request { id, spec, cgroup: Some(&cgroup) }, &network)?)
    }
}

impl Bundles for Sandbox {
    fn open(&self, root: &Path, executor: &str) -> io::Result<()> {
        self.networks.open(root, executor)
    }

    fn network(&self, spec: &ContainerSpec) -> NetworkTraits {
        self.networks.traits(&spec.network)
    }

    fn attach(&self, place: &Place<'_>, spec: &ContainerSpec) -> Result<NetworkAttachment, StartFailure> {
        Ok(self.networks.attach(place.dir, place.id, &spec.network)?)
    }

    fn write(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        network: &NetworkAttachment,
    ) -> Result<Vec<u8>, StartFailure> {
        let &Place { id, dir, cgroup } = place;
        Ok(executor_bundle::write(dir, &Request { id, spec, cgroup }, network)?)
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

    fn network_usage(&self, dir: &Path) -> Option<NetworkUsage> {
        self.networks.usage(dir)
    }

    fn detach(&self, dir: &Path) -> Vec<Leftover> {
        self.networks.detach(dir)
    }

    fn unmake(&self, dir: &Path) -> Vec<Leftover> {
        executor_bundle::unmake(dir)
    }

    fn close(&self, root: &Path, executor: &str) -> Vec<Leftover> {
        self.networks.close(root, executor)
    }
}
