//! What the driver is given to run: a bundle from `executor-bundle`, in a network from
//! `executor-network`.

use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use executor_bundle::Request;
use executor_core::lifecycle::{ContainerId, HostPid, NetworkUsage, StartFailure, StartFailureKind};
use executor_core::{ContainerSpec, ExecSpec, Network, NetworkNamespace};
use executor_network::{Cni, Networks};
use runc_driver::{Bundles, Place};

/// Bundles and networks together. One is good for one executor.
#[derive(Debug, Default)]
pub struct Sandbox {
    networks: Networks,
}

impl Sandbox {
    /// With this provider of CNI networks, in place of one that looks where the plugins usually are.
    pub fn cni(cni: Cni) -> Self {
        Self { networks: Networks::new(cni) }
    }

    /// The `config.json` that a container of this specification would be started with, indented.
    /// Nothing is made; the namespace of a network that would have to be is called `netns`.
    ///
    /// # Errors
    /// Names the field that cannot be carried out.
    pub fn preview(id: &ContainerId, spec: &ContainerSpec) -> Result<String, StartFailure> {
        let parent = spec.cgroup_parent.as_ref().map(ToString::to_string).unwrap_or_default();
        let cgroup = match parent.strip_suffix(':') {
            Some(slice) => format!("{slice}:longshore:executor-{id}"),
            None => format!("{parent}/longshore/executor/{id}"),
        };
        let network = match spec.network {
            Network::None => NetworkNamespace::New,
            Network::Host => NetworkNamespace::Host,
            Network::Cni { .. } => NetworkNamespace::At("netns".into()),
        };
        executor_bundle::preview(&Request { id, spec, cgroup: Some(&cgroup) }, &network)
    }
}

impl Bundles for Sandbox {
    fn open(&self, root: &Path, executor: &str) -> io::Result<()> {
        self.networks.open(root, executor)
    }

    fn write(&self, place: &Place<'_>, spec: &ContainerSpec) -> Result<Vec<u8>, StartFailure> {
        let &Place { id, dir, cgroup } = place;
        let request = Request { id, spec, cgroup };
        let attach = || {
            let attached = self.networks.attach(dir, id, &spec.network);
            attached.map_err(|error| StartFailure::new(StartFailureKind::BadConfig, error.to_string()))
        };
        match spec.network {
            Network::None | Network::Host => executor_bundle::write(dir, &request, attach),
            // Plugins take their time.
            Network::Cni { .. } => thread::scope(|scope| {
                let attaching = scope.spawn(attach);
                executor_bundle::write(dir, &request, || {
                    attaching.join().unwrap_or_else(|panic| resume_unwind(panic))
                })
            }),
        }
    }

    fn process(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        init: HostPid,
        exec: &ExecSpec,
    ) -> Result<Vec<u8>, StartFailure> {
        executor_bundle::process(place.dir, spec, init, exec)
    }

    fn network_usage(&self, dir: &Path) -> Option<NetworkUsage> {
        self.networks.usage(dir)
    }

    fn unmake(&self, dir: &Path) -> Vec<String> {
        let mut left = executor_bundle::unmake(dir);
        left.extend(self.networks.detach(dir));
        left
    }

    fn close(&self, root: &Path, executor: &str) -> Vec<String> {
        self.networks.close(root, executor)
    }
}
