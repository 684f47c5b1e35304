//! `POST /api/v1/{domain}/start`.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ktrdr_http::start_body::{ReadBodyError, StartBody, read_body};
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace::TraceParent;
use serde::Serialize;
use tokio::time::Instant;

use super::PathText;
use crate::catalogue::CatalogueEntry;
use crate::config::Admission;
use crate::error::{ApiError, Code};
use crate::idempotency::id_from_key;
use crate::middleware::request_id::trace_of;
use crate::projection::record::View;
use crate::state::AppState;

/// How long the answer may wait for this backend's own projection to see the start.
const READ_YOUR_WRITES: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Started<'a> {
    success: bool,
    operation_id: &'a OperationId,
    status: Status,
    worker_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// Accepts an operation: 202 once it is stored and visible here; 200 when the same id was seen before.
pub async fn start(
    State(state): State<AppState>,
    PathText(domain): PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    // First: nothing that follows is of use without it, and the client shall know at once.
    state.need_nats()?;
    let Some(entry) = state.catalogue.by_domain(&domain) else {
        return Err(unknown_domain(&state, &domain));
    };
    let body = read_body(body, state.config.max_body)
        .await
        .map_err(|error| match error {
            ReadBodyError::TooLarge { limit } => ApiError::too_large(Some(limit)),
            ReadBodyError::Broken => {
                ApiError::new(Code::InvalidBody, "The body could not be read to its end")
            }
        })?;
    let body = StartBody::check(body, entry.schema.clone()).await?;
    let key = headers
        .get("idempotency-key")
        .map(|key| id_from_key(&domain, key.as_bytes()))
        .transpose()?;
    // Either of them says that it was started before.
    let given = [&body.task_id, &key].into_iter().flatten();
    if let Some(known) = given
        .filter_map(|id| state.projection.get(id.as_str()))
        .next()
    {
        return repeated(&entry, &known);
    }
    let chosen = body.task_id.or(key);
    if let Some(id) = &chosen
        && let Some(known) = used_before(&state, &entry, id).await?
    {
        return repeated(&entry, &known);
    }
    let warning = admit(&state, &entry, &body.execution)?;
    let request = StartRequest {
        operation_id: chosen.unwrap_or_else(OperationId::generate),
        operation_type: entry.published.worker_type.clone(),
        parameters: body.parameters,
        execution: body.execution,
        created_at: Timestamp::now(),
        retry_of: None,
        resume_from: None,
    };
    let (publisher, trace) = (state.clone(), trace_of(&headers));
    state
        .detached(async move { publish(&publisher, &entry, request, warning, trace).await })
        .await
}

/// Whether an id that a client chose has a log although this projection does not know it: started elsewhere a moment ago, or
/// so long ago that its start request has left the stream before its events. A worker would take a new start of such an id
/// for one that has ended, so the second case is refused.
async fn used_before(
    state: &AppState,
    entry: &CatalogueEntry,
    id: &OperationId,
) -> Result<Option<View>, ApiError> {
    let tail = state
        .dispatch
        .log_tail(&entry.published.worker_type, id)
        .await?;
    if tail == 0 {
        return Ok(None);
    }
    let read = state.projection.reached(tail, READ_YOUR_WRITES).await;
    match state.projection.get(id.as_str()) {
        Some(known) => Ok(Some(known)),
        None if !read => {
            let text = format!(
                "The id {id} was used a moment ago, and this backend has not read that far. Try again"
            );
            Err(ApiError::new(Code::NotReady, text).with("operation_id", id.as_str()))
        }
        None => {
            let text = format!(
                "The id {id} was used before, by an operation that is no longer kept; choose another"
            );
            Err(ApiError::new(Code::TaskIdConflict, text).with("operation_id", id.as_str()))
        }
    }
}

