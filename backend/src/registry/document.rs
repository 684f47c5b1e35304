//! One worker as the REST interface shows it.

use std::time::Duration;

use ktrdr_protocol::rest::worker::{CurrentOperation, WorkerDocument};
use ktrdr_protocol::worker::RunningOperation;

use super::Worker;

fn current(running: &RunningOperation) -> CurrentOperation {
    CurrentOperation {
        operation_id: running.operation_id.clone(),
        attempt: running.attempt,
        progress: running.progress.clone(),
    }
}

impl Worker {
    /// The worker after nothing was heard of it for `silence`.
    pub(super) fn document(&self, silence: Duration) -> WorkerDocument {
        let beat = &self.heartbeat;
        let first = beat.running.first();
        WorkerDocument {
            worker_id: beat.worker_id.clone(),
            worker_type: beat.worker_type.clone(),
            endpoint_url: beat.endpoint_url.clone(),
            status: self.status_after(silence),
            capabilities: beat.capabilities.clone(),
            last_health_check: self.heard_at,
            health_check_failures: self.missed_after(silence),
            current_operation_id: first.map(|running| running.operation_id.clone()),
            registered_at: self.by_our_clock(beat.registered_at),
            version: beat.version.clone(),
            instance: beat.instance.clone(),
            heartbeat_interval_seconds: beat.interval_seconds,
            slots: beat.slots,
            lost_slots: beat.lost_slots,
            current_operations: beat.running.iter().map(current).collect(),
            last_pull_at: beat.last_pull_at.map(|at| self.by_our_clock(at)),
            finished: beat.finished,
            fenced: beat.fenced,
        }
    }
}
