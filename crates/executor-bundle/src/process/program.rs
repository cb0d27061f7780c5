//! Checks that a container's program exists and can be executed, before the container is made.
//!
//! The runtime checks some of it too, and the kernel all of it, but after the start was reported. What is certain is said here,
//! with its reason. The rest is left to the kernel, whose refusal the driver notices: docs/adr/0004 and 0019.
//!
//! ```text
//!  the paths that execvp(3) would try ──▶ seen: which file is there ──▶ may this user execute it ──▶ format
//!                                              ▲                                                       │
//!                                              └──────── its interpreter, its loader ◀─────────────────┘
//! ```

mod format;

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;

use self::format::Format;
use super::users::User;
use crate::container_files::{ContainerFiles, PathKind};
use crate::error::Error;
use crate::rootfs_dir::Found;

/// The attribute of a file whose mode is not all that decides.
const ACL: &str = "system.posix_acl_access";

/// Whether the file at a path can be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Executable,
    /// Only the kernel knows.
    Unknown,
    /// There is no such file. With a reason if it is the interpreter that is missing. execvp(3) goes on.
    Missing(Option<String>),
    /// This user may not execute it. execvp(3) goes on, and remembers it.
    Denied(String),
    /// The kernel cannot execute it. execvp(3) stops.
    Unfit(String),
}

/// The parts of a process that decide whether its program can be executed.
pub(crate) struct Subject<'a> {
    pub(crate) program: &'a str,
    pub(crate) cwd: &'a Path,
    pub(crate) path: &'a str,
    /// With the ids of the host.
    pub(crate) user: &'a User,
    pub(crate) rights: Rights,
}

/// What capabilities of a process stand for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rights {
    /// `CAP_DAC_OVERRIDE`: whatever anybody may execute, and all directories.
    pub(crate) overrides: bool,
    /// `CAP_DAC_READ_SEARCH`: all directories.
    pub(crate) searches: bool,
}

/// Checks a program. Returns the path to execute if the runtime would try another file of the same name first: it skips less
/// than execvp(3) does.
pub(crate) fn check(seen: &ContainerFiles<'_>, process: &Subject<'_>) -> Result<Option<PathBuf>, Error> {
    let program = || process.program.to_owned();
    if process.program.contains('/') {
        return match judge(seen, &process.cwd.join(process.program), process, 0) {
            Verdict::Executable | Verdict::Unknown => Ok(None),
            Verdict::Missing(why) => Err(Error::NotFound {
                program: program(),
                why: why.unwrap_or_else(|| "no such file in the container".to_owned()),
            }),
            Verdict::Denied(why) | Verdict::Unfit(why) => {
                Err(Error::NotExecutable { program: program(), why })
            }
        };
    }
    let (mut denied, mut missing, mut runtimes) = (None, None, None);
    for dir in process.path.split(':') {
        let path = process.cwd.join(dir).join(process.program);
        if runtimes.is_none() && dir.starts_with('/') && would_be_tried(seen, &path) {
            runtimes = Some(path.clone());
        }
        match judge(seen, &path, process, 0) {
            Verdict::Executable => return Ok((runtimes.as_ref() != Some(&path)).then_some(path)),
            Verdict::Unknown => return Ok(None),
            Verdict::Missing(why) => missing = missing.or(why),
            Verdict::Denied(why) => denied = denied.or(Some(why)),
            Verdict::Unfit(why) => return Err(Error::NotExecutable { program: program(), why }),
        }
    }
    match denied {
        Some(why) => Err(Error::NotExecutable { program: program(), why }),
        None => {
            let why = missing.unwrap_or_else(|| "not found on the container's PATH".to_owned());
            Err(Error::NotFound { program: program(), why })
        }
    }
}

/// Whether a runtime that looks for a program on PATH would take this file: a regular one that anybody may execute.
fn would_be_tried(seen: &ContainerFiles<'_>, path: &Path) -> bool {
    match seen.resolve(path, &|_| true) {
        Ok((_, PathKind::File(found))) => found.is(FileType::RegularFile) && found.stat.st_mode & 0o111 != 0,
        Ok((_, PathKind::Runtimes | PathKind::Unknown)) | Err(_) => true,
        Ok((_, PathKind::Missing | PathKind::Barred)) => false,
    }
}

