//! Our ends of the pipes of a process. They are made with it, registered on the executor's thread, and handed to the
//! tasks that read and write.
//!
//! ```text
//!             Process spawned            it runs              it ended          1 s later
//!  stdin   ── open ──────────────────────────────────────────── over
//!  stdout  ───────────────────────────── open ──────────────────────────────────── over
//! ```
//! A pipe that is never empty is busy: it is taken off the reactor, which would wake for each write, until it is idle.
//!
//! The executor's thread waits for the kernel and wakes; the task that reads or writes does the system call. If an
//! end is dropped before it is open, its stream ends: of a process that did not start, nothing is read.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};

use super::attached::ReplayBuffer;
use super::{CHUNK, Input, Output};
use crate::StreamKind;

/// How long an output is read after the process has ended, if another process holds the pipe.
const DRAIN: Duration = Duration::from_secs(1);

/// Our ends of the pipes, to be opened by the process's actor.
#[derive(Default)]
pub(crate) struct PipeEnds {
    input: Option<(OwnedFd, Opener<pipe::Sender>)>,
    /// Dropped when the process has ended, and can read no more.
    input_open: Option<Lent<pipe::Sender>>,
    outputs: Vec<(StreamKind, OwnedFd, Sink)>,
    /// Called when an end is over: it was closed by its reader or writer, or the process has ended.
    closed: Option<Arc<dyn Fn(StreamKind) + Send + Sync>>,
}

/// What our side does with an output.
#[derive(Debug)]
enum Sink {
    /// One reader, which reads the pipe itself.
    Reader(Opener<pipe::Receiver>),
    /// Any number of readers, which read a copy.
    ReplayBuffer(watch::Sender<ReplayBuffer>),
}

type Opener<P> = oneshot::Sender<io::Result<Opened<P>>>;

/// An end that will be opened, or never.
pub(super) type Awaited<P> = oneshot::Receiver<io::Result<Opened<P>>>;

/// An end that can be read from or written to, under any executor of futures.
#[derive(Debug)]
pub(super) struct Opened<P> {
    slot: Slot<P>,
    /// Resolves when the end is over, with what is left in the pipe.
    over: oneshot::Receiver<Rest>,
}

/// The executor's part of an end. Dropping it removes the end from the executor's thread, so that no part of a
/// stopped executor stays in it.
#[derive(Debug)]
struct Lent<P: Watched> {
    slot: Slot<P>,
    over: Option<oneshot::Sender<Rest>>,
}

type Slot<P> = Arc<Shared<P>>;

/// Holds an end while the executor runs.
#[derive(Debug)]
struct Shared<P> {
    pipe: Mutex<Option<Held<P>>>,
    /// The reader or the writer is gone. A waiter that is dropped leaves no trace in it.
    closed: Notify,
}

/// An end that is waited for, or that is busy.
#[derive(Debug)]
enum Held<P> {
    /// The executor's thread watches it.
    Watched(P, Handle),
    /// It was always ready lately. Nothing watches it, so that the executor's thread does not wake for each write. The
    /// handle is that of the executor's runtime, and goes with it.
    Busy(OwnedFd, Handle),
}

/// How often a busy end that is not ready is tried again, before it is watched.
const TRIES: u32 = 50;

/// The rest of a pipe: `left` bytes that are read without waiting.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) pipe: OwnedFd,
    pub(super) left: u64,
}

/// An end of a pipe that the executor's thread watches.
pub(super) trait Watched: AsFd {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// If `act` would block, waits for the next readiness.
    fn try_io<R>(&self, act: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// What is left to be read. The end is not watched any more.
    fn into_rest(self) -> Option<Rest>;

    /// Has the runtime of this context watch an end.
    fn watch(pipe: OwnedFd) -> io::Result<Self>
    where
        Self: Sized;

    /// Ends that.
    fn into_fd(self) -> io::Result<OwnedFd>;
}

fn rest_of(pipe: OwnedFd) -> Option<Rest> {
    let left = rustix::io::ioctl_fionread(&pipe).ok().filter(|left| *left > 0)?;
    Some(Rest { pipe, left })
}

impl Watched for pipe::Receiver {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn try_io<R>(&self, act: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(act)
    }

    fn into_rest(self) -> Option<Rest> {
        self.into_nonblocking_fd().ok().and_then(rest_of)
    }

    fn watch(pipe: OwnedFd) -> io::Result<Self> {
        Self::from_owned_fd(pipe)
    }

    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_nonblocking_fd()
    }
}

