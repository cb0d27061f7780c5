//! What the driver is given to run: a bundle from `executor-bundle`, in a network from
//! `executor-network`.

use std::path::Path;

use executor_core::lifecycle::{ContainerId, HostPid, StartFailure, StartFailureKind};
use executor_core::{ContainerSpec, ExecSpec};
use runc_driver::{Bundles, Place};

/// Bundles and networks together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sandbox;

impl Sandbox {
    /// The `config.json` that a container of this specification would be started with, indented.
    /// Nothing is made.
    ///
    /// # Errors
    /// Names the field that cannot be carried out.
    pub fn preview(self, id: &ContainerId, spec: &ContainerSpec) -> Result<String, StartFailure> {
        let cgroup = format!("/longshore/executor/{id}");
        executor_bundle::preview(id, spec, &cgroup, &attach(id, spec)?)
    }
}

fn attach(id: &ContainerId, spec: &ContainerSpec) -> Result<executor_core::NetworkNamespace, StartFailure> {
    let attached = executor_network::provider(spec.network).attach(id);
    attached.map_err(|error| StartFailure::new(StartFailureKind::BadConfig, error.to_string()))
}

impl Bundles for Sandbox {
    fn write(&self, place: &Place<'_>, spec: &ContainerSpec) -> Result<(), StartFailure> {
        let network = attach(place.id, spec)?;
        executor_bundle::write(place.dir, place.id, spec, place.cgroup, &network)
    }

    fn process(
        &self,
        _: &Place<'_>,
        spec: &ContainerSpec,
        init: HostPid,
        exec: &ExecSpec,
    ) -> Result<Vec<u8>, StartFailure> {
        executor_bundle::process(spec, init, exec)
    }

    /// Both kinds of network there are go with the container's last process.
    fn unmake(&self, dir: &Path) -> Vec<String> {
        executor_bundle::unmake(dir)
    }
}
