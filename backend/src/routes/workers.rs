//! `GET /api/v1/workers` and `GET /api/v1/workers/{id}`.

use axum::Json;
use axum::extract::State;
use ktrdr_protocol::worker::WorkerStatus;
use tokio::time::Instant;

use super::PathText;
use super::query::{Params, invalid};
use crate::error::{ApiError, Code};
use crate::registry::WorkerDocument;
use crate::state::AppState;

/// All workers by id: a bare array, as in the guide.
pub async fn list(
    State(state): State<AppState>,
    params: Params,
) -> Result<Json<Vec<WorkerDocument>>, ApiError> {
    let status = match params.text("status") {
        None => None,
        Some(text) => Some(read_status(text)?),
    };
    Ok(Json(state.registry.list(
        params.text("worker_type"),
        status,
        Instant::now(),
    )))
}

fn read_status(text: &str) -> Result<WorkerStatus, ApiError> {
    let upper = serde_json::Value::String(text.to_ascii_uppercase());
    serde_json::from_value(upper)
        .map_err(|_| invalid("status", "AVAILABLE, BUSY or TEMPORARILY_UNAVAILABLE"))
}

/// One worker.
pub async fn show(
    State(state): State<AppState>,
    PathText(id): PathText,
) -> Result<Json<WorkerDocument>, ApiError> {
    state
        .registry
        .get(&id, Instant::now())
        .map(Json)
        .ok_or_else(|| {
            let shown: String = id.chars().take(128).collect();
            let text = format!(
                "Worker {shown} not found: it has left, was silent for too long, or never was here"
            );
            ApiError::new(Code::WorkerNotFound, text).with("worker_id", shown)
        })
}
