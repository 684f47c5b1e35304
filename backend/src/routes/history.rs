//! `GET /api/v1/operations/{id}/history`: all messages about one operation, in stream order.

use std::borrow::Cow;

use axum::extract::State;
use ktrdr_http::answer::{RenderedJson, Share};
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::history::{HistoryEntry, HistoryPage, HistoryResponse};
use ktrdr_protocol::token_name::TokenName;
use serde_json::Value;

use super::{PathText, find};
use crate::error::ApiError;
use crate::projection::record::Record;
use crate::state::AppState;
use crate::subject_pager::{
    MAX_MESSAGE, Most, PAGE_BYTES, Page, Source, StoredMessage, Subject, read_all,
};

/// Most events, and most cancel intents, in one answer. An ordinary operation has about ten.
const LIMIT: usize = 10_000;

/// How much is read.
struct Amount {
    /// Bytes of events, and of cancel intents, about.
    bytes: usize,
    /// Bytes that the answer counts for meanwhile, beside the start request.
    share: usize,
}

/// What is read at first. Few operations have more.
const FEW: Amount = Amount {
    bytes: 256 * 1024,
    share: 2 * 1024 * 1024,
};

/// What is read at most. All of it is there twice while the answer is written.
const MOST: Amount = Amount {
    bytes: 4 * 1024 * 1024,
    share: 2 * 2 * (4 * 1024 * 1024 + PAGE_BYTES + MAX_MESSAGE),
};

/// The start request, every event and every cancel intent, with sequence and time.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
) -> Result<RenderedJson<HistoryResponse<'static>>, ApiError> {
    let view = find(&state, &principal, &id).await?;
    if view.archived {
        let share = state.answers.share(&principal, FEW.share).await?;
        return RenderedJson::write(&page(&view.record.id, Vec::new(), true), share);
    }
    let record = view.record;
    state.need_nats_to_read()?;
    let mut read = read(&state, &principal, &record, &FEW).await?;
    if read.is_truncated() {
        // Its share is free again before a larger one is waited for.
        drop(read);
        read = self::read(&state, &principal, &record, &MOST).await?;
    }

    let truncated = read.is_truncated();
    let Read {
        start,
        events,
        cancels,
        share,
    } = read;
    let mut entries: Vec<HistoryEntry> = start
        .iter()
        .map(|message| entry(message, Some("start_requested")))
        .chain(
            cancels
                .messages
                .iter()
                .map(|message| entry(message, Some("cancel_requested"))),
        )
        .chain(events.messages.iter().map(|message| entry(message, None)))
        .collect();
    entries.sort_by_key(|entry| entry.sequence);

    RenderedJson::write(&page(&record.id, entries, truncated), share)
}

fn page(id: &OperationId, history: Vec<HistoryEntry>, truncated: bool) -> HistoryResponse<'_> {
    HistoryResponse {
        success: true,
        data: HistoryPage {
            operation_id: Cow::Borrowed(id),
            history,
            truncated,
        },
    }
}

/// The messages about one operation, and the share that they take.
struct Read {
    start: Option<StoredMessage>,
    events: Page,
    cancels: Page,
    share: Share,
}

impl Read {
    fn is_truncated(&self) -> bool {
        self.events.more || self.cancels.more
    }
}

/// Reads the messages, but not many more than `amount`.
async fn read(
    state: &AppState,
    principal: &Principal,
    record: &Record,
    amount: &Amount,
) -> Result<Read, ApiError> {
    let bytes = record.size() + amount.share;
    let share = state.answers.share(principal, bytes).await?;

    let (names, stream) = (&state.names, &state.names.stream());
    let worker_type = &record.queue.worker_type;
    // It may have been moved since, so its queue says nothing about the first request.
    let start = names.starts_of(worker_type);
    let operation = names.operation(worker_type, &record.id);
    let cancel = names.cancel(worker_type, &record.id);
    let of = |subject| Subject {
        connection: &state.connection,
        stream,
        subject,
    };
    let most = Most {
        messages: LIMIT,
        bytes: amount.bytes,
    };
    let (of_start, of_operation, of_cancel) = (of(&start), of(&operation), of(&cancel));
    let (start, events, cancels) = futures::try_join!(
        of_start.next(record.start_sequence),
        // The document shows the effect of this event already.
        read_all(&of_operation, most, record.state.last_sequence),
        read_all(&of_cancel, most, 0),
    )
    .map_err(ApiError::nats_read)?;
    let start = start.filter(|message| message.sequence == record.start_sequence);

    Ok(Read {
        start,
        events,
        cancels,
        share,
    })
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
