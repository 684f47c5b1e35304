//! Ends operations whose start request no worker runs, because a trusted backend did not sign it.
//!
//! Workers that check signatures name the messages that they refuse in their heartbeats. They do not
//! know whether such a message made its operation exist, or is a copy beside the genuine request. A
//! backend does: it has read all of them, and the first one counts. So it ends the operation only
//! if the refused message is the first one, and nobody runs the operation.

use ktrdr_protocol::state::Status;
use tokio::time::Instant;

use super::log_outcome;
use crate::projection::record::{CountingRequest, Record};
use crate::refused_starts::Refused;
use crate::registry::Presence;
use crate::state::AppState;

/// Ends the operations that were refused since the last round.
pub async fn round(state: &AppState) {
    for refused in state.refused_starts.take() {
        let id = refused.start.operation_id.as_str();
        let Some(view) = state.projection.get(id) else {
            continue;
        };
        let record = &view.record;
        if !must_end(state, record, &refused) {
            continue;
        }

        let message = format!(
            "worker {} refuses the start request: {}",
            refused.worker_id, refused.start.why
        );
        let outcome = state.dispatch.fail_unsigned(record, message).await;
        log_outcome(record, "closed as not signed", outcome);
    }
}

fn must_end(state: &AppState, record: &Record, refused: &Refused) -> bool {
    let worker_type = &record.queue.worker_type;
    let first = record.start_sequence;
    // Once the operation was put back, its first request no longer counts. A copy that is refused ends
    // nothing: whoever may publish could have stored it before the backend's own.
    let counts = record.request() == CountingRequest::Stored(first);
    if *worker_type != refused.worker_type || first != refused.start.start_sequence || !counts {
        return false;
    }
    match (record.state.status, record.worker_id()) {
        (Status::Pending, _) => true,
        // Another worker runs it, one without keys or with other keys. It may do so to the end.
        (Status::Running, Some(worker)) => {
            let presence = state.registry.presence(
                worker_type,
                worker,
                &record.id,
                record.state.attempt,
                Instant::now(),
            );
            matches!(presence, Presence::Gone)
        }
        _ => false,
    }
}
