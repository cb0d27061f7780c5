//! What the driver needs of the one who makes bundles.

use std::path::Path;

use executor_core::lifecycle::{ContainerId, HostPid, StartFailure};
use executor_core::{ContainerSpec, ExecSpec};

/// Makes what the runtime is pointed at, and unmakes it. Every call may block.
pub trait Bundles: Send + Sync + 'static {
    /// Fills `place.dir` with a bundle: `config.json`, and whatever it refers to.
    fn write(&self, place: &Place<'_>, spec: &ContainerSpec) -> Result<(), StartFailure>;

    /// The `process` object, as JSON, of a process to be added to a container that runs as `init`.
    fn process(
        &self,
        place: &Place<'_>,
        spec: &ContainerSpec,
        init: HostPid,
        exec: &ExecSpec,
    ) -> Result<Vec<u8>, StartFailure>;

    /// Gives back what `write` took outside of files: mounts below `dir`. Also called for what a dead
    /// executor left, and when `write` failed half way. Answers with what could not be given back.
    fn unmake(&self, dir: &Path) -> Vec<String>;
}

/// Where a container's bundle goes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The container's id.
    pub id: &'a ContainerId,
    /// Its own directory, which exists.
    pub dir: &'a Path,
    /// Its cgroup, as an absolute path within each hierarchy.
    pub cgroup: &'a str,
}
