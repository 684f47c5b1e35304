//! Keeps the streams as long as operations need them, and removes what is over.
//!
//! The problem and the rule are in [`ktrdr_bus::keeping`]. All backends do this at the same time,
//! without a leader: they compute the same age limit from the same stream, and one that finds an
//! operation removed leaves the rest to the backend that did it. They begin at different places, so
//! they seldom meet.

use std::time::Duration;

use ktrdr_bus::keeping::wanted_age;
use ktrdr_bus::oplog::OpLog;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_bus::topology::{self, TopologyError};
use ktrdr_protocol::time::Timestamp;

use crate::state::AppState;

/// Pause between two rounds; shorter for a short retention.
const MOST_BETWEEN_ROUNDS: Duration = Duration::from_secs(5);
const LEAST_BETWEEN_ROUNDS: Duration = Duration::from_millis(100);

/// Operations that one round removes, at most.
const MAX_REMOVED: usize = 2_000;

/// Lines about what did not work.
static FAILED: Repeated = Repeated::new();

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let log = OpLog::new(state.connection.jetstream.clone(), state.names.clone());
    loop {
        tokio::time::sleep(pause(state.settings.get().retention)).await;
        if !state.connection.is_up() || !state.projection.is_caught_up() {
            continue;
        }

        if let Err(error) = stretch(state).await {
            note_failure(&error);
        }
        remove_over(state, &log).await;
    }
}

fn pause(retention: Duration) -> Duration {
    (retention / 64).clamp(LEAST_BETWEEN_ROUNDS, MOST_BETWEEN_ROUNDS)
}

/// Raises or lowers the age limit of the streams.
async fn stretch(state: &AppState) -> Result<(), TopologyError> {
    let Some(oldest) = state.projection.oldest_age() else {
        return Ok(());
    };
    let (jetstream, names) = (&state.connection.jetstream, &state.names);
    let Some((info, settings)) = topology::in_force(jetstream, names).await? else {
        // The projection makes a stream again that has vanished.
        return Ok(());
    };
    let Some(wanted) = wanted_age(settings.retention, oldest, info.config.max_age) else {
        return Ok(());
    };

    tracing::info!(
        from = ?info.config.max_age, to = ?wanted, ?oldest,
        "changing how long the streams keep messages, for the oldest operation that is needed"
    );
    topology::set_age(jetstream, names, wanted).await
}

/// Removes operations that are over and that the stream would keep for much longer.
async fn remove_over(state: &AppState, log: &OpLog) {
    let mut over = state.projection.over.take(MAX_REMOVED);
    // Backends look at different moments, so each begins elsewhere.
    let begin = Timestamp::now().as_millis().unsigned_abs() as usize;
    let place = begin.checked_rem(over.len()).unwrap_or_default();
    over.rotate_left(place);
    let mut removed = 0;
    while let Some(operation) = over.pop() {
        let worker_type = &operation.queue.worker_type;
        match log
            .remove(worker_type, &operation.id, &operation.starts)
            .await
        {
            Ok(was_there) => removed += usize::from(was_there),
            Err(error) => {
                note_failure(&error);
                over.push(operation);
                break;
            }
        }
    }

    for operation in over {
        state.projection.over.put_back(operation);
    }
    if removed > 0 {
        tracing::debug!(removed, "removed operations that are over from the stream");
    }
}

fn note_failure(error: &(dyn std::error::Error + 'static)) {
    if let Some(count) = FAILED.note() {
        tracing::warn!(
            error = chain(error),
            count,
            "the streams could not be kept in line with the retention; trying again"
        );
    }
}
