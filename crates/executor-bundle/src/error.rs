//! Why a bundle could not be made. Each error says which operation failed on what, and has the cause as its source.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{StartFailure, StartFailureKind};
use thiserror::Error as ThisError;

/// A bundle, or a part of one, that could not be made.
#[derive(Debug, ThisError)]
pub enum Error {
    /// A field of the specification asks for something that cannot be done.
    #[error("{field}: {why}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file that a field of the specification names cannot be used.
    #[error("{field}: {}", path.display())]
    File {
        /// The field's name.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that a field names can be read, but its contents are wrong.
    #[error("{field}: {subject}")]
    Content {
        /// The field's name.
        field: &'static str,
        /// The file, and what is wrong with it.
        subject: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// No CDI specification describes these devices, or one describes them wrongly.
    #[error("device: {}: not in {}{}", devices.join(", "), dirs.join(", "), beside(unread.as_ref()))]
    Devices {
        /// The devices' names.
        devices: Vec<String>,
        /// The directories that were searched for specifications.
        dirs: Vec<String>,
        /// Why some of the specifications could not be read, if any.
        unread: Option<BoxError>,
        /// Why the devices could not be added.
        #[source]
        source: BoxError,
    },
    /// All pairs of SELinux categories are in use.
    #[error("selinux: every pair of categories is taken")]
    Categories,
    /// The program does not exist in the container.
    #[error("{program}: {why}")]
    NotFound {
        /// The program, as the specification names it.
        program: String,
        /// Where it was searched for, or what else is missing.
        why: String,
    },
    /// The program exists, but cannot be executed.
    #[error("{program}: {why}")]
    NotExecutable {
        /// The program, as the specification names it.
        program: String,
        /// What is wrong with it.
        why: String,
    },
    /// The container of an exec has ended.
    #[error("the container has ended: the root directory of its init cannot be opened")]
    Ended(#[source] io::Error),
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
    /// A configuration cannot be written as JSON, or cannot be read again.
    #[error("{op} JSON")]
    Json {
        /// `write` or `read`.
        op: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// An error of another library.
type BoxError = Box<dyn StdError + Send + Sync>;

fn beside(error: Option<&BoxError>) -> String {
    error.map(|error| format!(" ({error})")).unwrap_or_default()
}

impl Error {
    pub(crate) fn field(field: &'static str, why: impl Into<String>) -> Self {
        Self::Field { field, why: why.into() }
    }

    /// For `map_err`: the file that `field` names cannot be used.
    pub(crate) fn file<E: Into<io::Error>>(
        field: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::File { field, path, source: source.into() }
    }

    /// For `map_err`: `op` could not be done to `path`.
    pub(crate) fn io<E: Into<io::Error>>(op: &'static str, path: &Path) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_owned();
        move |source| Self::Io { op, path, source: source.into() }
    }

    /// Which kind of start failure this error becomes.
    fn kind(&self) -> StartFailureKind {
        match self {
            Self::Field { .. } | Self::Content { .. } | Self::Devices { .. } | Self::Json { .. } => {
                StartFailureKind::BadConfig
            }
            Self::Categories => StartFailureKind::NoResources,
            Self::NotFound { .. } => StartFailureKind::NotFound,
            Self::NotExecutable { .. } => StartFailureKind::NotExecutable,
            Self::Ended(_) => StartFailureKind::ContainerGone,
            // A lack of resources or permissions comes first. Otherwise the specification is at fault.
            Self::File { source, .. } | Self::Io { source, .. } => {
                StartFailureKind::of_io(source).unwrap_or(StartFailureKind::BadConfig)
            }
        }
    }
}

impl From<Error> for StartFailure {
    fn from(error: Error) -> Self {
        Self::caused_by(error.kind(), &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_failure_has_its_kind_by_the_cause_and_every_cause_in_its_text() {
        let of = |errno: Errno| StartFailure::from(Error::io("make", Path::new("/x"))(errno));
        for (errno, kind) in [
            (Errno::MFILE, StartFailureKind::NoResources),
            (Errno::NFILE, StartFailureKind::NoResources),
            (Errno::NOMEM, StartFailureKind::NoResources),
            (Errno::NOSPC, StartFailureKind::NoResources),
            (Errno::DQUOT, StartFailureKind::NoResources),
            (Errno::AGAIN, StartFailureKind::NoResources),
            (Errno::PERM, StartFailureKind::PermissionDenied),
            (Errno::ACCESS, StartFailureKind::PermissionDenied),
            (Errno::NOENT, StartFailureKind::BadConfig),
        ] {
            assert_eq!(of(errno).kind, kind, "{errno:?}");
        }
        assert_eq!(of(Errno::NOENT).message, "make /x: No such file or directory (os error 2)");
        let failure = StartFailure::from(Error::file("rootfs", Path::new("/y"))(Errno::NOENT));
        assert_eq!(failure.message, "rootfs: /y: No such file or directory (os error 2)");
    }
}
