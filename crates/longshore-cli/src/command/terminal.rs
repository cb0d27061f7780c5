//! The user's terminal while the program has one of its own. It is raw: every key goes to the program. It is restored
//! when the command ends.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::thread;

use longshore::{ContainerHandle, Input, Output, TerminalSize};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// The former settings of the user's terminal, to be restored.
pub(crate) struct Restore(Option<Termios>);

impl Restore {
    /// Makes the terminal on stdin raw. If stdin is not a terminal, nothing is changed.
    pub(crate) fn make_raw() -> io::Result<Self> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that was hung up cannot be restored.
            let _hung_up = tcsetattr(io::stdin(), OptionalActions::Now, before);
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
    while let Ok(read @ 1..) = io::stdin().lock().read(&mut chunk) {
        if runtime.block_on(stdin.write_all(&chunk[..read])).is_err() {
            return;
        }
    }
}

async fn copy_out(mut stdout: Output) {
    while let Some(chunk) = stdout.next_chunk().await {
        let mut out = io::stdout().lock();
        if out.write_all(&chunk).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
