//! Spans: what a subscriber of the embedder's sees of a run and of an exec, and what the command sends to a collector.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use longshore::ExecSpec;
use longshore_tests::{on_bare_stage, on_stage, sleeper};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// What was seen of a span: its parent, its fields, its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    name: String,
    parent: Option<String>,
    fields: BTreeMap<String, String>,
    events: Vec<String>,
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<BTreeMap<u64, Seen>>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let parent = span.parent().map(|parent| parent.name().to_owned());
        let mut seen = Seen { name: span.name().to_owned(), parent, ..Seen::default() };
        attributes.record(&mut Fields(&mut seen.fields));
        self.0.lock().unwrap().insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        values.record(&mut Fields(&mut self.0.lock().unwrap().get_mut(&id.into_u64()).unwrap().fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event) else { return };
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let mut all = self.0.lock().unwrap();
        let message = fields.remove("message").unwrap_or_default();
        all.get_mut(&span.id().into_u64()).unwrap().events.push(message);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

#[test]
fn a_run_and_an_exec_have_spans() {
    let recorder = Recorder::default();
    let filter = tracing_subscriber::filter::LevelFilter::INFO;
    let layer = recorder.clone().with_filter(filter);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    on_stage(async |stage| {
        let executor = stage.executor();
        let id = "traced".parse().unwrap();
        let build = tracing::info_span!("build");
        let container = tracing::Instrument::instrument(executor.run(sleeper().id(id)), build).await.unwrap();
        let exec = container.exec(ExecSpec::new(["sh", "-c", "exit 4"])).await.unwrap();
        exec.wait().await;
        container.cancel(longshore::Cancel::now()).await;
        container.released().await.unwrap();
        stage.finish(executor).await;
        let seen = recorder.0.lock().unwrap().clone();
        let named = |name: &str| {
            let traced = |seen: &&Seen| {
                seen.name == name && seen.fields.get("container").is_some_and(|id| id == "traced")
            };
            seen.values().find(traced).cloned().unwrap()
        };
        let (run, exec) = (named("run"), named("exec"));
        assert_eq!(run.parent.as_deref(), Some("build"));
        assert_eq!(run.events, ["Container created", "started", "exited"]);
        assert_eq!(run.fields.get("exit.code"), None, "a signal ended it");
        assert_eq!(exec.events, ["started", "exited"]);
        assert_eq!(exec.fields.get("exit.code").map(String::as_str), Some("4"));
    });
}

/// A collector for one request: answers with what it was sent.
fn collector() -> (String, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let collected = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8_lossy(&all).to_lowercase();
            let whole = text.find("\r\n\r\n").is_some_and(|end| {
                let length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                // Bytes, not characters: what is no text is counted as it is.
                let head = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(end) + 4;
                length.is_some_and(|length| all.len() >= head + length)
            });
            if whole {
                break;
            }
            match stream.read(&mut chunk).unwrap() {
                0 => break,
                read => all.extend_from_slice(&chunk[..read]),
            }
        }
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
            )
            .unwrap();
        all
    });
    (endpoint, collected)
}

#[test]
fn the_command_sends_its_spans() {
    on_bare_stage(|stage| {
        let (endpoint, collected) = collector();
        let outcome = longshore_tests::command::call(
            &stage.root(),
            &["--otlp", &endpoint, "run", "--", "sh", "-c", "echo $TRACEPARENT; exit 3"],
        );
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(3), ""));
        let sent = collected.join().unwrap();
        let has = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
        assert!(
            has(b"POST /v1/traces ")
                && has(b"longshore run")
                && has(b"Container created")
                && has(b"exit.code")
        );
        // The program's parent is a span of the trace that was sent.
        let fields: Vec<_> = outcome.stdout.trim().split('-').collect();
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        assert!(fields.len() == 4 && has(&bytes(fields[1])) && has(&bytes(fields[2])), "{}", outcome.stdout);

        let nowhere = longshore_tests::command::call(
            &stage.root(),
            &["--otlp", "http://127.0.0.1:9/x", "run", "--", "true"],
        );
        assert_eq!(nowhere.code, Some(0), "{nowhere:?}");
        assert!(nowhere.stderr.contains("not all spans could be sent"), "{nowhere:?}");
        stage.check();
    });
}
