//! The user's terminal while the program has one of its own. With `-i` it is raw: every key goes to the program. Without,
//! only its output is raw, because the program's terminal has already put a carriage return before each line feed. It is
//! restored when the command ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use longshore::{ContainerHandle, Input, Output, TerminalSize};
use rustix::process::getpgrp;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::relay::copy::{read, write_all};

/// The user's terminal and its former settings, to be restored.
pub(crate) struct Restore(Option<(OwnedFd, Termios)>);

impl Restore {
    /// Makes the terminal on stdin raw, or only the output of the one on stdout. If there is none, nothing is changed.
    pub(crate) fn make_raw(interactive: bool) -> io::Result<Self> {
        if interactive && isatty(io::stdin()) {
            return Self::change(io::stdin(), Termios::make_raw);
        }
        let stdout = io::stdout();
        // In the background, the kernel would stop us.
        if isatty(&stdout) && tcgetpgrp(&stdout).is_ok_and(|foreground| foreground == getpgrp()) {
            return Self::change(stdout, |settings| settings.output_modes.remove(OutputModes::OPOST));
        }
        Ok(Self(None))
    }

    fn change(terminal: impl AsFd, change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let mut changed = before.clone();
        change(&mut changed);
        tcsetattr(&terminal, OptionalActions::Now, &changed)?;
        Ok(Self(Some((terminal, before))))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some((terminal, before)) = &self.0 {
            // A terminal that was hung up cannot be restored.
            let _hung_up = tcsetattr(terminal, OptionalActions::Now, before);
        }
    }
}

/// The size of the first of the three streams that is a terminal.
pub(crate) fn size() -> TerminalSize {
    let size = |stream: &dyn AsFd| tcgetwinsize(stream.as_fd()).ok().filter(|size| size.ws_row > 0);
    let known = size(&io::stdin()).or_else(|| size(&io::stdout())).or_else(|| size(&io::stderr()));
    known.map_or_else(TerminalSize::default, |size| TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Begins to copy between our streams and the program's. The task ends with the program's output.
pub(crate) fn copy(container: &ContainerHandle) -> io::Result<JoinHandle<()>> {
    if let Some(stdin) = container.io().take_stdin() {
        let runtime = Handle::current();
        // A read of stdin cannot be interrupted. The thread ends with the command.
        thread::Builder::new().name("stdin".into()).spawn(move || copy_in(stdin, &runtime))?;
    }
    let mut changed = signal(SignalKind::window_change())?;
    let resized = container.clone();
    tokio::spawn(async move {
        while changed.recv().await.is_some() {
            let _ended = resized.resize(size()).await;
        }
    });
    let stdout = container.io().take_stdout();
    Ok(tokio::spawn(async move {
        if let Some(stdout) = stdout {
            copy_out(stdout).await;
        }
    }))
}

fn copy_in(mut stdin: Input, runtime: &Handle) {
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = read(&io::stdin(), &mut chunk) {
        if runtime.block_on(stdin.write_all(&chunk[..read])).is_err() {
            return;
        }
    }
}

/// A reader of ours may be slow, and signals are received on this thread: so another one writes.
async fn copy_out(mut stdout: Output) {
    while let Some(chunk) = stdout.next_chunk().await {
        let written = tokio::task::spawn_blocking(move || write_all(&io::stdout(), &chunk)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}
