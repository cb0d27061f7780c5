//! The interface to the code that makes bundles.

use std::io;
use std::path::Path;

use executor_core::lifecycle::{ContainerId, HostPid, Leftover, NetworkUsage, StartFailure};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkTraits};

/// Makes and removes what a runtime reads: bundles and process descriptions. Every method except
/// [`network`](Self::network) may block.
pub trait Bundles: Send + Sync + 'static {
    /// An executor of this name has entered `root`. Called once, before anything is made for it.
    fn open(&self, root: &Path, executor: &str) -> io::Result<()> {
        let (_, _) = (root, executor);
        Ok(())
    }

    /// The traits of the network that a specification asks for. Must not block.
    fn network(&self, spec: &ContainerSpec) -> NetworkTraits;

    /// Sets up the network of a container. Called before `write`. After a failure, `detach` removes what was
    /// set up.
    fn attach(&self, place: &Place<'_>, spec: &ContainerSpec) -> Result<NetworkAttachment, StartFailure>;

    /// Fills `place.dir` with the files that a bundle refers to. Returns the text of its `config.json`.
    fn write(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        network: &NetworkAttachment,
    ) -> Result<Vec<u8>, StartFailure>;

    /// Returns the `process` object, as JSON, of a process to be started in the container of `init`.
    fn process(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        init: HostPid,
        exec: &ExecSpec,
    ) -> Result<Vec<u8>, StartFailure>;

    /// The traffic of the container in `dir`, if its network outlives its processes. Other reads wait for
    /// this one, so it must not take longer than reading a file.
    fn network_usage(&self, dir: &Path) -> Option<NetworkUsage> {
        let _ = dir;
        None
    }

    /// Removes the network of the container in `dir`. May be called twice, and for the containers of a dead
    /// executor.
    fn detach(&self, dir: &Path) -> Vec<Leftover> {
        let _ = dir;
        Vec::new()
    }

    /// Removes what `write` has made besides files: mounts below `dir`. Also called if `write` has failed
    /// half way, and for the containers of a dead executor.
    fn unmake(&self, dir: &Path) -> Vec<Leftover>;

    /// Removes what the executor of this name has on `root` besides its containers. Called when the executor
    /// closes, or was found dead.
    fn close(&self, root: &Path, executor: &str) -> Vec<Leftover> {
        let (_, _) = (root, executor);
        Vec::new()
    }
}

/// The place of a container's bundle.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The container's id.
    pub id: &'a ContainerId,
    /// Its own directory, which exists.
    pub dir: &'a Path,
    /// The `cgroupsPath` of `config.json`. `None` if this user may make no cgroups.
    pub cgroup: Option<&'a str>,
}
