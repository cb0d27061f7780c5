//! A runtime to be executed: its program, perhaps in memory, and its streams.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

/// A runtime to be executed, in a process group of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The absolute path of its program, which is also its first argument.
    pub program: OsString,
    /// A copy of the program in memory. It is executed instead of the program if the program's file is
    /// unchanged.
    pub image: Option<Image>,
    /// The other arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// stdin, stdout and stderr.
    pub stdio: [StdioSource; 3],
}

/// A program in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The index of its file descriptor.
    pub fd: usize,
    /// The file that it is a copy of.
    pub of: FileIdentity,
}

/// Whether a [`Command`]'s image was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageFate {
    /// There is none.
    None,
    /// It was executed.
    Executed,
    /// The program's file has changed since, and was executed.
    Outdated,
    /// It cannot be executed, now or ever. The program's file was executed.
    Unfit,
}

/// Identifies a file and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device and inode.
    pub file: (u64, u64),
    /// Its size in bytes.
    pub size: u64,
    /// The time of its last change (ctime), in seconds and nanoseconds.
    pub changed: (i64, i64),
}

impl FileIdentity {
    /// The identity of a file as it is now.
    pub fn of(meta: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let (file, changed) = ((meta.dev(), meta.ino()), (meta.ctime(), meta.ctime_nsec()));
        Self { file, size: meta.size(), changed }
    }
}

/// A stream of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdioSource {
    /// `/dev/null`.
    Null,
    /// The host's own stream of the same number.
    Inherit,
    /// The file descriptor at this index.
    Fd(usize),
}
