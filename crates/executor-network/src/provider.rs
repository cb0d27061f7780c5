//! What a kind of network has to provide.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use executor_core::lifecycle::{ContainerId, Leftover, NetworkUsage};
use executor_core::{NetworkAttachment, NetworkNamespace, NetworkTraits};

use crate::error::NetworkError;

/// Gives containers of one kind of network theirs. Calls may block, but for those that say what it is like.
pub trait Provider: Debug + Send + Sync + 'static {
    /// What its networks are like.
    fn traits(&self) -> NetworkTraits;

    /// The namespace of a network that is not made: shown where a configuration is only looked at.
    fn preview(&self) -> NetworkNamespace;

    /// An executor of this name begins on `root`.
    ///
    /// # Errors
    /// When nothing can be kept there.
    fn open(&self, root: &Path, executor: &str) -> io::Result<()> {
        let (_, _) = (root, executor);
        Ok(())
    }

    /// The network `name` for a container that is about to start, whose bundle is in `dir`; the provider's own
    /// choice without a name. What `detach` needs is kept in `dir`.
    ///
    /// # Errors
    /// When it cannot be set up; `detach` is called all the same.
    fn attach(
        &self,
        dir: &Path,
        container: &ContainerId,
        name: Option<&str>,
    ) -> Result<NetworkAttachment, NetworkError>;

    /// What went over a container's network so far, where that outlives its processes.
    fn usage(&self, dir: &Path) -> Option<NetworkUsage> {
        let _ = dir;
        None
    }

    /// Takes the network back, after the last process of the container whose bundle is in `dir`. Answers with
    /// what could not be removed. Doing so twice, or for a container that has none, is fine.
    fn detach(&self, dir: &Path) -> Vec<Leftover> {
        let _ = dir;
        Vec::new()
    }

    /// Takes back what an executor has beside its containers' networks: it ends, or is found dead. Answers as
    /// `detach`.
    fn close(&self, root: &Path, executor: &str) -> Vec<Leftover> {
        let (_, _) = (root, executor);
        Vec::new()
    }
}

/// A network that is a namespace, and takes no setting up.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(pub(crate) NetworkNamespace);

impl Provider for Namespace {
    fn traits(&self) -> NetworkTraits {
        NetworkTraits { is_slow: false, outlives_processes: false }
    }

    fn preview(&self) -> NetworkNamespace {
        self.0.clone()
    }

    fn attach(&self, _: &Path, _: &ContainerId, _: Option<&str>) -> Result<NetworkAttachment, NetworkError> {
        Ok(self.0.clone().into())
    }
}
