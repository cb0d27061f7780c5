//! What the driver needs of the one who makes bundles.

use std::io;
use std::path::Path;

use executor_core::lifecycle::{ContainerId, HostPid, Leftover, NetworkUsage, StartFailure};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkTraits};

/// Makes what the runtime is pointed at, and unmakes it. Every call but [`network`](Self::network) may block.
pub trait Bundles: Send + Sync + 'static {
    /// An executor of this name begins on `root`. Called once, before anything is made for it.
    fn open(&self, root: &Path, executor: &str) -> io::Result<()> {
        let (_, _) = (root, executor);
        Ok(())
    }

    /// What the network that a specification asks for is like. Must not block.
    fn network(&self, spec: &ContainerSpec) -> NetworkTraits;

    /// Sets the network of a container up. Called before `write`; what was begun is taken back by `detach`.
    fn attach(&self, place: &Place<'_>, spec: &ContainerSpec) -> Result<NetworkAttachment, StartFailure>;

    /// Fills `place.dir` with what a bundle refers to, and answers with the text of its `config.json`.
    fn write(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        network: &NetworkAttachment,
    ) -> Result<Vec<u8>, StartFailure>;

    /// The `process` object, as JSON, of a process to be added to a container that runs as `init`.
    fn process(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        init: HostPid,
        exec: &ExecSpec,
    ) -> Result<Vec<u8>, StartFailure>;

    /// What went over the network of the container in `dir`, where that outlives its processes.
    /// Others wait meanwhile: it takes no longer than reading a file.
    fn network_usage(&self, dir: &Path) -> Option<NetworkUsage> {
        let _ = dir;
        None
    }

    /// Takes the network of the container in `dir` back. Twice is fine. Also called for what a dead executor left.
    fn detach(&self, dir: &Path) -> Vec<Leftover> {
        let _ = dir;
        Vec::new()
    }

    /// Gives back what `write` took outside of files: mounts below `dir`. Also called for what a dead
    /// executor left, and when `write` failed half way.
    fn unmake(&self, dir: &Path) -> Vec<Leftover>;

    /// Gives back what the executor of this name has on `root` beside its containers: it ends, or is found dead.
    fn close(&self, root: &Path, executor: &str) -> Vec<Leftover> {
        let (_, _) = (root, executor);
        Vec::new()
    }
}

/// Where a container's bundle goes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The container's id.
    pub id: &'a ContainerId,
    /// Its own directory, which exists.
    pub dir: &'a Path,
    /// Its cgroup, as the runtime is told it; none where no cgroups may be made.
    pub cgroup: Option<&'a str>,
}
