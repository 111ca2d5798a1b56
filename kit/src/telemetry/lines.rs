//! Log lines on stderr, filtered by `TIDEGATE_LOG` (the syntax of `RUST_LOG`).
//!
//! A line that concerns a lease carries its id as `lease`, and the rank where there is one: from the
//! event, from the spans around it, or from the process as a whole ([`of_lease`]). In JSON all of
//! them are keys of one flat object, so that one query finds everything about a lease.

use std::fmt::{self, Display};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Full, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

/// Environment variable that holds the filter.
pub const FILTER_VARIABLE: &str = "TIDEGATE_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl Format {
    /// As `--log-format` takes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Text, Self::Json]
            .into_iter()
            .find(|format| format.word() == text)
            .ok_or_else(|| "text or json".to_owned())
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    #[error("{FILTER_VARIABLE} is not a log filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    #[error("logging was already set up in this process")]
    Twice,
}

/// Sets logging up for the process; `default_filter` (say `"warn"`) holds when the variable is unset.
pub fn init(format: Format, default_filter: &str) -> Result<(), TelemetryError> {
    let lines = filtered(default_filter)?.with(lines(format));
    lines.try_init().map_err(|_| TelemetryError::Twice)
}

/// As [`init`], and sends spans to a collector where the environment names one; starts a thread then.
/// Without the feature `otlp` it is the same as [`init`].
pub fn init_with_traces(format: Format, default_filter: &str) -> Result<(), TelemetryError> {
    let lines = filtered(default_filter)?.with(lines(format));
    #[cfg(feature = "otlp")]
    let (spans, fault) = match super::otlp::layer() {
        Ok(spans) => (spans, None),
        Err(fault) => (None, Some(fault)),
    };
    #[cfg(feature = "otlp")]
    let lines = lines.with(spans);
    lines.try_init().map_err(|_| TelemetryError::Twice)?;
    #[cfg(feature = "otlp")]
    if let Some(fault) = fault {
        tracing::warn!(%fault, "no spans are sent: the collector that the environment names cannot be used");
    }
    Ok(())
}

/// What the filter lets through.
type Filtered = Layered<EnvFilter, Registry>;

fn filtered(default_filter: &str) -> Result<Filtered, TelemetryError> {
    let directives = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| default_filter.to_owned());
    let filter = EnvFilter::try_new(directives).map_err(TelemetryError::Filter)?;
    Ok(tracing_subscriber::registry().with(filter))
}

fn lines(format: Format) -> Box<dyn Layer<Filtered> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Text => lines.event_format(TextLines).boxed(),
        Format::Json => lines.fmt_fields(JsonFields::new()).event_format(JsonLines).boxed(),
    }
}

/// The one lease and rank that a process works for.
static OWN: OnceLock<(String, u16)> = OnceLock::new();

/// From now on every line of this process names this lease. The first call stays.
pub fn of_lease(lease: &impl Display, rank: u16) {
    OWN.get_or_init(|| (lease.to_string(), rank));
}

/// The usual text line, with the process's lease at its end.
struct TextLines;

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let usual: tracing_subscriber::fmt::format::Format<Full> =
            tracing_subscriber::fmt::format().with_ansi(false);
        let Some((lease, rank)) = OWN.get() else {
            return usual.format_event(context, writer, event);
        };
        let mut line = String::new();
        usual.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        if line.contains(lease) {
            writeln!(writer, "{line}")
        } else {
            writeln!(writer, "{line} lease={lease} rank={rank}")
        }
    }
}

/// One flat JSON object a line: what the spans say from the outermost in, then the event.
struct JsonLines;

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        if let Some((lease, rank)) = OWN.get() {
            line.insert("lease".into(), lease.as_str().into());
            line.insert("rank".into(), (*rank).into());
        }
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                line.extend(object(fields));
            }
        }
        let mut own = String::new();
        context.format_fields(Writer::new(&mut own), event)?;
        line.extend(object(&own));
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        line.insert("timestamp".into(), time.into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Formatted fields, which are a JSON object, or nothing.
fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_bad_filter_is_named_and_a_second_setup_refused() {
        assert!(matches!(init(Format::Text, "a=b=c"), Err(TelemetryError::Filter(_))));
        init(Format::Json, "off").unwrap();
        assert!(matches!(init(Format::Text, "off"), Err(TelemetryError::Twice)));
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn spans_and_events_make_one_flat_object() {
        let kept = Kept::default();
        let out = kept.clone();
        let lines = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines)
            .with_writer(move || out.clone())
            .finish();
        tracing::subscriber::with_default(lines, || {
            let outer = tracing::error_span!("attach", lease = tracing::field::Empty, rank = 3);
            outer.in_scope(|| {
                outer.record("lease", "abc");
                tracing::error_span!("inner", block = 1).in_scope(|| {
                    tracing::warn!(block = 2, "a \"message\"\nof two lines");
                });
            });
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["lease"], &line["rank"]), (&"abc".into(), &3.into()));
        assert_eq!(line["block"], 2, "the event has the last word");
        assert_eq!(line["message"], "a \"message\"\nof two lines");
        assert_eq!(line["level"], "WARN");
        assert!(line["timestamp"].is_string() && line["target"].is_string());
    }
}
