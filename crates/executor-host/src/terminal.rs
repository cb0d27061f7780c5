//! Terminals: the console socket through which a runtime sends the master, and the copying between the master
//! and the process's pipes.
//!
//! ```text
//!  stdin pipe ──▶ copy_in ──▶ master │ slave ── the process
//!  stdout pipe ◀── copy_out ◀──────── │
//! ```
//! Only this process has the master, and one task holds it, which copies both ways. The master is read until its end, which
//! comes when the last file descriptor of the slave is closed, or until the reader of the output is gone. Then the task ends,
//! even if the input is still open. Closing the master destroys the terminal, and hangs up the processes that are left in it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use executor_core::ChildFd;
use executor_core::lifecycle::TerminalSize;
use executor_disk::Dir;
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};

use crate::{Error, Result, lock, pidfd};

/// How long a runtime may take to send the terminal after it has reported that the process runs.
pub const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 << 10;
/// The character that a terminal takes for the end of input (Ctrl-D).
const END_OF_INPUT: u8 = 4;

/// A socket that receives one master. Its file is removed on drop.
pub struct ConsoleSocket {
    /// The socket's path goes through this file descriptor, since the path of a socket has at most 107 bytes.
    dir: Dir,
    name: String,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Makes a socket called `name`, which must be short, in `dir`. Blocks for a moment. Needs a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn listen(dir: Dir, name: String) -> Result<Self> {
        let bound = UnixListener::bind(dir.by_descriptor(&name));
        let listener = bound.map_err(Error::file("make the console socket", &dir.path_of(&name)))?;
        Ok(Self { dir, name, listener })
    }

    /// Its path, valid in the runtime's process.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}/{}", std::process::id(), self.dir.as_fd().as_raw_fd(), self.name)
    }

    async fn master(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await?;
        receive(&stream).await
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _removed_with_its_directory = self.dir.remove_file(&self.name);
    }
}

async fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    loop {
        stream.readable().await?;
        let received = stream.try_io(Interest::READABLE, || {
            let mut name = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut masters = control.drain().flat_map(|message| {
                let RecvAncillaryMessage::ScmRights(fds) = message else { return Vec::new() };
                fds.collect()
            });
            Ok(masters.next())
        });
        match received {
            Ok(master) => return master.ok_or_else(|| io::Error::other("the console socket was closed")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The terminal of a process. It may have to be received yet. It is closed when the copying ends.
pub struct Terminal(Mutex<TerminalState>);

struct TerminalState {
    size: TerminalSize,
    /// Dangling before the terminal is received, and after it is closed.
    master: Weak<OwnedFd>,
    was_received: bool,
}

impl Terminal {
    /// A terminal that is to be received, with its size.
    pub fn awaited(size: TerminalSize) -> Self {
        Self(Mutex::new(TerminalState { size, master: Weak::new(), was_received: false }))
    }

    /// Whether it was received. It may be closed again.
    pub fn was_received(&self) -> bool {
        lock(&self.0).was_received
    }

    /// Sets the size, now or as soon as it is received. The kernel sends SIGWINCH to its foreground
    /// processes. For a closed terminal this does nothing.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        let mut state = lock(&self.0);
        state.size = size;
        let resized = state.master.upgrade().map_or(Ok(()), |master| set_size(&master, size));
        resized.map_err(Error::system("resize the terminal"))
    }

    /// Waits until the runtime sends the master, sets its size, and begins to copy between it and the
    /// process's pipes.
    ///
    /// # Errors
    /// When no master arrives, or it cannot be used.
    pub async fn receive(
        &self,
        socket: ConsoleSocket,
        stdin: ChildFd,
        stdout: ChildFd,
        holder: impl Holder,
    ) -> Result<()> {
        let received = socket.master().await.and_then(|master| {
            holder.hold(&master);
            let mut state = lock(&self.0);
            set_size(&master, state.size)?;
            state.master = begin(master, stdin, stdout, holder)?;
            state.was_received = true;
            Ok(())
        });
        received.map_err(Error::system("take over the terminal"))
    }

    /// A terminal that was received by another process. It keeps its size. Needs a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn resume(master: OwnedFd, stdin: ChildFd, stdout: ChildFd, holder: impl Holder) -> Result<Self> {
        let resumed = rustix::termios::tcgetwinsize(&master).map_err(io::Error::from).and_then(|size| {
            let size = TerminalSize { rows: size.ws_row, columns: size.ws_col };
            let master = begin(master, stdin, stdout, holder)?;
            Ok(Self(Mutex::new(TerminalState { size, master, was_received: true })))
        });
        resumed.map_err(Error::system("take up the terminal"))
    }
}

/// Whoever holds a terminal for a process that comes after this one.
pub trait Holder: Send + 'static {
    /// The terminal was received.
    fn hold(&self, master: &OwnedFd);
    /// It is closed here, and is to be closed everywhere.
    fn close(&self);
}

