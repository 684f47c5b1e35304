//! `GET /api/v1/events` and `GET /api/v1/operations/{id}/events`: server-sent events. See
//! `docs/events.md`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, future};
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::query::Query;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::metrics::Cursor;
use ktrdr_protocol::rest::query::{FollowEvents, FollowOperation};
use tokio::sync::OwnedSemaphorePermit;

use super::logs::{has_more, read_cursor};
use super::{PathText, find};
use crate::error::{ApiError, ErrorCode};
use crate::events::connection::{self, Filter, Reached};
use crate::events::log_lines::{Follow, follow};
use crate::projection::record::View;
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
    let last_id = last_event_id(&headers, |text| text.parse().ok())?;
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
    let seen = Seen::of(&headers)?;
    let logs = match seen.and_then(|seen| seen.lines) {
        Some(cursor) => logs.and(Some(cursor)),
        None => logs,
    };
    if let Some(seen) = seen
        && seen.is_all(&state, &view, logs).await
    {
        return Ok(OperationEvents::AtEnd);
    }
    let place = state.held.enter()?;
    let answers = state.answers.of(&principal);
    let share = state.answers.share(&principal, view.record.size()).await?;
    let reached = Arc::new(Reached::default());
    let events = connection::one_operation(
        &state.events,
        answers.clone(),
        &view,
        share,
        reached.clone(),
    );
    let stream = match logs {
        None => EventStream::new(events, place),
        Some(cursor) => {
            let wanted = Follow {
                cursor,
                level: None,
                beside: Some(reached.clone()),
            };
            let lines = follow(&state.events, answers, &view, wanted);
            // Lines alone would keep the client from connecting again.
            let lines = lines.take_until(reached.gave_up.clone().cancelled_owned());
            let both = futures::stream::select(events, lines);
            // Looked at when both have ended.
            let all_sent = futures::stream::once(async move { reached.all_sent() });
            let all_sent = all_sent.filter_map(|bytes| future::ready(bytes.map(Ok)));
            EventStream::new(both.chain(all_sent), place)
        }
    };
    Ok(OperationEvents::Stream(stream))
}

/// What a client has seen of one operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The sequence of the last event.
    pub(crate) sequence: u64,
    /// Where the lines end, when it has seen all of them.
    pub(crate) lines: Option<Cursor>,
}

impl Seen {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let read = |text: &str| {
            let (sequence, lines) = match text.split_once('/') {
                Some((sequence, cursor)) => (sequence, Some(read_cursor(Some(cursor)).ok()?)),
                None => (text, None),
            };
            let sequence = sequence.parse().ok()?;
            Some(Self { sequence, lines })
        };
        last_event_id(headers, read)
    }

    /// Whether nothing is left to send. Lines that cannot be read now are left.
    async fn is_all(self, state: &AppState, view: &View, logs: Option<Cursor>) -> bool {
        let has_ended = view.status().is_terminal();
        if !has_ended || self.sequence < connection::sequence_of(view) {
            return false;
        }
        match logs {
            Some(cursor) => matches!(has_more(state, view, cursor, None).await, Ok(false)),
            None => true,
        }
    }
}

/// The id of the last event that the client has seen, as `read` understands it.
///
/// # Errors
/// 400 `invalid_header`.
pub(crate) fn last_event_id<T>(
    headers: &HeaderMap,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let Some(value) = headers
        .get("last-event-id")
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    match value.to_str().ok().and_then(read) {
        Some(seen) => Ok(Some(seen)),
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
