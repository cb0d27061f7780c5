//! Finds the runtime on `PATH`.

use std::env;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Runtimes that are looked for when none is named, best first.
pub const CANDIDATES: [&str; 4] = executor_host::RUNTIMES;

/// There is no runtime to be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no OCI runtime: none of {} is on PATH", tried.join(", "))]
pub struct NoRuntime {
    /// What was looked for.
    pub tried: Vec<String>,
}

/// The first of `candidates` that can be executed. A candidate with a slash is a path.
///
/// # Errors
/// [`NoRuntime`], naming all of them.
pub fn find_runtime<C: AsRef<str>>(candidates: &[C]) -> Result<PathBuf, NoRuntime> {
    let tried = || candidates.iter().map(|candidate| candidate.as_ref().to_owned()).collect();
    let path = env::var_os("PATH").unwrap_or_default();
    (candidates.iter())
        .find_map(|candidate| locate(candidate.as_ref(), env::split_paths(&path)))
        .ok_or_else(|| NoRuntime { tried: tried() })
}

fn locate(candidate: &str, mut path: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let executable = |file: &Path| file.is_file() && access(file, Access::EXEC_OK).is_ok();
    if candidate.contains('/') {
        return std::path::absolute(candidate).ok().filter(|file| executable(file));
    }
    path.find_map(|dir| Some(dir.join(candidate)).filter(|file| file.is_absolute() && executable(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_found_is_an_error_naming_all() {
        let error = find_runtime(&["longshore-no-such", "/nowhere/runc"]).unwrap_err();
        assert_eq!(error.to_string(), "no OCI runtime: none of longshore-no-such, /nowhere/runc is on PATH");
    }

    #[test]
    fn the_first_that_can_be_executed_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = || [PathBuf::from("relative"), dir.path().to_owned()].into_iter();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        assert_eq!(locate("plain", path()), None);
        assert_eq!(locate("sh", [PathBuf::from("/bin")].into_iter()), Some("/bin/sh".into()));
        assert_eq!(locate("/bin/sh", path()), Some("/bin/sh".into()));
        assert_eq!(locate("/bin", path()), None);
    }
}
