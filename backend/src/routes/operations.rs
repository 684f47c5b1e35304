//! `GET /api/v1/operations` and `GET /api/v1/operations/{id}`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::operation::{OperationListResponse, OperationPage, OperationResponse};
use ktrdr_protocol::rest::query::{GetOperation, ListOperations};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::worker::{OperationAnswer, OperationQuery};
use tokio::time::Instant;

use super::query::{Query, patience};
use super::{PathText, find, shown_types, wait};
use crate::archive::{Archive, Page, Wanted};
use crate::error::ApiError;
use crate::projection::record::View;
use crate::registry::Presence;
use crate::state::AppState;

/// How long a worker may take to answer a `force_refresh`.
const REFRESH: Duration = Duration::from_secs(2);

/// Bytes of one page, about. A page of large operations ends early.
const MAX_PAGE: usize = 8 * 1024 * 1024;

/// One page of operations, newest first.
pub async fn list(
    State(state): State<AppState>,
    principal: Principal,
    Query(query): Query<ListOperations>,
) -> Result<RenderedJson<OperationListResponse<View>>, ApiError> {
    let limit = query.limit.unwrap_or(100);
    let offset = query.offset.unwrap_or(0);
    let types = shown_types(&principal, query.operation_type.as_deref());
    let wanted = Wanted {
        types: types.as_deref(),
        status: query.status,
        offset,
        limit: limit as usize,
        bytes: MAX_PAGE,
    };
    let (page, warning) = match &state.archive {
        None => (in_stream(&state, wanted), None),
        Some(archive) => with_archived(&state, archive, wanted).await,
    };
    let Page {
        total,
        views: operations,
        bytes,
    } = page;

    let frame = OperationListResponse::<View> {
        success: true,
        data: OperationPage {
            operations: Vec::new(),
            total,
            limit,
            offset,
            has_more: offset.saturating_add(operations.len() as u64) < total,
        },
        warning,
    };
    let share = state.answers.share(bytes).await?;
    RenderedJson::list(&frame, operations, bytes, share)
}

/// A page of the operations in the stream.
fn in_stream(state: &AppState, wanted: Wanted<'_>) -> Page {
    let Wanted {
        types,
        status,
        offset,
        limit,
        bytes,
    } = wanted;
    let (total, views, bytes) = state.projection.list(types, status, offset, limit, bytes);
    Page {
        total,
        views,
        bytes,
    }
}

/// A page of the operations in the stream and in the archive; when the archive cannot be read, of
/// those in the stream, with a warning.
async fn with_archived(
    state: &AppState,
    archive: &Arc<Archive>,
    wanted: Wanted<'_>,
) -> (Page, Option<String>) {
    let why = match archive.list(&state.projection, wanted).await {
        Ok(Some(page)) => return (page, None),
        Ok(None) => "this backend has just started and still compares it with the stream",
        Err(_) => "it cannot be read; the log of the backend says why",
    };
    let warning = format!("Archived operations are missing in this list: {why}");
    (in_stream(state, wanted), Some(warning))
}

/// One operation; `wait` holds the answer until it has ended, `force_refresh` asks its worker
/// first.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    Query(query): Query<GetOperation>,
) -> Result<RenderedJson<OperationResponse<'static>>, ApiError> {
    let patience = query.wait.map(patience);
    let mut view = find(&state, &principal, &id).await?;

    if patience.is_some() && !view.status().is_terminal() {
        // Boxed, as below: otherwise the future of every request would have room for it.
        Box::pin(wait::until_ended(
            &state,
            &principal,
            &view.record.id,
            patience,
        ))
        .await?;
        view = find(&state, &principal, &id).await?;
    }
    if query.force_refresh.unwrap_or(false) && view.status() == Status::Running {
        Box::pin(ask_worker(&state, &view)).await;
        view = find(&state, &principal, &id).await?;
    }

    if !view.archived
        && let Some(text) = state.responses.find(&view.record)
    {
        return Ok(RenderedJson::new(text));
    }
    let share = state.answers.share(view.record.size()).await?;
    let text = render(&view, warning(&state, &view))?;
    if !view.archived {
        state.responses.keep(&view.record, &text);
    }
    Ok(RenderedJson::with_share(text, share))
}

/// Writes the answer as JSON, into a buffer that is large enough from the start.
fn render(view: &View, warning: Option<String>) -> Result<Bytes, ApiError> {
    let record = &view.record;
    let result_len = record.result.as_ref().map_or(0, |text| text.get().len());
    let mut text = Vec::with_capacity(1024 + record.parameters.get().len() + result_len);

    let response = OperationResponse {
        success: true,
        operation_id: Cow::Borrowed(&record.id),
        status: view.status(),
        progress: record.progress_document(),
        data: view.document(record.result.as_deref()),
        warning,
    };
    serde_json::to_writer(&mut text, &response).map_err(ApiError::internal)?;
    Ok(text.into())
}

/// Asks the worker for its newest progress and gives it to the projection. A worker that does not
/// answer changes nothing.
async fn ask_worker(state: &AppState, view: &View) {
    let Some(worker) = view.record.worker_id() else {
        return;
    };
    if !state.has_nats() {
        return;
    }

    let id = &view.record.id;
    let Ok(query) = serde_json::to_vec(&OperationQuery {
        operation_id: id.clone(),
    }) else {
        return;
    };

    let request = state
        .connection
        .client
        .request(state.names.worker(worker, "operation"), query.into());
    let answer = match tokio::time::timeout(REFRESH, request).await {
        Ok(Ok(message)) => serde_json::from_slice::<OperationAnswer>(&message.payload)
            .map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    };

    match answer {
        Ok(OperationAnswer {
            running: Some(running),
        }) if running.operation_id == *id => {
            let worker_type = view.record.queue.worker_type.as_str();
            // The answer is about this operation, so it is of its type.
            let _ = state
                .projection
                .apply_progress(worker_type, worker, running);
        }
        Ok(_) => {
            tracing::debug!(operation_id = %id, worker_id = %worker, "the worker does not run this operation");
        }
        Err(error) => {
            tracing::debug!(operation_id = %id, worker_id = %worker, error, "the worker could not be asked");
        }
    }
}

/// The warning about an operation whose worker is silent or not listed.
fn warning(state: &AppState, view: &View) -> Option<String> {
    let record = &view.record;
    if view.status() != Status::Running {
        return None;
    }
    let worker = record.worker_id()?;
    let now = Instant::now();
    let worker_type = &record.queue.worker_type;
    let what =
        match state
            .registry
            .presence(worker_type, worker, &record.id, record.state.attempt, now)
        {
            Presence::Alive { .. } | Presence::Unknown => return None,
            Presence::Silent => "does not answer",
            // A backend that has only just begun to listen knows nobody yet.
            Presence::Gone
                if state.registry.listening_for(now)
                    <= state.config.protocol.heartbeat_interval * 3 =>
            {
                return None;
            }
            Presence::Gone => "is not listed",
        };
    let then = if record.queue.origin.is_direct() {
        "the operation was started directly on it and will be closed as failed"
    } else {
        "another one takes over when its lease ends"
    };
    Some(format!(
        "Worker {worker} {what}; unless it comes back, {then}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_a_read_is_small() {
        type Show<F> = fn(State<AppState>, Principal, PathText, Query<GetOperation>) -> F;
        fn size<F: Future>(_: Show<F>) -> usize {
            size_of::<F>()
        }
        // axum moves it into a box for every request.
        assert!(size(show) <= 512, "{} bytes", size(show));
    }
}
