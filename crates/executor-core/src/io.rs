//! The streams of a process: what the runtime gets, and what handles give out.
//!
//! A pipe is a pipe of the kernel. The task that reads or writes our end does the system calls itself; the executor's
//! thread only waits for the kernel and wakes that task ([`ends`]). It copies only the outputs that several readers
//! share ([`attached`]). No actor reads or writes. Outputs are read once the process runs: of a process that did not
//! start, nothing is read. For a process with a terminal, these are pipes too, and the runtime copies between them
//! and the terminal.

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
use crate::{KeptStreams, Stdio, StdioSpec, StreamKind};

/// The most bytes of one read.
const CHUNK: usize = 64 << 10;

/// The three streams, as the runtime gets them.
#[derive(Clone, Debug, Default)]
pub struct ChildStdio {
    /// What stdin is.
    pub stdin: ChildFd,
    /// What stdout is.
    pub stdout: ChildFd,
    /// What stderr is.
    pub stderr: ChildFd,
    /// If present, the process has a terminal of this size. The runtime keeps the other side of the terminal, and
    /// copies between it and `stdin` and `stdout`, which are pipes or null.
    pub terminal: Option<TerminalSize>,
}

/// One stream, as the runtime gets it. Dropping the last clone closes it.
#[derive(Clone, Debug, Default)]
pub enum ChildFd {
    /// `/dev/null`.
    #[default]
    Null,
    /// The stream of the embedder with the same number.
    Inherit,
    /// This file.
    Fd(Arc<OwnedFd>),
}

/// The streams of a process, as its handles have them.
///
/// The end of a pipe can be taken once. An output that is [`Stdio::Shared`] can be attached to at any time, by any
/// number of readers, also through [`Executor::get`](crate::Executor::get).
#[derive(Clone, Debug, Default)]
pub struct Io {
    ends: Arc<Mutex<Streams>>,
    shared: SharedOutputs,
}

impl Io {
    pub(crate) fn new(streams: Streams, shared: SharedOutputs) -> Self {
        Self { ends: Arc::new(Mutex::new(streams)), shared }
    }

    /// The same shared outputs, and these ends.
    pub(crate) fn with(&self, streams: Streams) -> Self {
        Self::new(streams, self.shared.clone())
    }

    /// Takes the other end of stdin. `None` if the specification does not say [`Stdio::Pipe`], or it was taken.
    pub fn take_stdin(&self) -> Option<Input> {
        self.ends().stdin.take()
    }

    /// Takes the other end of stdout; see [`take_stdin`](Self::take_stdin).
    pub fn take_stdout(&self) -> Option<Output> {
        self.ends().stdout.take()
    }

    /// Takes the other end of stderr; see [`take_stdin`](Self::take_stdin).
    pub fn take_stderr(&self) -> Option<Output> {
        self.ends().stderr.take()
    }

    /// Makes another reader of stdout. `None` if the specification does not say [`Stdio::Shared`].
    pub fn attach_stdout(&self) -> Option<Attached> {
        self.shared.stdout.clone().map(Attached::from_start)
    }

    /// Makes another reader of stderr. `None` if the specification does not say [`Stdio::Shared`].
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

/// The ends of the pipes that callers take.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<Input>,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
}

/// The streams of a process that is to be started: the runtime's ends, ours, and the callers'.
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
    let stdout =
        ends.connect_output(StreamKind::Stdout, spec.stdout, &mut streams.stdout, &mut shared.stdout)?;
    // A terminal has one output stream, which carries stderr as well.
    let stderr = match terminal {
        Some(_) => ChildFd::Null,
        None => {
            ends.connect_output(StreamKind::Stderr, spec.stderr, &mut streams.stderr, &mut shared.stderr)?
        }
    };
    Ok(Connected { stdio: ChildStdio { stdin, stdout, stderr, terminal }, ends, streams, shared })
}

/// Takes up the ends that were kept of a process that another executor has started. `spec` says which of the outputs are shared.
pub(crate) fn reconnect(spec: &StdioSpec, kept: KeptStreams) -> Connected {
    let (mut ends, mut streams, mut shared) =
        (PipeEnds::default(), Streams::default(), SharedOutputs::default());
    streams.stdin = kept.stdin.map(|pipe| ends.add_input(pipe));
    let mut output = |kind, spec: &Stdio, pipe| match spec {
        Stdio::Shared { replay } => (None, Some(ends.add_shared(kind, pipe, *replay))),
        Stdio::Null | Stdio::Inherit | Stdio::Fd(_) | Stdio::Pipe => {
            (Some(ends.add_output(kind, pipe)), None)
        }
    };
    if let Some(pipe) = kept.stdout {
        (streams.stdout, shared.stdout) = output(StreamKind::Stdout, &spec.stdout, pipe);
    }
    if let Some(pipe) = kept.stderr {
        (streams.stderr, shared.stderr) = output(StreamKind::Stderr, &spec.stderr, pipe);
    }
    Connected { stdio: ChildStdio::default(), ends, streams, shared }
}

impl PipeEnds {
    fn connect_output(
        &mut self,
        kind: StreamKind,
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
            Piped::Alone => *taken = Some(self.add_output(kind, ours.into())),
            Piped::Shared { replay } => *attached = Some(self.add_shared(kind, ours.into(), replay)),
        }
        Ok(ChildFd::Fd(Arc::new(theirs.into())))
    }
}

/// A stream of which we have an end.
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
