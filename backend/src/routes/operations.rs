//! `GET /api/v1/operations` and `GET /api/v1/operations/{id}`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::query::{Query, invalid, patience};
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::operation::{OperationListResponse, OperationPage, OperationResponse};
use ktrdr_protocol::rest::query::{GetOperation, Include, ListOperations, OperationFilter};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::worker::{OperationAnswer, OperationQuery};
use tokio::time::Instant;

use super::{PathText, find, known_types, wait};
use crate::archive::Archive;
use crate::error::{ApiError, ErrorCode};
use crate::projection::filter::{Filter, Page, Position, Wanted};
use crate::projection::record::{Extent, Record, Turn, View};
use crate::projection::shown::Shown;
use crate::registry::Presence;
use crate::state::AppState;

/// How long a worker may take to answer a `force_refresh`.
const REFRESH: Duration = Duration::from_secs(2);

/// Bytes of one page, about. A page of large operations ends early.
pub(super) const MAX_PAGE: usize = 8 * 1024 * 1024;

/// How warnings of lists begin.
const MISSING: &str = "Archived operations are missing in this list";

/// One page of operations, newest first.
pub async fn list(
    State(state): State<AppState>,
    principal: Principal,
    Query(query): Query<ListOperations>,
) -> Result<RenderedJson<OperationListResponse<Shown>>, ApiError> {
    let limit = query.limit.unwrap_or(100);
    let offset = query.offset.unwrap_or(0);
    let extent = match query.include {
        Some(Include::Result) => Extent::Whole,
        None => Extent::InList,
    };
    let after = query.cursor.as_deref().map(position).transpose()?;
    if after.is_some() && query.offset.is_some() {
        return Err(invalid("offset", "left out beside cursor"));
    }
    let wanted = Wanted {
        filter: filter(&state, &principal, query.filter).await?,
        order: query.order.unwrap_or_default(),
        offset,
        after,
        limit: limit as usize,
        bytes: MAX_PAGE,
        extent,
    };
    let (page, turn, warning) = page(&state, wanted).await?;
    let Page {
        total,
        views,
        next,
        bytes,
        damaged: _,
    } = page;

    let shown = |view| Shown { view, extent };
    let operations: Vec<Shown> = views.into_iter().map(shown).collect();
    let frame = OperationListResponse::<Shown> {
        success: true,
        data: OperationPage {
            operations: Vec::new(),
            total,
            limit,
            offset,
            has_more: next.is_some(),
            next_cursor: next.map(|next| next.to_string()),
        },
        warning,
    };
    let share = state.answers.share(&principal, bytes).await?;
    drop(turn);
    RenderedJson::list(&frame, operations, bytes, share)
}

/// The place that a cursor names.
fn position(cursor: &str) -> Result<Position, ApiError> {
    cursor.parse().map_err(|_| {
        let text =
            "cursor must be the next_cursor of an earlier answer; leave it out to start over";
        ApiError::new(ErrorCode::InvalidCursor, text)
    })
}

/// The filter of a client that may see some worker types only.
///
/// # Errors
/// 400 when it names a worker type that nobody knows.
pub(super) async fn filter(
    state: &AppState,
    principal: &Principal,
    asked: OperationFilter,
) -> Result<Filter, ApiError> {
    let names = asked.operation_type.iter().map(String::as_str);
    known_types::check(state, principal, "operation_type", names).await?;

    let types = match asked.operation_type.as_slice() {
        [] => principal
            .types()
            .map(|visible| visible.iter().map(ToString::to_string).collect()),
        named => Some(named.to_vec()),
    };
    Ok(Filter::new(asked, types))
}

/// A page of all operations, with a warning when those of the archive are missing.
pub(super) async fn page(
    state: &AppState,
    wanted: Wanted,
) -> Result<(Page, Option<Turn>, Option<String>), ApiError> {
    match &state.archive {
        None => Ok((state.projection.list(wanted).await?, None, None)),
        Some(archive) => with_archived(state, archive, wanted).await,
    }
}

/// A page of the operations in the stream and in the archive; when the archive cannot be read, of
/// those in the stream, with a warning.
async fn with_archived(
    state: &AppState,
    archive: &Arc<Archive>,
    wanted: Wanted,
) -> Result<(Page, Option<Turn>, Option<String>), ApiError> {
    let why = match archive.list(&state.projection, wanted.clone()).await {
        Ok(Some((page, turn))) => {
            let damaged = page.damaged.len();
            let why = "cannot be read; the log of the backend names them";
            let warning = (damaged > 0).then(|| format!("{MISSING}: {damaged} {why}"));
            return Ok((page, turn, warning));
        }
        Ok(None) => "this backend has just started and still compares it with the stream",
        Err(_) => "it cannot be read; the log of the backend says why",
    };
    let warning = format!("{MISSING}: {why}");
    Ok((state.projection.list(wanted).await?, None, Some(warning)))
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

    if is_final(&view)
        && let Some(text) = state.responses.find(&view.record)
    {
        return Ok(RenderedJson::new(text));
    }
    rendered(&state, &principal, &view, None).await
}

/// The answer with this operation. It has the warning of the request; without one, the warning about the
/// operation, if there is any.
pub(super) async fn rendered(
    state: &AppState,
    principal: &Principal,
    view: &View,
    warning_of_request: Option<String>,
) -> Result<RenderedJson<OperationResponse<'static>>, ApiError> {
    let share = state.answers.share(principal, view.record.size()).await?;
    let is_kept = is_final(view) && warning_of_request.is_none();
    let text = render(view, warning_of_request.or_else(|| warning(state, view)))?;
    if is_kept {
        state.responses.keep(&view.record, &text);
    }
    Ok(RenderedJson::with_share(text, share))
}

/// Whether the document never changes any more, as long as the stream has it. One that failed or was
/// cancelled may be retried.
fn is_final(view: &View) -> bool {
    view.status() == Status::Completed && !view.archived
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
        data: view.document(Extent::Whole),
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

/// The warning about an operation whose worker is silent or not listed, or that no living worker has
/// the version for.
fn warning(state: &AppState, view: &View) -> Option<String> {
    let record = &view.record;
    match view.status() {
        Status::Pending => return version_warning(state, record),
        Status::Running => {}
        Status::Completed | Status::Failed | Status::Cancelled => return None,
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

/// The warning about an operation that waits for a worker of another version.
fn version_warning(state: &AppState, record: &Record) -> Option<String> {
    let rare = record.rare.as_ref();
    let execution = rare.and_then(|rare| rare.execution.as_ref());
    if let Some(execution) = execution.filter(|execution| !execution.unknown.is_empty()) {
        return Some(format!(
            "This backend does not know the execution options {}. Workers that do not know them either hand the operation back; it waits for one of a later version",
            execution.unknown.join(", ")
        ));
    }

    let (worker_type, schema) = (&record.queue.worker_type, record.schema_digest?);
    let lacks = state
        .registry
        .lacks_version(worker_type, schema, Instant::now());
    lacks.then(|| {
        format!(
            "No {worker_type} worker is alive that has the version for which the parameters were checked (request schema {schema}). Workers of other versions run the operation only if the parameters fit theirs; otherwise it waits. Start a worker of that version, or cancel the operation"
        )
    })
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