pub(super) async fn publish(
    state: &AppState,
    entry: &CatalogueEntry,
    request: StartRequest,
    warning: Option<String>,
    trace: Option<TraceParent>,
) -> Result<Response, ApiError> {
    let id = &request.operation_id;
    tracing::Span::current().record("operation_id", id.as_str());
    if !state.projection.has_room(request.parameters.get().len()) {
        return Err(ApiError::storage_full().with("operation_id", id.as_str()));
    }
    let (sequence, repetition) = state
        .dispatch
        .start(&request, state.projection.generation(), trace.as_ref())
        .await?;
    let seen = state.projection.reached(sequence, READ_YOUR_WRITES).await;
    let view = state.projection.get(id.as_str());
    if let Some(view) = view.as_ref()
        // Lost the race against another request with the same id: at another backend, or a moment ago at this one.
        && (repetition || view.record.start_sequence != sequence)
    {
        return repeated(entry, view);
    }
    tracing::info!(operation_id = %id, worker_type = %entry.published.worker_type, sequence, "accepted");
    let late = (!seen).then(|| {
        "The operation is stored, but this backend lags behind and does not show it yet".to_owned()
    });
    let body = Started {
        success: true,
        operation_id: id,
        status: view.as_ref().map_or(Status::Pending, View::status),
        worker_id: view
            .as_ref()
            .and_then(|view| view.record.worker_id())
            .map(|worker| worker.as_str()),
        queue_position: view.as_ref().and_then(|view| view.queue_position),
        warning: late.or(warning),
    };
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location(id))],
        Json(body),
    )
        .into_response())
}

/// The answer to an id that was seen before: the operation as it is now. Nothing is started.
pub(super) fn repeated(entry: &CatalogueEntry, view: &View) -> Result<Response, ApiError> {
    let record = &view.record;
    let known_type = &record.queue.worker_type;
    if *known_type != entry.published.worker_type {
        let text = format!(
            "Operation {} exists already, as a {known_type} operation; choose another task_id",
            record.id
        );
        return Err(ApiError::new(Code::TaskIdConflict, text)
            .with("operation_id", record.id.as_str())
            .with("operation_type", known_type.as_str()));
    }
    let body = Started {
        success: true,
        operation_id: &record.id,
        status: view.status(),
        worker_id: record.worker_id().map(|worker| worker.as_str()),
        queue_position: view.queue_position,
        warning: None,
    };
    Ok((
        StatusCode::OK,
        [(header::LOCATION, location(&record.id))],
        Json(body),
    )
        .into_response())
}

/// Whether anybody could run it; what to warn of when nobody can.
pub(super) fn admit(
    state: &AppState,
    entry: &CatalogueEntry,
    execution: &ExecutionOptions,
) -> Result<Option<String>, ApiError> {
    let worker_type = &entry.published.worker_type;
    let (alive, able) = state.registry.able(
        worker_type.as_str(),
        &execution.requirements,
        Instant::now(),
    );
    let missing = match (alive, able) {
        (_, 1..) => return Ok(None),
        (0, _) => format!("no {worker_type} worker is registered"),
        _ => format!("none of the {alive} registered {worker_type} workers meets the requirements"),
    };
    match state.config.admission {
        Admission::Queue => Ok(Some(format!(
            "The operation is queued, but {missing}; it waits until there is one"
        ))),
        Admission::Strict => Err(ApiError::new(
            Code::NoWorkers,
            format!("No workers available: {missing}"),
        )),
    }
}

fn unknown_domain(state: &AppState, domain: &str) -> ApiError {
    let domain: String = domain.chars().take(128).collect();
    let known = state.catalogue.domains();
    let list = if known.is_empty() {
        "none: no worker was ever started".to_owned()
    } else {
        known.join(", ")
    };
    ApiError::new(
        Code::UnknownDomain,
        format!("Unknown domain {domain}; known domains: {list}"),
    )
    .with("known_domains", known)
}

fn location(id: &OperationId) -> String {
    format!("/api/v1/operations/{id}")
}
