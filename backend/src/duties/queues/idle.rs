//! Finds queues that nobody has used for a while.
//!
//! The queue `any` of a known worker type stays. Any other queue may go when all its operations
//! have ended, by the log, and its consumer has delivered nothing for the idle time. Start requests
//! of operations that were cancelled before a worker took them do not count: nobody will ever take
//! them.

use std::collections::HashMap;
use std::time::Duration;

use ktrdr_bus::queues::{Listing, QueueConsumer};
use ktrdr_protocol::origin::Origin;
use tokio::time::Instant;

use crate::queues::is_any;
use crate::state::AppState;

/// Most queues that are removed in one round.
const MOST_AT_A_TIME: usize = 50;

/// Since when each queue is idle.
#[derive(Debug, Default)]
pub struct IdleWatch {
    /// By consumer: what it had delivered and had waiting, and since when that is so.
    since: HashMap<String, (u64, u64, Instant)>,
}

impl IdleWatch {
    /// The queues that have been idle for so long.
    pub fn round<'a>(
        &mut self,
        state: &AppState,
        listing: &'a Listing,
        idle: Duration,
    ) -> Vec<&'a QueueConsumer> {
        let can_tell = state.is_loaded() && state.projection.reader.trouble().is_none();
        if !can_tell {
            self.since.clear();
            return Vec::new();
        }

        let mut before = std::mem::take(&mut self.since);
        let now = Instant::now();
        let mut found = Vec::new();
        for queue in listing
            .queues
            .iter()
            .filter(|queue| is_unused(state, queue))
        {
            let info = &queue.info;
            let (delivered, waiting) = (info.delivered.stream_sequence, info.num_pending);
            let since = before
                .remove(&info.name)
                // Fewer may wait than before: the stream has forgotten old ones.
                .filter(|(d, w, _)| *d == delivered && *w >= waiting)
                .map_or(now, |(_, _, since)| since);
            self.since
                .insert(info.name.clone(), (delivered, waiting, since));
            if now.duration_since(since) >= idle && found.len() < MOST_AT_A_TIME {
                found.push(queue);
            }
        }
        found
    }
}

/// Whether nothing needs the queue now.
fn is_unused(state: &AppState, found: &QueueConsumer) -> bool {
    let is_kept = is_any(&found.queue)
        && state
            .catalogue
            .by_type(found.worker_type.as_str())
            .is_some();
    let origin = Origin::Queued(found.queue.clone());
    !is_kept && !found.info.paused && state.projection.open(&found.worker_type, &origin) == 0
}
