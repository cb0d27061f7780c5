//! Networks for containers. Each kind of network has a provider, which sets a container's network up and removes it.
//!
//! ```text
//!  Networks ──▶ provider: the trait of all kinds
//!     ├───────▶ none, host: the runtime makes the namespace, or leaves the container in the host's
//!     └───────▶ cni ──▶ pool: networks that are ready
//!                └────▶ attachment: one network, on disk
//!                           ├──▶ config: which plugins, from a directory
//!                           ├──▶ plugin: one call of one plugin
//!                           └──▶ namespace: a network namespace with a name
//! ```
//! A CNI network is set up before its container. It has a directory of its own, `<root>/networks/<executor>.<number>`, which
//! holds everything that is needed to remove it. So a sweep of the root can remove the networks of an executor that died.
//! Calls may block.

mod attachment;
mod cni;
mod config;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod namespace;
mod plugin;
mod pool;
mod provider;

use std::io;
use std::sync::Arc;

use executor_core::lifecycle::{ContainerId, Leftover, NetworkUsage};
use executor_core::{Network, NetworkAttachment, NetworkNamespace, NetworkTraits};
use executor_disk::Dir;

pub use cni::Cni;
pub use error::{NetworkError, Plugin};
pub use provider::Provider;

use provider::Namespace;

/// The providers of all kinds of networks.
#[derive(Debug)]
pub struct Networks {
    /// A loopback interface only. The kernel removes the namespace with its last process.
    none: Box<dyn Provider>,
    /// The host's network.
    host: Box<dyn Provider>,
    /// Networks that CNI plugins make.
    cni: Box<dyn Provider>,
}

impl Default for Networks {
    fn default() -> Self {
        Self::new(Cni::default())
    }
}

impl Networks {
    /// The networks `none` and `host`, and `cni` with this provider.
    pub fn new(cni: impl Provider) -> Self {
        Self {
            none: Box::new(Namespace(NetworkNamespace::New)),
            host: Box::new(Namespace(NetworkNamespace::Host)),
            cni: Box::new(cni),
        }
    }

    /// The provider of a network, and the network's name there. No other place distinguishes kinds of networks.
    fn provider<'a>(&self, network: &'a Network) -> (&dyn Provider, Option<&'a str>) {
        match network {
            Network::None => (&*self.none, None),
            Network::Host => (&*self.host, None),
            Network::Cni { name } => (&*self.cni, name.as_deref()),
            // A kind that is added gets its provider here; until then it isolates.
            _ => (&*self.none, None),
        }
    }

    fn all(&self) -> [&dyn Provider; 3] {
        [&*self.none, &*self.host, &*self.cni]
    }

    /// What is known of a network before it is set up.
    pub fn traits(&self, network: &Network) -> NetworkTraits {
        self.provider(network).0.traits()
    }

    /// The namespace that a preview of a configuration shows for this network. Nothing is made.
    pub fn preview(&self, network: &Network) -> NetworkNamespace {
        self.provider(network).0.preview()
    }

    /// Sets up the network that a container asks for, as [`Provider::attach`].
    ///
    /// # Errors
    /// If it cannot be set up.
    pub fn attach(
        &self,
        root: &Arc<Dir>,
        dir: &Dir,
        container: &ContainerId,
        network: &Network,
    ) -> Result<NetworkAttachment, NetworkError> {
        let (provider, name) = self.provider(network);
        provider.attach(root, dir, container, name)
    }

    /// As [`Provider::open`], for all providers.
    ///
    /// # Errors
    /// The first error of a provider.
    pub fn open(&self, root: &Arc<Dir>, executor: &str) -> io::Result<()> {
        self.all().into_iter().try_for_each(|provider| provider.open(root, executor))
    }

    /// As [`Provider::usage`], for the network that the container has.
    pub fn usage(&self, root: &Arc<Dir>, dir: &Dir) -> Option<NetworkUsage> {
        self.all().into_iter().find_map(|provider| provider.usage(root, dir))
    }

    /// As [`Provider::detach`], for the network that the container has.
    pub fn detach(&self, root: &Arc<Dir>, dir: &Dir) -> Vec<Leftover> {
        self.all().into_iter().flat_map(|provider| provider.detach(root, dir)).collect()
    }

    /// As [`Provider::close`], for all providers.
    pub fn close(&self, root: &Arc<Dir>, executor: &str) -> Vec<Leftover> {
        self.all().into_iter().flat_map(|provider| provider.close(root, executor)).collect()
    }
}
