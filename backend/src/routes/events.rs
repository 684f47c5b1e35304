//! `GET /api/v1/events` and `GET /api/v1/operations/{id}/events`: server-sent events. See
//! `docs/events.md`.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::query::Query;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::metrics::Cursor;
use ktrdr_protocol::rest::query::{FollowEvents, FollowOperation};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::logs::read_cursor;
use super::{PathText, find};
use crate::error::{ApiError, ErrorCode};
use crate::events::connection::{self, Filter};
use crate::events::log_lines::{Follow, follow};
use crate::state::AppState;

/// Server-sent events.
pub struct EventStream(Body);

impl EventStream {
    /// Holds `place` until the client has left.
    pub(super) fn new(
        events: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let events = events.map(move |event| {
            let _held: &OwnedSemaphorePermit = &place;
            event
        });
        Self(Body::from_stream(events))
    }
}

impl Describe for EventStream {
    fn describe(description: &mut Description<'_>) {
        description.text("text/event-stream");
    }
}

/// The events of one operation, or 204 when the client has seen its end: browsers stop reconnecting
/// after that answer.
pub enum OperationEvents {
    /// The events.
    Stream(EventStream),
    /// The client has seen the end.
    AtEnd,
}

impl Describe for OperationEvents {
    fn describe(description: &mut Description<'_>) {
        EventStream::describe(description);
        description.empty(204, "The client has seen the last event.");
    }
}

impl IntoResponse for OperationEvents {
    fn into_response(self) -> Response {
        match self {
            Self::Stream(events) => events.into_response(),
            Self::AtEnd => StatusCode::NO_CONTENT.into_response(),
        }
    }
}

/// All operations, their progress, and all workers.
pub async fn all(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
    Query(query): Query<FollowEvents>,
) -> Result<EventStream, ApiError> {
    // A type that nobody knows is no mistake here: it may come while the client follows.
    let filter = Filter {
        operation_type: query.operation_type,
        worker_type: query.worker_type,
        visible: principal.types().map(<[_]>::to_vec),
    };
    let last_id = last_event_id(&headers)?;
    let place = state.held.enter()?;
    let events = connection::all_events(
        &state.events,
        &state.answers.of(&principal),
        filter,
        last_id,
    );
    Ok(EventStream::new(events, place))
}

/// One operation until it has ended, with its log lines if they are asked for.
pub async fn one(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    headers: HeaderMap,
    Query(query): Query<FollowOperation>,
) -> Result<OperationEvents, ApiError> {
    let logs = match query.logs.as_deref() {
        None | Some("false") => None,
        Some("true") => Some(Cursor::default()),
        Some(cursor) => Some(read_cursor(Some(cursor))?),
    };
    let view = find(&state, &principal, &id).await?;
    let last_id = last_event_id(&headers)?;
    if view.status().is_terminal()
        && last_id.is_some_and(|last_id| last_id >= connection::sequence_of(&view))
    {
        return Ok(OperationEvents::AtEnd);
    }
    let place = state.held.enter()?;
    let answers = state.answers.of(&principal);
    let share = state.answers.share(&principal, view.record.size()).await?;
    let gave_up = CancellationToken::new();
    let events = connection::one_operation(
        &state.events,
        answers.clone(),
        &view,
        share,
        gave_up.clone(),
    );
    let stream = match logs {
        None => EventStream::new(events, place),
        Some(cursor) => {
            let wanted = Follow {
                cursor,
                level: None,
                alone: false,
            };
            let lines = follow(&state.events, answers, &view, wanted);
            // Lines alone would keep the client from connecting again.
            let lines = lines.take_until(gave_up.cancelled_owned());
            EventStream::new(futures::stream::select(events, lines), place)
        }
    };
    Ok(OperationEvents::Stream(stream))
}

/// The id of the last event that the client has seen.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
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
            Err(ApiError::new(ErrorCode::InvalidHeader, text))
        }
    }
}

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/event-stream"),
            ),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            // Tells proxies not to buffer the events.
            (
                header::HeaderName::from_static("x-accel-buffering"),
                HeaderValue::from_static("no"),
            ),
        ];
        (headers, self.0).into_response()
    }
}
