//! `GET /api/v1/operations/{id}/results`.

use std::io;

use async_nats::jetstream::object_store::{GetErrorKind, Object};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use ktrdr_protocol::event::ResultRef;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::state::Status;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;

use super::{PathText, find};
use crate::error::{ApiError, Code};
use crate::projection::record::View;
use crate::state::AppState;

/// Bytes of a large result that are in memory at a time.
const CHUNK: usize = 128 * 1024;

#[derive(Serialize)]
struct Answer<'a> {
    success: bool,
    operation_id: &'a OperationId,
    status: Status,
    data: &'a RawValue,
}

/// The result of a completed operation.
pub async fn show(
    State(state): State<AppState>,
    PathText(id): PathText,
) -> Result<Response, ApiError> {
    let view = find(&state, &id)?;
    let status = view.status();
    if status != Status::Completed {
        return Err(no_result(&view, status));
    }
    let record = &view.record;
    if let Some(stored) = record.result_ref() {
        return large(&state, &record.id, stored).await;
    }
    let data = record.result.as_deref().unwrap_or(RawValue::NULL);
    Ok(Json(Answer {
        success: true,
        operation_id: &record.id,
        status,
        data,
    })
    .into_response())
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
                Code::NoResult,
                format!("Operation {id} failed and has no result: {why}"),
            )
            .with("error_message", why)
        }
        Status::Cancelled => ApiError::new(
            Code::NoResult,
            format!("Operation {id} was cancelled and has no result"),
        ),
        _ => ApiError::new(
            Code::NotFinished,
            format!("Operation {id} is {status}; there is no result yet"),
        ),
    };
    error
        .with("operation_id", id.as_str())
        .with("status", status.as_str())
}

/// A result from the object store, in the same shape, passed through piece by piece.
async fn large(
    state: &AppState,
    id: &OperationId,
    stored: &ResultRef,
) -> Result<Response, ApiError> {
    state.need_nats()?;
    let bucket = state
        .connection
        .jetstream
        .get_object_store(&stored.bucket)
        .await
        .map_err(ApiError::nats_read)?;
    let object = match bucket.get(&stored.object).await {
        Ok(object) => object,
        Err(error) if error.kind() == GetErrorKind::NotFound => {
            let text = format!("The result of operation {id} is no longer in the object store");
            return Err(ApiError::new(Code::ResultGone, text).with("operation_id", id.as_str()));
        }
        Err(error) => return Err(ApiError::nats_read(error)),
    };
    let head = format!(r#"{{"success":true,"operation_id":"{id}","status":"completed","data":"#);
    let body = stream::once(async { Ok(Bytes::from(head)) })
        .chain(pieces(object))
        .chain(stream::once(async { Ok(Bytes::from_static(b"}")) }));
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(body),
    )
        .into_response())
}

/// A failure in the middle breaks the connection off: the client must not take half a result for a whole one.
fn pieces(object: Object) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(object, |mut object| async move {
        let mut piece = Vec::with_capacity(CHUNK);
        let read = (&mut object)
            .take(CHUNK as u64)
            .read_to_end(&mut piece)
            .await?;
        Ok((read > 0).then(|| (Bytes::from(piece), object)))
    })
}
