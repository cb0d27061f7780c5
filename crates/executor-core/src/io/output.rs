//! The reader's end of a pipe that a process writes to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::io::ReadBuf;
use tokio::net::unix::pipe;

use super::CHUNK;
use super::ends::{Awaited, Opened, Polled, Rest};

/// The size of a pipe by default, and the size that we request for a busy one, in bytes.
const PIPE_DEFAULT: usize = 64 << 10;
const PIPE_ENLARGED: usize = 1 << 20;

/// After so many reads without a wait, other tasks have their turn.
const READS_IN_A_ROW: u32 = 128;

/// The reading end of an output of a process.
///
/// The task that reads does the system calls itself, under any executor of futures: through tokio's or futures'
/// `AsyncRead`, as a stream of chunks of up to 64 KiB, or to its end.
///
/// Nothing can be read before the process runs. If nothing reads, the process blocks once the pipe is full. The
/// stream ends when every process that holds the pipe has closed it, or 1 s after the process has ended. It also ends
/// when the executor has stopped and what is left in the pipe is read.
///
/// ```
/// # use executor_core::*;
/// # use executor_sim::{SimRuntime, Simulation};
/// use tokio::io::AsyncReadExt;
/// # Simulation::new(SimRuntime::new()).run(async |sim| {
/// # let executor = &sim.executor;
/// let container = executor.run(ContainerSpec::host(["sh", "-c", "echo hello"]).piped()).await?;
/// let mut stdout = container.io().take_stdout().expect("a pipe");
/// let mut first = [0; 4];
/// stdout.read_exact(&mut first).await.expect("four bytes");
/// assert_eq!((&first, stdout.read_to_end().await), (b"hell", b"o\n".to_vec()));
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Output {
    state: State,
    /// How many bytes came since the reader last waited, in how many reads.
    at_once: usize,
    reads: u32,
    is_enlarged: bool,
}

#[derive(Debug)]
enum State {
    /// Until the process runs.
    Awaited(Awaited<pipe::Receiver>),
    Open(Opened<pipe::Receiver>),
    /// The process has ended, and others may write to the pipe for ever. What is in it is read without waiting.
    Rest(Rest),
    Ended,
}

impl Output {
    pub(super) const fn new(pipe: Awaited<pipe::Receiver>) -> Self {
        Self { state: State::Awaited(pipe), at_once: 0, reads: 0, is_enlarged: false }
    }

    /// Reads everything up to the end, and keeps all of it in memory. If the output may be large, use
    /// [`ContainerHandle::output`](crate::ContainerHandle::output).
    ///
    /// # Cancel safety
    /// If the future is dropped, what was read is lost and the pipe is closed: a process that goes on writing gets
    /// SIGPIPE.
    pub async fn read_to_end(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while or_the_end(self.read_onto(&mut all).await) > 0 {}
        all
    }

    /// The next chunk, of 1 byte to 64 KiB. `None` at the end.
    ///
    /// # Cancel safety
    /// No bytes are lost if the future is dropped.
    pub async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        std::future::poll_fn(|context| self.poll_chunk(context)).await
    }

    /// Appends the next bytes to `bytes`. Returns their number; 0 at the end.
    pub(super) async fn read_onto(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_read_onto(context, bytes)).await
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut chunk = Vec::new();
        let read = ready!(self.poll_read_onto(context, &mut chunk));
        // A reader may keep many small chunks.
        chunk.shrink_to_fit();
        Poll::Ready((or_the_end(read) > 0).then_some(chunk))
    }

    fn poll_read_onto(&mut self, context: &mut Context<'_>, bytes: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        self.poll(context, |pipe| {
            bytes.reserve(CHUNK);
            rustix::io::read(pipe, spare_capacity(bytes))
        })
    }

    fn poll_read_into(&mut self, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll(context, |pipe| rustix::io::read(pipe, &mut *bytes))
    }

    /// Reads when the pipe is readable. 0 bytes are the end.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match &mut self.state {
                State::Awaited(pipe) => match ready!(Pin::new(pipe).poll(context)) {
                    Ok(Ok(opened)) => self.state = State::Open(opened),
                    Ok(Err(error)) => {
                        self.state = State::Ended;
                        return Poll::Ready(Err(error));
                    }
                    Err(_it_never_ran) => self.state = State::Ended,
                },
                State::Open(_) if self.reads >= READS_IN_A_ROW => {
                    self.reads = 0;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Open(opened) => match opened.poll(context, &mut read) {
                    Poll::Ready(Polled::Done(Ok(0))) => self.state = State::Ended,
                    Poll::Ready(Polled::Done(read)) => {
                        self.adapt_to(&read);
                        return Poll::Ready(read);
                    }
                    Poll::Ready(Polled::Over(rest)) => self.state = rest.map_or(State::Ended, State::Rest),
                    Poll::Pending => {
                        (self.at_once, self.reads) = (0, 0);
                        return Poll::Pending;
                    }
                },
                State::Rest(Rest { left: 0, .. }) => self.state = State::Ended,
                State::Rest(rest) => match read(rest.pipe.as_fd()) {
                    Ok(read @ 1..) => {
                        rest.left = rest.left.saturating_sub(read as u64);
                        return Poll::Ready(Ok(read));
                    }
                    Err(Errno::INTR) => {}
                    Ok(_) | Err(_) => self.state = State::Ended,
                },
                State::Ended => return Poll::Ready(Ok(0)),
            }
        }
    }

    /// Makes the pipe of a busy writer larger, so that both sides wait less often, and has nothing watch it as long as it
    /// is never empty. The kernel allocates its pages when they are needed. Pipes of little traffic stay as they are,
    /// because a user may have only so many pages of pipes.
    fn adapt_to(&mut self, read: &io::Result<usize>) {
        let (State::Open(opened), Ok(read)) = (&self.state, read) else { return };
        let before = self.at_once;
        self.at_once += read;
        self.reads += 1;
        if before < PIPE_DEFAULT && self.at_once >= PIPE_DEFAULT {
            if !self.is_enlarged {
                opened.enlarge(PIPE_ENLARGED);
                self.is_enlarged = true;
            }
            opened.be_busy();
        }
    }
}

/// Only a pipe that could not be opened for reading has errors.
fn or_the_end(read: io::Result<usize>) -> usize {
    read.unwrap_or_else(|error| {
        tracing::warn!(%error, "the output of a process cannot be read");
        0
    })
}

impl Stream for Output {
    type Item = Vec<u8>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.get_mut().poll_chunk(context)
    }
}

impl tokio::io::AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(self.get_mut().poll_read_into(context, buffer.initialize_unfilled()))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl futures::AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_read_into(context, buffer)
    }
}
