//! Copies the program's stderr to ours, without what the runtime may write there before.
//!
//! A runtime shares its stderr with the program, and writes its own message there if it cannot start it; we print a
//! sentence of our own. So unless stderr is a terminal, it goes through a pipe that is read from the moment the
//! program runs, and never if it does not. If stdout is the same file, it goes through the same pipe, so that their
//! order is kept. A terminal is passed on as it is, because the program may ask whether it has one.

use std::io::{self, IsTerminal, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use longshore::{Stdio, StdioSpec};

/// How long the pipe is read after the end of the program, if another process holds it open.
const DRAIN: Duration = Duration::from_secs(1);

/// The pipe, until it is read.
#[derive(Default)]
pub(crate) struct Relay {
    reader: Option<PipeReader>,
    running: Option<mpsc::Receiver<()>>,
}

impl Relay {
    /// Makes the program's streams, and the relay behind them.
    pub(crate) fn new(stdin: Stdio) -> io::Result<(StdioSpec, Self)> {
        let straight = || Stdio::Inherit;
        if io::stderr().is_terminal() {
            return Ok((StdioSpec { stdin, stdout: straight(), stderr: straight() }, Self::default()));
        }
        let (reader, writer) = io::pipe()?;
        let writer = OwnedFd::from(writer);
        let stdout = match same_file(io::stdout(), io::stderr()) {
            true => Stdio::from(writer.try_clone()?),
            false => straight(),
        };
        Ok((StdioSpec { stdin, stdout, stderr: writer.into() }, Self { reader: Some(reader), running: None }))
    }

    /// Starts to copy, because the program runs.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(());
        };
        let (done, running) = mpsc::channel();
        thread::Builder::new().name("stderr".into()).spawn(move || {
            // If our stderr is closed, the program finds its own closed.
            let _closed = io::copy(&mut reader, &mut io::stderr()).and_then(|_| io::stderr().flush());
            drop(done);
        })?;
        self.running = Some(running);
        Ok(())
    }

    /// Waits until everything is copied.
    pub(crate) fn finish(self) {
        if let Some(running) = self.running {
            let _ended_or_held_open = running.recv_timeout(DRAIN);
        }
    }
}

fn same_file(one: impl AsFd, other: impl AsFd) -> bool {
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}
