//! What happens to operations, counted for Prometheus while it happens.
//!
//! Only what is taken after the replay counts: a backend that starts would otherwise tell the past as if it were now. Every
//! backend counts all of it, so sum over types and statuses, never over backends.

use ktrdr_http::metrics::{Counters, Histograms, OPERATION_BUCKETS, Page};
use ktrdr_protocol::state::Status;

use super::record::Record;

/// What one message of the stream meant to an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Transition {
    /// It was accepted.
    Created,
    /// An attempt began.
    Started {
        /// Its predecessor's worker was lost.
        takeover: bool,
        /// Seconds since it was created, or was handed back.
        waited: f64,
    },
    /// It was handed back, to be run again.
    Released,
    /// It ended.
    Ended {
        /// Seconds that the last attempt ran; `None` when there was none.
        ran: Option<f64>,
    },
    /// Anything else.
    Other,
}

/// The counts.
#[derive(Debug)]
pub struct OperationCounters {
    created: Counters<1>,
    started: Counters<1>,
    takeovers: Counters<1>,
    released: Counters<1>,
    ended: Counters<2>,
    waited: Histograms<1>,
    ran: Histograms<2>,
}

impl Default for OperationCounters {
    fn default() -> Self {
        Self {
            created: Counters::new(
                "ktrdr_operations_created_total",
                "Operations accepted.",
                ["worker_type"],
            ),
            started: Counters::new(
                "ktrdr_attempts_started_total",
                "Attempts begun.",
                ["worker_type"],
            ),
            takeovers: Counters::new(
                "ktrdr_takeovers_total",
                "Attempts that took over from a worker that was lost.",
                ["worker_type"],
            ),
            released: Counters::new(
                "ktrdr_operations_released_total",
                "Operations handed back, by a worker that stopped or to be retried.",
                ["worker_type"],
            ),
            ended: Counters::new(
                "ktrdr_operations_ended_total",
                "Operations ended, by how.",
                ["worker_type", "status"],
            ),
            waited: Histograms::new(
                "ktrdr_operation_wait_seconds",
                "Time in the queue before an attempt.",
                ["worker_type"],
                OPERATION_BUCKETS,
            ),
            ran: Histograms::new(
                "ktrdr_operation_run_seconds",
                "Time that the last attempt ran, by how it ended.",
                ["worker_type", "status"],
                OPERATION_BUCKETS,
            ),
        }
    }
}

impl Transition {
    /// From an operation after an event, and its status before.
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
                    .unwrap_or(record.created_at);
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

impl OperationCounters {
    /// Begins to count operations of this type at 0: an increase from nothing to 1 is none to Prometheus.
    pub fn add_worker_type(&self, worker_type: &str) {
        for counters in [
            &self.created,
            &self.started,
            &self.takeovers,
            &self.released,
        ] {
            counters.add([worker_type], 0);
        }
        for status in Status::ALL
            .into_iter()
            .filter(|status| status.is_terminal())
        {
            self.ended.add([worker_type, status.as_str()], 0);
        }
    }

    /// Counts a step of an operation of this type that led to `status`.
    pub fn count(&self, worker_type: &str, status: Status, transition: Transition) {
        match transition {
            Transition::Created => self.created.add([worker_type], 1),
            Transition::Started { takeover, waited } => {
                self.started.add([worker_type], 1);
                if takeover {
                    self.takeovers.add([worker_type], 1);
                } else {
                    self.waited.observe([worker_type], waited);
                }
            }
            Transition::Released => self.released.add([worker_type], 1),
            Transition::Ended { ran } => {
                self.ended.add([worker_type, status.as_str()], 1);
                if let Some(ran) = ran {
                    self.ran.observe([worker_type, status.as_str()], ran);
                }
            }
            Transition::Other => {}
        }
    }

    /// Writes all of them.
    pub fn write(&self, page: &mut Page) {
        for counters in [
            &self.created,
            &self.started,
            &self.takeovers,
            &self.released,
        ] {
            counters.write(page);
        }
        self.ended.write(page);
        self.waited.write(page);
        self.ran.write(page);
    }
}
