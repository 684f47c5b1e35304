//! Holding a request until an operation has ended.

use std::time::Duration;

use ktrdr_protocol::id::OperationId;

use crate::state::AppState;

/// Returns when the operation has ended, the time is over, or the process is asked to stop; the caller looks what it is. A
/// client that leaves drops this, and with it the place among those who wait.
pub async fn until_ended(state: &AppState, id: &OperationId, patience: Option<Duration>) {
    let Some(patience) = patience.filter(|patience| !patience.is_zero()) else {
        return;
    };
    // All arms are cancel safe: they only wait.
    tokio::select! {
        () = state.projection.ended(id) => {}
        () = tokio::time::sleep(patience) => {}
        () = state.stopping.cancelled() => {}
    }
}
