//! `GET /api/v1/worker-types`: the catalogue, with what waits and runs in each queue.

use axum::Json;
use axum::extract::State;
use ktrdr_protocol::time::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::state::AppState;

/// All worker types by name.
pub async fn list(State(state): State<AppState>) -> Json<Value> {
    let queues = state.projection.queues();
    let (now, heard) = (Timestamp::now(), Instant::now());
    let types: Vec<Value> = state
        .catalogue
        .all()
        .iter()
        .map(|entry| {
            let entry = &entry.published;
            let queues: Vec<Value> = queues
                .iter()
                .filter(|queue| queue.info.worker_type == entry.worker_type)
                .map(|queue| {
                    json!({
                        "queue": queue.info.origin,
                        "pending": queue.pending,
                        "running": queue.running,
                        "oldest_pending_seconds": queue.oldest_pending.map(|created| now.seconds_since(created)),
                    })
                })
                .collect();
            json!({
                "worker_type": entry.worker_type,
                "domain": entry.domain,
                "description": entry.description,
                "version": entry.version,
                "start": format!("/api/v1/{}/start", entry.domain),
                "request_schema": entry.request_schema,
                "result_schema": entry.result_schema,
                "queues": queues,
                "workers": state.registry.alive(entry.worker_type.as_str(), heard),
            })
        })
        .collect();
    Json(json!({"success": true, "data": {"worker_types": types}}))
}
