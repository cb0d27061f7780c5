//! The log on stderr, which `LONGSHORE_LOG` asks for. A thread of its own writes it: the thread that logs also receives
//! signals, and would not see them while it waits for a reader of stderr.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use tracing_subscriber::fmt::MakeWriter;

use super::plain::say;
use super::relay::copy::write_all;
use super::remark::Remark;

/// How many lines wait for a slow reader. What is logged beyond is lost.
const LINES: usize = 4096;

/// Where lines are written to. Its clones share one thread, which the first line starts.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// `None` in it if there can be no thread.
    sender: OnceLock<Option<SyncSender<Entry>>>,
    lost: AtomicUsize,
}

enum Entry {
    Line(Vec<u8>),
    /// Everything before it is written when the receiver is dropped.
    Flush(SyncSender<()>),
}

impl Log {
    /// Waits until everything is written, and says how much could not be.
    pub(crate) fn flush(&self) {
        let Some(Some(sender)) = self.0.sender.get() else { return };
        let (done, written) = sync_channel(1);
        if sender.send(Entry::Flush(done)).is_ok() {
            let _ended = written.recv();
        }
        match self.0.lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => say(Remark::LogLost { lines }),
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { log: Arc::clone(&self.0) }
    }
}

/// Writes a line, in one call.
pub(crate) struct Line {
    log: Arc<Shared>,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.log.sender.get_or_init(start) {
            None => write_all(&io::stderr(), line)?,
            Some(sender) => match sender.try_send(Entry::Line(line.to_owned())) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(_)) => {
                    self.log.lost.fetch_add(1, Ordering::Relaxed);
                }
            },
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start() -> Option<SyncSender<Entry>> {
    let (sender, entries) = sync_channel(LINES);
    let thread = thread::Builder::new().name("log".into()).spawn(move || write(&entries));
    thread.ok().map(|_runs| sender)
}

fn write(entries: &Receiver<Entry>) {
    for entry in entries {
        match entry {
            // If stderr is closed or full, the log is what can be spared.
            Entry::Line(line) => drop(write_all(&io::stderr(), &line)),
            Entry::Flush(done) => drop(done),
        }
    }
}
