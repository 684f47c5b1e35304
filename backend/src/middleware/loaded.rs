//! Refuses requests until the projection is loaded: a 404 would be wrong for an operation that was
//! not read yet.

use crate::error::{ApiError, ErrorCode};
use crate::state::AppState;

/// The answer to a request that needs the projection; `None` once it is loaded. A loaded projection
/// is served even while NATS is not reachable.
pub fn refusal(state: &AppState) -> Option<ApiError> {
    if state.is_loaded() {
        None
    } else if state.has_nats() {
        let text = "The backend has just started and is still reading the operations. Try again";
        Some(ApiError::new(ErrorCode::NotReady, text).with("sequence", state.projection.applied()))
    } else {
        Some(ApiError::nats_away())
    }
}