/// Judges a file. `above` is how many scripts it is the interpreter of.
fn judge(seen: &ContainerFiles<'_>, path: &Path, process: &Subject<'_>, above: u32) -> Verdict {
    let found = match find(seen, path, process) {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    let verdict = match Format::of(&found) {
        Format::Native => Verdict::Executable,
        Format::Unknown => Verdict::Unknown,
        Format::Foreign(_) if !format::others_are_known() => Verdict::Unknown,
        Format::Foreign(why) | Format::Broken(why) => Verdict::Unfit(format!("exec format error: {why}")),
        Format::Script(_) if above >= format::MOST_SCRIPTS => {
            Verdict::Unfit("too many interpreters are scripts themselves".to_owned())
        }
        Format::Script(name) => {
            let verdict = judge(seen, &process.cwd.join(&name), process, above + 1);
            of_interpreter("interpreter", &name, verdict)
        }
        Format::Loaded(name) => {
            of_interpreter("loader", &name, judge_loader(seen, &process.cwd.join(&name), process))
        }
    };
    // A registered format may be one that begins as a script or a program does.
    if verdict != Verdict::Executable && format::has_registered() { Verdict::Unknown } else { verdict }
}

/// A loader is executed with the same rights, and has to be a program of this machine.
fn judge_loader(seen: &ContainerFiles<'_>, path: &Path, process: &Subject<'_>) -> Verdict {
    let found = match find(seen, path, process) {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    match Format::of(&found) {
        Format::Native | Format::Loaded(_) => Verdict::Executable,
        Format::Unknown => Verdict::Unknown,
        Format::Script(_) => Verdict::Unfit("is a script".to_owned()),
        Format::Foreign(why) | Format::Broken(why) => Verdict::Unfit(why),
    }
}

/// The file at a path, if this user may execute it.
fn find(seen: &ContainerFiles<'_>, path: &Path, process: &Subject<'_>) -> Result<Found, Verdict> {
    let denied = |why: &str| Err(Verdict::Denied(why.to_owned()));
    let may_search = |dir: &Found| {
        let Rights { overrides, searches } = process.rights;
        overrides || searches || has_bit(dir, process.user) || dir.has_attribute(ACL)
    };
    let (at, found) = match seen.resolve(path, &may_search) {
        Ok((at, PathKind::File(found))) => (at, found),
        Ok((_, PathKind::Missing)) => return Err(Verdict::Missing(None)),
        Ok((at, PathKind::Barred)) => {
            let whose = by(process);
            return denied(&format!("permission denied: {} may not be searched{whose}", at.display()));
        }
        // The kernel says so, and a search of PATH ends at it.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            return Err(Verdict::Unfit("too many links lead to one another".to_owned()));
        }
        Ok((_, PathKind::Runtimes | PathKind::Unknown)) | Err(_) => return Err(Verdict::Unknown),
    };
    if found.is(FileType::Directory) {
        return denied("is a directory");
    }
    if !found.is(FileType::RegularFile) {
        return denied("is not a regular file");
    }
    if !may_execute(&found, process) {
        return denied(&format!("permission denied: it is not executable{}", by(process)));
    }
    let is_without_exec = match seen.is_running {
        true => fstatvfs(found.as_fd()).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC)),
        false => seen.is_without_exec(&at),
    };
    if is_without_exec {
        denied("permission denied: its mount allows no programs (noexec)")
    } else {
        Ok(found)
    }
}

/// What the verdict on an interpreter says of the program.
fn of_interpreter(what: &str, name: &Path, verdict: Verdict) -> Verdict {
    let shown = name.display();
    match verdict {
        Verdict::Executable | Verdict::Unknown => verdict,
        Verdict::Missing(None) if name.as_os_str().as_encoded_bytes().ends_with(b"\r") => {
            let shown = shown.to_string();
            let shown = shown.trim_end();
            let why = format!("its {what} {shown} is not found: its first line ends with a carriage return");
            Verdict::Missing(Some(format!("{why}, as files of Windows do")))
        }
        Verdict::Missing(None) => Verdict::Missing(Some(format!("its {what} {shown} does not exist"))),
        Verdict::Missing(Some(why)) => Verdict::Missing(Some(format!("its {what} {shown}: {why}"))),
        Verdict::Denied(why) => Verdict::Denied(format!("its {what} {shown}: {why}")),
        Verdict::Unfit(why) => Verdict::Unfit(format!("its {what} {shown}: {why}")),
    }
}

/// Who may not execute it, if that is not root.
fn by(process: &Subject<'_>) -> &'static str {
    if process.user.uid == 0 { "" } else { " for this user" }
}

fn may_execute(found: &Found, process: &Subject<'_>) -> bool {
    let by_anybody = found.stat.st_mode & 0o111 != 0;
    process.rights.overrides && by_anybody || has_bit(found, process.user) || found.has_attribute(ACL)
}

/// Whether the mode lets this user execute a file, or search a directory.
fn has_bit(found: &Found, user: &User) -> bool {
    let stat = &found.stat;
    let bit = match (user.uid, user.gid) {
        (uid, _) if uid == stat.st_uid => 0o100,
        (_, gid) if gid == stat.st_gid || user.groups.contains(&stat.st_gid) => 0o010,
        _ => 0o001,
    };
    stat.st_mode & bit != 0
}

#[cfg(test)]
mod tests;
