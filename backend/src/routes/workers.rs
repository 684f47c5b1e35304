//! `GET /api/v1/workers` and `GET /api/v1/workers/{id}`.

use axum::Json;
use axum::extract::State;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::query::ListWorkers;
use ktrdr_protocol::rest::worker::WorkerDocument;
use tokio::time::Instant;

use super::query::Query;
use super::{PathText, shown_types};
use crate::error::{ApiError, ErrorCode};
use crate::state::AppState;

/// All workers by id: a bare array, as in the guide.
pub async fn list(
    State(state): State<AppState>,
    principal: Principal,
    Query(query): Query<ListWorkers>,
) -> Json<Vec<WorkerDocument>> {
    let types = shown_types(&principal, query.worker_type.as_deref());
    Json(
        state
            .registry
            .list(types.as_deref(), query.status, Instant::now()),
    )
}

/// One worker.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
) -> Result<Json<WorkerDocument>, ApiError> {
    state
        .registry
        .get(&id, Instant::now())
        .filter(|worker| principal.sees(worker.worker_type.as_str()))
        .map(Json)
        .ok_or_else(|| {
            let shown: String = id.chars().take(128).collect();
            let text = format!(
                "Worker {shown} not found: it has left, was silent for too long, or never was here"
            );
            ApiError::new(ErrorCode::WorkerNotFound, text).with("worker_id", shown)
        })
}