impl Watched for pipe::Sender {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(context)
    }

    fn try_io<R>(&self, act: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(act)
    }

    fn into_rest(self) -> Option<Rest> {
        None
    }

    fn watch(pipe: OwnedFd) -> io::Result<Self> {
        Self::from_owned_fd(pipe)
    }

    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_nonblocking_fd()
    }
}

impl<P> Shared<P> {
    /// Taking the end out cannot leave it half changed.
    fn pipe(&self) -> MutexGuard<'_, Option<Held<P>>> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a read or a write: done, or the end is over.
pub(super) enum Polled {
    Done(io::Result<usize>),
    Over(Option<Rest>),
}

impl<P: Watched> Opened<P> {
    /// Reads or writes when the pipe is ready.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        act: &mut impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<Polled> {
        let mut held = self.slot.pipe();
        if let Some(Held::Busy(pipe, reactor)) = &*held {
            if let Some(done) = try_busy(pipe, act) {
                return Poll::Ready(Polled::Done(done));
            }
            // It is idle now. If the executor is just stopping, it stays as it is, and what is left of it comes below.
            let context = reactor.enter();
            let watched = pipe.try_clone().and_then(P::watch);
            drop(context);
            if let Ok(pipe) = watched {
                let reactor = reactor.clone();
                *held = Some(Held::Watched(pipe, reactor));
            }
        }
        if let Some(Held::Watched(pipe, _)) = &*held {
            while let Poll::Ready(Ok(())) = pipe.poll_ready(context) {
                match pipe.try_io(|| Ok(act(pipe.as_fd())?)) {
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    done => return Poll::Ready(Polled::Done(done)),
                }
            }
        }
        drop(held);
        // The pipe is not ready, or the executor has stopped.
        Pin::new(&mut self.over).poll(context).map(|rest| Polled::Over(rest.ok()))
    }

    /// Asks the kernel for a pipe of `size` bytes.
    pub(super) fn enlarge(&self, size: usize) {
        let held = self.slot.pipe();
        let _it_works_as_it_is = match &*held {
            Some(Held::Watched(pipe, _)) => rustix::pipe::fcntl_setpipe_size(pipe, size),
            Some(Held::Busy(pipe, _)) => rustix::pipe::fcntl_setpipe_size(pipe, size),
            None => return,
        };
    }

    /// The end is ready all the time: nothing watches it until it is not.
    pub(super) fn be_busy(&self) {
        let mut held = self.slot.pipe();
        *held = match held.take() {
            Some(Held::Watched(pipe, reactor)) => pipe.into_fd().ok().map(|pipe| Held::Busy(pipe, reactor)),
            other => other,
        };
    }
}

/// Tries a busy end a few times. `None` if it is idle.
fn try_busy(
    pipe: &OwnedFd,
    act: &mut impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
) -> Option<io::Result<usize>> {
    for _ in 0..TRIES {
        match act(pipe.as_fd()) {
            Err(Errno::AGAIN) => std::thread::yield_now(),
            Err(Errno::INTR) => {}
            done => return Some(done.map_err(io::Error::from)),
        }
    }
    None
}

impl<P> Drop for Opened<P> {
    fn drop(&mut self) {
        drop(self.slot.pipe().take());
        self.slot.closed.notify_one();
    }
}

impl<P: Watched> Drop for Lent<P> {
    fn drop(&mut self) {
        let rest = self.slot.pipe().take().and_then(|held| match held {
            Held::Watched(pipe, _) => pipe.into_rest(),
            Held::Busy(pipe, _) => rest_of(pipe),
        });
        if let (Some(rest), Some(over)) = (rest, self.over.take()) {
            drop(over.send(rest));
        }
    }
}

