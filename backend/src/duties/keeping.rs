//! Keeps the streams as long as operations need them, and removes what is over. An operation that is
//! over leaves the entries of its keys first: a holder without a log looks like one that has not started.
//!
//! The problem and the rule are in [`ktrdr_bus::keeping`]. All backends do this at the same time,
//! without a leader: they compute the same age limit from the same stream, and one that finds an
//! operation removed leaves the rest to the backend that did it. They begin at different places, so
//! they seldom meet.

use std::time::Duration;

use ktrdr_bus::keeping::wanted_age;
use ktrdr_bus::oplog::{Ends, OpLog};
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_bus::topology::{self, TopologyError};
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use crate::projection::over::{OverOperation, keys_of};
use crate::state::AppState;
use crate::stream_position::last_sequence;

/// Pause between two rounds; shorter for a short retention.
const MOST_BETWEEN_ROUNDS: Duration = Duration::from_secs(5);
const LEAST_BETWEEN_ROUNDS: Duration = Duration::from_millis(100);

/// Operations that one round removes, at most.
const MAX_REMOVED: usize = 2_000;

/// How long a round waits for this backend to read what the stream holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A round in which something fails ends after this time: NATS may be silent.
const LONGEST_IN_VAIN: Duration = Duration::from_secs(30);

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
        let (jetstream, names) = (&state.connection.jetstream, &state.names);
        let removed = state
            .catalogue
            .remove_old_versions(jetstream.clone(), names);
        if let Err(error) = removed.await {
            note_failure(&error);
        }
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
    topology::set_age(jetstream, names, &settings, wanted).await
}

/// Removes operations that are over and that the stream would keep for much longer.
async fn remove_over(state: &AppState, log: &OpLog) {
    let mut over = state.projection.over.take(MAX_REMOVED);
    if over.is_empty() {
        return;
    }
    let batches = batch_ends(state).await;
    // Backends look at different moments, so each begins elsewhere.
    let begin = Timestamp::now().as_millis().unsigned_abs() as usize;
    let place = begin.checked_rem(over.len()).unwrap_or_default();
    over.rotate_left(place);
    let began = Instant::now();
    let mut removed = 0;
    while let Some(operation) = over.pop() {
        match remove_one(state, log, &operation, &batches).await {
            Ok(was_there) => removed += usize::from(was_there),
            Err(error) => {
                note_failure(&*error);
                // It must not keep the others waiting: they may make the room that it needs.
                state.projection.over.postpone(operation);
                if !state.connection.is_up() || began.elapsed() > LONGEST_IN_VAIN {
                    break;
                }
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

/// Removes an operation that is over, unless the stream soon drops it by its age. Whether it was there.
async fn remove_one(
    state: &AppState,
    log: &OpLog,
    operation: &OverOperation,
    batches: &BatchEnds,
) -> Result<bool, async_nats::Error> {
    leave_keys(state, log, operation).await?;
    if !operation.is_stretched {
        return Ok(false);
    }

    // Of an id that was used again, points and lines are not told apart.
    let is_used_again = state.projection.get(operation.id.as_str()).is_some();
    let ends = Ends {
        operations: operation.end,
        metrics: batches.metrics.filter(|_| !is_used_again),
        logs: batches.logs.filter(|_| !is_used_again),
    };
    let worker_type = &operation.queue.worker_type;
    let removed = log.remove(worker_type, &operation.id, &operation.starts, ends);
    Ok(removed.await?)
}

/// Takes an operation that is over out of the entries of its keys.
async fn leave_keys(
    state: &AppState,
    log: &OpLog,
    operation: &OverOperation,
) -> Result<(), async_nats::Error> {
    let worker_type = &operation.queue.worker_type;
    for (kind, key) in &operation.keys {
        // An operation with the same id may hold the key now, and entries do not tell the two apart.
        let again = state.projection.get(operation.id.as_str());
        let is_used_again = again.is_some_and(|view| {
            let mut keys = keys_of(&view.record).into_iter();
            view.record.queue.worker_type == *worker_type
                && keys.any(|(its_kind, its_key)| its_kind == *kind && its_key == *key)
        });
        if !is_used_again {
            let (id, end) = (&operation.id, operation.end);
            log.leave_key(worker_type, (*kind, key), id, end, PATIENCE)
                .await?;
        }
    }
    Ok(())
}

/// Sequences in the streams of batches: what belongs to a start request that this backend does not know
/// when this returns is behind them. `None` when that cannot be said now.
#[derive(Default)]
struct BatchEnds {
    metrics: Option<u64>,
    logs: Option<u64>,
}

async fn batch_ends(state: &AppState) -> BatchEnds {
    let metrics = last_sequence(&state.connection, state.names.metrics_stream()).await;
    let logs = last_sequence(&state.connection, state.names.logs_stream()).await;
    // Whoever sent batches before has started before.
    let started = last_sequence(&state.connection, state.names.stream()).await;
    let is_known = match started {
        Some(started) => state.projection.reached(started, PATIENCE).await,
        None => false,
    };
    match is_known {
        true => BatchEnds { metrics, logs },
        false => BatchEnds::default(),
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
