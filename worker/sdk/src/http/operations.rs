//! Health, and the operations that this worker has run.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::error::ApiError;
use ktrdr_http::tokens::{Principal, Scope};
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::id::{OperationId, WorkerId};
use ktrdr_protocol::rest::ErrorCode;
use ktrdr_protocol::rest::cancel::CancelResponse;
use ktrdr_protocol::rest::health::{HealthStatus, SlotStatus, WorkerHealth, WorkerNats};
use ktrdr_protocol::rest::metrics::{MetricsPage, MetricsResponse};
use ktrdr_protocol::rest::operation::{
    Metadata, OperationDocument, OperationListResponse, OperationPage, OperationResponse,
    ProgressDocument,
};
use ktrdr_protocol::rest::query::ListOperations;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::HttpState;
use crate::attempt::stop::StopReason;
use crate::worker::history::{LocalOperation, LocalState};

/// Largest page of operations.
const MAX_LIMIT: u64 = 1000;

/// Bytes of one page, about. A page of large operations ends early.
const MAX_PAGE: usize = 8 * 1024 * 1024;

/// Bytes of a metric point without its name, about.
const POINT: usize = 96;

/// How long NATS may take to store a cancel intent.
const CANCEL_PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn health(
    State(state): State<HttpState>,
    principal: Principal,
) -> Json<WorkerHealth<'static>> {
    let core = &state.core;
    let shows_operation = principal.may(Scope::Read) && principal.sees(core.worker_type.as_str());
    let connected = core.connection.is_up();
    let lost_slots = core.lost_slots.count();

    Json(WorkerHealth {
        healthy: true,
        service: format!("{}-worker", core.worker_type.as_str().replace('_', "-")).into(),
        timestamp: Timestamp::now(),
        status: if connected && lost_slots < core.slots {
            HealthStatus::Operational
        } else {
            HealthStatus::Degraded
        },
        lost_slots,
        worker_status: if core.is_busy() {
            SlotStatus::Busy
        } else {
            SlotStatus::Idle
        },
        current_operation: shows_operation.then(|| core.running.oldest()).flatten(),
        worker_id: Cow::Owned(core.worker_id.clone()),
        version: env!("CARGO_PKG_VERSION").into(),
        nats: WorkerNats { connected },
    })
}

pub(super) async fn list(
    State(state): State<HttpState>,
    query: Result<Query<ListOperations>, QueryRejection>,
) -> Result<RenderedJson<OperationListResponse>, ApiError> {
    let query = read_query(query)?;
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_LIMIT);
    let offset = query.offset.unwrap_or(0);
    let of_other_type = query
        .operation_type
        .is_some_and(|wanted| wanted != state.core.worker_type.as_str());

    let all: Vec<(Arc<LocalOperation>, LocalState)> = state
        .core
        .local
        .all()
        .into_iter()
        .filter(|_| !of_other_type)
        .map(|operation| {
            let state = operation.state();
            (operation, state)
        })
        .filter(|(_, state)| query.status.is_none_or(|status| status == state.status))
        .collect();
    let (mut page, mut bytes) = (Vec::new(), 0);
    let wanted = all
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(limit as usize);
    for (operation, state) in wanted {
        if bytes >= MAX_PAGE {
            break;
        }
        bytes += size(operation, state);
        page.push(document(operation, state));
    }

    let share = state.answers.share(bytes).await?;
    let answer = OperationListResponse {
        success: true,
        data: OperationPage {
            has_more: offset.saturating_add(page.len() as u64) < all.len() as u64,
            operations: page,
            total: all.len() as u64,
            limit,
            offset,
        },
        warning: None,
    };
    RenderedJson::write(&answer, share)
}

pub(super) async fn get(
    State(state): State<HttpState>,
    Path(id): Path<String>,
) -> Result<RenderedJson<OperationResponse<'static>>, ApiError> {
    let operation = find(&state, &id)?;
    let local = operation.state();
    let share = state.answers.share(size(&operation, &local)).await?;

    let answer = OperationResponse {
        success: true,
        operation_id: Cow::Borrowed(&operation.request.operation_id),
        status: local.status,
        progress: ProgressDocument::Value(Cow::Borrowed(&local.progress)),
        data: document(&operation, &local),
        warning: None,
    };
    RenderedJson::write(&answer, share)
}

/// Parameters of `GET /api/v1/operations/{id}/metrics` of a worker.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ReadMetrics {
    /// The cursor of an earlier answer; leave it out to start from the beginning.
    #[schemars(extend("pattern" = "^[0-9]{1,19}$"))]
    cursor: Option<String>,
    /// How many points to return at most.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    limit: Option<usize>,
}

