//! The writer's end of a pipe that a process reads from.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::net::unix::pipe;

use super::ends::{Awaited, Opened, Polled};

/// The writing end of the stdin of a process. Dropping it ends the input of the process.
///
/// The task that writes does the system calls itself, under any executor of futures: by
/// [`write_all`](Self::write_all), or through tokio's or futures' `AsyncWrite`, whose `shutdown` and `close` end the
/// input too. Before the process runs, as much can be written as the pipe holds.
///
/// If the process has closed its stdin, writing is an error of kind `BrokenPipe`.
///
/// ```
/// # use executor_core::*;
/// # use executor_sim::{SimRuntime, Simulation};
/// # Simulation::new(SimRuntime::new()).run(async |sim| {
/// # let executor = &sim.executor;
/// let mut spec = ContainerSpec::host(["cat"]).piped();
/// spec.process.stdio.stdin = Stdio::Pipe;
/// let container = executor.run(spec).await?;
/// let mut stdin = container.io().take_stdin().expect("a pipe");
/// stdin.write_all("hello\n").await.expect("it reads");
/// drop(stdin); // or `cat` would wait for more
/// assert_eq!(container.output().await?.stdout, b"hello\n");
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Input(State);

#[derive(Debug)]
enum State {
    /// Until the executor has taken the process on.
    Awaited(Awaited<pipe::Sender>),
    Open(Opened<pipe::Sender>),
    Closed,
}

impl Input {
    pub(super) const fn new(pipe: Awaited<pipe::Sender>) -> Self {
        Self(State::Awaited(pipe))
    }

    /// Writes all bytes. Waits while the pipe is full.
    ///
    /// # Cancel safety
    /// If the future is dropped, some of the bytes may have been written.
    ///
    /// # Errors
    /// `BrokenPipe` if the process has closed its stdin or has ended.
    pub async fn write_all(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let mut bytes = bytes.as_ref();
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|context| self.poll(context, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    fn poll(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            match &mut self.0 {
                State::Awaited(pipe) => match ready!(Pin::new(pipe).poll(context)) {
                    Ok(Ok(opened)) => self.0 = State::Open(opened),
                    Ok(Err(error)) => {
                        self.0 = State::Closed;
                        return Poll::Ready(Err(error));
                    }
                    Err(_it_never_ran) => self.0 = State::Closed,
                },
                State::Open(opened) => {
                    let mut write = |pipe: BorrowedFd<'_>| rustix::io::write(pipe, bytes);
                    match ready!(opened.poll(context, &mut write)) {
                        Polled::Done(written) => return Poll::Ready(written),
                        Polled::Over(_) => self.0 = State::Closed,
                    }
                }
                State::Closed => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
            }
        }
    }

    fn close(&mut self) -> Poll<io::Result<()>> {
        self.0 = State::Closed;
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Input {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().close()
    }
}

impl futures::AsyncWrite for Input {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().close()
    }
}
