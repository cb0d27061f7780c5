//! Where a container's root file system comes from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a container's root file system comes from.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// A throw-away overlay of the host's own root: what is written there is gone afterwards.
    Host,
    /// A directory, used as it is.
    Dir(PathBuf),
    /// Directories over one another.
    Overlay {
        /// The layers that are only read, the topmost first.
        lower: Vec<PathBuf>,
        /// Where what is written goes; nowhere that lasts when absent.
        upper: Option<UpperLayer>,
    },
}

/// The layer of an overlay that is written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpperLayer {
    /// The directory that holds what was written.
    pub dir: PathBuf,
    /// An empty directory on the same file system, for the kernel's own use.
    pub work: PathBuf,
}
