//! Where the streams of a process go.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where the streams of a process go; nowhere by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct StdioSpec {
    /// Where it reads from.
    pub stdin: Stdio,
    /// Where it writes to.
    pub stdout: Stdio,
    /// Where it complains to.
    ///
    /// An OCI runtime shares this stream with the process it starts, and writes its own complaint
    /// there when it fails to. [`Stdio::Pipe`] keeps that apart: nothing is handed on of a process
    /// that did not start.
    pub stderr: Stdio,
}

/// Where one stream goes.
#[non_exhaustive]
#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stdio {
    /// `/dev/null`.
    #[default]
    Null,
    /// The embedder's own stream of the same number.
    Inherit,
    /// This file, straight: no copy is made of what passes. It has no form in JSON: writing it is an error.
    #[serde(skip)]
    Fd(Arc<OwnedFd>),
    /// A pipe, whose other end the handle gives out. An output has to be read: a full pipe holds the process back.
    Pipe,
    /// For an output: any number of readers, who attach when they like and never hold the process back.
    Shared {
        /// How many bytes of the past are kept for those who attach later, or are slow.
        replay: usize,
    },
}

/// Files are equal when they are the same one, not when they lead to the same.
impl PartialEq for Stdio {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) | (Self::Inherit, Self::Inherit) | (Self::Pipe, Self::Pipe) => true,
            (Self::Fd(one), Self::Fd(other)) => Arc::ptr_eq(one, other),
            (Self::Shared { replay: one }, Self::Shared { replay: other }) => one == other,
            (Self::Null | Self::Inherit | Self::Pipe | Self::Fd(_) | Self::Shared { .. }, _) => false,
        }
    }
}

impl Eq for Stdio {}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self::Fd(Arc::new(fd))
    }
}

impl From<std::fs::File> for Stdio {
    fn from(file: std::fs::File) -> Self {
        OwnedFd::from(file).into()
    }
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Inherit => "Inherit",
            Self::Fd(_) => "Fd",
            Self::Pipe => "Pipe",
            Self::Shared { .. } => "Shared",
        })
    }
}

impl StdioSpec {
    pub(super) fn piped(self) -> Self {
        Self { stdout: Stdio::Pipe, stderr: Stdio::Pipe, ..self }
    }
}
