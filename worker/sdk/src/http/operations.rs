//! Health, and the operations that this worker has run.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::body::OptionalBody;
use ktrdr_http::error::ApiError;
use ktrdr_http::metric_points::{PointsAnswer, read_cursor};
use ktrdr_http::query::{self, Query};
use ktrdr_http::tokens::{Principal, Scope};
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::id::{OperationId, WorkerId};
use ktrdr_protocol::rest::ErrorCode;
use ktrdr_protocol::rest::cancel::CancelResponse;
use ktrdr_protocol::rest::health::{HealthStatus, SlotStatus, WorkerHealth, WorkerNats};
use ktrdr_protocol::rest::metrics::{MetricsPage, MetricsResponse};
use ktrdr_protocol::rest::operation::{
    LeftOut, Metadata, OperationDocument, OperationListResponse, OperationPage, OperationResponse,
    ProgressDocument,
};
use ktrdr_protocol::rest::query::{CancelOperation, ListOwnOperations, ReadMetrics};
use ktrdr_protocol::rest::shortened::{MAX_PARAMETERS, shortened};
use ktrdr_protocol::rest::summary::Summary;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;

use super::HttpState;
use crate::attempt::stop::StopReason;
use crate::worker::history::{LocalOperation, LocalState};
use crate::worker::points::PointsPage;

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
    principal: Principal,
    Query(query): Query<ListOwnOperations>,
) -> Result<RenderedJson<OperationListResponse>, ApiError> {
    let limit = query.limit.unwrap_or(100);
    let offset = query.offset.unwrap_or(0);
    let own_type = state.core.worker_type.as_str();
    if query
        .operation_type
        .is_some_and(|wanted| wanted != own_type)
    {
        let accepted = format!("{own_type}: this worker runs no other operations");
        return Err(query::invalid("operation_type", &accepted));
    }
    let is_whole = query.include.is_some();
    let summary = &*state.summary;

    let all: Vec<(Arc<LocalOperation>, LocalState)> = state
        .core
        .local
        .all()
        .into_iter()
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
        let mut document = document(operation, state, summary);
        if !is_whole {
            shorten(&mut document);
        }
        bytes += size(operation, state, is_whole);
        page.push(document);
    }

    let share = state.answers.share(&principal, bytes).await?;
    let answer = OperationListResponse {
        success: true,
        data: OperationPage {
            has_more: offset.saturating_add(page.len() as u64) < all.len() as u64,
            operations: page,
            total: all.len() as u64,
            limit,
            offset,
            next_cursor: None,
        },
        warning: None,
    };
    RenderedJson::write(&answer, share)
}

pub(super) async fn get(
    State(state): State<HttpState>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<RenderedJson<OperationResponse<'static>>, ApiError> {
    let operation = find(&state, &id)?;
    let local = operation.state();
    let share = state
        .answers
        .share(&principal, size(&operation, &local, true))
        .await?;

    let answer = OperationResponse {
        success: true,
        operation_id: Cow::Borrowed(&operation.request.operation_id),
        status: local.status,
        progress: ProgressDocument::Value(Cow::Borrowed(&local.progress)),
        data: document(&operation, &local, &state.summary),
        warning: None,
    };
    RenderedJson::write(&answer, share)
}

pub(super) async fn metrics(
    State(state): State<HttpState>,
    principal: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
    Query(query): Query<ReadMetrics>,
) -> Result<PointsAnswer, ApiError> {
    let operation = find(&state, &id)?;
    let cursor = read_cursor(&query)?;
    let limit = query.limit.unwrap_or(100) as usize;
    let PointsPage {
        points,
        cursor,
        has_more,
    } = operation.points(cursor, &query.name, limit);
    let bytes = points.iter().map(|point| POINT + point.name.len()).sum();
    let share = state.answers.share(&principal, bytes).await?;

    let answer = MetricsResponse {
        success: true,
        data: MetricsPage {
            operation_id: Cow::Borrowed(&operation.request.operation_id),
            metrics: points,
            cursor: cursor.to_string(),
            has_more,
        },
    };
    PointsAnswer::write(&answer, query.format, &headers, share)
}

