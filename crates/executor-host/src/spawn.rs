//! Executing a program with a fresh process state: its own process group, the default action of every signal, no signal blocked,
//! three file descriptors, and those that are meant for it.
//!
//! What a process ignores and blocks is inherited by the programs that it executes, and by those of a container. std's
//! `Command` passes both on. `posix_spawn` resets them, and does not copy the page tables as fork does.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executor_core::lifecycle::HostPid;
use executor_core::spawn_without_descriptors;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::null;
use crate::seam::{Command, FileIdentity, ImageFate, StdioSource};

/// The first descriptor that is replaced in no child: the streams are 0 to 2, what else is inherited has the next numbers.
const OTHER: i32 = 5;

/// A program that is to be executed.
pub(crate) enum Program<'a> {
    Path(&'a Path),
    /// A file in memory. Its descriptor is none that a child's descriptor replaces: see [`above`].
    Memory(&'a OwnedFd),
}

/// What is executed, for [`execute`].
pub(crate) struct Execution<'a> {
    pub(crate) program: Program<'a>,
    /// Its name, and its arguments.
    pub(crate) args: Vec<&'a OsStr>,
    /// The environment and the three streams are this command's.
    pub(crate) command: &'a Command,
    /// Further descriptors that it inherits: they become 3, 4…
    pub(crate) more: Vec<&'a OwnedFd>,
}

/// Executes a program. `fds` are those that the command's streams refer to.
pub(crate) fn execute(execution: &Execution<'_>, fds: &[OwnedFd]) -> io::Result<HostPid> {
    let Execution { program, args, command, more } = execution;
    let mut inherited = Vec::new();
    for source in command.stdio {
        inherited.push(stream(source, fds)?);
    }
    for fd in more {
        inherited.push(Some(above(fd)?));
    }
    let file = match program {
        Program::Path(path) => text([path.as_os_str().as_bytes()])?,
        Program::Memory(file) => text([path_of(file).as_os_str().as_bytes()])?,
    };
    let args: Vec<CString> = args.iter().map(|arg| text([arg.as_bytes()])).collect::<io::Result<_>>()?;
    let variable = |(name, value): &(OsString, OsString)| text([name.as_bytes(), b"=", value.as_bytes()]);
    let variables: Vec<CString> = command.env.iter().map(variable).collect::<io::Result<_>>()?;
    let pid = spawn_without_descriptors(|| {
        let (actions, attributes) = (actions(&inherited)?, attributes()?);
        Ok(posix_spawn(file.as_c_str(), &actions, &attributes, &args, &variables)?)
    })?;
    u32::try_from(pid.as_raw()).ok().and_then(HostPid::new).ok_or_else(|| Errno::SRCH.into())
}

/// The same file under a number that is replaced in no child.
pub(crate) fn above(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, OTHER)?)
}

/// A path to an open file, valid in this process's children.
pub(crate) fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn text<const N: usize>(parts: [&[u8]; N]) -> io::Result<CString> {
    let text = CString::new(parts.concat());
    text.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))
}

/// What becomes a stream of the child. `None` if that is ours.
fn stream(source: StdioSource, fds: &[OwnedFd]) -> io::Result<Option<OwnedFd>> {
    Ok(match source {
        StdioSource::Inherit => None,
        StdioSource::Null => Some(above(&null::open()?)?),
        StdioSource::Fd(index) => Some(above(fds.get(index).ok_or(Errno::BADF)?)?),
    })
}

fn actions(inherited: &[Option<OwnedFd>]) -> nix::Result<PosixSpawnFileActions> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, fd) in (0..).zip(inherited) {
        if let Some(fd) = fd {
            actions.add_dup2(fd.as_raw_fd(), number)?;
        }
    }
    Ok(actions)
}

/// A process group of its own, so that the terminal's signals do not reach it, and the default action of every signal. The
/// thread that executes blocks none.
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    let flags = PosixSpawnFlags::POSIX_SPAWN_SETPGROUP | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF;
    attributes.set_flags(flags)?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_sigdefault(&SigSet::all())?;
    Ok(attributes)
}

/// The program in memory that is executed, unless there is none, or the program's file has changed since.
pub(crate) fn chosen_image<'a>(
    command: &Command,
    fds: &'a [OwnedFd],
) -> io::Result<(Option<&'a OwnedFd>, ImageFate)> {
    match command.image {
        None => Ok((None, ImageFate::None)),
        Some(image) if FileIdentity::of(&fs::metadata(&command.program)?) != image.of => {
            Ok((None, ImageFate::Outdated))
        }
        Some(image) => Ok((Some(fds.get(image.fd).ok_or(Errno::BADF)?), ImageFate::Executed)),
    }
}

/// Whether another file may be executed where this one was not: the arguments and what there is of memory,
/// processes and descriptors stay the same.
pub(crate) fn is_of_the_file(error: &io::Error) -> bool {
    use Errno as E;
    !matches!(
        Errno::from_io_error(error),
        None | Some(E::TOOBIG | E::NOMEM | E::AGAIN | E::MFILE | E::NFILE | E::CHILD)
    )
}

/// A program's name as the kernel keeps it: 15 bytes at most.
pub(crate) fn short_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.chars().take(15).collect()
}
