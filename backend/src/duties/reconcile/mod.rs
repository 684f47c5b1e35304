//! Ends operations that can no longer end by themselves: cancels that no worker confirms, direct
//! operations whose worker is gone, and start requests that no worker runs because of their
//! signature.
//!
//! The problem: a worker that was asked to cancel may be dead, and an operation that was started
//! directly on a worker is in no queue, so no other worker will ever take it over.
//!
//! How it is solved: a timer and every cancel start a round. A round takes no input. It reads the
//! projection and the registry, and its actions may be repeated without harm. Several backends do
//! it at the same time: each event names the sequence it must follow, so the stream accepts only
//! the first one. Between rounds, a backend remembers only when it first saw something, by the
//! monotonic clock. After a restart it waits the full time again.
//!
//! Rejected: a leader among the backends. An election is one more thing that can fail, and the
//! expected sequence makes it unnecessary.

mod abandoned;
mod unconfirmed;
mod unsigned;

use std::time::Duration;

use ktrdr_bus::oplog::AppendError;

use self::abandoned::AbandonedWatch;
use self::unconfirmed::CancelWatch;
use crate::projection::record::Record;
use crate::state::AppState;

/// Shortest pause between two rounds.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause between two rounds.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Operations that are asked to stop again or ended side by side.
const SIDE_BY_SIDE: usize = 32;

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let mut cancels = CancelWatch::default();
    let mut abandoned = AbandonedWatch::default();
    loop {
        // Both arms are cancel safe: a wake-up that was not received stays stored.
        tokio::select! {
            () = tokio::time::sleep(pause(state)) => {}
            () = state.projection.cancel_requested.notified() => {}
            () = state.refused_starts.arrived.notified() => {}
        }
        // An old state leads to events that are refused; without a connection nothing can be
        // published.
        if state.connection.is_up() && state.projection.is_caught_up() {
            cancels.round(state).await;
            abandoned.round(state).await;
            unsigned::round(state).await;
        }
    }
}

/// Half of the shortest time that a round measures, within bounds.
fn pause(state: &AppState) -> Duration {
    let shortest = state
        .config
        .protocol
        .heartbeat_interval
        .min(state.config.cancel_grace / 4)
        .min(state.settings.get().lease / 4);
    (shortest / 2).clamp(MIN_PAUSE, MAX_PAUSE)
}

/// Logs the outcome of ending an operation.
fn log_outcome(record: &Record, done: &str, outcome: Result<u64, AppendError>) {
    let operation_id = &record.id;
    match outcome {
        Ok(_) => tracing::info!(%operation_id, "{done}"),
        // The worker or another backend was faster; the next round sees its event.
        Err(AppendError::Conflict(_)) => tracing::debug!(%operation_id, "another event came first"),
        Err(error) => {
            tracing::warn!(%operation_id, %error, "the operation could not be {done}; trying again");
        }
    }
}
