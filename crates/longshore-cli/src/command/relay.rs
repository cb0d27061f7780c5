//! The program's streams, and the threads that copy between them and ours.
//!
//! ```text
//!  our stdin  ──▶ a pipe ──▶ the program ──▶ a pipe ──▶ our stdout
//!                                       └──▶ a pipe ──▶ our stderr
//! ```
//! The program never gets our own streams. It could read what the user types, set the terminal, or open a file again
//! by `/proc/self/fd` and overwrite it, and the runtime would give the file to the container's user. `--stdio inherit` does
//! without all this.
//!
//! If stdout and stderr are the same file, both are one pipe, so that their order is kept. The pipes are copied from the
//! moment the program runs, and never if it does not: a runtime shares its stderr with the program and writes its own
//! message there if it cannot start it, and we print a sentence of our own.
//!
//! A pipe that the command was given is made as large as its own: with the kernel's default, each of the processes on its way
//! wakes the next for every 64 KiB, and that is most of the cost of a gibibyte.
//!
//! A slow reader is waited for, as any program waits. Another process may hold a pipe open when the program has
//! ended; then what is written within a second is still copied.

mod closed;
pub(super) mod copy;

use std::io::{self, ErrorKind, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use longshore::{HostPid, Stdio, StdioSpec};
use tokio::sync::{mpsc, oneshot};

/// How large the pipes are, if the kernel allows it.
const PIPE: usize = 256 << 10;

/// The size of a pipe that nobody has chosen: 16 pages of 4 KiB (pipe(7)).
const DEFAULT_PIPE: usize = 64 << 10;

/// The pipes, and what copies them.
#[derive(Default)]
pub(crate) struct Relay {
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    /// Closed when the program has ended, which the threads see.
    running: Option<PipeWriter>,
    copying: Vec<Copying>,
    failed: Option<io::Error>,
    input: InputError,
    broken: Option<mpsc::UnboundedReceiver<()>>,
}

impl Relay {
    /// Makes the program's streams, and the relay behind them.
    pub(crate) fn new(interactive: bool) -> io::Result<(StdioSpec, Self)> {
        let mut relay = Self::default();
        let stdin = match interactive {
            true => {
                let (theirs, ours) = large_pipe()?;
                relay.stdin = Some(ours);
                OwnedFd::from(theirs).into()
            }
            false => Stdio::Null,
        };
        let (ours, stderr) = large_pipe()?;
        relay.stderr = Some(ours);
        let stdout = match is_same_file(io::stdout(), io::stderr()) {
            true => stderr.try_clone()?,
            false => {
                let (ours, theirs) = large_pipe()?;
                relay.stdout = Some(ours);
                theirs
            }
        };
        let spec =
            StdioSpec { stdin, stdout: OwnedFd::from(stdout).into(), stderr: OwnedFd::from(stderr).into() };
        Ok((spec, relay))
    }

    /// Starts to copy, because the program runs. `process` is set if it is process 1 of its container.
    pub(crate) fn start(&mut self, process: Option<HostPid>) {
        if let Err(error) = self.try_start(process) {
            self.failed = Some(error);
            // The program finds its streams closed. Otherwise it would wait for a reader that never comes.
            (self.stdin, self.stdout, self.stderr) = (None, None, None);
        }
    }

    fn try_start(&mut self, process: Option<HostPid>) -> io::Result<()> {
        let (ended, running) = io::pipe()?;
        let (sender, broken) = mpsc::unbounded_channel();
        let program = Arc::new(Program { process, ended, broken: sender });
        self.broken = Some(broken);
        if let Some(pipe) = self.stdout.take() {
            let copying = copy_out("stdout", pipe, io::stdout(), close_stdout, Arc::clone(&program));
            self.copying.push(copying?);
        }
        if let Some(pipe) = self.stderr.take() {
            // What the command has to say goes there, too: it stays open.
            self.copying.push(copy_out("stderr", pipe, io::stderr(), || {}, program)?);
        }
        if let Some(pipe) = self.stdin.take() {
            // A read of stdin cannot be interrupted. The thread ends with the command.
            let error = self.input.clone();
            let copy = move || {
                copy::input(&io::stdin(), &pipe).unwrap_or_else(|cause| error.set(&cause));
                close_stdin();
            };
            thread::Builder::new().name("stdin".into()).spawn(copy)?;
        }
        self.running = Some(running);
        Ok(())
    }

    /// Completes when the program is to end as by SIGPIPE, because its reader has gone. Cancel safe.
    pub(crate) async fn broken(&mut self) {
        let broken = match &mut self.broken {
            Some(broken) => broken.recv().await,
            None => None,
        };
        if broken.is_none() {
            std::future::pending().await
        }
    }

    /// Why stdin cannot be read, once that has happened.
    pub(crate) fn input_error(&self) -> InputError {
        self.input.clone()
    }

    /// Waits until everything is copied, or until `hurried`. An error if output was lost, other than by a reader
    /// that has closed its end.
    pub(crate) async fn finish(self, hurried: impl Future<Output = ()>) -> io::Result<()> {
        drop(self.running);
        tokio::pin!(hurried);
        let mut result = self.failed.map_or(Ok(()), Err);
        let mut is_hurried = false;
        for Copying { mut done, owes } in self.copying {
            if !is_hurried {
                tokio::select! {
                    biased;
                    // A thread that has panicked has said so.
                    copied = &mut done => {
                        result = result.and(copied.unwrap_or(Ok(())));
                        continue;
                    }
                    () = &mut hurried => is_hurried = true,
                }
            }
            let copied = done.try_recv().unwrap_or_else(|_| match owes.load(Ordering::Relaxed) {
                true => Err(NotRead.into()),
                false => Ok(()),
            });
            result = result.and(copied);
        }
        result
    }
}

/// Why stdin could not be read. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct InputError(Arc<OnceLock<String>>);

impl InputError {
    pub(super) fn set(&self, error: &io::Error) {
        let _first = self.0.set(error.to_string());
    }

    /// The cause, if there was an error so far.
    pub(crate) fn get(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

/// A thread that copies.
struct Copying {
    done: oneshot::Receiver<io::Result<()>>,
    /// Whether it has something to write.
    owes: Arc<AtomicBool>,
}

/// The cause if output is lost because its reader was not waited for any longer.
#[derive(Debug, thiserror::Error)]
#[error("its reader has not read it")]
pub(super) struct NotRead;

impl From<NotRead> for io::Error {
    fn from(cause: NotRead) -> Self {
        Self::other(cause)
    }
}

/// What the threads know of the program.
struct Program {
    /// Set if it is process 1 of its container.
    process: Option<HostPid>,
    /// Closed when it has ended.
    ended: PipeReader,
    /// Sent to if it is to end.
    broken: mpsc::UnboundedSender<()>,
}

fn large_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (ours, theirs) = io::pipe()?;
    let _it_works_as_it_is = rustix::pipe::fcntl_setpipe_size(&ours, PIPE);
    Ok((ours, theirs))
}

/// Makes a pipe of the caller's as large as ours, unless somebody has chosen its size.
fn enlarge(pipe: impl AsFd) {
    if rustix::pipe::fcntl_getpipe_size(&pipe) == Ok(DEFAULT_PIPE) {
        let _it_works_as_it_is = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE);
    }
}

fn copy_out(
    name: &str,
    pipe: PipeReader,
    out: impl AsFd + Send + 'static,
    at_its_end: impl FnOnce() + Send + 'static,
    program: Arc<Program>,
) -> io::Result<Copying> {
    let (finished, done) = oneshot::channel();
    let owes = Arc::new(AtomicBool::default());
    let owed = Arc::clone(&owes);
    thread::Builder::new().name(name.into()).spawn(move || {
        let result = match copy::output(&pipe, &out, &program.ended, &owed) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                owed.store(false, Ordering::Relaxed);
                if let Some(process) = program.process {
                    closed::wait(&pipe, process, &program.ended, &program.broken);
                }
                Ok(())
            }
            result => {
                at_its_end();
                result
            }
        };
        let _nobody_waits = finished.send(result);
    })?;
    Ok(Copying { done, owes })
}

/// The program writes to it no more, and so does nobody here: its reader sees the end, although the program runs on.
fn close_stdout() {
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _it_stays_open = rustix::stdio::dup2_stdout(null);
    }
}

/// The program reads it no more: whoever writes to it is told so, as by the program itself. A terminal stays.
fn close_stdin() {
    if !io::IsTerminal::is_terminal(&io::stdin())
        && let Ok(null) = std::fs::File::open("/dev/null")
    {
        let _it_stays_open = rustix::stdio::dup2_stdin(null);
    }
}

fn is_same_file(one: impl AsFd, other: impl AsFd) -> bool {
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}
