//! The root file system of a container.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The root file system of a container.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum Rootfs {
    /// A throw-away overlay of the root directory of the host, and of each file system that is mounted on it. What is written
    /// there is lost afterwards. What cannot be in an overlay is read-only. `/proc`, `/sys`, `/dev`, `/run` and the mounts of
    /// containers are not those of the host.
    Host,
    /// A directory, used as it is. What is written there is kept.
    Dir(PathBuf),
    /// An overlay of directories.
    Overlay {
        /// The read-only layers, the topmost first.
        lower: Vec<PathBuf>,
        /// The layer that is written to. If absent, what is written is lost afterwards.
        upper: Option<UpperLayer>,
    },
}

/// The layer of an overlay that is written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpperLayer {
    /// The directory for what is written.
    pub dir: PathBuf,
    /// An empty directory on the same file system, which the kernel needs.
    pub work: PathBuf,
}
