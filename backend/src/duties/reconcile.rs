//! Background duties towards operations that cannot help themselves: cancels that are not confirmed, and direct operations
//! whose worker is gone.
//!
//! Woken by a timer and by cancels; takes no input, reads the projection and the registry anew each time, and does only what
//! can be done twice. Several backends do it at the same time: the expected sequence decides who was first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::oplog::AppendError;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::state::Status;
use tokio::time::Instant;

use crate::projection::record::Record;
use crate::registry::Presence;
use crate::state::AppState;

/// Bounds of the pause between two rounds.
const ROUNDS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Heartbeat intervals that must have been listened to before a worker is called gone.
const HEARD_INTERVALS: u32 = 3;

#[derive(Default)]
struct Book {
    cancels: HashMap<OperationId, CancelWatch>,
    /// Direct operations that look abandoned, and since when.
    suspects: HashMap<OperationId, Suspicion>,
}

struct CancelWatch {
    attempt: u32,
    since: Instant,
    sent: Instant,
}

struct Suspicion {
    attempt: u32,
    since: Instant,
}

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let config = &state.config;
    let shortest = config
        .protocol
        .heartbeat_interval
        .min(config.cancel_grace / 4)
        .min(config.protocol.lease / 4);
    // Twice as often as the shortest thing that is timed here.
    let pause = (shortest / 2).clamp(ROUNDS.0, ROUNDS.1);
    let mut book = Book::default();
    loop {
        // Both arms are cancel safe: a wake-up that was not received stays noted.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = state.projection.cancel_requested.notified() => {}
        }
        // Old state leads to publishes that are refused; without a connection there is not even that.
        if state.connection.is_up() && state.projection.is_caught_up() {
            follow_cancels(state, &mut book.cancels).await;
            close_abandoned(state, &mut book.suspects).await;
        }
    }
}

/// Sends cancels again for as long as they are not confirmed, and closes the operation when the grace is over.
async fn follow_cancels(state: &AppState, watches: &mut HashMap<OperationId, CancelWatch>) {
    let open = state.projection.cancelling();
    let now = Instant::now();
    watches.retain(|id, _| open.iter().any(|record| record.id == *id));
    for record in open {
        let attempt = record.state.attempt;
        let fresh = || CancelWatch {
            attempt,
            since: now,
            sent: now,
        };
        let watch = watches.entry(record.id.clone()).or_insert_with(fresh);
        let took_over = watch.attempt != attempt;
        watch.attempt = attempt;
        if record.state.status == Status::Pending
            || now.duration_since(watch.since) >= state.config.cancel_grace
        {
            // Handed back by its worker while the cancel was on its way: nobody needs to confirm anything.
            let closed = state.dispatch.force_cancel(&record).await;
            report(
                &record,
                "cancelled without the worker's confirmation",
                closed,
            );
        } else if took_over
            || now.duration_since(watch.sent) >= state.config.protocol.heartbeat_interval
        {
            watch.sent = now;
            if let Err(error) = state
                .dispatch
                .intend_cancel(&record.queue.worker_type, &record.id, None)
                .await
            {
                tracing::warn!(operation_id = %record.id, ?error, "a cancel could not be sent again");
            }
        }
    }
}

/// Closes direct operations whose worker is gone: no queue will ever hand them to another one.
async fn close_abandoned(state: &AppState, suspects: &mut HashMap<OperationId, Suspicion>) {
    let open = state.projection.open_direct();
    let now = Instant::now();
    let protocol = &state.config.protocol;
    // A backend that has only just begun to listen would take everybody for gone.
    let hears = state.registry.listening_for(now) > protocol.heartbeat_interval * HEARD_INTERVALS;
    suspects.retain(|id, _| hears && open.iter().any(|record| record.id == *id));
    if !hears {
        return;
    }
    for record in open {
        let Some((why, patience)) = abandoned(state, &record, now) else {
            suspects.remove(&record.id);
            continue;
        };
        let attempt = record.state.attempt;
        let suspicion = suspects.entry(record.id.clone()).or_insert(Suspicion {
            attempt,
            since: now,
        });
        if suspicion.attempt != attempt {
            *suspicion = Suspicion {
                attempt,
                since: now,
            };
        }
        // One look is not enough: a worker publishes `started` just before it says so in a heartbeat, and its last event
        // may be waiting for the broker.
        if now.duration_since(suspicion.since) >= patience {
            let message = format!(
                "worker lost: {why}, and an operation started directly on a worker is run by nobody else"
            );
            report(
                &record,
                "closed as lost",
                state.dispatch.fail_lost(&record, message).await,
            );
        }
    }
}

/// Why an open direct operation looks abandoned, and for how long that must last.
fn abandoned(state: &AppState, record: &Record, now: Instant) -> Option<(String, Duration)> {
    let lease = state.config.protocol.lease;
    let Some(worker) = record.worker_id() else {
        return Some((
            "nobody claimed it".to_owned(),
            lease + state.config.worker_remove_after,
        ));
    };
    match state
        .registry
        .presence(worker, &record.id, record.state.attempt, now)
    {
        Presence::Gone => Some((
            format!("worker {worker} has left"),
            state.config.protocol.heartbeat_interval,
        )),
        Presence::Silent => Some((format!("worker {worker} stopped answering"), lease)),
        Presence::Alive { runs_it: false } => {
            Some((format!("worker {worker} no longer runs it"), lease))
        }
        Presence::Alive { runs_it: true } => None,
    }
}

fn report(record: &Arc<Record>, done: &str, outcome: Result<u64, AppendError>) {
    let operation_id = &record.id;
    match outcome {
        Ok(_) => tracing::info!(%operation_id, "{done}"),
        // The worker or another backend was faster; the next round sees what they wrote.
        Err(AppendError::Conflict(_)) => tracing::debug!(%operation_id, "another event came first"),
        Err(error) => tracing::warn!(%operation_id, %error, "could not be {done}; trying again"),
    }
}
