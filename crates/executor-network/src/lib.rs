//! Networks for containers: each kind has a provider, which gives a container its network and takes it back.
//!
//! ```text
//!  Networks ──▶ provider: what each kind has to do, and what it is like, as data
//!     ├───────▶ none, host: the runtime makes the namespace, or leaves the container in the host's
//!     └───────▶ cni ──▶ config: which plugins, from a directory
//!                │ └──▶ plugin: one call of one plugin
//!                ├────▶ namespace: a network namespace that outlives the process that made it
//!                └────▶ pool: some that are ready
//! ```
//! A network that is set up ahead of the container, as by CNI, has a directory of its own below the root,
//! `<root>/networks/<executor>.<number>`, with everything in it that taking it back needs: a sweep of the
//! root can do that for a dead executor. Calls may block.

mod attachment;
mod cni;
mod config;
mod error;
mod namespace;
mod plugin;
mod pool;
mod provider;

use std::io;
use std::path::Path;

use executor_core::lifecycle::{ContainerId, Leftover, NetworkUsage};
use executor_core::{Network, NetworkAttachment, NetworkNamespace, NetworkTraits};

pub use cni::Cni;
pub use error::{NetworkError, Plugin};
pub use provider::Provider;

use provider::Namespace;

/// The providers of all kinds of networks.
#[derive(Debug)]
pub struct Networks {
    /// A loopback and nothing else. The kernel removes the namespace with its last process.
    none: Box<dyn Provider>,
    /// The host's network.
    host: Box<dyn Provider>,
    cni: Box<dyn Provider>,
}

impl Default for Networks {
    fn default() -> Self {
        Self::new(Cni::default())
    }
}

impl Networks {
    /// With this provider of CNI networks.
    pub fn new(cni: impl Provider) -> Self {
        Self {
            none: Box::new(Namespace(NetworkNamespace::New)),
            host: Box::new(Namespace(NetworkNamespace::Host)),
            cni: Box::new(cni),
        }
    }

    /// The one place that distinguishes kinds of networks: the provider of one, and its name there.
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

    /// What a network is like.
    pub fn traits(&self, network: &Network) -> NetworkTraits {
        self.provider(network).0.traits()
    }

    /// The namespace that a container would be shown to have in this network, which is not made.
    pub fn preview(&self, network: &Network) -> NetworkNamespace {
        self.provider(network).0.preview()
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
        let (provider, name) = self.provider(network);
        provider.attach(dir, container, name)
    }

    /// As [`Provider::open`], for all of them.
    ///
    /// # Errors
    /// When nothing can be kept there.
    pub fn open(&self, root: &Path, executor: &str) -> io::Result<()> {
        self.all().into_iter().try_for_each(|provider| provider.open(root, executor))
    }

    /// As [`Provider::usage`].
    pub fn usage(&self, dir: &Path) -> Option<NetworkUsage> {
        self.all().into_iter().find_map(|provider| provider.usage(dir))
    }

    /// As [`Provider::detach`], for whichever network the container has.
    pub fn detach(&self, dir: &Path) -> Vec<Leftover> {
        self.all().into_iter().flat_map(|provider| provider.detach(dir)).collect()
    }

    /// As [`Provider::close`], for all of them.
    pub fn close(&self, root: &Path, executor: &str) -> Vec<Leftover> {
        self.all().into_iter().flat_map(|provider| provider.close(root, executor)).collect()
    }
}
