//! Why a network could not be set up or removed. Each error says which operation failed on what, and has the cause as its
//! source.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use executor_core::lifecycle::{Leftover, StartFailure, StartFailureKind, with_causes};
use thiserror::Error as ThisError;

/// A network could not be set up, or could not be removed.
#[derive(Debug, ThisError)]
pub enum NetworkError {
    /// The network that a container asked for could not be set up.
    #[error("network {network}")]
    Attach {
        /// Its name, or `cni` if the container names none.
        network: String,
        /// Why not.
        #[source]
        source: Box<NetworkError>,
    },
    /// The network could not be set up, and part of it could not be removed again.
    #[error("set up in part and not removed ({})", list(left))]
    HalfMade {
        /// What is left of it.
        left: Vec<Leftover>,
        /// Why it could not be set up.
        #[source]
        source: Box<NetworkError>,
    },
    /// No executor has opened the provider.
    #[error("no executor has opened the network provider")]
    NotOpened,
    /// There is no network of that name, or none at all.
    #[error("no configuration of this network in {}{}", dir.display(), beside(unread))]
    NoSuchNetwork {
        /// The directory that was searched for configurations.
        dir: PathBuf,
        /// Why some configurations could not be read. The network may be one of those.
        unread: Vec<NetworkError>,
    },
    /// A configuration is not JSON.
    #[error("{}: not JSON", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A configuration is JSON, but does not describe a network.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A plugin that a configuration names is not installed.
    #[error("{plugin}: not found in {}", paths(dirs))]
    PluginMissing {
        /// The plugin.
        plugin: Plugin,
        /// The directories that were searched.
        dirs: Vec<PathBuf>,
    },
    /// A plugin could not be started, or its stdin and outputs could not be used.
    #[error("{plugin}: could not be run")]
    PluginNotRun {
        /// The plugin.
        plugin: Plugin,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A plugin failed, with a message of its own.
    #[error("{plugin}: {words}")]
    PluginRefused {
        /// The plugin.
        plugin: Plugin,
        /// Its error code, from the list in CNI's specification, if it gave one.
        code: Option<u64>,
        /// Its message.
        words: String,
    },
    /// A plugin gave no answer and was killed.
    #[error("{plugin}: no answer within {after:?}; the plugin was killed")]
    PluginTimedOut {
        /// The plugin.
        plugin: Plugin,
        /// The time it had.
        after: Duration,
    },
    /// Another operation on a file failed.
    #[error("{op} {}", path.display())]
    Io {
        /// The operation, an imperative.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A plugin, and what it was called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// The program's name.
    pub name: String,
    /// `ADD`, `CHECK` or `DEL`.
    pub action: &'static str,
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}, {}", self.name, self.action)
    }
}

fn list(left: &[Leftover]) -> String {
    left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn paths(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Several causes as text, because `source` holds only one.
fn beside(unread: &[NetworkError]) -> String {
    let all: Vec<_> = unread.iter().map(|error| with_causes(error)).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join("; ")) }
}

/// CNI's error code for an operation that may work later.
const TRY_AGAIN: u64 = 11;

/// The messages of Go and of the C library for EMFILE, ENFILE, ENOMEM, ENOSPC and EAGAIN. A plugin's message contains one
/// of them if the system lacks a resource.
const NO_RESOURCES: [&str; 4] = [
    "too many open files",
    "cannot allocate memory",
    "no space left on device",
    "resource temporarily unavailable",
];

impl NetworkError {
    /// For `map_err`: `op` could not be done to `path`.
    pub(crate) fn io<E: Into<io::Error>>(op: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source: source.into() }
    }

    /// Which kind of start failure this error becomes.
    fn kind(&self) -> StartFailureKind {
        match self {
            Self::Attach { source, .. } | Self::HalfMade { source, .. } => source.kind(),
            Self::PluginNotRun { source, .. } | Self::Io { source, .. } => {
                StartFailureKind::of_io(source).unwrap_or(StartFailureKind::BadConfig)
            }
            Self::PluginRefused { code, words, .. } => {
                let words = words.to_lowercase();
                match *code == Some(TRY_AGAIN) || NO_RESOURCES.iter().any(|message| words.contains(message)) {
                    true => StartFailureKind::NoResources,
                    false => StartFailureKind::BadConfig,
                }
            }
            // A configuration could not be read for lack of resources. The network may be in that one.
            Self::NoSuchNetwork { unread, .. }
                if unread.iter().any(|error| error.kind() == StartFailureKind::NoResources) =>
            {
                StartFailureKind::NoResources
            }
            Self::NotOpened
            | Self::NoSuchNetwork { .. }
            | Self::NotJson { .. }
            | Self::Malformed { .. }
            | Self::PluginMissing { .. }
            | Self::PluginTimedOut { .. } => StartFailureKind::BadConfig,
        }
    }
}

impl From<NetworkError> for StartFailure {
    fn from(error: NetworkError) -> Self {
        Self::caused_by(error.kind(), &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn what_the_system_lacks_is_not_the_configurations_fault() {
        let plugin = || Plugin { name: "bridge".into(), action: "ADD" };
        let of = |source| {
            StartFailure::from(NetworkError::Attach { network: "n".into(), source: Box::new(source) })
        };
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::AGAIN] {
            let source = io::Error::from(errno);
            let words = format!("failed to create bridge: {}", source.to_string().to_lowercase());
            let failure = of(NetworkError::PluginNotRun { plugin: plugin(), source });
            assert_eq!(failure.kind, StartFailureKind::NoResources, "{errno:?}");
            assert!(failure.message.starts_with("network n: plugin bridge, ADD: could not be run: "));
            assert_eq!(
                of(NetworkError::PluginRefused { plugin: plugin(), code: Some(100), words }).kind,
                StartFailureKind::NoResources,
                "{errno:?}"
            );
            let unread = vec![NetworkError::io("read", Path::new("/n.conflist"))(errno)];
            let failure = of(NetworkError::NoSuchNetwork { dir: "/d".into(), unread });
            assert_eq!(failure.kind, StartFailureKind::NoResources, "{errno:?}");
        }
        let refused = |code, words: &str| {
            of(NetworkError::PluginRefused { plugin: plugin(), code, words: words.into() })
        };
        assert_eq!(refused(Some(7), "invalid: no such type").kind, StartFailureKind::BadConfig);
        assert_eq!(refused(Some(TRY_AGAIN), "busy").kind, StartFailureKind::NoResources);
        assert_eq!(refused(None, "no").message, "network n: plugin bridge, ADD: no");
    }
}
