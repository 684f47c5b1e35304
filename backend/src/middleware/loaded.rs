//! While the projection has not caught up, the API says so: an honest 503 is better than a wrong 404.

use crate::error::{ApiError, Code};
use crate::state::AppState;

/// What to answer until everything that is in the stream has been read. Afterwards reads are served even while NATS is away.
pub fn why_not(state: &AppState) -> Option<ApiError> {
    if state.is_loaded() {
        None
    } else if state.connection.is_up() {
        let text = "The backend has just started and is still reading the operations. Try again";
        Some(ApiError::new(Code::NotReady, text).with("sequence", state.projection.applied()))
    } else {
        Some(ApiError::nats_unavailable())
    }
}
