//! The streams of a process.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The streams of a process. By default all are null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct StdioSpec {
    /// What stdin is.
    pub stdin: Stdio,
    /// What stdout is.
    pub stdout: Stdio,
    /// What stderr is.
    ///
    /// An OCI runtime shares this stream with the process that it starts, and writes its own message there if that
    /// fails. With [`Stdio::Pipe`] nothing is read of a process that did not start.
    pub stderr: Stdio,
}

impl StdioSpec {
    /// The same, with null in place of files of the embedder.
    pub(crate) fn without_files(&self) -> Self {
        let without = |stream: &Stdio| match stream {
            Stdio::Fd(_) | Stdio::Inherit | Stdio::Null => Stdio::Null,
            Stdio::Pipe => Stdio::Pipe,
            Stdio::Shared { replay } => Stdio::Shared { replay: *replay },
        };
        Self { stdin: without(&self.stdin), stdout: without(&self.stdout), stderr: without(&self.stderr) }
    }
}

/// One stream.
#[non_exhaustive]
#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum Stdio {
    /// `/dev/null`.
    #[default]
    Null,
    /// The stream of the embedder with the same number, as [`Fd`](Self::Fd).
    Inherit,
    /// This file itself; nothing is copied. It has no form in JSON: serializing it is an error.
    ///
    /// The process can do with it what its rights allow: read a terminal that it is only to write to, and set it; open a
    /// file again by `/proc/self/fd`, to read or truncate what it is only to append to; make it non-blocking for all that
    /// share it. The runtime gives the file to the container's user (`chown`), and it stays that user's. To a process that you
    /// do not trust, give a [`Pipe`](Self::Pipe).
    #[serde(skip)]
    Fd(Arc<OwnedFd>),
    /// A pipe. The handle gives out the other end. An output must be read: a process blocks when its pipe is full.
    Pipe,
    /// For outputs: any number of readers, which attach at any time and never block the process.
    Shared {
        /// How many bytes of the past are kept for readers that attach later or are slow.
        replay: usize,
    },
}

/// Files are equal if they are the same file descriptor, not if they lead to the same file.
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
