//! `GET /api/v1/operations/{id}/metrics`: points read from the metrics stream; the cursor is a position in it.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::metric::{MetricBatch, MetricPoint};
use serde::Serialize;

use super::query::Params;
use super::{PathText, find};
use crate::error::{ApiError, Code};
use crate::state::AppState;
use crate::subject_pager::{self, Page, StoredMessage};

/// Batches asked for at a time.
const BATCHES: usize = 256;

/// The next point to read: its batch's sequence in the stream, and its place in the batch. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    sequence: u64,
    index: usize,
}

impl Cursor {
    /// Behind all points of the batch at `sequence`.
    pub fn after(sequence: u64) -> Self {
        Self {
            sequence: sequence + 1,
            index: 0,
        }
    }
}

impl FromStr for Cursor {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (sequence, index) = text.split_once('-').ok_or(())?;
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(sequence) || !digits(index) {
            return Err(());
        }
        Ok(Self {
            sequence: sequence.parse().map_err(drop)?,
            index: index.parse().map_err(drop)?,
        })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.sequence, self.index)
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    success: bool,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    operation_id: &'a OperationId,
    metrics: Vec<MetricPoint>,
    cursor: String,
    has_more: bool,
}

/// Points after the cursor, oldest first. The cursor of an answer is always there: polling on with it misses nothing and
/// repeats nothing.
pub async fn show(
    State(state): State<AppState>,
    PathText(id): PathText,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.number("limit", 100, 1..=10_000)? as usize;
    let cursor = match params.text("cursor") {
        None => Cursor::default(),
        Some(text) => text.parse().map_err(|()| {
            ApiError::new(
                Code::InvalidCursor,
                "cursor must be one that an earlier answer gave; leave it out to start over",
            )
        })?,
    };
    let view = find(&state, &id)?;
    state.need_nats()?;
    let record = &view.record;
    let subject = state.names.metrics(&record.queue.worker_type, &record.id);
    let stream = state.names.metrics_stream();
    let mut reading = Reading::new(cursor, limit);
    while let Some(from) = reading.wanted() {
        let page = subject_pager::read_page(&state.connection, &stream, &subject, from, BATCHES)
            .await
            .map_err(ApiError::nats_read)?;
        reading.take(page);
    }
    let Reading {
        points,
        cursor,
        has_more,
        ..
    } = reading;
    let data = Data {
        operation_id: &record.id,
        metrics: points,
        cursor: cursor.to_string(),
        has_more,
    };
    Ok(Json(Answer {
        success: true,
        data,
    })
    .into_response())
}

/// Collects points until there are `limit`, and finds out whether there is one more.
struct Reading {
    limit: usize,
    points: Vec<MetricPoint>,
    /// Where the client goes on.
    cursor: Cursor,
    has_more: bool,
    /// Where this goes on; differs from the cursor while it only looks for one more.
    next: u64,
    done: bool,
}

impl Reading {
    fn new(cursor: Cursor, limit: usize) -> Self {
        Self {
            limit,
            points: Vec::new(),
            cursor,
            has_more: false,
            next: cursor.sequence,
            done: false,
        }
    }

    fn wanted(&self) -> Option<u64> {
        (!self.done).then_some(self.next)
    }

    fn take(&mut self, page: Page) {
        let Page { messages, more } = page;
        self.done = !more || messages.is_empty();
        for message in messages {
            self.next = message.sequence + 1;
            if self.read(&message) {
                self.done = true;
                return;
            }
        }
    }

    /// Says whether everything is known.
    fn read(&mut self, message: &StoredMessage) -> bool {
        let batch: MetricBatch = match serde_json::from_slice(&message.payload) {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(sequence = message.sequence, %error, "skipping metrics that cannot be read");
                return false;
            }
        };
        let skip = if message.sequence == self.cursor.sequence {
            self.cursor.index
        } else {
            0
        };
        let mut points = batch.into_points().skip(skip);
        let room = self.limit - self.points.len();
        let before = self.points.len();
        self.points.extend(points.by_ref().take(room));
        let taken = self.points.len() - before;
        if points.next().is_some() {
            self.has_more = true;
            if taken > 0 {
                self.cursor = Cursor {
                    sequence: message.sequence,
                    index: skip + taken,
                };
            }
            return true;
        }
        if taken > 0 || room > 0 {
            self.cursor = Cursor {
                sequence: message.sequence + 1,
                index: 0,
            };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cursors_read_back_and_others_are_refused() {
        let cursor = Cursor {
            sequence: 456,
            index: 7,
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in [
            "",
            "7",
            "-",
            "1-",
            "-1",
            "a-b",
            "1-2-3",
            "+1-2",
            " 1-2",
            "99999999999999999999999-0",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(()), "{bad}");
        }
    }

    fn stored(sequence: u64, values: std::ops::Range<u32>) -> StoredMessage {
        let points: Vec<_> =
            values.map(|value| json!({"timestamp": "2025-11-10T10:30:00Z", "name": "rows", "value": value})).collect();
        let batch = json!({"operation_id": "a", "worker_id": "w", "attempt": 1, "points": points});
        StoredMessage {
            sequence,
            time: None,
            payload: batch.to_string().into(),
        }
    }

    /// The stream as it is: batches of several sizes, one of them empty and one unreadable.
    fn page(from: u64) -> Page {
        let unreadable = StoredMessage {
            sequence: 9,
            time: None,
            payload: "{".into(),
        };
        let all = [
            stored(3, 0..4),
            stored(5, 4..5),
            stored(8, 5..5),
            unreadable,
            stored(11, 5..12),
        ];
        Page {
            messages: all
                .into_iter()
                .filter(|message| message.sequence >= from)
                .collect(),
            more: false,
        }
    }

    #[test]
    fn paging_with_any_limit_gives_every_point_once() {
        for limit in 1..=14 {
            let mut cursor = Cursor::default();
            let mut values = Vec::new();
            loop {
                let mut reading = Reading::new(cursor, limit);
                while let Some(from) = reading.wanted() {
                    reading.take(page(from));
                }
                values.extend(
                    reading
                        .points
                        .iter()
                        .map(|point| point.value.unwrap() as u32),
                );
                cursor = reading.cursor;
                if !reading.has_more {
                    break;
                }
            }
            assert_eq!(values, (0..12).collect::<Vec<_>>(), "limit {limit}");
            assert_eq!(
                cursor,
                Cursor {
                    sequence: 12,
                    index: 0
                },
                "limit {limit}"
            );
        }
    }
}
