//! Workers that are not listed because a worker of another type has their id. Nothing else says that
//! they live, and what runs on them must not end as lost: anybody could make up a worker with the id.

use std::collections::BTreeMap;

use ktrdr_protocol::id::{WorkerId, WorkerType};
use ktrdr_protocol::worker::Heartbeat;
use tokio::time::Instant;

use super::bounds::MAX_WORKERS;
use super::{MISSED_HEARTBEATS, interval};

/// Until when each of them counts as living.
#[derive(Debug, Default)]
pub(super) struct Contested(BTreeMap<(WorkerId, WorkerType), Instant>);

impl Contested {
    /// Notes a heartbeat or farewell that was refused because of its id.
    pub(super) fn note(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let key = (heartbeat.worker_id.clone(), heartbeat.worker_type.clone());
        if heartbeat.leaving {
            self.0.remove(&key);
            return;
        }

        if self.0.len() >= MAX_WORKERS {
            self.0.retain(|_, until| *until > now);
        }
        if self.0.len() < MAX_WORKERS {
            self.0
                .insert(key, now + interval(heartbeat) * MISSED_HEARTBEATS);
        }
    }

    /// Whether the worker of this type was heard lately.
    pub(super) fn lives(&self, worker_type: &WorkerType, id: &WorkerId, now: Instant) -> bool {
        // Cloned because it is rare: nearly always there are none.
        let key = || (id.clone(), worker_type.clone());
        !self.0.is_empty() && self.0.get(&key()).is_some_and(|until| *until > now)
    }
}
