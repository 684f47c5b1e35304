//! Prometheus metrics of the workers.

use std::collections::{BTreeMap, BTreeSet};

use ktrdr_http::metrics::{PerValue, register, register_gauges};
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::worker::WorkerStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry as Page;
use tokio::time::Instant;

use super::{Registry, status_label};

/// The label of a farewell in place of a status.
const LEAVING: &str = "LEAVING";

/// Worker types on the page, at most. More means that somebody makes types up.
const MAX_TYPES: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    worker_type: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct TypeLabels {
    worker_type: String,
}

/// Counters of heartbeats, one set for each worker type.
#[derive(Debug)]
pub struct HeartbeatCounters {
    heartbeats: Family<StatusLabels, Counter>,
    fenced: Family<TypeLabels, Counter>,
    types: PerValue<TypeCounters>,
}

#[derive(Debug)]
struct TypeCounters {
    available: Counter,
    busy: Counter,
    draining: Counter,
    unavailable: Counter,
    leaving: Counter,
    fenced: Counter,
}

impl Default for HeartbeatCounters {
    fn default() -> Self {
        let heartbeats = Family::<StatusLabels, Counter>::default();
        let fenced = Family::<TypeLabels, Counter>::default();
        let shared = (heartbeats.clone(), fenced.clone());
        let types = PerValue::new(move |worker_type| {
            let heartbeats = |status| {
                shared.0.get_or_create_owned(&StatusLabels {
                    worker_type: worker_type.to_owned(),
                    status,
                })
            };
            TypeCounters {
                available: heartbeats(status_label(WorkerStatus::Available)),
                busy: heartbeats(status_label(WorkerStatus::Busy)),
                draining: heartbeats(status_label(WorkerStatus::Draining)),
                unavailable: heartbeats(status_label(WorkerStatus::TemporarilyUnavailable)),
                leaving: heartbeats(LEAVING),
                fenced: shared.1.get_or_create_owned(&TypeLabels {
                    worker_type: worker_type.to_owned(),
                }),
            }
        });
        Self {
            heartbeats,
            fenced,
            types,
        }
    }
}

impl HeartbeatCounters {
    /// Counts a heartbeat of a worker of this type; `status` is `None` for a farewell.
    pub fn count(&self, worker_type: &str, status: Option<WorkerStatus>) {
        self.types.with(worker_type, |counters| {
            let counter = match status {
                Some(WorkerStatus::Available) => &counters.available,
                Some(WorkerStatus::Busy) => &counters.busy,
                Some(WorkerStatus::Draining) => &counters.draining,
                Some(WorkerStatus::TemporarilyUnavailable) => &counters.unavailable,
                None => &counters.leaving,
            };
            counter.inc();
        });
    }

    /// Counts ends that a worker of this type discarded.
    pub fn count_fenced(&self, worker_type: &str, ends: u64) {
        self.types.with(worker_type, |counters| {
            counters.fenced.inc_by(ends);
        });
    }
}

/// The worker types that are counted, each with 0.
fn types_of(counts: &BTreeMap<(WorkerType, WorkerStatus), u64>) -> BTreeMap<WorkerType, u64> {
    counts.keys().map(|(name, _)| (name.clone(), 0)).collect()
}

impl Registry {
    /// Adds all metrics of the workers to the page.
    pub fn register_metrics(&self, page: &mut Page, now: Instant) {
        let statuses = [
            WorkerStatus::Available,
            WorkerStatus::Busy,
            WorkerStatus::Draining,
            WorkerStatus::TemporarilyUnavailable,
        ];
        let counts = self.counts(None, now);
        let types: BTreeSet<&WorkerType> = counts
            .keys()
            .map(|(name, _)| name)
            .take(MAX_TYPES)
            .collect();
        let series = types.into_iter().flat_map(|worker_type| {
            statuses.map(|status| {
                let count = counts.get(&(worker_type.clone(), status));
                let labels = StatusLabels {
                    worker_type: worker_type.to_string(),
                    status: status_label(status),
                };
                (labels, count.copied().unwrap_or_default() as f64)
            })
        });
        let series: Vec<_> = series.collect();
        register_gauges(page, "ktrdr_workers", "Workers listed, by status.", series);
        let mut not_pulling: BTreeMap<WorkerType, u64> = types_of(&counts);
        for (_, worker_type) in self.not_pulling(now) {
            *not_pulling.entry(worker_type).or_default() += 1;
        }
        let not_pulling = not_pulling.into_iter().take(MAX_TYPES);
        register_gauges(
            page,
            "ktrdr_workers_not_pulling",
            "Free workers that send heartbeats and have not asked for work for 90 seconds.",
            not_pulling.map(|(worker_type, workers)| {
                let labels = TypeLabels {
                    worker_type: worker_type.to_string(),
                };
                (labels, workers as f64)
            }),
        );
        let lost_slots = self.lost_slots().into_iter().take(MAX_TYPES);
        register_gauges(
            page,
            "ktrdr_workers_slots_lost",
            "Slots of listed workers whose engine does not return although its attempt is over.",
            lost_slots.map(|(worker_type, slots)| {
                let labels = TypeLabels {
                    worker_type: worker_type.to_string(),
                };
                (labels, slots as f64)
            }),
        );
        register(
            page,
            "ktrdr_heartbeats_total",
            "Heartbeats received, by the status they reported.",
            self.counters.heartbeats.clone(),
        );
        register(
            page,
            "ktrdr_fenced_finishes_total",
            "Ends that workers discarded because the operation had gone on without them.",
            self.counters.fenced.clone(),
        );
    }
}
