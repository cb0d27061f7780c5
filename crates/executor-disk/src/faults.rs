//! Where a test makes a change below a root fail, as a full or broken disk does.
//!
//! Every change of a file, a directory or a mount below a root is announced here first. Without the feature `faults`, this does
//! nothing. Only tests enable it.

/// Announces a change: `op` is going to be done to `name` in `dir`.
///
/// # Errors
/// The one that a test injects.
#[cfg(not(feature = "faults"))]
pub fn change(_op: Op, _dir: &std::path::Path, _name: impl AsRef<std::path::Path>) -> std::io::Result<()> {
    Ok(())
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a directory.
    MakeDir,
    /// Makes a file or a link, or opens one for writing.
    MakeFile,
    /// Writes to a file.
    Write,
    /// Renames an entry.
    Rename,
    /// Sets a mode or an owner.
    Set,
    /// Mounts something.
    Mount,
    /// Removes an entry. A full disk does not keep from that.
    Remove,
}

#[cfg(feature = "faults")]
pub use self::injected::{Fault, change, end, inject};

#[cfg(feature = "faults")]
mod injected {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use rustix::io::Errno;

    use super::Op;

    /// Which changes fail, and how.
    #[derive(Clone, Copy, Debug)]
    pub struct Fault {
        /// The error.
        pub error: Errno,
        /// The number of the first change that fails, from 1 on.
        pub first: usize,
        /// Whether all later changes fail too.
        pub lasts: bool,
        /// Whether removals are among the changes.
        pub removals: bool,
    }

    /// The changes since a fault was injected.
    type Changes = Vec<(Op, PathBuf)>;

    static INJECTED: Mutex<Option<(Fault, Changes)>> = Mutex::new(None);

    fn injected() -> MutexGuard<'static, Option<(Fault, Changes)>> {
        INJECTED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has changes fail from now on, in the whole process.
    pub fn inject(fault: Fault) {
        *injected() = Some((fault, Vec::new()));
    }

    /// Ends that. Returns the changes since then. The last of them has failed, if the fault does not last.
    pub fn end() -> Vec<(Op, PathBuf)> {
        injected().take().map(|(_, changes)| changes).unwrap_or_default()
    }

    /// Announces a change.
    ///
    /// # Errors
    /// The one that is injected.
    pub fn change(op: Op, dir: &Path, name: impl AsRef<Path>) -> io::Result<()> {
        let mut injected = injected();
        let Some((fault, changes)) = &mut *injected else { return Ok(()) };
        if op == Op::Remove && !fault.removals {
            return Ok(());
        }
        let fails = changes.len() + 1 == fault.first || fault.lasts && changes.len() >= fault.first;
        if changes.len() < fault.first || fault.lasts {
            changes.push((op, dir.join(name)));
        }
        if fails { Err(fault.error.into()) } else { Ok(()) }
    }
}
