//! Reads the log lines of one operation from their stream, page by page. The cursor is a position in it.
//!
//! Whoever may publish for a worker type may write anything there. A batch is believed only if it
//! agrees with its subject, and its lines are made harmless for terminals once more.

use ktrdr_bus::nats::Connection;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::log_line::{LogBatch, LogLevel, LogLine};
use ktrdr_protocol::rest::metrics::Cursor;
use ktrdr_protocol::subject::SubjectNames;

use crate::refused::RefusedMessages;
use crate::subject_pager::{Page, PageError, Source, StoredMessage, Subject, whole_page};

/// Batches in one read.
const BATCHES: usize = 64;

/// Bytes of batches that one page reads at most, also when their lines are below the level.
const MAX_READ: usize = 8 * 1024 * 1024;

/// Status of the answer when nobody answers for a stream.
const NOBODY: u16 = 503;

/// Where the log lines of an operation are.
pub struct LogReader<'a> {
    /// The connection to NATS.
    pub connection: &'a Connection,
    /// Subjects and streams.
    pub names: &'a SubjectNames,
    /// Counts batches that are not believed.
    pub refused: &'a RefusedMessages,
    /// The operation.
    pub operation_id: &'a OperationId,
    /// Its worker type.
    pub worker_type: &'a WorkerType,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Behind which position.
    pub cursor: Cursor,
    /// The least important level; `None` for all.
    pub level: Option<LogLevel>,
    /// How many at most.
    pub lines: usize,
    /// How many bytes of lines, about.
    pub bytes: usize,
    /// Whether the newest ones must not be missing.
    pub whole: bool,
}

/// Some lines.
#[derive(Debug)]
pub struct Lines {
    /// In stream order.
    pub lines: Vec<LogLine>,
    /// Where reading began.
    pub from: Cursor,
    /// Where reading continues.
    pub cursor: Cursor,
    /// Whether there may be more now.
    pub has_more: bool,
}

impl LogReader<'_> {
    /// Reads lines. There are none while the stream is missing.
    ///
    /// # Errors
    /// [`PageError`] when the stream cannot be asked, does not answer, or refuses.
    pub async fn read(&self, wanted: Wanted) -> Result<Lines, PageError> {
        let stream = self.names.logs_stream();
        let subject = self.names.logs(self.worker_type, self.operation_id);
        let source = Subject {
            connection: self.connection,
            stream: &stream,
            subject: &subject,
        };
        let believed = |message: &StoredMessage| -> Option<LogBatch> {
            let read = self.refused.read(self.names, &subject, &message.payload);
            read.map(|(_, batch)| batch)
        };

        let mut reading = Reading::new(wanted);
        while let Some(from) = reading.next_read() {
            let page = match wanted.whole {
                true => whole_page(&source, from, BATCHES).await,
                false => source.page(from, BATCHES).await,
            };
            let page = match page {
                Ok(page) => page,
                Err(PageError::Refused { status: NOBODY, .. }) if self.is_missing().await => {
                    Page::default()
                }
                Err(error) => return Err(error),
            };
            reading.take(page, believed);
        }
        Ok(reading.found)
    }

    /// Reads lines, from the first one on when the cursor is of a stream that was replaced since. That is
    /// seen while the new stream does not reach the cursor; looking costs a request when there are no lines.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_or_start_over(&self, mut wanted: Wanted) -> Result<Lines, PageError> {
        loop {
            let found = self.read(wanted).await?;
            let is_at_end = found.lines.is_empty() && !found.has_more;
            if !is_at_end || !self.is_beyond_end(found.cursor).await {
                return Ok(found);
            }
            wanted.cursor = Cursor::default();
        }
    }

    /// Whether the stream has never reached the position before the cursor.
    async fn is_beyond_end(&self, cursor: Cursor) -> bool {
        let Some(read) = cursor.sequence.checked_sub(1).filter(|read| *read > 0) else {
            return false;
        };
        let stream = self.names.logs_stream();
        let found = self.connection.jetstream.get_stream(stream).await;
        found.is_ok_and(|stream| read > stream.cached_info().state.last_sequence)
    }

    /// Whether there is no stream of log lines.
    async fn is_missing(&self) -> bool {
        let stream = self.names.logs_stream();
        let found = self.connection.jetstream.get_stream(stream).await;
        found.is_err_and(|error| ktrdr_bus::topology::is_not_found(&error))
    }
}

/// Collects lines.
struct Reading {
    wanted: Wanted,
    found: Lines,
    /// Bytes that further lines may take.
    room: usize,
    /// Bytes of batches that may still be read.
    left_to_read: usize,
    done: bool,
}

