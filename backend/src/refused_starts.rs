//! Start requests that workers refused because of their signature, as heartbeats name them.
//! `duties::reconcile` acts on them.

use std::collections::HashMap;

use ktrdr_bus::telemetry::beginning;
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::worker::{MAX_REFUSED_STARTS, RefusedStart};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Refusals that are kept until they are taken, at most. Heartbeats repeat them.
const MOST: usize = 1_024;

/// Longest reason that is shown, in characters.
const LONGEST_REASON: usize = 400;

/// The refusals that were heard and not taken yet.
#[derive(Debug, Default)]
pub struct RefusedStarts {
    heard: Mutex<HashMap<OperationId, Refused>>,
    /// Notified when some were heard.
    pub arrived: Notify,
}

/// What one worker refused.
#[derive(Debug)]
pub struct Refused {
    /// The start request.
    pub start: RefusedStart,
    /// The type of the worker.
    pub worker_type: WorkerType,
    /// The worker.
    pub worker_id: WorkerId,
}

impl RefusedStarts {
    /// Takes what a heartbeat names.
    pub fn hear(&self, worker_type: &WorkerType, worker_id: &WorkerId, starts: Vec<RefusedStart>) {
        if starts.is_empty() {
            return;
        }

        let mut heard = self.heard.lock();
        for mut start in starts.into_iter().take(MAX_REFUSED_STARTS) {
            if heard.len() >= MOST {
                break;
            }
            start.why = beginning(start.why, LONGEST_REASON);
            let refused = Refused {
                worker_type: worker_type.clone(),
                worker_id: worker_id.clone(),
                start,
            };
            heard.insert(refused.start.operation_id.clone(), refused);
        }
        drop(heard);
        self.arrived.notify_one();
    }

    /// What was heard since the last time.
    pub fn take(&self) -> Vec<Refused> {
        let heard = std::mem::take(&mut *self.heard.lock());
        heard.into_values().collect()
    }
}
