//! `GET /api/v1/operations/{id}/results`.

use std::borrow::Cow;
use std::io;

use async_nats::jetstream::object_store::{GetErrorKind, Object};
use axum::body::{Body, Bytes};
use axum::extract::State;
use futures::{Stream, StreamExt, stream};
use ktrdr_http::answer::RenderedJson;
use ktrdr_protocol::event::ResultRef;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::result::ResultResponse;
use ktrdr_protocol::state::Status;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;

use super::{PathText, find};
use crate::error::{ApiError, ErrorCode};
use crate::projection::record::View;
use crate::state::AppState;

/// Bytes of a large result that are in memory at the same time.
const CHUNK: usize = 128 * 1024;

/// The result of a completed operation.
pub async fn show(
    State(state): State<AppState>,
    PathText(id): PathText,
) -> Result<RenderedJson<ResultResponse<'static>>, ApiError> {
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
    let response = ResultResponse {
        success: true,
        operation_id: Cow::Borrowed(&record.id),
        status,
        data: Cow::Borrowed(data),
    };
    let text = serde_json::to_vec(&response).map_err(ApiError::internal)?;
    Ok(RenderedJson::new(text))
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

/// A result from the object store, in the same document, sent chunk by chunk.
async fn large(
    state: &AppState,
    id: &OperationId,
    stored: &ResultRef,
) -> Result<RenderedJson<ResultResponse<'static>>, ApiError> {
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
            return Err(
                ApiError::new(ErrorCode::ResultGone, text).with("operation_id", id.as_str())
            );
        }
        Err(error) => return Err(ApiError::nats_read(error)),
    };

    let head = Bytes::from(before_data(id));
    let body = stream::once(async { Ok(head) })
        .chain(pieces(object))
        .chain(stream::once(async { Ok(Bytes::from_static(AFTER_DATA)) }));
    Ok(RenderedJson::new(Body::from_stream(body)))
}

/// The text of a [`ResultResponse`] up to its data.
fn before_data(id: &OperationId) -> String {
    format!(r#"{{"success":true,"operation_id":"{id}","status":"completed","data":"#)
}

/// The text of a [`ResultResponse`] after its data.
const AFTER_DATA: &[u8] = b"}";

/// The chunks of an object. A read error breaks the connection, so that no client takes half a
/// result for a whole one.
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
