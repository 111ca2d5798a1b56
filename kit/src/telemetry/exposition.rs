//! The metrics of this process, collected and shown.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::meter::{Kind, Meter};
use super::process;

/// Upper bounds of the buckets of seconds: from a hit on a disk to a link that hangs.
const BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Metrics cannot be collected in this process.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be collected: {0}")]
pub struct MeterError(String);

/// The collected metrics of this process.
#[derive(Clone, Debug)]
pub struct Exposition(PrometheusHandle);

impl Exposition {
    /// Begins to collect; where that has begun, returns the same.
    pub fn begin(meters: &[&[&'static Meter]]) -> Result<Self, MeterError> {
        static BEGUN: OnceLock<Exposition> = OnceLock::new();
        if let Some(begun) = BEGUN.get() {
            return Ok(begun.clone());
        }
        let meters = || meters.iter().copied().chain([process::ALL]).flatten();
        let mut builder = PrometheusBuilder::new();
        for meter in meters().filter(|meter| meter.kind == Kind::Seconds) {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(meter.name.to_owned()), &BUCKETS)
                .map_err(|error| MeterError(error.to_string()))?;
        }
        let handle = builder.install_recorder().map_err(|error| MeterError(error.to_string()))?;
        for meter in meters() {
            match meter.kind {
                Kind::Counter => metrics::describe_counter!(meter.name, meter.help),
                Kind::Gauge => metrics::describe_gauge!(meter.name, meter.help),
                Kind::Seconds => metrics::describe_histogram!(meter.name, meter.help),
            }
            if meter.kind == Kind::Counter && meter.labels.is_empty() {
                // There from the start, so that the first one is seen as an increase.
                meter.add(0);
            }
        }
        Ok(BEGUN.get_or_init(|| Self(handle)).clone())
    }

    /// All of it in Prometheus' text form.
    pub fn render(&self) -> String {
        process::measure();
        self.0.render()
    }

    /// Folds what histograms recorded into their buckets: to be called now and then, so that what
    /// waits stays small when nobody scrapes.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::meter::rows;
    use super::*;

    crate::meters! {
        /// Things.
        counter THINGS = "test_things_total" by ["kind"];
        /// Things that wait.
        gauge WAITING = "test_waiting";
        /// Time of a thing.
        seconds TIME = "test_thing_seconds";
        /// Nothing yet.
        counter NOTHING = "test_nothing_total";
    }

    #[test]
    fn what_is_metered_is_shown_with_its_help() {
        let exposition = Exposition::begin(&[ALL]).unwrap();
        THINGS.add_for(&["odd"], 3);
        WAITING.set(7);
        let more = WAITING.one_more(&[]);
        TIME.record(&[], Instant::now());
        let text = exposition.render();
        for line in [
            "# HELP test_things_total Things.",
            "# TYPE test_things_total counter",
            "test_things_total{kind=\"odd\"} 3",
            "test_waiting 8",
            "# TYPE test_thing_seconds histogram",
            "test_thing_seconds_bucket{le=\"60\"} 1",
            "test_nothing_total 0",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|shown| shown == line), "no {line:?} in:\n{text}");
        }
        drop(more);
        assert!(exposition.render().contains("test_waiting 7"));
        assert!(Exposition::begin(&[]).unwrap().render().contains("test_waiting"));
        assert_eq!(rows(&[&THINGS]), "| `test_things_total` | counter | `kind` | Things. |\n");
    }
}
