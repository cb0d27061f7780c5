//! The user's terminal while the program has one of its own. With `-i` it is raw: every key goes to the program. Without,
//! only its output is raw, because the program's terminal has already put a carriage return before each line feed. It is
//! restored when the command ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use longshore::{ContainerHandle, Input, Output, TerminalSize};
use rustix::io::Errno;
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::background::{PERIOD, is_background};
use super::relay::copy::{read_input, write_all};
use super::relay::{InputError, NotRead};

/// The user's terminal and its former settings, to be restored.
pub(crate) struct Restore {
    changed: Arc<Mutex<Changed>>,
    interactive: bool,
    /// Its terminal follows the size of ours.
    container: ContainerHandle,
}

#[derive(Default)]
enum Changed {
    /// It is not in our hands yet: this job is in the background.
    #[default]
    NotYet,
    /// It had these settings.
    From(OwnedFd, Box<Termios>),
    /// There is nothing to change, or it is restored.
    Done,
}

impl Restore {
    /// Makes the terminal on stdin raw, or only the output of the one on stdout. If there is none, nothing is changed. In the
    /// background it waits for the foreground.
    pub(crate) fn make_raw(interactive: bool, container: &ContainerHandle) -> io::Result<Self> {
        let changed = Arc::new(Mutex::new(Changed::Done));
        let restore = Self { changed, interactive, container: container.clone() };
        restore.take()?;
        Ok(restore)
    }

    /// Restores it, because this job is about to stop.
    pub(crate) fn give_back(&self) {
        restore(std::mem::replace(&mut *lock(&self.changed), Changed::Done));
    }

    /// Takes it again, because this job was stopped and goes on. A shell may have set it in between, also if nothing was
    /// restored before.
    pub(crate) fn take_again(&self) {
        self.give_back();
        // A terminal that was hung up cannot be changed.
        let _hung_up = self.take();
        resize(&self.container);
    }

    fn take(&self) -> io::Result<()> {
        let changed = change(self.interactive)?;
        let waits = matches!(changed, Changed::NotYet);
        *lock(&self.changed) = changed;
        if waits {
            tokio::spawn(change_later(self.interactive, Arc::clone(&self.changed), self.container.clone()));
        }
        Ok(())
    }
}

fn change(interactive: bool) -> io::Result<Changed> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let (terminal, make): (BorrowedFd<'_>, fn(&mut Termios)) = match interactive && isatty(&stdin) {
        true => (stdin.as_fd(), Termios::make_raw),
        false => (stdout.as_fd(), make_output_raw),
    };
    if !isatty(terminal) {
        return Ok(Changed::Done);
    }
    if is_background(terminal) {
        return Ok(Changed::NotYet);
    }
    let terminal = terminal.try_clone_to_owned()?;
    let before = tcgetattr(&terminal)?;
    let mut raw = before.clone();
    make(&mut raw);
    tcsetattr(&terminal, OptionalActions::Now, &raw)?;
    Ok(Changed::From(terminal, Box::new(before)))
}

/// The program's terminal has ended its lines already. What is typed is for whoever reads it next, who shows it then: shown
/// now, it would be amid the output, and each line begin where the last one ends.
fn make_output_raw(settings: &mut Termios) {
    settings.output_modes.remove(OutputModes::OPOST);
    settings.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
}

async fn change_later(interactive: bool, changed: Arc<Mutex<Changed>>, container: ContainerHandle) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let mut changed = lock(&changed);
        if !matches!(*changed, Changed::NotYet) {
            return;
        }
        // A terminal that was hung up cannot be changed.
        *changed = change(interactive).unwrap_or(Changed::Done);
        if !matches!(*changed, Changed::NotYet) {
            // Only the job in the foreground was sent SIGWINCH.
            resize(&container);
        }
    }
}

fn resize(container: &ContainerHandle) {
    let container = container.clone();
    tokio::spawn(async move {
        let _ended = container.resize(size()).await;
    });
}

fn lock(changed: &Mutex<Changed>) -> MutexGuard<'_, Changed> {
    changed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn restore(changed: Changed) {
    if let Changed::From(terminal, before) = changed
        && !is_background(&terminal)
    {
        // A terminal that was hung up cannot be restored.
        let _hung_up = tcsetattr(terminal, OptionalActions::Now, &before);
    }
}

/// The size of the first of the three streams that is a terminal.
pub(crate) fn size() -> TerminalSize {
    let size = |stream: &dyn AsFd| tcgetwinsize(stream.as_fd()).ok().filter(|size| size.ws_row > 0);
    let known = size(&io::stdin()).or_else(|| size(&io::stdout())).or_else(|| size(&io::stderr()));
    known.map_or_else(TerminalSize::default, |size| TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// The copying of the program's output.
pub(crate) struct Copying {
    task: JoinHandle<io::Result<()>>,
    /// Whether it has something to write.
    owes: Arc<AtomicBool>,
}

impl Copying {
    /// Waits until everything is copied, or until `hurried`. An error if output was lost, other than by a terminal that was
    /// hung up, or a reader that has closed its end.
    pub(crate) async fn finish(self, hurried: impl Future<Output = ()>) -> io::Result<()> {
        tokio::select! {
            biased;
            // A task that has panicked has said so.
            copied = self.task => match copied.unwrap_or(Ok(())) {
                Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PIPE | Errno::IO)) => Ok(()),
                copied => copied,
            },
            () = hurried => if self.owes.load(Ordering::Relaxed) { Err(NotRead.into()) } else { Ok(()) },
        }
    }
}

/// Begins to copy between our streams and the program's. The copying ends with the program's output.
pub(crate) fn copy(container: &ContainerHandle, error: InputError) -> io::Result<Copying> {
    if let Some(stdin) = container.io().take_stdin() {
        let runtime = Handle::current();
        // A read of stdin cannot be interrupted. The thread ends with the command.
        thread::Builder::new().name("stdin".into()).spawn(move || copy_in(stdin, &runtime, &error))?;
    }
    let mut changed = signal(SignalKind::window_change())?;
    let resized = container.clone();
    tokio::spawn(async move {
        while changed.recv().await.is_some() {
            let _ended = resized.resize(size()).await;
        }
    });
    let stdout = container.io().take_stdout();
    let owes = Arc::new(AtomicBool::default());
    let owed = Arc::clone(&owes);
    let task = tokio::spawn(async move {
        match stdout {
            Some(stdout) => copy_out(stdout, &owed).await,
            None => Ok(()),
        }
    });
    Ok(Copying { task, owes })
}

fn copy_in(mut stdin: Input, runtime: &Handle, error: &InputError) {
    let mut chunk = [0; 4096];
    loop {
        match read_input(&io::stdin(), &mut chunk) {
            Ok(read @ 1..) if runtime.block_on(stdin.write_all(&chunk[..read])).is_ok() => {}
            Ok(_) => return,
            Err(cause) => return error.set(&cause),
        }
    }
}

/// A reader of ours may be slow, and signals are received on this thread: so another one writes.
async fn copy_out(mut stdout: Output, owes: &AtomicBool) -> io::Result<()> {
    while let Some(chunk) = stdout.next_chunk().await {
        owes.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || write_all(&io::stdout(), &chunk)).await??;
        owes.store(false, Ordering::Relaxed);
    }
    Ok(())
}
