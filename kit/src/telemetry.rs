//! Log lines on stderr, filtered by `TIDEGATE_LOG` (the syntax of `RUST_LOG`).

use tracing_subscriber::EnvFilter;

/// Environment variable that holds the filter.
pub const FILTER_VARIABLE: &str = "TIDEGATE_LOG";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
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
    let directives = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| default_filter.to_owned());
    let filter = EnvFilter::try_new(directives).map_err(TelemetryError::Filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        Format::Text => lines.with_ansi(false).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| TelemetryError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_and_a_second_setup_refused() {
        assert!(matches!(init(Format::Text, "a=b=c"), Err(TelemetryError::Filter(_))));
        init(Format::Json, "off").unwrap();
        assert!(matches!(init(Format::Text, "off"), Err(TelemetryError::Twice)));
    }
}
