//! Finding the runtime on `PATH`.

use std::env;
use std::path::{Path, PathBuf};

use executor_core::RuntimeError;
use rustix::fs::{Access, access};

/// The runtimes that are looked for by default, in this order.
pub const CANDIDATES: [&str; 4] = executor_host::RUNTIMES;

/// Where programs are looked for without a PATH.
const WITHOUT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// No runtime was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", RuntimeError::NoRuntime { tried: tried.clone() })]
pub struct NoRuntime {
    /// The names and paths that were tried.
    pub tried: Vec<String>,
}

/// Returns the first of `candidates` that can be executed. A candidate with a slash is a path, another is
/// looked for on `PATH`.
///
/// # Errors
/// [`NoRuntime`] when none of them can be executed.
pub fn find_runtime<C: AsRef<str>>(candidates: &[C]) -> Result<PathBuf, NoRuntime> {
    let path = env::var_os("PATH").unwrap_or_else(|| WITHOUT_PATH.into());
    for candidate in candidates {
        if let Some(found) = locate(candidate.as_ref(), env::split_paths(&path)) {
            return Ok(found);
        }
    }
    Err(NoRuntime { tried: candidates.iter().map(|candidate| candidate.as_ref().to_owned()).collect() })
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
        let error = find_runtime(&["longshore-no-such"]).unwrap_err();
        assert_eq!(error.to_string(), "cannot find an OCI runtime: longshore-no-such is not on PATH");
        let error = find_runtime(&["longshore-no-such", "/nowhere/runc"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot find an OCI runtime: PATH has none of these: longshore-no-such, /nowhere/runc"
        );
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
