//! Networks for containers: each kind has a provider, which gives a container its network and takes it back.
//!
//! ```text
//!  Networks ──▶ none, host: the runtime makes the namespace, or leaves the container in the host's
//!     └───────▶ cni ──▶ config: which plugins, from a directory
//!                │ └──▶ plugin: one call of one plugin
//!                ├────▶ namespace: a network namespace that outlives whoever made it
//!                └────▶ pool: some that are ready
//! ```
//! A network that is set up ahead of the container, as by CNI, has a directory of its own below the root,
//! `<root>/networks/<executor>.<number>`, with everything in it that taking it back needs: whoever sweeps the root
//! can do that for a dead executor. Calls may block.

mod attachment;
mod cni;
mod config;
mod namespace;
mod plugin;
mod pool;

use std::io;
use std::path::Path;

use executor_core::lifecycle::{ContainerId, NetworkUsage};
use executor_core::{Network, NetworkAttachment, NetworkNamespace};

pub use cni::Cni;

/// A network that could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("network {network}: {message}")]
pub struct NetworkError {
    /// The network's name.
    pub network: String,
    /// The cause.
    pub message: String,
}

impl NetworkError {
    fn new(network: &str, message: impl Into<String>) -> Self {
        Self { network: network.to_owned(), message: message.into() }
    }
}

/// Gives containers of one kind of network theirs. Calls may block.
pub trait Provider: Send + Sync + 'static {
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
    fn detach(&self, dir: &Path) -> Vec<String> {
        let _ = dir;
        Vec::new()
    }

    /// Takes back what an executor has beside its containers' networks: it ends, or is found dead. Answers as
    /// `detach`.
    fn close(&self, root: &Path, executor: &str) -> Vec<String> {
        let (_, _) = (root, executor);
        Vec::new()
    }
}

/// A loopback and nothing else. The kernel removes the namespace with its last process.
#[derive(Clone, Copy, Debug)]
pub struct NoNetwork;

/// The host's network.
#[derive(Clone, Copy, Debug)]
pub struct HostNetwork;

impl Provider for NoNetwork {
    fn attach(&self, _: &Path, _: &ContainerId, _: Option<&str>) -> Result<NetworkAttachment, NetworkError> {
        Ok(NetworkNamespace::New.into())
    }
}

impl Provider for HostNetwork {
    fn attach(&self, _: &Path, _: &ContainerId, _: Option<&str>) -> Result<NetworkAttachment, NetworkError> {
        Ok(NetworkNamespace::Host.into())
    }
}

/// The providers of all kinds of networks.
#[derive(Debug, Default)]
pub struct Networks {
    cni: Cni,
}

impl Networks {
    /// With this provider of CNI networks.
    pub const fn new(cni: Cni) -> Self {
        Self { cni }
    }

    /// The network that a container asks for, as [`Provider::attach`].
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn attach(
        &self,
        dir: &Path,
        container: &ContainerId,
        network: &Network,
    ) -> Result<NetworkAttachment, NetworkError> {
        match network {
            Network::None => NoNetwork.attach(dir, container, None),
            Network::Host => HostNetwork.attach(dir, container, None),
            Network::Cni { name } => self.cni.attach(dir, container, name.as_deref()),
        }
    }

    /// As [`Provider::open`], for all of them.
    ///
    /// # Errors
    /// When nothing can be kept there.
    pub fn open(&self, root: &Path, executor: &str) -> io::Result<()> {
        self.cni.open(root, executor)
    }

    /// As [`Provider::usage`].
    pub fn usage(&self, dir: &Path) -> Option<NetworkUsage> {
        self.cni.usage(dir)
    }

    /// As [`Provider::detach`], for whichever network the container has.
    pub fn detach(&self, dir: &Path) -> Vec<String> {
        self.cni.detach(dir)
    }

    /// As [`Provider::close`], for all of them.
    pub fn close(&self, root: &Path, executor: &str) -> Vec<String> {
        self.cni.close(root, executor)
    }
}
