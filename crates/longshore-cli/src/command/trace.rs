//! What the command says of itself: lines on stderr as `LONGSHORE_LOG` asks for, and spans to a collector.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::Global;
use super::log::Log;
use super::status::Failure;

/// Writes the remaining lines and sends the remaining spans when it is dropped.
pub(crate) struct Tracing {
    log: Log,
    #[cfg(feature = "otlp")]
    _sender: Option<otlp::Sender>,
}

impl Tracing {
    /// Sets up the log on stderr, and the collector of spans.
    pub(crate) fn begin(global: &Global) -> Result<Self, Failure> {
        let log = Log::default();
        let lines = tracing_subscriber::fmt::layer().with_writer(log.clone());
        let lines = tracing_subscriber::Layer::with_filter(lines, EnvFilter::from_env("LONGSHORE_LOG"));
        let registry = tracing_subscriber::registry().with(lines);
        #[cfg(feature = "otlp")]
        {
            use opentelemetry::trace::TracerProvider;
            let sender = global.otlp.as_deref().map(otlp::Sender::new).transpose()?;
            let spans = sender.as_ref().map(|sender| {
                let tracer = sender.provider.tracer("longshore");
                let layer = tracing_opentelemetry::layer().with_tracer(tracer);
                // Spans of the libraries below are for every poll, and are left out.
                tracing_subscriber::Layer::with_filter(layer, otlp::ours())
            });
            registry.with(spans).init();
            Ok(Self { log, _sender: sender })
        }
        #[cfg(not(feature = "otlp"))]
        {
            let _: &Global = global;
            registry.init();
            Ok(Self { log })
        }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        self.log.flush();
    }
}

/// The current span, as `TRACEPARENT`; `None` if no collector was named.
pub(crate) fn traceparent() -> Option<String> {
    #[cfg(feature = "otlp")]
    return otlp::traceparent();
    #[cfg(not(feature = "otlp"))]
    None
}

#[cfg(feature = "otlp")]
mod otlp {
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use longshore::runtime::check_free_descriptors;
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_subscriber::filter::{LevelFilter, Targets};

    use crate::command::refused::Refused;
    use crate::command::remark::Remark;
    use crate::command::status::Failure;

    /// How many file descriptors the exporter's HTTP client needs.
    const DESCRIPTORS: usize = 8;

    /// Sends spans, and remembers if some could not be: the library's own shutdown does not always say so.
    pub(super) struct Sender {
        pub(super) provider: SdkTracerProvider,
        failed: Arc<OnceLock<String>>,
    }

    #[derive(Debug)]
    struct Watched {
        exporter: SpanExporter,
        failed: Arc<OnceLock<String>>,
    }

    impl opentelemetry_sdk::trace::SpanExporter for Watched {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let sent = self.exporter.export(batch).await;
            if let Err(error) = &sent {
                self.failed.get_or_init(|| error.to_string());
            }
            sent
        }

        fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
            self.exporter.shutdown_with_timeout(timeout)
        }

        fn set_resource(&mut self, resource: &Resource) {
            self.exporter.set_resource(resource);
        }
    }

    impl Sender {
        pub(super) fn new(endpoint: &str) -> Result<Self, Failure> {
            // Without, the client panics, or does not say why it is not built.
            check_free_descriptors(DESCRIPTORS)
                .map_err(|error| Refused::Files { cause: format!("--otlp {endpoint}: {error}") })?;
            // The exporter's HTTP client may be built, for another crate's sake, to want one that the program chooses.
            let _chosen_before = rustls::crypto::ring::default_provider().install_default();
            let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build();
            let exporter = exporter.map_err(|error| Refused::Collector {
                endpoint: endpoint.to_owned(),
                why: error.to_string(),
            })?;
            let failed = Arc::new(OnceLock::new());
            let resource = Resource::builder().with_service_name("longshore").build();
            let watched = Watched { exporter, failed: Arc::clone(&failed) };
            let provider =
                SdkTracerProvider::builder().with_batch_exporter(watched).with_resource(resource).build();
            Ok(Self { provider, failed })
        }
    }

    impl Drop for Sender {
        fn drop(&mut self) {
            let ended = self.provider.shutdown().map_err(|error| error.to_string());
            if let Some(error) = self.failed.get().cloned().or(ended.err()) {
                crate::command::plain::say(Remark::SpansLost { why: error });
            }
        }
    }

    pub(super) fn ours() -> Targets {
        Targets::new().with_targets(
            ["longshore", "executor_core", "runc_driver"].map(|target| (target, LevelFilter::INFO)),
        )
    }

    pub(super) fn traceparent() -> Option<String> {
        let context = tracing::Span::current().context();
        let span = context.span();
        let span = span.span_context();
        let flags = u8::from(span.is_sampled());
        span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
    }
}
