//! The network of a container, and what a provider of networks returns.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Dns;

/// The network of a container.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum Network {
    /// A loopback interface of its own and nothing else.
    #[default]
    None,
    /// The network of the host.
    Host,
    /// A network that CNI plugins set up.
    Cni {
        /// The name of the network in its configuration. The default is the first configuration.
        name: Option<String>,
    },
}

/// The network namespace that a container is started in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// A new one, which the runtime creates with a loopback interface that is up.
    New,
    /// The host's.
    Host,
    /// An existing one, by the path of its file.
    At(PathBuf),
}

/// Properties of a kind of network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkTraits {
    /// Whether setting it up or removing it may take seconds, because it calls other programs.
    pub is_slow: bool,
    /// Whether it exists after the processes of the container have ended. Its traffic can then be read, as fast as a
    /// file.
    pub outlives_processes: bool,
}

/// What a provider has set up for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAttachment {
    /// The namespace that the container is started in.
    pub namespace: NetworkNamespace,
    /// The addresses of the container there, as far as they are known before it starts.
    pub addresses: Vec<IpAddr>,
    /// How names are resolved there, if the specification does not say.
    pub dns: Dns,
}

impl From<NetworkNamespace> for NetworkAttachment {
    /// An attachment without addresses.
    fn from(namespace: NetworkNamespace) -> Self {
        Self { namespace, addresses: Vec::new(), dns: Dns::default() }
    }
}