/// Begins to copy between a master and a process's pipes.
fn begin(master: OwnedFd, stdin: ChildFd, stdout: ChildFd, holder: impl Holder) -> io::Result<Weak<OwnedFd>> {
    rustix::io::ioctl_fionbio(&master, true)?;
    let master = Arc::new(master);
    let terminal = Arc::downgrade(&master);
    let watched = pidfd::watch(master, Interest::READABLE | Interest::WRITABLE)?;
    let stdin = match stdin {
        ChildFd::Fd(stdin) => Some(pipe::Receiver::from_owned_fd(stdin.try_clone()?)?),
        ChildFd::Null | ChildFd::Inherit => None,
    };
    let stdout = match stdout {
        ChildFd::Fd(stdout) => Some(pipe::Sender::from_owned_fd(stdout.try_clone()?)?),
        ChildFd::Null | ChildFd::Inherit => None,
    };
    tokio::spawn(async move {
        let copied_in = async {
            if let Some(stdin) = stdin {
                copy_in(stdin, &watched).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = copy_out(&watched, stdout) => {}
            () = copied_in => {}
        }
        holder.close();
    });
    Ok(terminal)
}

fn set_size(master: &OwnedFd, size: TerminalSize) -> io::Result<()> {
    let TerminalSize { rows, columns } = size;
    Ok(rustix::termios::tcsetwinsize(
        master,
        Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 },
    )?)
}

/// Copies until the end of the terminal, or until the reader of the output is gone.
async fn copy_out(master: &AsyncFd<Arc<OwnedFd>>, mut stdout: Option<pipe::Sender>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let closed = async {
            match &stdout {
                Some(stdout) => stdout.ready(Interest::ERROR).await.map(drop),
                None => std::future::pending().await,
            }
        };
        let mut ready = tokio::select! {
            ready = master.readable() => match ready {
                Ok(ready) => ready,
                Err(_) => return,
            },
            _ = closed => return,
        };
        match rustix::io::read(master.get_ref(), &mut chunk) {
            // The slave is open in no process any more.
            Ok(0) => return,
            Ok(read) => {
                if let Some(stdout) = &mut stdout
                    && stdout.write_all(&chunk[..read]).await.is_err()
                {
                    return;
                }
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Copies until the end of the input, and then writes [`END_OF_INPUT`] once.
async fn copy_in(mut stdin: pipe::Receiver, master: &AsyncFd<Arc<OwnedFd>>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = stdin.read(&mut chunk).await.unwrap_or_default();
        let bytes = if read == 0 { &[END_OF_INPUT][..] } else { &chunk[..read] };
        if write_all(master, bytes).await.is_err() || read == 0 {
            return;
        }
    }
}

async fn write_all(master: &AsyncFd<Arc<OwnedFd>>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = master.writable().await?;
        match rustix::io::write(master.get_ref(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
