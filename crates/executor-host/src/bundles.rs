//! The interface to the code that makes bundles.

use std::io;
use std::sync::Arc;

use executor_core::lifecycle::{ContainerId, HostPid, Leftover, NetworkUsage, StartFailure};
use executor_core::{ContainerSpec, ExecSpec, NetworkAttachment, NetworkTraits};
use executor_disk::Dir;

use crate::root::{CONTAINERS, ENTRIES};

/// Makes and removes what a runtime reads: bundles and process descriptions. Every method except
/// [`network`](Self::network) may block.
pub trait Bundles: Send + Sync + 'static {
    /// An executor of this name has entered `root`. Called once, before anything is made for it.
    fn open(&self, root: &Arc<Dir>, executor: &str) -> io::Result<()> {
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

    /// The traffic of the container, if its network outlives its processes. Other reads wait for this one, so
    /// it must not take longer than reading a file.
    fn network_usage(&self, place: &Place<'_>) -> Option<NetworkUsage> {
        let _ = place;
        None
    }

    /// Removes the network of the container. May be called twice, and for the containers of a dead executor.
    fn detach(&self, place: &Place<'_>) -> Vec<Leftover> {
        let _ = place;
        Vec::new()
    }

    /// Removes what `write` has made besides files: mounts below `place.dir`. Also called if `write` has
    /// failed half way, and for the containers of a dead executor.
    fn unmake(&self, place: &Place<'_>) -> Vec<Leftover>;

    /// Removes what the executor of this name has on `root` besides its containers. Called when the executor
    /// closes, or was found dead.
    fn close(&self, root: &Arc<Dir>, executor: &str) -> Vec<Leftover> {
        let (_, _) = (root, executor);
        Vec::new()
    }
}

/// The place of a container's bundle.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The container's id.
    pub id: &'a ContainerId,
    /// The executor's root directory.
    pub root: &'a Arc<Dir>,
    /// The container's own directory below it. Its mode is 0700.
    pub dir: &'a Dir,
    /// The `cgroupsPath` of `config.json`. `None` if this user may make no cgroups.
    pub cgroup: Option<&'a str>,
}

impl Place<'_> {
    /// Lets the members of a group pass through the container's directory. They can list nothing in it.
    ///
    /// A runtime passes through it as the root of the container's user namespace, which is an ordinary user of
    /// the host. Through `containers` and the root, everybody can pass then.
    ///
    /// # Errors
    /// When the system refuses it. When others cannot pass through the root, and it has entries that are not an executor's:
    /// who keeps other things there decides on its mode.
    pub fn admit(&self, gid: u32) -> io::Result<()> {
        for above in [&**self.root, &self.root.open_dir(CONTAINERS)?] {
            let mode = above.stat()?.st_mode & 0o7777;
            if mode & 0o001 != 0 {
                continue;
            }
            if above.path() == self.root.path() && !self.is_root_ours()? {
                let why = format!("others cannot pass through {}; use chmod o+x", above.path().display());
                return Err(io::Error::other(why));
            }
            above.set_mode(mode | 0o011)?;
        }
        self.dir.set_group(gid)?;
        self.dir.set_mode(0o710)
    }

    fn is_root_ours(&self) -> io::Result<bool> {
        Ok(self.root.names()?.iter().all(|name| ENTRIES.contains(&name.as_str())))
    }
}
