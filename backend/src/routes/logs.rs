//! `GET /api/v1/operations/{id}/logs`: log lines of an operation, as a page or followed live.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::query::Query;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::log_line::LogLevel;
use ktrdr_protocol::rest::logs::{LogsPage, LogsResponse};
use ktrdr_protocol::rest::metrics::Cursor;
use ktrdr_protocol::rest::query::ReadLogs;

use super::events::{EventStream, last_event_id};
use super::{PathText, find};
use crate::error::{ApiError, ErrorCode};
use crate::events::log_lines::{Follow, follow};
use crate::log_lines::{Lines, LogReader, Wanted};
use crate::projection::record::View;
use crate::state::AppState;
use crate::subject_pager::{MAX_MESSAGE, PAGE_BYTES};

/// Bytes of lines in one answer, about. A page of long lines ends early.
const MAX_BYTES: usize = 1024 * 1024;

/// Lines of an answer when the request does not say it.
const DEFAULT_LINES: u64 = 500;

/// A page of lines, or lines as they come.
pub enum LogsAnswer {
    /// A page.
    Page(RenderedJson<LogsResponse<'static>>),
    /// Server-sent events.
    Stream(EventStream),
    /// The client has seen all of them.
    AtEnd,
}

impl Describe for LogsAnswer {
    fn describe(description: &mut Description<'_>) {
        RenderedJson::<LogsResponse<'_>>::describe(description);
        description.also_text(200, "text/event-stream");
        description.empty(204, "With `follow`: the client has seen the last line.");
    }
}

impl IntoResponse for LogsAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::Page(page) => page.into_response(),
            Self::Stream(events) => events.into_response(),
            Self::AtEnd => StatusCode::NO_CONTENT.into_response(),
        }
    }
}

/// Lines after the cursor, oldest first.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    headers: HeaderMap,
    Query(query): Query<ReadLogs>,
) -> Result<LogsAnswer, ApiError> {
    let is_followed = query.follow.unwrap_or(false);
    let seen = match is_followed {
        true => last_event_id(&headers, |text| read_cursor(Some(text)).ok())?,
        false => None,
    };
    let cursor = match seen {
        Some(cursor) => cursor,
        None => read_cursor(query.cursor.as_deref())?,
    };
    let view = find(&state, &principal, &id).await?;
    if is_followed {
        let wanted = Follow {
            cursor,
            level: query.level,
            beside: None,
        };
        return follow_lines(&state, &principal, &view, wanted, seen.is_some()).await;
    }

    state.need_nats_to_read()?;
    // A page as it is stored, the lines, and the answer.
    let most = PAGE_BYTES + MAX_MESSAGE + 2 * MAX_BYTES;
    let share = state.answers.share(&principal, most).await?;
    let limit = query.limit.unwrap_or(DEFAULT_LINES);
    let found = read(
        &state,
        &view,
        Wanted {
            cursor,
            level: query.level,
            lines: usize::try_from(limit).unwrap_or(usize::MAX),
            bytes: MAX_BYTES,
            // All lines are stored before the end is. Of a running operation, the next answer has more.
            whole: view.status().is_terminal(),
        },
    )
    .await?;

    let answer = LogsResponse {
        success: true,
        data: LogsPage {
            operation_id: Cow::Borrowed(&view.record.id),
            lines: found.lines,
            cursor: found.cursor.to_string(),
            has_more: found.has_more,
        },
    };
    RenderedJson::write(&answer, share).map(LogsAnswer::Page)
}

/// Follows the lines. `is_return`: the client has followed them before.
async fn follow_lines(
    state: &AppState,
    principal: &Principal,
    view: &View,
    wanted: Follow,
    is_return: bool,
) -> Result<LogsAnswer, ApiError> {
    let is_over = is_return && view.status().is_terminal();
    // A browser stops reconnecting after this.
    if is_over && !has_more(state, view, wanted.cursor, wanted.level).await? {
        return Ok(LogsAnswer::AtEnd);
    }
    let place = state.held.enter()?;
    let events = follow(&state.events, state.answers.of(principal), view, wanted);
    Ok(LogsAnswer::Stream(EventStream::new(events, place)))
}

/// Whether an operation that has ended has lines behind the cursor.
///
/// # Errors
/// [`ApiError`], when they cannot be read.
pub(super) async fn has_more(
    state: &AppState,
    view: &View,
    cursor: Cursor,
    level: Option<LogLevel>,
) -> Result<bool, ApiError> {
    let one_more = Wanted {
        cursor,
        level,
        lines: 1,
        bytes: 1,
        whole: true,
    };
    let rest = read(state, view, one_more).await?;
    Ok(!rest.lines.is_empty() || rest.has_more)
}

async fn read(state: &AppState, view: &View, wanted: Wanted) -> Result<Lines, ApiError> {
    let reader = LogReader {
        connection: &state.connection,
        names: &state.names,
        refused: &state.refused,
        operation_id: &view.record.id,
        worker_type: &view.record.queue.worker_type,
    };
    let found = reader.read_or_start_over(wanted).await;
    found.map_err(ApiError::nats_read)
}

/// The position in a query; without one, before the first line.
///
/// # Errors
/// 400 `invalid_cursor`.
pub fn read_cursor(text: Option<&str>) -> Result<Cursor, ApiError> {
    let Some(text) = text else {
        return Ok(Cursor::default());
    };
    let cursor = text.parse::<Cursor>().ok();
    // Cursors of metric points may name an attempt.
    let own = cursor.filter(|cursor| cursor.attempt.is_none());
    own.ok_or_else(|| {
        let text = "cursor must be one that an earlier answer gave; leave it out to start over";
        ApiError::new(ErrorCode::InvalidCursor, text)
    })
}
