//! `GET /api/v1/operations/{id}/history`: all messages about one operation, in stream order.

use std::borrow::Cow;

use axum::extract::State;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::history::{HistoryEntry, HistoryPage, HistoryResponse};
use ktrdr_protocol::token_name::TokenName;
use serde_json::Value;

use super::{PathText, find};
use crate::error::ApiError;
use crate::state::AppState;
use crate::subject_pager::{self, StoredMessage};

/// Most events, and most cancel intents, in one answer. An ordinary operation has about ten.
const LIMIT: usize = 10_000;

/// Bytes of events, and of cancel intents, in one answer, about.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that an answer counts for while it is read and sent, at least.
const SHARE: usize = 1024 * 1024;

/// The start request, every event and every cancel intent, with sequence and time.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
) -> Result<RenderedJson<HistoryResponse<'static>>, ApiError> {
    let view = find(&state, &principal, &id)?;
    state.need_nats()?;
    let share = state.answers.share(view.record.size().max(SHARE)).await?;

    let (record, names, connection) = (&view.record, &state.names, &state.connection);
    let (worker_type, stream) = (&record.queue.worker_type, names.stream());
    let start = names.start(worker_type, &record.queue.origin);
    let operation = names.operation(worker_type, &record.id);
    let cancel = names.cancel(worker_type, &record.id);
    let (start, events, cancels) = futures::try_join!(
        subject_pager::read_page(connection, &stream, &start, record.start_sequence, 1),
        subject_pager::read_all(connection, &stream, &operation, LIMIT, MAX_BYTES),
        subject_pager::read_all(connection, &stream, &cancel, LIMIT, MAX_BYTES),
    )
    .map_err(ApiError::nats_read)?;

    let truncated = events.more || cancels.more;
    let start = start
        .messages
        .into_iter()
        .filter(|message| message.sequence == record.start_sequence);
    let mut entries: Vec<HistoryEntry> = start
        .map(|message| entry(&message, Some("start_requested")))
        .chain(
            cancels
                .messages
                .iter()
                .map(|message| entry(message, Some("cancel_requested"))),
        )
        .chain(events.messages.iter().map(|message| entry(message, None)))
        .collect();
    entries.sort_by_key(|entry| entry.sequence);

    let answer = HistoryResponse {
        success: true,
        data: HistoryPage {
            operation_id: Cow::Borrowed(&record.id),
            history: entries,
            truncated,
        },
    };
    RenderedJson::write(&answer, share)
}

fn entry(message: &StoredMessage, event: Option<&str>) -> HistoryEntry {
    let value: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    HistoryEntry {
        sequence: message.sequence,
        time: message.time,
        event: event
            .map(str::to_owned)
            .or_else(|| text("event"))
            .unwrap_or_else(|| "unreadable".to_owned()),
        worker_id: text("worker_id"),
        attempt: value.get("attempt").and_then(Value::as_u64),
        requested_by: text("requested_by").and_then(|name| TokenName::new(name).ok()),
        data: serde_json::from_slice(&message.payload).ok(),
    }
}
