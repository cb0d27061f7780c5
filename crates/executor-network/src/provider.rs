//! The trait that every kind of network implements.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use executor_core::lifecycle::{ContainerId, Leftover, NetworkUsage};
use executor_core::{NetworkAttachment, NetworkNamespace, NetworkTraits};
use executor_disk::Dir;

use crate::error::NetworkError;

/// Sets up and removes networks of one kind. `traits` and `preview` do not block; the other calls may.
pub trait Provider: Debug + Send + Sync + 'static {
    /// What is known of these networks before one is set up.
    fn traits(&self) -> NetworkTraits;

    /// The namespace that a preview of a configuration shows. Nothing is made.
    fn preview(&self) -> NetworkNamespace;

    /// Called once, before any other call that may block, by the executor of this name, whose root directory is `root`.
    ///
    /// # Errors
    /// If the provider cannot work there: then the executor is not built.
    fn open(&self, root: &Arc<Dir>, executor: &str) -> io::Result<()> {
        let (_, _) = (root, executor);
        Ok(())
    }

    /// Sets up the network `name` for a container that is about to start and whose bundle is in `dir`. Without a name the
    /// provider chooses. The provider writes to `dir` what `detach` will need.
    ///
    /// # Errors
    /// If it cannot be set up. `detach` is called then as well.
    fn attach(
        &self,
        root: &Arc<Dir>,
        dir: &Dir,
        container: &ContainerId,
        name: Option<&str>,
    ) -> Result<NetworkAttachment, NetworkError>;

    /// The traffic of a container's network so far. `None` if the network does not outlive the container's processes.
    fn usage(&self, root: &Arc<Dir>, dir: &Dir) -> Option<NetworkUsage> {
        let (_, _) = (root, dir);
        None
    }

    /// Removes the network of the container whose bundle is in `dir`, after its last process has ended. Returns what could
    /// not be removed. A second call, or one for a container that has no network, does nothing.
    fn detach(&self, root: &Arc<Dir>, dir: &Dir) -> Vec<Leftover> {
        let (_, _) = (root, dir);
        Vec::new()
    }

    /// Removes what an executor has beside its containers' networks. Called when it ends, or by the executor that sweeps up
    /// after it. Returns what could not be removed.
    fn close(&self, root: &Arc<Dir>, executor: &str) -> Vec<Leftover> {
        let (_, _) = (root, executor);
        Vec::new()
    }
}

/// A network that needs no more than a namespace, which the runtime makes.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(pub(crate) NetworkNamespace);

impl Provider for Namespace {
    fn traits(&self) -> NetworkTraits {
        NetworkTraits { is_slow: false, outlives_processes: false }
    }

    fn preview(&self) -> NetworkNamespace {
        self.0.clone()
    }

    fn attach(
        &self,
        _: &Arc<Dir>,
        _: &Dir,
        _: &ContainerId,
        _: Option<&str>,
    ) -> Result<NetworkAttachment, NetworkError> {
        Ok(self.0.clone().into())
    }
}
