//! Starting a keeper, connecting to one, and ending one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor_core::lifecycle::{ExitStatus, HostPid, Leftover};
use executor_disk::{Dir, lock_within};
use executor_programs::{KEEPER, wire};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{WaitId, WaitIdOptions};

use super::connection::Connection;
use super::requests::greet;
use super::{Keeper, KeeperError, Result, Shared};
use crate::cgroup::{self, Cgroups, place};
use crate::seam::{Command, StdioSource};
use crate::spawn::{Execution, Program, above, execute};
use crate::{lock, memory_file, pidfd};

/// The name of the socket in the keeper's directory.
pub const SOCKET: &str = "keeper";

const NAME: &str = "longshore-keeper";

/// How long somebody else may take to start a keeper in the same directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How long a keeper may take to exit.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);

/// How many clients may be connecting.
const BACKLOG: i32 = 16;

impl Keeper {
    /// Starts a keeper in a directory, and connects to it. It is nobody's child, in a session of its own, and in the cgroups at
    /// `cgroup` in every hierarchy where those can be made, so that whoever ends the embedder's cgroup does not end the keeper.
    ///
    /// # Errors
    /// [`KeeperError::Unsupported`], [`KeeperError::Exists`], or the system's.
    pub fn start(dir: &Dir, cgroup: Option<&str>) -> Result<Self> {
        let program = program()?;
        let lock_file = dir.reopen().map_err(KeeperError::system("lock the keeper's directory"))?;
        let locked = lock_within(&lock_file, FlockOperation::NonBlockingLockExclusive, LOCK_PATIENCE);
        if !locked.map_err(KeeperError::system("lock the keeper's directory"))? {
            return Err(KeeperError::system("lock the keeper's directory")(Errno::WOULDBLOCK));
        }
        let path = dir.by_descriptor(SOCKET);
        if Connection::open(&path).map_err(KeeperError::system("connect to the keeper"))?.is_some() {
            return Err(KeeperError::Exists);
        }
        let listener = bound(dir, &path).map_err(KeeperError::system("make the keeper's socket"))?;
        let started = spawn(&program, &listener, dir).map_err(KeeperError::system("execute the keeper"));
        drop(listener);
        let connected = started.and_then(|()| Self::connect(dir)?.ok_or(KeeperError::Gone));
        if connected.is_err() {
            let _it_is_gone = dir.remove_file(SOCKET);
        }
        let keeper = connected?;
        if let Some(cgroup) = cgroup {
            enter(cgroup, keeper.pid());
            lock(&keeper.shared).cgroup = Some(cgroup.to_owned());
        }
        Ok(keeper)
    }

    /// Connects to the keeper in a directory. `None` if there is none.
    ///
    /// # Errors
    /// [`KeeperError::Taken`] if it has another client, or the system's.
    pub fn connect(dir: &Dir) -> Result<Option<Self>> {
        let opened = Connection::open(&dir.by_descriptor(SOCKET));
        let Some(mut connection) = opened.map_err(KeeperError::system("connect to the keeper"))? else {
            return Ok(None);
        };
        let (pid, program, had) = match greet(&mut connection) {
            // It has exited just now.
            Err(KeeperError::Gone) => return Ok(None),
            greeted => greeted?,
        };
        let pidfd = pidfd::open(pid).map_err(KeeperError::system("open the keeper's pidfd"))?;
        // It is alive after its pidfd was opened, so that is its own.
        greet(&mut connection)?;
        let (connection, pidfd) = (Some(connection), Arc::new(pidfd));
        let shared = Shared { connection, pid, pidfd, program, had, cgroup: None, generation: 0 };
        Ok(Some(Self { shared: Arc::new(Mutex::new(shared)) }))
    }