pub(super) async fn metrics(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    query: Result<Query<ReadMetrics>, QueryRejection>,
) -> Result<RenderedJson<MetricsResponse<'static>>, ApiError> {
    let query = read_query(query)?;
    let operation = find(&state, &id)?;
    let points = operation.state().points;
    let from: usize = match query.cursor.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse().map_err(|_| {
            ApiError::new(
                ErrorCode::InvalidCursor,
                format!("cursor {text:?} does not come from an answer of this worker"),
            )
        })?,
    };

    let limit = query.limit.unwrap_or(100).clamp(1, 10_000);
    let total = points.len();
    let page: Vec<_> = points.into_iter().skip(from).take(limit).collect();
    let next = from.min(total) + page.len();
    let bytes = page.iter().map(|point| POINT + point.name.len()).sum();
    let share = state.answers.share(bytes).await?;

    let answer = MetricsResponse {
        success: true,
        data: MetricsPage {
            operation_id: Cow::Borrowed(&operation.request.operation_id),
            metrics: page,
            cursor: next.to_string(),
            has_more: next < total,
        },
    };
    RenderedJson::write(&answer, share)
}

/// Stores a cancel intent as a backend does, so that every program knows of it, and stops the engine.
pub(super) async fn cancel(
    State(state): State<HttpState>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Json<CancelResponse<'static>>, ApiError> {
    let operation = find(&state, &id)?;
    let id = &operation.request.operation_id;
    let status = operation.state().status;
    let answer = |requested_at| {
        Json(CancelResponse::new(
            Cow::Owned(id.clone()),
            operation.state().status,
            requested_at,
        ))
    };
    match status {
        Status::Cancelled => return Ok(answer(None)),
        Status::Completed | Status::Failed => {
            return Err(ApiError::new(
                ErrorCode::AlreadyFinished,
                format!("Operation {id} cannot be cancelled: it has already {status}"),
            )
            .with("operation_id", id.as_str())
            .with("status", status.as_str()));
        }
        Status::Pending | Status::Running => {}
    }

    let core = &state.core;
    let intent = CancelIntent::new(id.clone(), None).requested_by(principal.token_name().cloned());
    core.oplog
        .cancel(&core.worker_type, &intent, CANCEL_PATIENCE)
        .await
        .map_err(|_| {
            ApiError::new(
                ErrorCode::NatsUnavailable,
                "NATS is not reachable; nothing was cancelled. Try again",
            )
        })?;
    tracing::info!(operation_id = %id, requested_by = principal.name(), "cancel requested here");
    core.running.stop(id, StopReason::Cancel);
    Ok(answer(Some(intent.requested_at)))
}

fn read_query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query
        .map(|Query(query)| query)
        .map_err(|error| ApiError::new(ErrorCode::InvalidQuery, error.body_text()))
}

fn find(state: &HttpState, id: &str) -> Result<Arc<LocalOperation>, ApiError> {
    OperationId::new(id)
        .ok()
        .and_then(|id| state.core.local.get(&id))
        .ok_or_else(|| {
            let shown: String = id.chars().take(128).collect();
            let text = format!(
                "This worker has not run operation {shown:?}; ask a backend about operations of other workers"
            );
            ApiError::new(ErrorCode::OperationNotFound, text).with("operation_id", shown)
        })
}

/// About how many bytes the document has.
fn size(operation: &LocalOperation, state: &LocalState) -> usize {
    const FIELDS: usize = 1024;
    const ATTEMPT: usize = 512;

    FIELDS
        + operation.request.parameters.get().len()
        + state.result.as_ref().map_or(0, |json| json.get().len())
        + state.attempts.len() * ATTEMPT
        + state
            .error
            .as_ref()
            .map_or(0, |error| 2 * error.message.len())
        + ktrdr_protocol::json::length(&state.progress)
}

fn document<'a>(operation: &'a LocalOperation, state: &'a LocalState) -> OperationDocument<'a> {
    let request = &operation.request;
    let attempt = state.attempts.last();
    let worker_id = attempt.map(|attempt| &attempt.worker_id);
    let started_at = attempt.map(|attempt| attempt.started_at);
    let now = Timestamp::now();
    let duration = |started| state.ended_at.unwrap_or(now).seconds_since(started);

    OperationDocument {
        operation_id: Cow::Borrowed(&request.operation_id),
        operation_type: Cow::Borrowed(&request.operation_type),
        status: state.status,
        progress: ProgressDocument::Value(Cow::Borrowed(&state.progress)),
        metadata: Metadata {
            parameters: Cow::Borrowed(&request.parameters),
            worker_id: worker_id.map(WorkerId::as_str),
        },
        execution: (!request.execution.is_default()).then_some(Cow::Borrowed(&request.execution)),
        created_at: request.created_at,
        started_at,
        completed_at: state.ended_at.filter(|_| state.status.is_terminal()),
        updated_at: state.ended_at.unwrap_or(now),
        duration_seconds: started_at.map(duration),
        worker_id: worker_id.map(Cow::Borrowed),
        attempt: attempt.map_or(0, |attempt| attempt.attempt),
        attempts: Cow::Borrowed(&state.attempts),
        result: state.result.as_deref().map(Cow::Borrowed),
        result_ref: None,
        error_message: state
            .error
            .as_ref()
            .map(|error| Cow::Borrowed(error.message.as_str())),
        error: state.error.as_ref().map(Cow::Borrowed),
        cancel_requested_at: None,
        forced: false,
        queue_position: None,
        queue: Cow::Borrowed(&operation.origin),
        retry_at: None,
        retry_of: request.retry_of.as_ref().map(Cow::Borrowed),
        requested_by: request.requested_by.as_ref().map(Cow::Borrowed),
        archived: false,
    }
}
