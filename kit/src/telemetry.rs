//! What a daemon says of itself: log lines, metrics, and a small listener for operators.

mod chain;
pub mod exposition;
mod lines;
pub mod meter;
pub mod ops;
#[cfg(feature = "otlp")]
mod otlp;
pub mod process;

pub use chain::chain;
pub use lines::{FILTER_VARIABLE, Format, TelemetryError, init, init_with_traces, of_lease};

/// Sends what waits to be sent to a collector. To be called at the end of a program.
pub fn flush() {
    #[cfg(feature = "otlp")]
    otlp::flush();
}
