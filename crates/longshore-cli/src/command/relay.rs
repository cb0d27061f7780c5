//! The program's stderr on its way to ours, without what the runtime may write there before.
//!
//! A runtime shares its stderr with the program, and complains there when it cannot start it; we say
//! that in a sentence of our own. So unless stderr is a terminal, it goes through a pipe that is read
//! from the moment the program runs, and never if it does not. When stdout leads to the same place it
//! goes through the same pipe, so that the order of the two is kept. A terminal is handed on as it
//! is: what runs there wants to know that it is one.

use std::io::{self, IsTerminal, PipeReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use longshore::{Stdio, StdioSpec};

/// How long the pipe is read on after the program's end when someone else holds it open.
const DRAIN: Duration = Duration::from_secs(1);

/// What comes through the pipe, not yet read.
#[derive(Default)]
pub(crate) struct Relay {
    reader: Option<PipeReader>,
    running: Option<mpsc::Receiver<()>>,
}

impl Relay {
    /// The program's stdout and stderr, and the relay behind them.
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

    /// The program runs: what comes now is its own.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(());
        };
        let (done, running) = mpsc::channel();
        thread::Builder::new().name("stderr".into()).spawn(move || {
            // When nobody reads our stderr any more, the program finds its own closed.
            let _closed = io::copy(&mut reader, &mut io::stderr()).and_then(|_| io::stderr().flush());
            drop(done);
        })?;
        self.running = Some(running);
        Ok(())
    }

    /// Waits until all is through.
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
