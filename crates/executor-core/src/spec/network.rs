//! What a container sees of the network, and what a provider of networks gives it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Dns;

/// What a container sees of the network.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Its own loopback and nothing else.
    #[default]
    None,
    /// The host's network.
    Host,
    /// What CNI plugins make of it.
    Cni {
        /// The network's name, as its configuration has it; the first configuration there is when absent.
        name: Option<String>,
    },
}

/// The network namespace a container is started in, once its network is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// A new one that the runtime makes, with a loopback that is up.
    New,
    /// The host's.
    Host,
    /// One that exists.
    At(PathBuf),
}

/// What a kind of network is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkTraits {
    /// Setting it up or taking it back may take seconds: others' programs are called.
    pub is_slow: bool,
    /// It is there after the container's processes have ended, and can then be asked what went over it, which takes no longer
    /// than reading a file.
    pub outlives_processes: bool,
}

/// What a container has of a network, once it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAttachment {
    /// The namespace it is started in.
    pub namespace: NetworkNamespace,
    /// Its addresses there, as far as they are known before it starts.
    pub addresses: Vec<IpAddr>,
    /// How names are resolved there, for a container that does not say otherwise.
    pub dns: Dns,
}

impl From<NetworkNamespace> for NetworkAttachment {
    /// With nothing known of it.
    fn from(namespace: NetworkNamespace) -> Self {
        Self { namespace, addresses: Vec::new(), dns: Dns::default() }
    }
}
