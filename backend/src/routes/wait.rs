//! Holding a request until an operation has ended.

use std::time::Duration;

use ktrdr_protocol::id::OperationId;

use crate::error::ApiError;
use crate::state::AppState;

/// Returns when the operation has ended, when the time is over, or when the process is asked to
/// stop. The caller reads the operation to find out. Cancel safe: a client that hangs up leaves
/// nothing behind.
///
/// # Errors
/// 503 `overloaded` when too many wait.
pub async fn until_ended(
    state: &AppState,
    id: &OperationId,
    patience: Option<Duration>,
) -> Result<(), ApiError> {
    let Some(patience) = patience.filter(|patience| !patience.is_zero()) else {
        return Ok(());
    };
    let _place = state.held.enter()?;
    // All arms are cancel safe: they only wait.
    tokio::select! {
        () = state.projection.ended(id) => {}
        () = tokio::time::sleep(patience) => {}
        () = state.stopping.cancelled() => {}
    }
    Ok(())
}
