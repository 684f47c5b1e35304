//! Transitions of operations, counted for Prometheus as they happen.
//!
//! Only messages after the replay count, otherwise a backend that starts would report the past as
//! if it happened now. Every backend counts all of them, so take the maximum over backends,
//! never the sum.

use ktrdr_http::metrics::{PerValue, operation_histogram, register};
use ktrdr_protocol::state::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::record::Record;

/// The effect of one message of the stream on an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Transition {
    /// It was accepted.
    Created,
    /// An attempt began.
    Started {
        /// Whether the worker of the attempt before was lost.
        takeover: bool,
        /// Seconds since it was created, due or released.
        waited: f64,
    },
    /// It was released, to be run again.
    Released,
    /// It ended.
    Ended {
        /// Seconds that the last attempt ran; `None` when there was none.
        ran: Option<f64>,
    },
    /// Anything else.
    Other,
}

impl Transition {
    /// The transition of `record`, which had the status `before` and was then given an event.
    pub fn of(before: Status, record: &Record) -> Self {
        let attempts = record.attempts.as_slice();
        match (before, record.state.status) {
            (_, Status::Running) => {
                let Some((now, earlier)) = attempts.split_last() else {
                    return Self::Other;
                };
                let since = earlier
                    .last()
                    .and_then(|attempt| attempt.ended_at)
                    .unwrap_or_else(|| record.waits_since());
                Self::Started {
                    takeover: before == Status::Running,
                    waited: now.started_at.seconds_since(since),
                }
            }
            (Status::Running, Status::Pending) => Self::Released,
            (_, Status::Completed | Status::Failed | Status::Cancelled) => {
                let last = attempts.last().filter(|_| before == Status::Running);
                let ran = last
                    .and_then(|attempt| Some(attempt.ended_at?.seconds_since(attempt.started_at)));
                Self::Ended { ran }
            }
            (_, Status::Pending) => Self::Other,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    worker_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    worker_type: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExpiredLabels {
    status: &'static str,
}

/// All metrics of transitions, each with one series per worker type.
#[derive(Debug, Clone)]
struct Families {
    created: Family<TypeLabels, Counter>,
    started: Family<TypeLabels, Counter>,
    takeovers: Family<TypeLabels, Counter>,
    released: Family<TypeLabels, Counter>,
    ended: Family<EndLabels, Counter>,
    expired: Family<ExpiredLabels, Counter>,
    waited: Family<TypeLabels, Histogram>,
    ran: Family<EndLabels, Histogram>,
}

/// The metrics of one worker type.
#[derive(Debug)]
struct TypeMetrics {
    created: Counter,
    started: Counter,
    takeovers: Counter,
    released: Counter,
    waited: Histogram,
    completed: EndMetrics,
    failed: EndMetrics,
    cancelled: EndMetrics,
}

/// The metrics of one way to end.
#[derive(Debug)]
struct EndMetrics {
    ended: Counter,
    ran: Histogram,
}

/// The counters of all worker types.
#[derive(Debug)]
pub struct OperationCounters {
    families: Families,
    types: PerValue<TypeMetrics>,
}

impl Default for OperationCounters {
    fn default() -> Self {
        let families = Families {
            created: Family::default(),
            started: Family::default(),
            takeovers: Family::default(),
            released: Family::default(),
            ended: Family::default(),
            expired: Family::default(),
            waited: Family::new_with_constructor(operation_histogram),
            ran: Family::new_with_constructor(operation_histogram),
        };
        // Prometheus sees no increase in a counter that appears as 1.
        for status in Status::ALL {
            families.expired.get_or_create_owned(&ExpiredLabels {
                status: status.as_str(),
            });
        }
        let shared = families.clone();
        Self {
            families,
            types: PerValue::new(move |worker_type| shared.of_type(worker_type)),
        }
    }
}

impl Families {
    fn of_type(&self, worker_type: &str) -> TypeMetrics {
        let labels = TypeLabels {
            worker_type: worker_type.to_owned(),
        };
        let end = |status: Status| {
            let labels = EndLabels {
                worker_type: worker_type.to_owned(),
                status: status.as_str(),
            };
            EndMetrics {
                ended: self.ended.get_or_create_owned(&labels),
                ran: self.ran.get_or_create_owned(&labels),
            }
        };

        TypeMetrics {
            created: self.created.get_or_create_owned(&labels),
            started: self.started.get_or_create_owned(&labels),
            takeovers: self.takeovers.get_or_create_owned(&labels),
            released: self.released.get_or_create_owned(&labels),
            waited: self.waited.get_or_create_owned(&labels),
            completed: end(Status::Completed),
            failed: end(Status::Failed),
            cancelled: end(Status::Cancelled),
        }
    }
}

impl TypeMetrics {
    fn count(&self, status: Status, transition: Transition) {
        match transition {
            Transition::Created => {
                self.created.inc();
            }
            Transition::Started { takeover, waited } => {
                self.started.inc();
                if takeover {
                    self.takeovers.inc();
                } else {
                    self.waited.observe(waited);
                }
            }
            Transition::Released => {
                self.released.inc();
            }
            Transition::Ended { ran } => {
                let end = match status {
                    Status::Completed => &self.completed,
                    Status::Failed => &self.failed,
                    Status::Cancelled => &self.cancelled,
                    Status::Pending | Status::Running => return,
                };
                end.ended.inc();
                if let Some(ran) = ran {
                    end.ran.observe(ran);
                }
            }
            Transition::Other => {}
        }
    }
}

impl OperationCounters {
    /// Begins to count operations of this type at 0: Prometheus sees no increase in a counter that
    /// appears as 1.
    pub fn add_worker_type(&self, worker_type: &str) {
        self.types.with(worker_type, |_| {});
    }

    /// Counts a transition of an operation of this type that led to `status`.
    pub fn count(&self, worker_type: &str, status: Status, transition: Transition) {
        self.types
            .with(worker_type, |metrics| metrics.count(status, transition));
    }

    /// Counts an operation that left the stream although it was still needed.
    pub fn count_expired(&self, status: Status) {
        let labels = ExpiredLabels {
            status: status.as_str(),
        };
        self.families.expired.get_or_create_owned(&labels).inc();
    }

    /// Adds all metrics to the page.
    pub fn register(&self, registry: &mut Registry) {
        let families = self.families.clone();
        register(
            registry,
            "ktrdr_operations_created_total",
            "Operations accepted.",
            families.created,
        );
        register(
            registry,
            "ktrdr_attempts_started_total",
            "Attempts begun.",
            families.started,
        );
        register(
            registry,
            "ktrdr_takeovers_total",
            "Attempts that took over from a worker that was lost.",
            families.takeovers,
        );
        register(
            registry,
            "ktrdr_operations_released_total",
            "Operations released, by a worker that stopped or to be retried.",
            families.released,
        );
        register(
            registry,
            "ktrdr_operations_ended_total",
            "Operations ended, by status.",
            families.ended,
        );
        register(
            registry,
            "ktrdr_operations_expired_total",
            "Operations that left the stream before their retention was over, by the status they had.",
            families.expired,
        );
        register(
            registry,
            "ktrdr_operation_wait_seconds",
            "Time in the queue before an attempt.",
            families.waited,
        );
        register(
            registry,
            "ktrdr_operation_run_seconds",
            "Time that the last attempt ran, by the status it led to.",
            families.ran,
        );
    }
}
