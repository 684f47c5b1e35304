//! Decides when the worker of a direct operation is lost, and then ends the operation as failed. No
//! queue will ever give it to another worker.
//!
//! Queued operations are not looked at here: when a worker is lost, its lease expires and the queue
//! delivers the start request to another worker.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use ktrdr_protocol::id::OperationId;
use tokio::time::Instant;

use super::{SIDE_BY_SIDE, log_outcome};
use crate::projection::record::Record;
use crate::registry::Presence;
use crate::state::AppState;

/// Heartbeat intervals that this backend must have listened for before it calls a worker gone.
const LISTENED_INTERVALS: u32 = 3;

/// The direct operations that look abandoned.
#[derive(Default)]
pub struct AbandonedWatch(HashMap<OperationId, Suspicion>);

struct Suspicion {
    attempt: u32,
    since: Instant,
}

impl AbandonedWatch {
    /// Looks at every direct operation that has not ended.
    pub async fn round(&mut self, state: &AppState) {
        let now = Instant::now();
        // A backend that has only just begun to listen would take every worker for gone.
        let needed = state.config.protocol.heartbeat_interval * LISTENED_INTERVALS;
        if state.registry.listening_for(now) <= needed {
            self.0.clear();
            return;
        }

        let open = state.projection.open_direct();
        let ids: HashSet<&OperationId> = open.iter().map(|record| &record.id).collect();
        self.0.retain(|id, _| ids.contains(id));
        let mut lost = Vec::new();
        for record in &open {
            let Some((why, patience)) = why_abandoned(state, record, now) else {
                self.0.remove(&record.id);
                continue;
            };
            // One look is not enough: a worker publishes `started` just before its heartbeat says
            // so, and its last event may still wait for the broker.
            if now.duration_since(self.suspected_since(record, now)) >= patience {
                let message = format!(
                    "worker lost: {why}, and an operation started directly on a worker is run by nobody else"
                );
                lost.push((record, message));
            }
        }
        futures::stream::iter(lost)
            .for_each_concurrent(SIDE_BY_SIDE, async |(record, message)| {
                let outcome = state.dispatch.fail_lost(record, message).await;
                log_outcome(record, "closed as lost", outcome);
            })
            .await;
    }

    /// Since when this attempt looks abandoned.
    fn suspected_since(&mut self, record: &Record, now: Instant) -> Instant {
        let attempt = record.state.attempt;
        match self.0.get(&record.id) {
            Some(suspicion) if suspicion.attempt == attempt => suspicion.since,
            _ => {
                let suspicion = Suspicion {
                    attempt,
                    since: now,
                };
                self.0.insert(record.id.clone(), suspicion);
                now
            }
        }
    }
}

/// Why an open direct operation looks abandoned, and how long that must last before it is closed.
fn why_abandoned(state: &AppState, record: &Record, now: Instant) -> Option<(String, Duration)> {
    let lease = state.settings.get().lease;
    let Some(worker) = record.worker_id() else {
        let patience = lease + state.config.worker_remove_after;
        return Some(("nobody claimed it".to_owned(), patience));
    };

    let (worker_type, attempt) = (&record.queue.worker_type, record.state.attempt);
    let presence = state
        .registry
        .presence(worker_type, worker, &record.id, attempt, now);
    match presence {
        Presence::Gone => Some((
            format!("worker {worker} has left"),
            state.config.protocol.heartbeat_interval,
        )),
        Presence::Silent => Some((format!("worker {worker} stopped answering"), lease)),
        Presence::Alive { runs_it: false } => {
            Some((format!("worker {worker} no longer runs it"), lease))
        }
        Presence::Alive { runs_it: true } | Presence::Unknown => None,
    }
}
