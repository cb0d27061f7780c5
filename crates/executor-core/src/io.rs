//! The streams of a process: what the runtime is given, and what the handle gives out.
//!
//! A pipe is an operating system's pipe. The executor's thread copies between it and a bounded
//! channel, so that the other end works under any executor of futures; no actor ever reads or
//! writes. Copying begins when the process runs: what the runtime writes before is not the
//! process's.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

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
    outputs: Vec<(OwnedFd, mpsc::Sender<Vec<u8>>)>,
}

/// Makes the pipes that `spec` asks for.
pub(crate) fn connect(spec: StdioSpec) -> io::Result<(ChildStdio, Copiers, Streams)> {
    let mut copiers = Copiers::default();
    let mut streams = Streams::default();
    let stdin = match direct(spec.stdin) {
        Some(fd) => fd,
        None => {
            let (theirs, ours) = io::pipe()?;
            let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
            copiers.input = Some((ours.into(), receiver));
            streams.stdin = Some(Input(sender));
            ChildFd::Fd(Arc::new(theirs.into()))
        }
    };
    let mut output = |stdio| -> io::Result<(ChildFd, Option<Output>)> {
        if let Some(fd) = direct(stdio) {
            return Ok((fd, None));
        }
        let (ours, theirs) = io::pipe()?;
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        copiers.outputs.push((ours.into(), sender));
        Ok((ChildFd::Fd(Arc::new(theirs.into())), Some(Output(receiver))))
    };
    let (stdout, stdout_stream) = output(spec.stdout)?;
    let (stderr, stderr_stream) = output(spec.stderr)?;
    streams.stdout = stdout_stream;
    streams.stderr = stderr_stream;
    Ok((ChildStdio { stdin, stdout, stderr }, copiers, streams))
}

fn direct(stdio: Stdio) -> Option<ChildFd> {
    match stdio {
        Stdio::Null => Some(ChildFd::Null),
        Stdio::Inherit => Some(ChildFd::Inherit),
        Stdio::Fd(fd) => Some(ChildFd::Fd(fd)),
        Stdio::Pipe => None,
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
        for (pipe, chunks) in self.outputs {
            actix_rt::spawn(copy_out(pipe, chunks, ended()));
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
async fn copy_out(pipe: OwnedFd, chunks: mpsc::Sender<Vec<u8>>, ended: impl Future<Output = ()>) {
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
        let Ok(room) = chunks.reserve().await else { return };
        let mut chunk = Vec::with_capacity(CHUNK);
        tokio::select! {
            biased;
            read = pipe.read_buf(&mut chunk) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => room.send(chunk),
            },
            () = &mut cut_off => return,
        }
    }
}
