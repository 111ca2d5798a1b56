//! Spans to an OpenTelemetry collector, as OTLP over HTTP and protobuf, where the standard variables name
//! one. The exporter has a thread of its own and drops what it cannot send.
//!
//! Only spans of our own crates leave, with the fields they were given (lease, rank, route) and their
//! times: log lines stay here, since they may name files, and so do places in the source.

use std::sync::OnceLock;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

/// Where a collector is said to be; the exporter reads them itself.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// What the modules of all our crates begin with.
const OURS: &str = "tidegate";

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The layer that sends, if there is somewhere to send to.
pub(super) fn layer<S>() -> Result<Option<impl Layer<S>>, ExporterBuildError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let names_one = |name: &&str| std::env::var_os(name).is_some_and(|url| !url.is_empty());
    if !ENDPOINTS.iter().any(names_one) {
        return Ok(None);
    }
    let exporter =
        SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build()?;
    let provider = PROVIDER.get_or_init(|| {
        SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name("tidegate-gateway").build())
            .with_batch_exporter(exporter)
            .build()
    });
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(OURS))
        .with_location(false)
        .with_threads(false);
    Ok(Some(spans.with_filter(filter_fn(|of| of.is_span() && of.target().starts_with(OURS)))))
}

/// Sends what waits.
pub(super) fn flush() {
    if let Some(Err(error)) = PROVIDER.get().map(SdkTracerProvider::shutdown) {
        tracing::debug!(%error, "spans were not sent");
    }
}
