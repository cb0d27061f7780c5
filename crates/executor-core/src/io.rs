//! The streams of a process: what the runtime is given, and what the handle gives out.
//!
//! A pipe is an operating system's pipe. The task that reads or writes our end of it does so straight; the
//! executor's thread only waits for the kernel and wakes that task ([`ends`]). It copies the outputs that any number of readers
//! share ([`attached`]). No actor ever reads or writes. Outputs are read when the process runs, and not before: of a
//! process that did not start nothing is read. A terminal is the runtime's affair: here it is pipes too.

mod attached;
mod collect;
mod ends;
mod input;
mod output;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use executor_lifecycle::TerminalSize;
use tokio::sync::watch;

use self::attached::ReplayBuffer;
pub use self::attached::{Attached, Chunk};
pub(crate) use self::collect::DEFAULT_LIMIT;
pub use self::collect::ProcessOutput;
pub(crate) use self::ends::PipeEnds;
pub use self::input::Input;
pub use self::output::Output;
use crate::{Stdio, StdioSpec};

/// How many bytes are read at a time.
const CHUNK: usize = 64 << 10;

/// The three streams as the runtime gets them.
#[derive(Clone, Debug, Default)]
pub struct ChildStdio {
    /// Where the process reads from.
    pub stdin: ChildFd,
    /// Where it writes to.
    pub stdout: ChildFd,
    /// Where it complains to.
    pub stderr: ChildFd,
    /// The process is to have a terminal of this size. The runtime keeps the terminal's other side, and
    /// copies between it and `stdin` and `stdout`, which are pipes or nothing.
    pub terminal: Option<TerminalSize>,
}

/// One stream as the runtime gets it. The last clone closes it.
#[derive(Clone, Debug, Default)]
pub enum ChildFd {
    /// `/dev/null`.
    #[default]
    Null,
    /// The embedder's own stream of the same number.
    Inherit,
    /// This file.
    Fd(Arc<OwnedFd>),
}

/// The streams of a process, as its handles have them.
///
/// The ends of pipes are taken once. Outputs that are [`Stdio::Shared`] are attached to at any time, by
/// any number of readers, also through [`Executor::get`](crate::Executor::get).
#[derive(Clone, Debug, Default)]
pub struct Io {
    ends: Arc<Mutex<Streams>>,
    shared: SharedOutputs,
}

impl Io {
    pub(crate) fn new(streams: Streams, shared: SharedOutputs) -> Self {
        Self { ends: Arc::new(Mutex::new(streams)), shared }
    }

    /// The other end of stdin, when the specification said [`Stdio::Pipe`] and nobody has taken it.
    pub fn take_stdin(&self) -> Option<Input> {
        self.ends().stdin.take()
    }

    /// The other end of stdout, as [`take_stdin`](Self::take_stdin).
    pub fn take_stdout(&self) -> Option<Output> {
        self.ends().stdout.take()
    }

    /// The other end of stderr, as [`take_stdin`](Self::take_stdin).
    pub fn take_stderr(&self) -> Option<Output> {
        self.ends().stderr.take()
    }

    /// Another reader of stdout, when the specification said [`Stdio::Shared`].
    pub fn attach_stdout(&self) -> Option<Attached> {
        self.shared.stdout.clone().map(Attached::from_start)
    }

    /// Another reader of stderr, when the specification said [`Stdio::Shared`].
    pub fn attach_stderr(&self) -> Option<Attached> {
        self.shared.stderr.clone().map(Attached::from_start)
    }

    /// Taking a stream out cannot leave the slot half changed.
    fn ends(&self) -> MutexGuard<'_, Streams> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outputs that can be attached to.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedOutputs {
    stdout: Option<watch::Receiver<ReplayBuffer>>,
    stderr: Option<watch::Receiver<ReplayBuffer>>,
}

/// The callers' ends of the pipes.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<Input>,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
}

/// The streams of a process to be: the runtime's ends, ours, and the callers'.
pub(crate) struct Connected {
    pub(crate) stdio: ChildStdio,
    pub(crate) ends: PipeEnds,
    pub(crate) streams: Streams,
    pub(crate) shared: SharedOutputs,
}

/// Makes the pipes that `spec` asks for.
pub(crate) fn connect(spec: StdioSpec, terminal: Option<TerminalSize>) -> io::Result<Connected> {
    let mut ends = PipeEnds::default();
    let mut streams = Streams::default();
    let mut shared = SharedOutputs::default();
    let stdin = match direct(spec.stdin) {
        Ok(fd) => fd,
        Err(_) => {
            let (theirs, ours) = io::pipe()?;
            streams.stdin = Some(ends.add_input(ours.into()));
            ChildFd::Fd(Arc::new(theirs.into()))
        }
    };
    let stdout = ends.connect_output(spec.stdout, &mut streams.stdout, &mut shared.stdout)?;
    // A terminal is one stream: what is written to it as an error comes with the rest.
    let stderr = match terminal {
        Some(_) => ChildFd::Null,
        None => ends.connect_output(spec.stderr, &mut streams.stderr, &mut shared.stderr)?,
    };
    Ok(Connected { stdio: ChildStdio { stdin, stdout, stderr, terminal }, ends, streams, shared })
}

impl PipeEnds {
    fn connect_output(
        &mut self,
        stdio: Stdio,
        taken: &mut Option<Output>,
        attached: &mut Option<watch::Receiver<ReplayBuffer>>,
    ) -> io::Result<ChildFd> {
        let piped = match direct(stdio) {
            Ok(fd) => return Ok(fd),
            Err(piped) => piped,
        };
        let (ours, theirs) = io::pipe()?;
        match piped {
            Piped::Alone => *taken = Some(self.add_output(ours.into())),
            Piped::Shared { replay } => *attached = Some(self.add_shared(ours.into(), replay)),
        }
        Ok(ChildFd::Fd(Arc::new(theirs.into())))
    }
}

/// A stream that has an end of ours.
enum Piped {
    Alone,
    Shared { replay: usize },
}

fn direct(stdio: Stdio) -> Result<ChildFd, Piped> {
    match stdio {
        Stdio::Null => Ok(ChildFd::Null),
        Stdio::Inherit => Ok(ChildFd::Inherit),
        Stdio::Fd(fd) => Ok(ChildFd::Fd(fd)),
        Stdio::Pipe => Err(Piped::Alone),
        Stdio::Shared { replay } => Err(Piped::Shared { replay }),
    }
}

#[cfg(test)]
mod tests;
