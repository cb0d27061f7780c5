//! The events of a run as JSON Lines: `seq`, `container`, `event`, `at` and what belongs to the event.
//!
//! Times are RFC 3339 in UTC, spans are seconds.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use longshore::{Event, EventKind, Events, Notice, Swept, Timestamp};
use serde_json::{Map, Value, json};

/// Writes what `events` tells to `out`, up to the container's `Released`.
///
/// A file that takes no more ends the writing, not the container.
pub(crate) async fn write(mut events: Events, mut out: Box<dyn Write + Send>) {
    while let Some(notice) = events.next().await {
        let (line, last) = match notice {
            Notice::Event(event) => (line(&event), matches!(event.kind, EventKind::Released { .. })),
            Notice::Gap { missed } => (json!({"event": "gap", "missed": missed}), false),
            Notice::Swept(swept) => (self::swept(&swept), false),
            Notice::Snapshot(_) => continue,
        };
        let written = writeln!(out, "{line}").and_then(|()| out.flush());
        if last || written.is_err() {
            return;
        }
    }
}

/// A container of a dead executor: it has no number, for its own story ended with its executor.
fn swept(swept: &Swept) -> Value {
    let Swept { container, killed, left } = swept;
    json!({"event": "swept", "container": container, "killed": killed, "left": left})
}

fn line(event: &Event) -> Value {
    let mut kind = serde_json::to_value(&event.kind).unwrap_or_default();
    readable(&mut kind);
    let mut line = Map::new();
    line.insert("seq".into(), event.seq.into());
    line.insert("container".into(), event.container.as_str().into());
    line.insert("event".into(), kind["event"].take());
    line.insert("at".into(), rfc3339(event.at).into());
    let details = kind.as_object().cloned().unwrap_or_default();
    line.extend(details.into_iter().filter(|(key, _)| key != "event"));
    line.into()
}

/// Replaces times and spans, wherever they are, by what people read.
fn readable(value: &mut Value) {
    for (key, value) in value.as_object_mut().into_iter().flatten() {
        let moment = || serde_json::from_value::<Timestamp>(value.clone()).ok();
        let replaced = match key.as_str() {
            "started_at" | "exited_at" => moment().map(|moment| json!(rfc3339(moment))),
            "cpu" | "cpu_user" | "cpu_system" | "cpu_throttled" | "some" | "full" => {
                moment().map(|span| json!(span.since_epoch().as_secs_f64()))
            }
            _ => None,
        };
        match replaced {
            Some(replaced) => *value = replaced,
            None => readable(value),
        }
    }
}

fn rfc3339(moment: Timestamp) -> String {
    let whole_micros =
        Duration::from_micros(u64::try_from(moment.since_epoch().as_micros()).unwrap_or(u64::MAX));
    humantime::format_rfc3339_micros(UNIX_EPOCH + whole_micros).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore::{ContainerId, Exit, ExitReason, ExitStatus, Pressure, Stall, Usage};

    #[test]
    fn a_line_has_what_was_promised() {
        let at = Timestamp::from_epoch(Duration::from_micros(1_700_000_000_250_000));
        let cpu = Some(Duration::from_millis(1500));
        let pressure = Some(Pressure {
            io: Stall { some: Duration::from_millis(20), ..Stall::default() },
            ..Pressure::default()
        });
        let usage = Some(Box::new(Usage { cpu, memory_peak: Some(7), pressure, ..Usage::default() }));
        let exit = Exit {
            status: ExitStatus::Code(3),
            reason: ExitReason::TimedOut { killed: true },
            success: false,
            started_at: Some(at),
            exited_at: at,
            usage,
        };
        let container = ContainerId::new("c").unwrap();
        let line = line(&Event { seq: 3, container, at, kind: EventKind::Exited { exit } });
        let time = "2023-11-14T22:13:20.250000Z";
        assert_eq!(
            line,
            json!({
                "seq": 3, "container": "c", "event": "exited", "at": time,
                "exit": {
                    "status": {"code": 3}, "reason": {"timed_out": {"killed": true}}, "success": false,
                    "started_at": time, "exited_at": time,
                    "usage": {
                        "cpu": 1.5, "memory_peak": 7, "oom_kills": 0,
                        "pressure": {
                            "cpu": {"some": 0.0, "full": 0.0}, "memory": {"some": 0.0, "full": 0.0},
                            "io": {"some": 0.02, "full": 0.0},
                        },
                    },
                },
            })
        );
    }
}
