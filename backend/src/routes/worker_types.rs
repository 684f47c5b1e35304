//! `GET /api/v1/worker-types`: the catalogue, with what waits and runs in each queue.

use axum::Json;
use axum::extract::State;
use ktrdr_protocol::time::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::state::AppState;

/// All worker types by name.
pub async fn list(State(state): State<AppState>) -> Json<Value> {
    let lanes = state.projection.lanes();
    let (now, heard) = (Timestamp::now(), Instant::now());
    let types: Vec<Value> = state
        .catalogue
        .all()
        .iter()
        .map(|kind| {
            let entry = &kind.entry;
            let queues: Vec<Value> = lanes
                .iter()
                .filter(|lane| lane.lane.worker_type == entry.worker_type)
                .map(|lane| {
                    json!({
                        "queue": lane.lane.queue,
                        "pending": lane.pending,
                        "running": lane.running,
                        "oldest_pending_seconds": lane.oldest_pending.map(|created| now.seconds_since(created)),
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
