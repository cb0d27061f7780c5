//! The events of a run as JSON Lines, in the library's own form: see `docs/schema/notice.json`.

use std::io::{self, ErrorKind, Write};
use std::sync::mpsc;
use std::thread;

use longshore::{EventKind, Events, Notice};
use tokio::sync::oneshot;

use super::plain::json;

/// Writes the events to `out`, up to the container's `Released`. The snapshot that a subscription begins with is left out.
/// The receiver is answered when all of them are written, or one could not be; a reader that has gone is no error.
///
/// A thread of its own writes, so that a FIFO whose reader is slow delays neither the container nor signals. A file that
/// takes no more ends the writing, not the container.
pub(crate) fn write(
    mut events: Events,
    mut out: Box<dyn Write + Send>,
) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    // The events of one run are few.
    let (sender, lines) = mpsc::channel::<Notice>();
    let (finished, written) = oneshot::channel();
    thread::Builder::new().name("events".into()).spawn(move || {
        let mut result = Ok(());
        for notice in lines {
            result = line(&notice).and_then(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
            if result.is_err() || is_last(&notice) {
                break;
            }
        }
        let reader_gone = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        let _nobody_waits = finished.send(if reader_gone { Ok(()) } else { result });
    })?;
    tokio::spawn(async move {
        while let Some(notice) = events.next().await {
            let is_ours = !matches!(notice, Notice::Snapshot(_));
            if is_ours && sender.send(notice).is_err() {
                return;
            }
        }
    });
    Ok(written)
}

fn line(notice: &Notice) -> io::Result<String> {
    Ok(json(&serde_json::to_string(notice)?))
}

fn is_last(notice: &Notice) -> bool {
    matches!(notice, Notice::Event(event) if matches!(event.kind, EventKind::Released { .. }))
}
