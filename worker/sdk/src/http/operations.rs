//! Health, and the operations this worker has run.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::operation::{Metadata, OperationDocument, ShownProgress};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::HttpState;
use super::answers::Failed;
use crate::attempt::stop::StopReason;
use crate::worker::history::LocalOperation;

/// Most entries of one answer.
const MAX_LIMIT: usize = 1000;
const CANCEL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

pub(super) async fn health(State(state): State<HttpState>) -> Json<Value> {
    let core = &state.core;
    let busy = core.running.len() >= core.slots as usize;
    Json(json!({
        "healthy": true,
        "service": format!("{}-worker", core.worker_type.as_str().replace('_', "-")),
        "timestamp": Timestamp::now(),
        "status": if core.connection.is_up() { "operational" } else { "degraded" },
        "worker_status": if busy { "busy" } else { "idle" },
        "current_operation": core.running.oldest(),
        "worker_id": core.worker_id,
        "version": env!("CARGO_PKG_VERSION"),
        "nats": {"connected": core.connection.is_up()},
    }))
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    operation_type: Option<String>,
    status: Option<Status>,
    limit: Option<usize>,
    offset: Option<usize>,
}

pub(super) async fn list(
    State(state): State<HttpState>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, Failed> {
    let query = readable(query)?;
    let (limit, offset) = (
        query.limit.unwrap_or(100).clamp(1, MAX_LIMIT),
        query.offset.unwrap_or(0),
    );
    let all: Vec<Value> = state
        .core
        .local
        .all()
        .iter()
        .filter(|_| {
            query
                .operation_type
                .as_deref()
                .is_none_or(|t| t == state.core.worker_type.as_str())
        })
        .map(|operation| document(operation))
        .filter(|operation| {
            query
                .status
                .is_none_or(|status| operation["status"] == status.as_str())
        })
        .collect();
    let total = all.len();
    let page: Vec<Value> = all.into_iter().skip(offset).take(limit).collect();
    Ok(Json(json!({
        "success": true,
        "data": {"operations": page, "total": total, "limit": limit, "offset": offset},
    })))
}

pub(super) async fn get(
    State(state): State<HttpState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failed> {
    let operation = document(&*find(&state, &id)?);
    Ok(Json(json!({
        "success": true,
        "operation_id": operation["operation_id"],
        "status": operation["status"],
        "progress": operation["progress"],
        "data": operation,
    })))
}

#[derive(Deserialize)]
pub(super) struct MetricsQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn metrics(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    query: Result<Query<MetricsQuery>, QueryRejection>,
) -> Result<Json<Value>, Failed> {
    let query = readable(query)?;
    let operation = find(&state, &id)?;
    let points = operation.state().points;
    let from: usize = match query.cursor.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| {
            Failed::new(
                400,
                "invalid_cursor",
                format!("cursor {text:?} is not one this worker gave out"),
            )
        })?,
    };
    let limit = query.limit.unwrap_or(100).clamp(1, 10_000);
    let page: Vec<_> = points.iter().skip(from).take(limit).collect();
    let next = from.min(points.len()) + page.len();
    Ok(Json(json!({
        "success": true,
        "data": {
            "operation_id": operation.request.operation_id,
            "metrics": page,
            "cursor": next.to_string(),
            "has_more": next < points.len(),
        },
    })))
}

/// Stores the intent like a backend does, so that everybody knows of it, and stops the engine.
pub(super) async fn cancel(
    State(state): State<HttpState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failed> {
    let operation = find(&state, &id)?;
    let id = &operation.request.operation_id;
    match operation.state().status {
        Status::Cancelled => {}
        Status::Completed | Status::Failed => {
            let status = operation.state().status;
            return Err(Failed::new(
                409,
                "already_ended",
                format!("operation {id} has already {status}"),
            ));
        }
        Status::Pending | Status::Running => {
            let core = &state.core;
            let intent = CancelIntent {
                operation_id: id.clone(),
                requested_at: Timestamp::now(),
                reason: None,
            };
            let payload = serde_json::to_vec(&intent)
                .map_err(|error| Failed::new(500, "internal", error.to_string()))?;
            let subject = core.names.cancel(&core.worker_type, id);
            core.oplog
                .publish_once(
                    &subject,
                    &format!("cancel-{id}"),
                    payload.into(),
                    CANCEL_PATIENCE,
                )
                .await
                .map_err(|_| {
                    Failed::new(
                        503,
                        "nats_unavailable",
                        "NATS is away; nothing was cancelled, try again",
                    )
                })?;
            core.running.stop(id, StopReason::Cancel);
        }
    }
    Ok(Json(
        json!({"success": true, "message": "Operation cancelled successfully", "operation_id": id}),
    ))
}

fn readable<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failed> {
    query
        .map(|Query(query)| query)
        .map_err(|error| Failed::new(400, "invalid_query", error.body_text()))
}

fn find(state: &HttpState, id: &str) -> Result<std::sync::Arc<LocalOperation>, Failed> {
    OperationId::new(id).ok().and_then(|id| state.core.local.get(&id)).ok_or_else(|| {
        Failed::new(
            404,
            "operation_not_found",
            format!("this worker has not run operation {id:?}; ask a backend about operations of other workers"),
        )
    })
}

fn document(operation: &LocalOperation) -> Value {
    let state = operation.state();
    let request = &operation.request;
    let attempt = state.attempts.last();
    let started_at = attempt.map(|attempt| attempt.started_at);
    let now = Timestamp::now();
    let worker_id = attempt.map(|attempt| attempt.worker_id.as_str());
    let document = OperationDocument {
        operation_id: request.operation_id.as_str(),
        operation_type: request.operation_type.as_str(),
        status: state.status,
        progress: ShownProgress::Value(&state.progress),
        metadata: Metadata {
            parameters: &request.parameters,
            worker_id,
        },
        execution: (!request.execution.is_default()).then_some(&request.execution),
        created_at: request.created_at,
        started_at,
        completed_at: state.ended_at.filter(|_| state.status.is_terminal()),
        updated_at: state.ended_at.unwrap_or(now),
        duration_seconds: started_at
            .map(|started| state.ended_at.unwrap_or(now).seconds_since(started)),
        worker_id,
        attempt: attempt.map_or(0, |attempt| attempt.attempt),
        attempts: &state.attempts,
        result: state.result.as_deref(),
        result_ref: None,
        error_message: state.error.as_ref().map(|error| error.message.as_str()),
        error: state.error.as_ref(),
        cancel_requested_at: None,
        forced: false,
        queue_position: None,
        queue: &operation.queue,
        retry_at: None,
        retry_of: request.retry_of.as_ref().map(OperationId::as_str),
    };
    serde_json::to_value(&document).unwrap_or_else(|error| json!({"error": error.to_string()}))
}
