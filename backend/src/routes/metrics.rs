//! `GET /api/v1/operations/{id}/metrics`: points read from the metrics stream; the cursor is a
//! position in it.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::HeaderMap;
use ktrdr_http::metric_points::{PointsAnswer, read_cursor};
use ktrdr_http::query::Query;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::metric::{MetricBatch, MetricPoint};
use ktrdr_protocol::rest::metrics::{Cursor, MetricsPage, MetricsResponse};
use ktrdr_protocol::rest::query::ReadMetrics;

use super::{PathText, find};
use crate::error::ApiError;
use crate::state::AppState;
use crate::subject_pager::{
    MAX_MESSAGE, PAGE_BYTES, Page, Source, StoredMessage, Subject, whole_page,
};

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
    headers: HeaderMap,
    Query(query): Query<ReadMetrics>,
) -> Result<PointsAnswer, ApiError> {
    let limit = query.limit.unwrap_or(100) as usize;
    let cursor = read_cursor(&query)?;
    let view = find(&state, &principal, &id).await?;
    state.need_nats_to_read()?;
    // A page as it is stored, the points, and the answer.
    let most = PAGE_BYTES + MAX_MESSAGE + 2 * MAX_BYTES;
    let share = state.answers.share(&principal, most).await?;
    let record = &view.record;
    let subject = state.names.metrics(&record.queue.worker_type, &record.id);
    let stream = state.names.metrics_stream();
    let read_batch = |message: &StoredMessage| {
        let read = state.refused.read(&state.names, &subject, &message.payload);
        read.map(|(_, batch)| batch)
    };
    let source = Subject {
        connection: &state.connection,
        stream: &stream,
        subject: &subject,
    };
    let mut reading = Reading::new(cursor, limit, query.name);
    while let Some(from) = reading.next_read() {
        // All points are stored before the end is. Of a running operation, the next answer has more.
        let page = match view.status().is_terminal() {
            true => whole_page(&source, from, BATCHES).await,
            false => source.page(from, BATCHES).await,
        };
        reading.take(page.map_err(ApiError::nats_read)?, read_batch);
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
    PointsAnswer::write(&answer, query.format, &headers, share)
}

/// Collects up to `limit` points, and finds out whether there is one more.
struct Reading {
    limit: usize,
    /// The series that are wanted; empty for all.
    names: Vec<String>,
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
    fn new(cursor: Cursor, limit: usize, names: Vec<String>) -> Self {
        Self {
            limit,
            names,
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
        let (attempt, count) = (batch.attempt, batch.points.len());
        let skip = self.cursor.read_of(sequence, attempt, count);

        let points = batch.into_points().enumerate().skip(skip);
        let mut points =
            points.filter(|(_, point)| self.names.is_empty() || self.names.contains(&point.name));
        let mut taken = None;
        while self.points.len() < self.limit
            && self.room > 0
            && let Some((index, point)) = points.next()
        {
            self.room = self.room.saturating_sub(size(&point));
            self.points.push(point);
            taken = Some(index);
        }
        let has_room = self.points.len() < self.limit && self.room > 0;

        let is_left = points.next().is_some();
        drop(points);
        if is_left {
            self.has_more = true;
            if let Some(last) = taken {
                self.cursor = Cursor {
                    sequence,
                    index: last + 1,
                    attempt: None,
                };
            }
            return true;
        }
        if taken.is_some() || has_room {
            self.cursor = self.cursor.past(sequence, attempt, count);
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
    use std::ops::Range;

    use serde_json::{Value, json};

    use super::*;

    fn point(name: &str, value: u32) -> Value {
        json!({"timestamp": "2025-11-10T10:30:00Z", "name": name, "value": value})
    }

    fn batch(sequence: u64, points: &[Value]) -> StoredMessage {
        let batch = json!({"operation_id": "a", "worker_id": "w", "attempt": 1, "points": points});
        StoredMessage {
            sequence,
            time: None,
            payload: batch.to_string().into(),
        }
    }

    fn rows(sequence: u64, values: Range<u32>) -> StoredMessage {
        let points: Vec<_> = values.map(|value| point("rows", value)).collect();
        batch(sequence, &points)
    }

    /// The values of all points of these series, page by page, and the last cursor.
    fn read_all(stored: &[StoredMessage], limit: usize, names: &[&str]) -> (Vec<u32>, Cursor) {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        let (mut cursor, mut values) = (Cursor::default(), Vec::new());
        loop {
            let mut reading = Reading::new(cursor, limit, names.clone());
            while let Some(from) = reading.next_read() {
                let messages = stored.iter().filter(|message| message.sequence >= from);
                let page = Page {
                    messages: messages.cloned().collect(),
                    more: false,
                };
                reading.take(page, |message| {
                    serde_json::from_slice(&message.payload).ok()
                });
            }
            let read = reading.points.iter();
            values.extend(read.map(|point| point.value.unwrap() as u32));
            cursor = reading.cursor;
            if !reading.has_more {
                return (values, cursor);
            }
        }
    }

    #[test]
    fn paging_through_one_of_two_series_gives_its_points_once() {
        let stored = [
            batch(3, &[point("a", 0), point("b", 9), point("a", 1)]),
            batch(4, &[point("b", 9)]),
            batch(7, &[point("b", 9), point("a", 2), point("b", 9)]),
        ];

        for limit in 1..=4 {
            let (values, cursor) = read_all(&stored, limit, &["a"]);

            assert_eq!(values, [0, 1, 2], "limit {limit}");
            assert_eq!(cursor, Cursor::after(7), "limit {limit}");
        }
    }

    #[test]
    fn paging_with_any_limit_gives_every_point_once() {
        let unreadable = StoredMessage {
            sequence: 9,
            time: None,
            payload: "{".into(),
        };
        // Batches of several sizes, one of them empty.
        let stored = [
            rows(3, 0..4),
            rows(5, 4..5),
            rows(8, 5..5),
            unreadable,
            rows(11, 5..12),
        ];

        for limit in 1..=14 {
            let (values, cursor) = read_all(&stored, limit, &[]);

            assert_eq!(values, (0..12).collect::<Vec<_>>(), "limit {limit}");
            assert_eq!(cursor, Cursor::after(11), "limit {limit}");
        }
    }
}
