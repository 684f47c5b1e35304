//! Holding a request until an operation has ended.

use std::time::Duration;

use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::OperationId;

use crate::error::ApiError;
use crate::state::AppState;

/// Returns when the operation has ended, when the time is over, or when the process is asked to
/// stop. A client whose token is revoked waits no longer. The caller reads the operation to find
/// out. Cancel safe: a client that hangs up leaves nothing behind.
///
/// # Errors
/// 503 `overloaded` when too many wait; 401 when the token is revoked.
pub async fn until_ended(
    state: &AppState,
    principal: &Principal,
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
        () = principal.until_revoked() => return Err(ApiError::token_revoked()),
    }
    Ok(())
}
