//! What went wrong, as the failure of a start.

use std::io;
use std::path::Path;

use executor_core::lifecycle::{StartFailure, StartFailureKind};
use rustix::io::Errno;

pub(crate) fn bad(field: &str, why: &str) -> StartFailure {
    StartFailure::new(StartFailureKind::BadConfig, format!("{field}: {why}"))
}

pub(crate) fn from_io(what: &str, path: &Path, error: &io::Error) -> StartFailure {
    StartFailure::new(kind_of(error), format!("{what} {}: {error}", path.display()))
}

pub(crate) fn kind_of(error: &io::Error) -> StartFailureKind {
    match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => StartFailureKind::PermissionDenied,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE) => {
            StartFailureKind::NoResources
        }
        Some(_) | None => StartFailureKind::BadConfig,
    }
}
