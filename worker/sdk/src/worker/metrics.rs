//! Counters and histograms of a worker for Prometheus. `http/prometheus.rs` serves them.

use std::time::Duration;

use ktrdr_http::metrics::operation_histogram;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Counts since the worker started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) finished: Counter,
    pub(crate) fenced: Counter,
    pub(crate) malformed: Counter,
    pub(crate) refused_cancels: Counter,
    pub(crate) refused_starts: Counter,
    pub(crate) started: Counter,
    pub(crate) permit_waits: Counter,
    pub(crate) pulls: Counter,
    pub(crate) extensions: Counter,
    pub(crate) failed_extensions: Counter,
}

/// How long attempts took, by how they ended: `completed`, `failed`, `retried`, `cancelled`,
/// `released`, `fenced`. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AttemptDurations(pub(crate) Family<AttemptLabels, Histogram>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AttemptLabels {
    worker_type: String,
    outcome: &'static str,
}

impl Default for AttemptDurations {
    fn default() -> Self {
        Self(Family::new_with_constructor(operation_histogram))
    }
}

impl AttemptDurations {
    /// Counts an attempt that ended.
    pub(crate) fn observe(&self, worker_type: &str, outcome: &'static str, took: Duration) {
        let labels = AttemptLabels {
            worker_type: worker_type.to_owned(),
            outcome,
        };
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
