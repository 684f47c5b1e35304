//! Helpers with which both programs serve Prometheus metrics ([`prometheus_client`]).
//!
//! A page is a registry that is filled when Prometheus asks: metrics that count are shared handles,
//! and values that are known elsewhere are read at that moment. Names are written as they appear on
//! the page.
//!
//! Label values are few: worker types, statuses, matched routes; never ids. Where others choose the
//! values, [`PerValue`] bounds their number.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bounds for HTTP requests, in seconds: from a read of memory to a long `wait`.
const REQUEST_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Bounds for operations, in seconds: from one that does nothing to a day of training.
const OPERATION_BUCKETS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0,
];

/// At most this many values of one label. More means that a client invents names.
const MAX_VALUES: usize = 1000;

/// The label value that all values above [`MAX_VALUES`] share.
const OTHER: &str = "other";

/// A histogram of HTTP requests, in seconds.
pub fn request_histogram() -> Histogram {
    Histogram::new(REQUEST_BUCKETS)
}

/// A histogram of operations or attempts, in seconds.
pub fn operation_histogram() -> Histogram {
    Histogram::new(OPERATION_BUCKETS)
}

/// Adds a metric to the page, under `name` as it appears there. Unlike [`Registry::register`] it
/// announces a family that has no series yet, so that dashboards and alerts find every name from
/// the beginning.
pub fn register(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    metric: impl EncodeMetric + Debug + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Announced { name, help, metric }));
}

/// Adds one value that goes up and down.
pub fn register_gauge(registry: &mut Registry, name: &'static str, help: &'static str, value: f64) {
    register(registry, name, help, ConstGauge::new(value));
}

/// Adds a count that is kept elsewhere. `name` ends in `_total`.
pub fn register_counter(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    value: u64,
) {
    register(registry, name, help, ConstCounter::new(value));
}

/// Adds values that go up and down, one for each set of labels.
pub fn register_gauges<L>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    series: impl IntoIterator<Item = (L, f64)>,
) where
    L: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static,
{
    let family = Family::<L, Gauge<f64, AtomicU64>>::default();
    for (labels, value) in series {
        family.get_or_create(&labels).set(value);
    }
    register(registry, name, help, family);
}

/// All metrics in Prometheus' text format.
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String never fails.
    let _ = prometheus_text::encode(&mut text, registry);
    text
}

/// A metric that is announced even while it has no series.
#[derive(Debug)]
struct Announced<M> {
    name: &'static str,
    help: &'static str,
    metric: M,
}

impl<M: EncodeMetric + Debug + Send + Sync + 'static> Collector for Announced<M> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let kind = self.metric.metric_type();
        let name = match kind {
            // The encoder adds it again.
            MetricType::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        };
        let encoder = encoder.encode_descriptor(name, self.help, None, kind)?;
        self.metric.encode(encoder)
    }
}

/// The metrics of each value of a label that others choose, for example of each worker type. A
/// value above the bound shares the metrics of `other`, so that made-up values cannot fill the
/// memory.
///
/// A known value is found without building a label set, because events look it up all the time.
pub struct PerValue<T> {
    known: RwLock<HashMap<String, T>>,
    create: Box<dyn Fn(&str) -> T + Send + Sync>,
}

impl<T> PerValue<T> {
    /// Knows no value yet; `create` makes the metrics of one.
    pub fn new(create: impl Fn(&str) -> T + Send + Sync + 'static) -> Self {
        Self {
            known: RwLock::default(),
            create: Box::new(create),
        }
    }

    /// Gives `update` the metrics of `value`.
    pub fn with(&self, value: &str, update: impl FnOnce(&T)) {
        if let Some(metrics) = self.known.read().get(value) {
            return update(metrics);
        }

        let mut known = self.known.write();
        let is_full = known.len() >= MAX_VALUES && !known.contains_key(value);
        let value = if is_full { OTHER } else { value };
        let metrics = known
            .entry(value.to_owned())
            .or_insert_with(|| (self.create)(value));
        update(metrics);
    }
}

impl<T> Debug for PerValue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PerValue")
            .field("known", &self.known.read().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    type Labels = Vec<(&'static str, String)>;

    #[test]
    fn counters_and_histograms_are_written_as_prometheus_reads_them() {
        let mut registry = Registry::default();
        let starts = Family::<Labels, Counter>::default();
        let labels = vec![("type", "a\"\\\n".to_owned()), ("status", "x".to_owned())];
        starts.get_or_create(&labels).inc_by(3);
        let times = Histogram::new([0.5, 1.0]);
        for value in [0.5, 0.7, 9.0] {
            times.observe(value);
        }

        register(&mut registry, "starts_total", "Starts.", starts);
        register(&mut registry, "time_seconds", "Time.", times);
        register_gauge(&mut registry, "up", "Up.", 1.0);
        register_counter(&mut registry, "seen_total", "Seen.", 7);

        let expected = "# HELP starts_total Starts.\n# TYPE starts_total counter\n\
            starts_total{type=\"a\\\"\\\\\\n\",status=\"x\"} 3\n\
            # HELP time_seconds Time.\n# TYPE time_seconds histogram\n\
            time_seconds_bucket{le=\"0.5\"} 1\ntime_seconds_bucket{le=\"1\"} 2\n\
            time_seconds_bucket{le=\"+Inf\"} 3\ntime_seconds_sum 10.2\ntime_seconds_count 3\n\
            # HELP up Up.\n# TYPE up gauge\nup 1.0\n\
            # HELP seen_total Seen.\n# TYPE seen_total counter\nseen_total 7\n";
        assert_eq!(text(&registry), expected);
    }

    #[test]
    fn a_family_without_series_is_announced() {
        let mut registry = Registry::default();
        let empty = Family::<Labels, Histogram>::new_with_constructor(request_histogram);

        register(&mut registry, "time_seconds", "Time.", empty);

        let expected = "# HELP time_seconds Time.\n# TYPE time_seconds histogram\n";
        assert_eq!(text(&registry), expected);
    }

    #[test]
    fn made_up_names_do_not_grow_forever() {
        let family = Family::<Labels, Counter>::default();
        let shared = family.clone();
        let counters =
            PerValue::new(move |name| shared.get_or_create_owned(&vec![("name", name.to_owned())]));

        for number in 0..(MAX_VALUES + 500) {
            counters.with(&number.to_string(), |counter| {
                counter.inc();
            });
        }

        assert_eq!(counters.known.read().len(), MAX_VALUES + 1);
        let other = vec![("name", OTHER.to_owned())];
        assert_eq!(family.get_or_create(&other).get(), 500);
    }
}
