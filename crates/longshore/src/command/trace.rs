//! What the command says of itself: lines on stderr as `LONGSHORE_LOG` asks for, and spans to a collector.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::Global;
use super::status::Failure;

/// Sends what is not yet sent when it is dropped.
pub(crate) struct Tracing {
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Tracing {
    /// Begins to listen to what the libraries tell.
    pub(crate) fn begin(global: &Global) -> Result<Self, Failure> {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = tracing_subscriber::Layer::with_filter(lines, EnvFilter::from_env("LONGSHORE_LOG"));
        let registry = tracing_subscriber::registry().with(lines);
        #[cfg(feature = "otlp")]
        {
            use opentelemetry::trace::TracerProvider;
            let provider = global.otlp.as_deref().map(otlp::provider).transpose()?;
            let spans = provider.as_ref().map(|provider| {
                let tracer = provider.tracer("longshore");
                let layer = tracing_opentelemetry::layer().with_tracer(tracer);
                // Of the libraries below, nobody wants every poll.
                tracing_subscriber::Layer::with_filter(layer, otlp::ours())
            });
            registry.with(spans).init();
            Ok(Self { provider })
        }
        #[cfg(not(feature = "otlp"))]
        {
            let _: &Global = global;
            registry.init();
            Ok(Self {})
        }
    }
}

#[cfg(feature = "otlp")]
impl Drop for Tracing {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown()
        {
            eprintln!(
                "longshore: not all spans could be sent: {error}; check the collector that --otlp names"
            );
        }
    }
}

/// The current span, as `TRACEPARENT`; none where nobody collects spans.
pub(crate) fn traceparent() -> Option<String> {
    #[cfg(feature = "otlp")]
    return otlp::traceparent();
    #[cfg(not(feature = "otlp"))]
    None
}

#[cfg(feature = "otlp")]
mod otlp {
    use opentelemetry::trace::TraceContextExt;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_subscriber::filter::{LevelFilter, Targets};

    use crate::command::status::Failure;

    pub(super) fn provider(endpoint: &str) -> Result<SdkTracerProvider, Failure> {
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| {
            Failure::new(
                format!("--otlp {endpoint}: {error}"),
                "name one such as http://localhost:4318/v1/traces",
            )
        })?;
        let resource = Resource::builder().with_service_name("longshore").build();
        Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
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