impl fmt::Debug for PipeEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeEnds")
            .field("input", &self.input)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl PipeEnds {
    pub(super) fn add_input(&mut self, pipe: OwnedFd) -> Input {
        let (opener, awaited) = oneshot::channel();
        self.input = Some((pipe, opener));
        Input::new(awaited)
    }

    pub(super) fn add_output(&mut self, kind: StreamKind, pipe: OwnedFd) -> Output {
        let (opener, awaited) = oneshot::channel();
        self.outputs.push((kind, pipe, Sink::Reader(opener)));
        Output::new(awaited)
    }

    pub(super) fn add_shared(
        &mut self,
        kind: StreamKind,
        pipe: OwnedFd,
        replay: usize,
    ) -> watch::Receiver<ReplayBuffer> {
        let (sender, receiver) = watch::channel(ReplayBuffer::new(replay));
        self.outputs.push((kind, pipe, Sink::ReplayBuffer(sender)));
        receiver
    }

    /// The ends that are not open yet.
    pub(crate) fn unopened(&self) -> impl Iterator<Item = (StreamKind, BorrowedFd<'_>)> {
        let input = self.input.iter().map(|(pipe, _)| (StreamKind::Stdin, pipe.as_fd()));
        input.chain(self.outputs.iter().map(|(kind, pipe, _)| (*kind, pipe.as_fd())))
    }

    /// Has this called when an end is over: its reader or writer has closed it, or the process has ended. It is not called if the
    /// executor ends first.
    pub(crate) fn when_closed(&mut self, closed: impl Fn(StreamKind) + Send + Sync + 'static) {
        self.closed = Some(Arc::new(closed));
    }

    /// Opens the input: from now on it can be written, up to the size of the pipe. Call it on the executor's thread.
    pub(crate) fn open_input(&mut self) {
        if let Some((pipe, opener)) = self.input.take() {
            self.input_open = Some(open(pipe::Sender::from_owned_fd(pipe), opener));
        }
    }

    /// Opens the outputs, because the process runs. `ended` resolves to true when the process has ended, and to false if its actor
    /// has ended first. Call it on the executor's thread.
    pub(crate) fn open_outputs<F>(self, ended: impl Fn() -> F)
    where
        F: Future<Output = bool> + 'static,
    {
        let closed = |kind| {
            let closed = self.closed.clone();
            move || closed.iter().for_each(|closed| closed(kind))
        };
        if let Some(lent) = self.input_open {
            actix_rt::spawn(keep_until(ended(), lent, closed(StreamKind::Stdin)));
        }
        for (kind, pipe, sink) in self.outputs {
            let ended = ended();
            let cut_off = async {
                let has_ended = ended.await;
                tokio::time::sleep(DRAIN).await;
                has_ended
            };
            match sink {
                Sink::Reader(opener) => {
                    let lent = open(pipe::Receiver::from_owned_fd(pipe), opener);
                    actix_rt::spawn(keep_until(cut_off, lent, closed(kind)));
                }
                Sink::ReplayBuffer(buffer) => {
                    let closed = closed(kind);
                    actix_rt::spawn(async move {
                        if copy_out(pipe, buffer, cut_off).await {
                            closed();
                        }
                    });
                }
            }
        }
    }
}

/// Opens an end. If its reader or writer is gone, it is closed.
fn open<P: Watched>(pipe: io::Result<P>, opener: Opener<P>) -> Lent<P> {
    let (over, is_over) = oneshot::channel();
    let (pipe, failure) = match pipe {
        Ok(pipe) => (Some(Held::Watched(pipe, Handle::current())), None),
        Err(error) => (None, Some(error)),
    };
    let slot = Arc::new(Shared { pipe: Mutex::new(pipe), closed: Notify::new() });
    let opened = Opened { slot: Arc::clone(&slot), over: is_over };
    drop(opener.send(failure.map_or(Ok(opened), Err)));
    Lent { slot, over: Some(over) }
}

/// Keeps an end open until `cut_off`, or until its reader or writer is gone. Then nobody has to hold it any more, unless the process
/// runs on without its actor.
async fn keep_until<P: Watched>(cut_off: impl Future<Output = bool>, lent: Lent<P>, closed: impl FnOnce()) {
    let is_over = tokio::select! {
        has_ended = cut_off => has_ended,
        () = lent.slot.closed.notified() => true,
    };
    if is_over {
        closed();
    }
}

/// Whether the stream is over. It is not if the process runs on without its actor.
async fn copy_out(
    pipe: OwnedFd,
    buffer: watch::Sender<ReplayBuffer>,
    cut_off: impl Future<Output = bool>,
) -> bool {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else {
        return false;
    };
    tokio::pin!(cut_off);
    let is_over = loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = tokio::select! {
            biased;
            has_ended = &mut cut_off => break has_ended,
            read = pipe.read_buf(&mut chunk) => read,
        };
        match read {
            Ok(1..) => buffer.send_modify(|buffer| buffer.write(chunk)),
            Ok(_) | Err(_) => {
                buffer.send_modify(ReplayBuffer::end);
                return true;
            }
        }
    };
    // Others may write for ever: what is in the pipe now is the rest.
    let Some(Rest { pipe, mut left }) = pipe.into_rest() else {
        buffer.send_modify(ReplayBuffer::end);
        return is_over;
    };
    while left > 0 {
        let mut chunk = Vec::with_capacity(CHUNK);
        match rustix::io::read(&pipe, spare_capacity(&mut chunk)) {
            Ok(read @ 1..) => {
                left = left.saturating_sub(read as u64);
                buffer.send_modify(|buffer| buffer.write(chunk));
            }
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => break,
        }
    }
    buffer.send_modify(ReplayBuffer::end);
    is_over
}
