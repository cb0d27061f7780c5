//! The events of a run as JSON Lines, in the library's own form: see `docs/schema/notice.json`.

use std::io::Write;

use longshore::{EventKind, Events, Notice};

/// Writes the events to `out`, up to the container's `Released`. The snapshot that a subscription begins with is left out.
///
/// A file that takes no more ends the writing, not the container.
pub(crate) async fn write(mut events: Events, mut out: Box<dyn Write + Send>) {
    while let Some(notice) = events.next().await {
        if matches!(notice, Notice::Snapshot(_)) {
            continue;
        }
        let written = line(&notice).and_then(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
        if written.is_err() || is_last(&notice) {
            return;
        }
    }
}

fn line(notice: &Notice) -> std::io::Result<String> {
    Ok(serde_json::to_string(notice)?)
}

fn is_last(notice: &Notice) -> bool {
    matches!(notice, Notice::Event(event) if matches!(event.kind, EventKind::Released { .. }))
}
