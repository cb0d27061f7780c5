//! Networks for containers: each kind has a provider, which gives a container its network namespace
//! and takes it back.
//!
//! `host` and `none` need no one's help: the runtime makes the namespace, or leaves the container in
//! the host's. Providers that prepare a namespace of their own answer with [`NetworkNamespace::At`].

use executor_core::lifecycle::ContainerId;
use executor_core::{Network, NetworkNamespace};

/// A network that could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("network {network}: {message}")]
pub struct NetworkError {
    /// The provider's name.
    pub network: &'static str,
    /// The cause.
    pub message: String,
}

/// Gives containers their network. Calls may block.
pub trait Provider: Send + Sync + 'static {
    /// The network of a container that is about to start.
    ///
    /// # Errors
    /// When it cannot be set up; then there is nothing to detach.
    fn attach(&self, container: &ContainerId) -> Result<NetworkNamespace, NetworkError>;

    /// Takes the network back, after the last process of the container. Doing so twice is fine.
    fn detach(&self, container: &ContainerId);
}

/// The provider of a kind of network.
pub fn provider(network: Network) -> &'static dyn Provider {
    match network {
        Network::None => &NoNetwork,
        Network::Host => &HostNetwork,
    }
}

/// A loopback and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct NoNetwork;

/// The host's network.
#[derive(Clone, Copy, Debug)]
pub struct HostNetwork;

impl Provider for NoNetwork {
    fn attach(&self, _: &ContainerId) -> Result<NetworkNamespace, NetworkError> {
        Ok(NetworkNamespace::New)
    }

    /// The kernel removes the namespace with its last process.
    fn detach(&self, _: &ContainerId) {}
}

impl Provider for HostNetwork {
    fn attach(&self, _: &ContainerId) -> Result<NetworkNamespace, NetworkError> {
        Ok(NetworkNamespace::Host)
    }

    fn detach(&self, _: &ContainerId) {}
}
