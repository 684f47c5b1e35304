//! `GET /health`: the process lives. `GET /ready`: it can serve.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use ktrdr_protocol::time::Timestamp;
use serde_json::json;

use crate::error::{ApiError, Code};
use crate::state::AppState;

/// Always 200 while the process lives; says what is wrong in `status`.
pub async fn health(State(state): State<AppState>) -> Response {
    let connected = state.connection.is_up();
    let ready = connected && state.is_loaded();
    Json(json!({
        "healthy": true,
        "service": "ktrdr-backend",
        "timestamp": Timestamp::now(),
        "status": if ready { "operational" } else { "degraded" },
        "version": env!("CARGO_PKG_VERSION"),
        "ready": ready,
        "nats": {"connected": connected, "connections": state.connection.link.borrow().epoch},
        "projection": {
            "caught_up": state.projection.is_caught_up(),
            "sequence": state.projection.applied(),
            "operations": state.projection.len(),
            "skipped_messages": state.projection.skipped(),
        },
    }))
    .into_response()
}

/// 200 once everything that was in the stream at start has been read, while NATS is reachable.
pub async fn ready(State(state): State<AppState>) -> Result<Response, ApiError> {
    if !state.connection.is_up() {
        return Err(ApiError::nats_unavailable().with("ready", false));
    }
    if !state.is_loaded() {
        let text = "The backend has just started and is still reading the operations";
        return Err(ApiError::new(Code::NotReady, text).with("ready", false));
    }
    Ok(Json(json!({"ready": true, "sequence": state.projection.applied()})).into_response())
}
