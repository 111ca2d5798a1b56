//! Metrics: each a value with a name that stays, its labels and what it means.
//!
//! A daemon's [`meters!`](crate::meters) are all there is to count with, so the table in the docs is made from
//! them. Labels have few values, known in advance: never an id, a path or a name of somebody.

use std::time::{Duration, Instant};

use metrics::Label;

/// One family of metrics.
#[derive(Debug)]
pub struct Meter {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// What a meter shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    Gauge,
    /// A histogram of seconds.
    Seconds,
}

impl Meter {
    /// Counts.
    pub fn add(&self, n: u64) {
        metrics::counter!(self.name).increment(n);
    }

    /// Counts under labels, in the order of [`Self::labels`].
    pub fn add_for(&self, values: &[&str], n: u64) {
        metrics::counter!(self.name, self.labelled(values)).increment(n);
    }

    /// Shows a count that is kept elsewhere.
    pub fn total(&self, n: u64) {
        metrics::counter!(self.name).absolute(n);
    }

    /// Sets a gauge.
    #[allow(clippy::cast_precision_loss, reason = "a gauge of more than 2^53 is no worse for it")]
    pub fn set(&self, value: u64) {
        metrics::gauge!(self.name).set(value as f64);
    }

    /// Sets a gauge under labels.
    #[allow(clippy::cast_precision_loss, reason = "a gauge of more than 2^53 is no worse for it")]
    pub fn set_for(&self, values: &[&str], value: u64) {
        metrics::gauge!(self.name, self.labelled(values)).set(value as f64);
    }

    /// Sets a gauge of time.
    pub fn set_seconds(&self, time: Duration) {
        metrics::gauge!(self.name).set(time.as_secs_f64());
    }

    /// One more, until the guard is dropped.
    #[must_use]
    pub fn one_more(&self, values: &[&str]) -> More {
        let gauge = metrics::gauge!(self.name, self.labelled(values));
        gauge.increment(1.0);
        More(gauge)
    }

    /// Records the time since `started`.
    pub fn record(&self, values: &[&str], started: Instant) {
        metrics::histogram!(self.name, self.labelled(values)).record(started.elapsed());
    }

    fn labelled(&self, values: &[&str]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let pairs = self.labels.iter().zip(values);
        pairs.map(|(label, value)| Label::new(*label, (*value).to_owned())).collect()
    }
}

/// Holds a gauge one higher.
pub struct More(metrics::Gauge);

impl Drop for More {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl std::fmt::Debug for More {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("More")
    }
}

/// Defines meters, and `ALL` of them. The doc comment, of one line, is the help text.
///
/// ```
/// tidegate_kit::meters! {
///     /// Callers turned away.
///     counter TURNED_AWAY = "example_turned_away_total" by ["reason"];
///     /// Time that a block took.
///     seconds BLOCK = "example_block_seconds";
/// }
/// TURNED_AWAY.add_for(&["late"], 1);
/// assert_eq!(ALL.len(), 2);
/// ```
#[macro_export]
macro_rules! meters {
    ($(#[doc = $help:literal] $kind:ident $id:ident = $name:literal $(by [$($label:literal),+])?;)+) => {
        $(#[doc = $help]
        #[allow(unreachable_pub, reason = "who sees it is the caller's business")]
        pub static $id: $crate::telemetry::meter::Meter = $crate::telemetry::meter::Meter {
            name: $name,
            kind: $crate::meters!(@ $kind),
            labels: &[$($($label),+)?],
            help: $help.trim_ascii(),
        };)+
        /// All of them, in order.
        #[allow(unreachable_pub, reason = "who sees it is the caller's business")]
        pub static ALL: &[&$crate::telemetry::meter::Meter] = &[$(&$id),+];
    };
    (@ counter) => { $crate::telemetry::meter::Kind::Counter };
    (@ gauge) => { $crate::telemetry::meter::Kind::Gauge };
    (@ seconds) => { $crate::telemetry::meter::Kind::Seconds };
}

/// One gauge in Prometheus' text form, for a process that collects nothing itself.
pub fn line(meter: &Meter, value: u64) -> String {
    let Meter { name, help, .. } = meter;
    format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n")
}

/// The rows of a Markdown table.
pub fn rows(meters: &[&Meter]) -> String {
    let row = |meter: &&Meter| {
        let kind = match meter.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Seconds => "histogram",
        };
        let labels: Vec<_> = meter.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {kind} | {} | {} |\n", meter.name, labels.join(", "), meter.help)
    };
    meters.iter().map(row).collect()
}
