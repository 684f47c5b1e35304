//! `GET /api/v1/operations/{id}/results`.

use std::borrow::Cow;
use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use futures::{StreamExt, TryStreamExt, stream};
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::event::ResultRef;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::result::ResultResponse;
use ktrdr_protocol::state::Status;
use serde_json::value::RawValue;

use super::{PathText, archive_unavailable, find};
use crate::error::{ApiError, ErrorCode};
use crate::projection::record::{Record, View};
use crate::state::AppState;
use crate::stored_results::{self, Unservable};
use crate::subject_pager::PAGE_BYTES;

/// Bytes that a large result counts for while it is sent: those that were read, and buffers.
const DOWNLOAD: usize = 2 * PAGE_BYTES;

/// The result of a completed operation.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
) -> Result<RenderedJson<ResultResponse<'static>>, ApiError> {
    let view = find(&state, &principal, &id).await?;
    let status = view.status();
    if status != Status::Completed {
        return Err(no_result(&view, status));
    }
    let record = &view.record;
    if let Some(stored) = record.result_ref() {
        if let Some(kept) = kept_in_archive(&state, &view).await? {
            return whole(&state, &principal, &record.id, kept).await;
        }
        return large(&state, &principal, record, stored).await;
    }
    let share = state.answers.share(&principal, record.size()).await?;
    let data = record.result.as_deref().unwrap_or(RawValue::NULL);
    let response = ResultResponse {
        success: true,
        operation_id: Cow::Borrowed(&record.id),
        status,
        data: Cow::Borrowed(data),
    };
    RenderedJson::write(&response, share)
}

fn no_result(view: &View, status: Status) -> ApiError {
    let id = &view.record.id;
    let error = match status {
        Status::Failed => {
            let why = view
                .record
                .failure()
                .map_or("", |failure| failure.message.as_str());
            ApiError::new(
                ErrorCode::NoResult,
                format!("Operation {id} failed and has no result: {why}"),
            )
            .with("error_message", why)
        }
        Status::Cancelled => ApiError::new(
            ErrorCode::NoResult,
            format!("Operation {id} was cancelled and has no result"),
        ),
        _ => ApiError::new(
            ErrorCode::NotFinished,
            format!("Operation {id} is {status}; there is no result yet"),
        ),
    };

    error
        .with("operation_id", id.as_str())
        .with("status", status.as_str())
}

/// The large result of an archived operation, if it is in the archive.
async fn kept_in_archive(state: &AppState, view: &View) -> Result<Option<String>, ApiError> {
    match &state.archive {
        Some(archive) if view.archived => {
            let result = archive.result(&view.record).await;
            result.map_err(archive_unavailable)
        }
        _ => Ok(None),
    }
}

/// A result that is in memory, in the same document.
async fn whole(
    state: &AppState,
    principal: &Principal,
    id: &OperationId,
    result: String,
) -> Result<RenderedJson<ResultResponse<'static>>, ApiError> {
    let share = state.answers.share(principal, result.len()).await?;
    let data = RawValue::from_string(result).map_err(|_| {
        let why = Unservable::Invalid("the content is not JSON".to_owned());
        unservable(why, state, id)
    })?;
    let response = ResultResponse {
        success: true,
        operation_id: Cow::Borrowed(id),
        status: Status::Completed,
        data: Cow::Owned(data),
    };
    RenderedJson::write(&response, share)
}

/// A result from the object store, in the same document, sent chunk by chunk.
async fn large(
    state: &AppState,
    principal: &Principal,
    record: &Record,
    stored: &ResultRef,
) -> Result<RenderedJson<ResultResponse<'static>>, ApiError> {
    let id = &record.id;
    let share = state.answers.share(principal, DOWNLOAD).await?;
    if !state.has_nats() {
        let why = Unservable::Unreachable("no connection".to_owned());
        return Err(unservable(why, state, id));
    }
    let place = (&state.connection, &state.names, &*state.results);
    let opened = stored_results::open(place, record, stored).await;
    let mut checked = opened.map_err(|why| unservable(why, state, id))?;
    // The first piece decides between an answer and an error document. Many results have no other.
    let first = checked.next().await;
    let first = first.map_err(|error| unservable(error.into(), state, id))?;

    let head = [before_data(id).into(), first.unwrap_or_default()];
    let (state, id) = (state.clone(), id.clone());
    let rest = checked.pieces().inspect_err(move |error| {
        if error.kind() == io::ErrorKind::InvalidData {
            log_invalid(&state, &id, &error.to_string());
        }
    });
    let tail = stream::once(async move {
        drop(share);
        Ok(Bytes::from_static(AFTER_DATA))
    });
    let body = stream::iter(head.map(Ok)).chain(rest).chain(tail);
    Ok(RenderedJson::new(Body::from_stream(body)))
}

/// The answer to a request for a stored result that cannot be served.
fn unservable(why: Unservable, state: &AppState, id: &OperationId) -> ApiError {
    let error = match why {
        Unservable::Invalid(why) => {
            log_invalid(state, id, &why);
            let text = format!(
                "The stored result of operation {id} cannot be served: {why}. Run the operation again"
            );
            ApiError::new(ErrorCode::InvalidResult, text)
        }
        Unservable::Gone => ApiError::new(
            ErrorCode::ResultGone,
            format!("The result of operation {id} is no longer in the object store"),
        ),
        Unservable::Unreachable(cause) => return ApiError::nats_read(cause),
    };
    error.with("operation_id", id.as_str())
}

fn log_invalid(state: &AppState, id: &OperationId, why: &str) {
    if state.invalid_results.is_first(id.as_str()) {
        tracing::warn!(operation_id = %id, why, "a stored result cannot be served");
    }
}

/// The text of a [`ResultResponse`] up to its data.
fn before_data(id: &OperationId) -> String {
    format!(r#"{{"success":true,"operation_id":"{id}","status":"completed","data":"#)
}

/// The text of a [`ResultResponse`] after its data.
const AFTER_DATA: &[u8] = b"}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streamed_result_is_the_same_document() {
        let id = OperationId::new("a").unwrap();
        let streamed = [before_data(&id).as_bytes(), br#"{"rows":29.0}"#, AFTER_DATA].concat();

        let read: ResultResponse<'_> = serde_json::from_slice(&streamed).unwrap();

        assert_eq!(serde_json::to_vec(&read).unwrap(), streamed);
    }
}