impl Reading {
    fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            found: Lines {
                lines: Vec::new(),
                from: wanted.cursor,
                cursor: wanted.cursor,
                has_more: false,
            },
            room: wanted.bytes,
            left_to_read: MAX_READ,
            done: false,
        }
    }

    /// The sequence to read from; `None` when reading is done.
    fn next_read(&self) -> Option<u64> {
        (!self.done).then_some(self.found.cursor.sequence)
    }

    /// Takes the batches of a page; `believed` returns `None` for one that is not.
    fn take(&mut self, page: Page, believed: impl Fn(&StoredMessage) -> Option<LogBatch>) {
        let Page { messages, more } = page;
        let is_last = !more || messages.is_empty();
        for message in messages {
            self.left_to_read = self.left_to_read.saturating_sub(message.payload.len());
            if let Some(batch) = believed(&message)
                && self.is_full_within(message.sequence, batch)
            {
                self.done = true;
                self.found.has_more = true;
                return;
            }
            self.found.cursor = Cursor::after(message.sequence);
        }

        let is_full = !self.has_room() || self.left_to_read == 0;
        self.done = is_last || is_full;
        self.found.has_more = !is_last && is_full;
    }

    fn has_room(&self) -> bool {
        self.found.lines.len() < self.wanted.lines && self.room > 0
    }

    /// Takes the lines of a batch. Returns whether one of them found no room.
    fn is_full_within(&mut self, sequence: u64, batch: LogBatch) -> bool {
        let skip = match sequence == self.wanted.cursor.sequence {
            true => self.wanted.cursor.index,
            false => 0,
        };
        for (index, line) in batch.into_lines().enumerate().skip(skip) {
            if self.wanted.level.is_some_and(|least| line.level < least) {
                continue;
            }
            if !self.has_room() {
                self.found.cursor = Cursor {
                    sequence,
                    index,
                    attempt: None,
                };
                return true;
            }
            self.room = self.room.saturating_sub(line.size());
            self.found.lines.push(line);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn batch(sequence: u64, lines: &[(&str, &str)]) -> StoredMessage {
        let lines = lines.iter().map(|(level, text)| {
            json!({"timestamp": "2025-11-10T10:30:00Z", "level": level, "text": text})
        });
        let batch = json!({"operation_id": "a", "worker_id": "w", "attempt": 1,
            "lines": lines.collect::<Vec<_>>()});
        StoredMessage {
            sequence,
            time: None,
            payload: batch.to_string().into(),
        }
    }

    /// The texts of all lines, page by page, and how many pages there were.
    fn read_all(
        stored: &[StoredMessage],
        limit: usize,
        level: Option<LogLevel>,
    ) -> (String, usize) {
        let (mut cursor, mut texts, mut pages) = (Cursor::default(), String::new(), 0);
        loop {
            let mut reading = Reading::new(Wanted {
                cursor,
                level,
                lines: limit,
                bytes: usize::MAX,
                whole: true,
            });
            while let Some(from) = reading.next_read() {
                let rest = stored.iter().filter(|message| message.sequence >= from);
                let messages: Vec<_> = rest.clone().take(2).cloned().collect();
                let more = rest.count() > messages.len();
                reading.take(Page { messages, more }, |message| {
                    serde_json::from_slice(&message.payload).ok()
                });
            }
            pages += 1;
            texts.extend(reading.found.lines.iter().map(|line| line.text.as_str()));
            cursor = reading.found.cursor;
            if !reading.found.has_more {
                return (texts, pages);
            }
        }
    }

    #[test]
    fn paging_with_any_limit_gives_every_line_once() {
        let unreadable = StoredMessage {
            sequence: 6,
            time: None,
            payload: "{".into(),
        };
        let stored = [
            batch(2, &[("info", "a"), ("debug", "b"), ("error", "c")]),
            batch(3, &[]),
            unreadable,
            batch(7, &[("debug", "d")]),
            batch(9, &[("warn", "e"), ("info", "f"), ("debug", "g")]),
        ];

        for limit in 1..=8 {
            assert_eq!(read_all(&stored, limit, None).0, "abcdefg", "limit {limit}");
            let (warnings, _) = read_all(&stored, limit, Some(LogLevel::Warn));
            assert_eq!(warnings, "ce", "limit {limit}");
        }
        assert_eq!(read_all(&stored, 7, None).1, 1);
        assert_eq!(read_all(&[], 7, None), (String::new(), 1));
    }
}
