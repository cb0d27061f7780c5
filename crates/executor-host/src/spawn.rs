//! Executing a program with a fresh process state: its own process group, the default action of every signal, no signal blocked,
//! three file descriptors.
//!
//! What a process ignores and blocks is inherited by the programs that it executes, and by those of a container. std's
//! `Command` passes both on. `posix_spawn` resets them, and does not copy the page tables as fork does.

use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use executor_core::lifecycle::HostPid;
use executor_core::spawn_without_descriptors;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::null;
use crate::seam::{Command, StdioSource};

/// The first descriptor that is none of the three.
const OTHER: i32 = 3;

/// Executes `file`, which is the command's program or its copy in memory.
pub(crate) fn execute(command: &Command, fds: &[OwnedFd], file: &Path) -> io::Result<HostPid> {
    let Command { program, image: _, args, env, stdio } = command;
    let file = text([file.as_os_str().as_bytes()])?;
    let mut arguments = vec![text([program.as_bytes()])?];
    for argument in args {
        arguments.push(text([argument.as_bytes()])?);
    }
    let mut variables = Vec::new();
    for (name, value) in env {
        variables.push(text([name.as_bytes(), b"=", value.as_bytes()])?);
    }
    let mut streams = Vec::new();
    for source in stdio {
        streams.push(stream(*source, fds)?);
    }
    let pid = spawn_without_descriptors(|| {
        let (actions, attributes) = (actions(&streams)?, attributes()?);
        Ok(posix_spawn(file.as_c_str(), &actions, &attributes, &arguments, &variables)?)
    })?;
    u32::try_from(pid.as_raw()).ok().and_then(HostPid::new).ok_or_else(|| Errno::SRCH.into())
}

fn text<const N: usize>(parts: [&[u8]; N]) -> io::Result<CString> {
    let text = CString::new(parts.concat());
    text.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))
}

/// What becomes a stream of the child. `None` if that is ours.
fn stream(source: StdioSource, fds: &[OwnedFd]) -> io::Result<Option<OwnedFd>> {
    // Above the three, which are replaced one by one.
    Ok(match source {
        StdioSource::Inherit => None,
        StdioSource::Null => Some(fcntl_dupfd_cloexec(null::open()?, OTHER)?),
        StdioSource::Fd(index) => Some(fcntl_dupfd_cloexec(fds.get(index).ok_or(Errno::BADF)?, OTHER)?),
    })
}

fn actions(streams: &[Option<OwnedFd>]) -> nix::Result<PosixSpawnFileActions> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, stream) in (0..).zip(streams) {
        if let Some(fd) = stream {
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
