//! The events of a run as JSON Lines, in the library's own form: see `docs/schema/notice.json`.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

use longshore::{EventKind, Events, Notice};
use tokio::sync::oneshot;

use super::plain::json;

/// Writes the events to `out`, up to the container's `Released`. The snapshot that a subscription begins with is left out.
/// The receiver is answered when all of them are written, or none can be written any more.
///
/// A thread of its own writes, so that a FIFO whose reader is slow delays neither the container nor signals. A file that
/// takes no more ends the writing, not the container.
pub(crate) fn write(
    mut events: Events,
    mut out: Box<dyn Write + Send>,
) -> io::Result<oneshot::Receiver<Infallible>> {
    // The events of one run are few.
    let (sender, lines) = mpsc::channel::<Notice>();
    let (until_written, written) = oneshot::channel();
    thread::Builder::new().name("events".into()).spawn(move || {
        let _dropped_at_the_end = until_written;
        for notice in lines {
            let written = line(&notice).and_then(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
            if written.is_err() || is_last(&notice) {
                return;
            }
        }
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
