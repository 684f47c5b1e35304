//! `GET /api/v1/operations/{id}/metrics`: points read from the metrics stream; the cursor is a
//! position in it.

use std::borrow::Cow;

use axum::extract::State;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::metric::{MetricBatch, MetricPoint};
use ktrdr_protocol::rest::metrics::{Cursor, MetricsPage, MetricsResponse};
use ktrdr_protocol::rest::query::ReadMetrics;

use super::query::Query;
use super::{PathText, find};
use crate::error::{ApiError, ErrorCode};
use crate::state::AppState;
use crate::subject_pager::{self, MAX_MESSAGE, PAGE_BYTES, Page, StoredMessage};

/// Batches in one read.
const BATCHES: usize = 256;

/// Bytes of points in one answer, about. A page of points with long names ends early.
const MAX_BYTES: usize = 1024 * 1024;

/// Points after the cursor, oldest first. Every answer has a cursor: polling with it misses nothing
/// and repeats nothing.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    Query(query): Query<ReadMetrics>,
) -> Result<RenderedJson<MetricsResponse<'static>>, ApiError> {
    let limit = query.limit.unwrap_or(100) as usize;
    let cursor = match query.cursor {
        None => Cursor::default(),
        Some(text) => text.parse().map_err(|_| {
            ApiError::new(
                ErrorCode::InvalidCursor,
                "cursor must be one that an earlier answer gave; leave it out to start over",
            )
        })?,
    };
    let view = find(&state, &principal, &id).await?;
    state.need_nats()?;
    // A page as it is stored, the points, and the answer.
    let most = PAGE_BYTES + MAX_MESSAGE + 2 * MAX_BYTES;
    let share = state.answers.share(most).await?;
    let record = &view.record;
    let subject = state.names.metrics(&record.queue.worker_type, &record.id);
    let stream = state.names.metrics_stream();
    let read_batch = |message: &StoredMessage| {
        let read = state.refused.read(&state.names, &subject, &message.payload);
        read.map(|(_, batch)| batch)
    };
    let mut reading = Reading::new(cursor, limit);
    while let Some(from) = reading.next_read() {
        let page = subject_pager::read_page(&state.connection, &stream, &subject, from, BATCHES)
            .await
            .map_err(ApiError::nats_read)?;
        reading.take(page, read_batch);
    }
    let Reading {
        points,
        cursor,
        has_more,
        ..
    } = reading;

    let answer = MetricsResponse {
        success: true,
        data: MetricsPage {
            operation_id: Cow::Borrowed(&record.id),
            metrics: points,
            cursor: cursor.to_string(),
            has_more,
        },
    };
    RenderedJson::write(&answer, share)
}

/// Collects up to `limit` points, and finds out whether there is one more.
struct Reading {
    limit: usize,
    /// Bytes that further points may take.
    room: usize,
    points: Vec<MetricPoint>,
    /// Where the client continues.
    cursor: Cursor,
    has_more: bool,
    /// Stream sequence of the next batch to read. Ahead of the cursor while it only looks for one
    /// more point.
    next: u64,
    done: bool,
}

impl Reading {
    fn new(cursor: Cursor, limit: usize) -> Self {
        Self {
            limit,
            room: MAX_BYTES,
            points: Vec::new(),
            cursor,
            has_more: false,
            next: cursor.sequence,
            done: false,
        }
    }

    /// The sequence to read from; `None` when reading is done.
    fn next_read(&self) -> Option<u64> {
        (!self.done).then_some(self.next)
    }

    /// Takes the batches of a page; `read_batch` returns `None` for one that is not believed.
    fn take(&mut self, page: Page, read_batch: impl Fn(&StoredMessage) -> Option<MetricBatch>) {
        let Page { messages, more } = page;
        self.done = !more || messages.is_empty();
        for message in messages {
            self.next = message.sequence + 1;
            if let Some(batch) = read_batch(&message)
                && self.add(message.sequence, batch)
            {
                self.done = true;
                return;
            }
        }
    }

    /// Returns whether reading is done.
    fn add(&mut self, sequence: u64, batch: MetricBatch) -> bool {
        let skip = if sequence == self.cursor.sequence {
            self.cursor.index
        } else {
            0
        };

        let mut points = batch.into_points().skip(skip);
        let before = self.points.len();
        while self.points.len() < self.limit
            && self.room > 0
            && let Some(point) = points.next()
        {
            self.room = self.room.saturating_sub(size(&point));
            self.points.push(point);
        }
        let taken = self.points.len() - before;
        let has_room = self.points.len() < self.limit && self.room > 0;

        if points.next().is_some() {
            self.has_more = true;
            if taken > 0 {
                self.cursor = Cursor {
                    sequence,
                    index: skip + taken,
                };
            }
            return true;
        }
        if taken > 0 || has_room {
            self.cursor = Cursor {
                sequence: sequence + 1,
                index: 0,
            };
        }
        false
    }
}

/// About how many bytes the point takes in an answer.
fn size(point: &MetricPoint) -> usize {
    const FIELDS: usize = 96;
    FIELDS + point.name.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
                while let Some(from) = reading.next_read() {
                    reading.take(page(from), |message| {
                        serde_json::from_slice(&message.payload).ok()
                    });
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
