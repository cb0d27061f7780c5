//! Why a bundle could not be made. Each error says what was done and to what; the cause is beneath it.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::{StartFailure, StartFailureKind};
use thiserror::Error as ThisError;

/// A bundle, or a part of one, that could not be made.
#[derive(Debug, ThisError)]
pub enum Error {
    /// A field of the specification asks for what cannot be had.
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
    /// A file that a field names can be read, and is not what it should be.
    #[error("{field}: {subject}")]
    Content {
        /// The field's name.
        field: &'static str,
        /// The file, and what it should be.
        subject: String,
        /// Why it is not.
        #[source]
        source: serde_json::Error,
    },
    /// Devices that no CDI specification brings, or that it describes wrongly.
    #[error("device: {}: not in {}{}", devices.join(", "), dirs.join(", "), beside(unread.as_ref()))]
    Devices {
        /// The devices' names.
        devices: Vec<String>,
        /// Where specifications were looked for.
        dirs: Vec<String>,
        /// What is wrong with the specifications that could not be read, if there are such.
        unread: Option<BoxError>,
        /// Why the devices could not be added.
        #[source]
        source: BoxError,
    },
    /// All pairs of SELinux categories are in use.
    #[error("selinux: every pair of categories is taken")]
    Categories,
    /// Nothing is found by the program's name.
    #[error("{program}: {why}")]
    NotFound {
        /// The program, as it was asked for.
        program: String,
        /// Where it was looked for.
        why: &'static str,
    },
    /// The program is there, and cannot be executed.
    #[error("{program}: {why}")]
    NotExecutable {
        /// The program, as it was asked for.
        program: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The container that a process is to be added to has ended.
    #[error("the container has ended: its init cannot be looked at")]
    Ended(#[source] io::Error),
    /// The system refuses a mount of the root file system.
    #[error("rootfs: cannot mount {what} it")]
    Mount {
        /// Which mount.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The system refuses something else.
    #[error("{op} {}", path.display())]
    Io {
        /// What was done, an imperative.
        op: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it could not be done.
        #[source]
        source: io::Error,
    },
    /// What is written for the runtime cannot be written as JSON, or be read again.
    #[error("{op} JSON")]
    Json {
        /// Whether it was written or read.
        op: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// An error of another library's.
type BoxError = Box<dyn StdError + Send + Sync>;

fn beside(error: Option<&BoxError>) -> String {
    error.map(|error| format!(" ({error})")).unwrap_or_default()
}

impl Error {
    pub(crate) fn field(field: &'static str, why: impl Into<String>) -> Self {
        Self::Field { field, why: why.into() }
    }

    /// For `map_err`: the file that `field` names cannot be used.
    pub(crate) fn file<E: Into<io::Error>>(field: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::File { field, path: path.to_owned(), source: source.into() }
    }

    /// For `map_err`: `op` could not be done to `path`.
    pub(crate) fn io<E: Into<io::Error>>(op: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source: source.into() }
    }

    /// Whose fault it is.
    fn kind(&self) -> StartFailureKind {
        match self {
            Self::Field { .. } | Self::Content { .. } | Self::Devices { .. } | Self::Json { .. } => {
                StartFailureKind::BadConfig
            }
            Self::Categories => StartFailureKind::NoResources,
            Self::NotFound { .. } => StartFailureKind::NotFound,
            Self::NotExecutable { .. } => StartFailureKind::NotExecutable,
            Self::Ended(_) => StartFailureKind::ContainerGone,
            // What the system says of itself goes first; else the specification names what does not do.
            Self::File { source, .. } | Self::Mount { source, .. } | Self::Io { source, .. } => {
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
