//! `GET /api/v1/events` and `GET /api/v1/operations/{id}/events`: server-sent events. See `docs/events.md`.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::Stream;

use super::query::Params;
use super::{PathText, find};
use crate::error::{ApiError, Code};
use crate::events::connection::{self, Filter};
use crate::state::AppState;

/// Everything: operations, progress, workers.
pub async fn all(
    State(state): State<AppState>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let filter = Filter {
        operation_type: params.text("operation_type").map(str::to_owned),
        worker_type: params.text("worker_type").map(str::to_owned),
    };
    let last_id = last_event_id(&headers)?;
    Ok(stream(connection::everything(&state, filter, last_id)))
}

/// One operation, until it has ended.
pub async fn one(
    State(state): State<AppState>,
    PathText(id): PathText,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let view = find(&state, &id)?;
    let last_id = last_event_id(&headers)?;
    if view.status().is_terminal()
        && last_id.is_some_and(|last_id| last_id >= connection::sequence_of(&view))
    {
        // The client has seen the end; browsers stop coming back after this answer.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(stream(connection::one(&state, &view)))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers
        .get("last-event-id")
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(sequence) => Ok(Some(sequence)),
        None => {
            let text = "The header Last-Event-ID must be the id of an event that was received; leave it out to start anew";
            Err(ApiError::new(Code::InvalidHeader, text))
        }
    }
}

fn stream(events: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies that gather answers would hold events back.
        (
            header::HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, Body::from_stream(events)).into_response()
}