    /// The same for a keeper that was started with `cgroup`, whose directories are removed by [`quit`](Self::quit).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_in(dir: &Dir, cgroup: &str) -> Result<Option<Self>> {
        let keeper = Self::connect(dir)?;
        if let Some(keeper) = &keeper {
            lock(&keeper.shared).cgroup = Some(cgroup.to_owned());
        }
        Ok(keeper)
    }

    /// Ends a keeper that has no children, whatever it holds and has recorded. Returns what could not be removed of its cgroups.
    ///
    /// # Errors
    /// [`KeeperError::HasChildren`]; the keeper's.
    pub fn quit(&self) -> Result<Vec<Leftover>> {
        self.call("end the keeper", wire::QUIT, &[], &[])?;
        let pidfd = self.pidfd();
        wait_for(&pidfd, EXIT_PATIENCE).map_err(KeeperError::system("wait for the keeper"))?;
        self.reap();
        let mut shared = lock(&self.shared);
        shared.connection = None;
        Ok(shared.cgroup.take().map(|cgroup| Cgroups::at(&cgroup).remove()).unwrap_or_default())
    }

    /// Has the keeper execute the program that this library carries in place of its own. It stays the same process, with its
    /// children, its records and its descriptors.
    ///
    /// # Errors
    /// [`KeeperError::State`] if that program cannot read the keeper's state: then nothing has changed. The keeper's.
    pub fn upgrade(&self) -> Result<()> {
        self.upgrade_to(&program()?)
    }

    /// The same with another program, in a sealed file in memory.
    ///
    /// # Errors
    /// As [`upgrade`](Self::upgrade).
    pub fn upgrade_to(&self, program: &OwnedFd) -> Result<()> {
        self.call("upgrade the keeper", wire::UPGRADE, &[], &[program.as_fd()])?;
        let mut shared = lock(&self.shared);
        let connection = shared.connection.as_mut().ok_or(KeeperError::Gone)?;
        let (_, program, _) = greet(connection)?;
        shared.program = program;
        Ok(())
    }
}

/// The keeper's program in memory.
fn program() -> Result<OwnedFd> {
    let program = KEEPER.ok_or(KeeperError::Unsupported)?;
    let made = memory_file::create(NAME).and_then(|file| {
        let mut file = File::from(file);
        file.write_all(program)?;
        above(memory_file::seal(&file)?)
    });
    made.map_err(KeeperError::system("put the keeper into memory"))
}

/// A socket in the directory that nobody else can connect to. One that is there already is a dead keeper's.
fn bound(dir: &Dir, path: &Path) -> io::Result<OwnedFd> {
    match dir.remove_file(SOCKET) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // The file gets the mode of the socket.
    fchmod(&listener, Mode::RUSR | Mode::WUSR)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Executes the program. It starts a copy of itself, which is the keeper, and exits.
fn spawn(program: &OwnedFd, listener: &OwnedFd, dir: &Dir) -> io::Result<()> {
    let command = Command {
        program: NAME.into(),
        image: None,
        args: Vec::new(),
        env: Vec::new(),
        stdio: [StdioSource::Null; 3],
    };
    let dir = dir.reopen()?.into();
    let (args, more) = (vec![OsStr::new(NAME)], vec![listener, &dir]);
    let pid = execute(&Execution { program: Program::Memory(program), args, command: &command, more }, &[])?;
    let waited = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::Pid(pidfd::raw(pid).map_err(|_| Errno::SRCH)?), WaitIdOptions::EXITED)
    });
    match waited.map(|status| status.as_ref().map(pidfd::status)) {
        Ok(Some(status)) if status != ExitStatus::Code(0) => Err(io::Error::other(status.to_string())),
        // Somebody else has reaped it.
        Ok(_) | Err(Errno::CHILD) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Puts the keeper into its cgroups. It stays where it is in a hierarchy where that is not possible.
fn enter(cgroup: &str, keeper: HostPid) {
    if let Err(error) = cgroup::learn_hierarchies() {
        tracing::debug!(%error, "the keeper stays in the embedder's cgroups");
    }
    place::make_at(cgroup);
    for dir in cgroup::in_hierarchies(cgroup) {
        if let Err(error) = fs::write(dir.join("cgroup.procs"), keeper.to_string()) {
            tracing::debug!(dir = %dir.display(), %error, "the keeper stays in the embedder's cgroup");
        }
    }
}

fn wait_for(fd: impl AsFd, patience: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    let waited = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)));
    if waited? == 0 { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
}
