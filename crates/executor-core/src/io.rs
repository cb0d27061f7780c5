//! The streams of a process: what the runtime is given, and what the handle gives out.
//!
//! A pipe is an operating system's pipe. The executor's thread copies between it and a bounded
//! channel, or the buffer of a shared output ([`attached`]), so that the other end works under any executor
//! of futures; no actor ever reads or writes. Copying begins when the process runs: what the runtime
//! writes before is not the process's. A terminal is the runtime's affair: here it is pipes too.

mod attached;

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use executor_lifecycle::TerminalSize;
use futures::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use self::attached::ReplayBuffer;
pub use self::attached::{Attached, Chunk};
use crate::{Stdio, StdioSpec};

/// How long an output is read on after the process has ended, when something else holds the pipe.
const DRAIN: Duration = Duration::from_secs(1);
const CHUNK: usize = 64 << 10;
const CHUNKS_AHEAD: usize = 4;

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

/// What a process writes, as it comes: a stream of chunks of up to 64 KiB.
///
/// The process is held back when nobody reads. The stream ends when the process and all that hold
/// the pipe have closed it, or 1 s after the process ended.
#[derive(Debug)]
pub struct Output(mpsc::Receiver<Vec<u8>>);

impl Output {
    /// Everything up to the end.
    pub async fn read_to_end(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = self.0.recv().await {
            all.extend_from_slice(&chunk);
        }
        all
    }

    /// The next chunk; `None` at the end.
    pub async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        self.0.recv().await
    }
}

impl Stream for Output {
    type Item = Vec<u8>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.0.poll_recv(context)
    }
}

/// Where a process reads from. Dropping it is the end of the process's input.
#[derive(Debug)]
pub struct Input(mpsc::Sender<Vec<u8>>);

impl Input {
    /// Hands bytes on, waiting while the process reads too slowly. Bytes for a process that reads
    /// no more are an error of kind `BrokenPipe`.
    pub async fn write(&self, bytes: impl Into<Vec<u8>>) -> io::Result<()> {
        self.0.send(bytes.into()).await.map_err(|_| ErrorKind::BrokenPipe.into())
    }
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

/// Our ends of the pipes, to be copied from and to once the process runs.
#[derive(Debug, Default)]
pub(crate) struct Copiers {
    input: Option<(OwnedFd, mpsc::Receiver<Vec<u8>>)>,
    outputs: Vec<(OwnedFd, Sink)>,
}

/// Where an output goes on our side.
#[derive(Debug)]
enum Sink {
    Queue(mpsc::Sender<Vec<u8>>),
    ReplayBuffer(watch::Sender<ReplayBuffer>),
}

/// The streams of a process to be: the runtime's ends, ours, and the callers'.
pub(crate) struct Connected {
    pub(crate) stdio: ChildStdio,
    pub(crate) copiers: Copiers,
    pub(crate) streams: Streams,
    pub(crate) shared: SharedOutputs,
}

/// Makes the pipes that `spec` asks for.
pub(crate) fn connect(spec: StdioSpec, terminal: Option<TerminalSize>) -> io::Result<Connected> {
    let mut copiers = Copiers::default();
    let mut streams = Streams::default();
    let mut shared = SharedOutputs::default();
    let stdin = match direct(spec.stdin) {
        Ok(fd) => fd,
        Err(_) => {
            let (theirs, ours) = io::pipe()?;
            let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
            copiers.input = Some((ours.into(), receiver));
            streams.stdin = Some(Input(sender));
            ChildFd::Fd(Arc::new(theirs.into()))
        }
    };
    let mut output =
        |stdio, taken: &mut Option<Output>, attached: &mut Option<watch::Receiver<ReplayBuffer>>| {
            let piped = match direct(stdio) {
                Ok(fd) => return Ok(fd),
                Err(piped) => piped,
            };
            let (ours, theirs) = io::pipe()?;
            let sink = match piped {
                Piped::Alone => {
                    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
                    *taken = Some(Output(receiver));
                    Sink::Queue(sender)
                }
                Piped::Shared { replay } => {
                    let (sender, receiver) = watch::channel(ReplayBuffer::new(replay));
                    *attached = Some(receiver);
                    Sink::ReplayBuffer(sender)
                }
            };
            copiers.outputs.push((ours.into(), sink));
            Ok::<_, io::Error>(ChildFd::Fd(Arc::new(theirs.into())))
        };
    let stdout = output(spec.stdout, &mut streams.stdout, &mut shared.stdout)?;
    // A terminal is one stream: what is written to it as an error comes with the rest.
    let stderr = match terminal {
        Some(_) => ChildFd::Null,
        None => output(spec.stderr, &mut streams.stderr, &mut shared.stderr)?,
    };
    Ok(Connected { stdio: ChildStdio { stdin, stdout, stderr, terminal }, copiers, streams, shared })
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

impl Copiers {
    /// Copies until both sides are done; `ended` resolves when the process has ended.
    pub(crate) fn run<F>(self, ended: impl Fn() -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        if let Some((pipe, bytes)) = self.input {
            let ended = ended();
            actix_rt::spawn(async move {
                tokio::select! {
                    biased;
                    () = copy_in(pipe, bytes) => {}
                    () = ended => {}
                }
            });
        }
        for (pipe, sink) in self.outputs {
            actix_rt::spawn(copy_out(pipe, sink, ended()));
        }
    }
}

/// A process that reads no more (EPIPE) is no error; the channel closes and the writer is told.
async fn copy_in(pipe: OwnedFd, mut bytes: mpsc::Receiver<Vec<u8>>) {
    let Ok(mut pipe) = pipe::Sender::from_owned_fd(pipe) else {
        return;
    };
    while let Some(chunk) = bytes.recv().await {
        if pipe.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

/// Waits for a slow reader as long as it takes, and for others who hold the pipe only so long.
async fn copy_out(pipe: OwnedFd, sink: Sink, ended: impl Future<Output = ()>) {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else {
        return;
    };
    let cut_off = async {
        ended.await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::pin!(cut_off);
    loop {
        // Room first: a chunk that was read can then always be handed on.
        let room = match &sink {
            Sink::Queue(chunks) => match chunks.reserve().await {
                Ok(room) => Some(room),
                Err(_nobody_reads) => return,
            },
            Sink::ReplayBuffer(_) => None,
        };
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = tokio::select! {
            biased;
            read = pipe.read_buf(&mut chunk) => read,
            () = &mut cut_off => Ok(0),
        };
        match (read, room, &sink) {
            (Ok(1..), Some(room), _) => room.send(chunk),
            (Ok(1..), None, Sink::ReplayBuffer(buffer)) => buffer.send_modify(|buffer| buffer.write(chunk)),
            (_, _, Sink::ReplayBuffer(buffer)) => return buffer.send_modify(ReplayBuffer::end),
            (_, _, Sink::Queue(_)) => return,
        }
    }
}
