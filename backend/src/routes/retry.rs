//! `POST /api/v1/operations/{id}/retry` and `…/resume`: the same request as a new operation.
//!
//! The operation that has ended does not change; the new one refers to it with `retry_of`. A resume
//! continues from the newest checkpoint of the old one, if its engine saves any.

use axum::extract::State;
use axum::http::HeaderMap;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;

use super::start::{Requester, StartAnswer, admit, known_domains, publish};
use super::{PathText, find};
use crate::error::{ApiError, ErrorCode};
use crate::idempotency::id_from_key;
use crate::middleware::request_id::trace_of;
use crate::projection::record::Record;
use crate::state::AppState;

/// Runs a failed or cancelled operation again, from the beginning.
pub async fn retry(
    State(state): State<AppState>,
    principal: Principal,
    path: PathText,
    headers: HeaderMap,
) -> Result<StartAnswer, ApiError> {
    again(state, principal, path, headers, false).await
}

/// Runs a failed or cancelled operation again, from its newest checkpoint.
pub async fn resume(
    State(state): State<AppState>,
    principal: Principal,
    path: PathText,
    headers: HeaderMap,
) -> Result<StartAnswer, ApiError> {
    again(state, principal, path, headers, true).await
}

/// Operations of a chain of resumes that a start request names, at most.
const MAX_ANCESTORS: usize = 32;

/// The operations that `old` repeats, newest first: the checkpoint that a resume of it finds may be
/// one of theirs.
fn ancestors(state: &AppState, old: &Record) -> Vec<OperationId> {
    let mut found = Vec::new();
    let mut next = old.retry_of().cloned();
    while let Some(id) = next.filter(|id| found.len() < MAX_ANCESTORS && !found.contains(id)) {
        let view = state.projection.get(id.as_str());
        next = view.and_then(|view| view.record.retry_of().cloned());
        found.push(id);
    }
    found
}

async fn again(
    state: AppState,
    principal: Principal,
    PathText(id): PathText,
    headers: HeaderMap,
    from_checkpoint: bool,
) -> Result<StartAnswer, ApiError> {
    state.need_nats()?;
    state.need_reader()?;
    let view = find(&state, &principal, &id).await?;
    let old = &view.record;
    let worker_type = &old.queue.worker_type;
    match old.state.status {
        Status::Failed | Status::Cancelled => {}
        status => {
            let hint = match status {
                Status::Pending | Status::Running => "; cancel it first",
                _ => "",
            };
            let text = format!(
                "Operation {id} is {status}; only failed and cancelled operations can be run again{hint}"
            );
            return Err(ApiError::new(ErrorCode::NotRepeatable, text)
                .with("operation_id", id)
                .with("status", status.as_str()));
        }
    }

    let entry = state
        .catalogue
        .by_type(worker_type.as_str())
        .ok_or_else(|| {
            let text = format!(
                "Worker type {worker_type} is no longer known; start a worker of the type once"
            );
            ApiError::new(ErrorCode::UnknownDomain, text)
                .with("known_domains", known_domains(&state, &principal))
        })?;
    state.dispatch.may_repeat(&view).await?;
    // The parameters were checked before, but a type that nothing can be checked for takes no starts.
    entry.usable_schema().await?;

    let key = headers
        .get("idempotency-key")
        .map(|key| {
            let what = format!("retry {id}");
            id_from_key(principal.token_name(), &what, key.as_bytes())
        })
        .transpose()?;
    let requester = Requester { principal, key };
    let known = requester.key.as_ref();
    if let Some(known) = known.and_then(|id| state.projection.get(id.as_str())) {
        return requester.repeated(&entry, &known);
    }

    let execution = old
        .rare
        .as_ref()
        .and_then(|rare| rare.execution.clone())
        .unwrap_or_default();
    let warning = admit(&state, &entry, &execution)?;
    let request = StartRequest::new(
        requester.key.clone().unwrap_or_else(OperationId::generate),
        worker_type.clone(),
        old.parameters.clone(),
        execution,
    )
    .requested_by(requester.principal.token_name().cloned());
    let request = if from_checkpoint {
        request.resuming(old.id.clone(), ancestors(&state, old))
    } else {
        request.retrying(old.id.clone())
    };

    let (publisher, trace) = (state.clone(), trace_of(&headers));
    state
        .detached(
            async move { publish(&publisher, &requester, &entry, request, warning, trace).await },
        )
        .await
}