/// Stores a cancel intent as a backend does, so that every program knows of it, and stops the engine.
/// The answer waits a moment for the end.
pub(super) async fn cancel(
    State(state): State<HttpState>,
    principal: Principal,
    Path(id): Path<String>,
    Query(query): Query<CancelOperation>,
    body: OptionalBody,
) -> Result<Json<CancelResponse<'static>>, ApiError> {
    let patience = query::patience(query.patience_seconds());
    let reason = query.reason.or_else(|| body.reason());
    // The request may wait for minutes.
    drop(body);
    // The body may have taken a while.
    principal.check_still_valid()?;

    let operation = find(&state, &id)?;
    let id = &operation.request.operation_id;
    match operation.state().status {
        Status::Cancelled => {
            let id = Cow::Owned(id.clone());
            return Ok(Json(CancelResponse::cancelled_before(id, None)));
        }
        status @ (Status::Completed | Status::Failed) => {
            return Err(ApiError::already_finished(id, status));
        }
        Status::Pending | Status::Running => {}
    }

    let core = &state.core;
    let intent =
        CancelIntent::new(id.clone(), reason).requested_by(principal.token_name().cloned());
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
    // Both arms are cancel safe: they only wait.
    tokio::select! {
        _ = tokio::time::timeout(patience, operation.until_ended()) => {}
        () = principal.until_revoked() => {}
    }
    principal.check_still_valid()?;

    let state = operation.state();
    let status = match state.status {
        // What became of the operation is in its log, not here.
        Status::Failed if state.is_lost() => Status::Running,
        // It ended before the engine noticed the cancel.
        status @ (Status::Completed | Status::Failed) => {
            return Err(ApiError::already_finished(id, status));
        }
        status => status,
    };
    let id = Cow::Owned(id.clone());
    let requested_at = Some(intent.requested_at);
    Ok(Json(CancelResponse::new(id, status, requested_at)))
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

/// Leaves out the result and large parameters, as lists do.
fn shorten(document: &mut OperationDocument<'_>) {
    let mut left_out = Vec::new();
    if document.result.take().is_some() {
        left_out.push(LeftOut::Result);
    }
    if let Some(short) = shortened(&document.metadata.parameters) {
        document.metadata.parameters = Cow::Owned(short);
        left_out.push(LeftOut::Parameters);
    }
    document.truncated = left_out.into();
}

/// About how many bytes the document has: whole, or as lists show it.
fn size(operation: &LocalOperation, state: &LocalState, is_whole: bool) -> usize {
    const FIELDS: usize = 1024;
    const ATTEMPT: usize = 512;

    let parameters = operation.request.parameters.get().len();
    let result = state.result.as_ref().map_or(0, |json| json.get().len());
    let large = match is_whole {
        true => parameters + result,
        false => parameters.min(MAX_PARAMETERS),
    };
    FIELDS
        + large
        + state.attempts.len() * ATTEMPT
        + state
            .error
            .as_ref()
            .map_or(0, |error| 2 * error.message.len())
        + ktrdr_protocol::json::length(&state.progress)
}

fn document<'a>(
    operation: &'a LocalOperation,
    state: &'a LocalState,
    summary: &Summary,
) -> OperationDocument<'a> {
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
        summary: summary.of(&request.parameters).map(Cow::Owned),
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
        cancel_reason: None,
        forced: false,
        queue_position: None,
        waits_for_permit: None,
        queue: Cow::Borrowed(&operation.origin),
        priority: None,
        start_at: request.execution.due(request.created_at),
        expires_at: request.execution.deadline(request.created_at),
        retry_at: None,
        retry_of: request.retry_of.as_ref().map(Cow::Borrowed),
        retried_as: None,
        schedule_id: request.schedule_id.as_ref().map(Cow::Borrowed),
        requested_by: request.requested_by.as_ref().map(Cow::Borrowed),
        archived: false,
        truncated: Cow::Borrowed(&[]),
    }
}
