//! Where an engine's log lines wait until they are sent.
//!
//! The problem: an engine may say millions of lines a second, from any thread. It must not wait for NATS,
//! it must not fill the memory, and what it says must not push out what others said.
//!
//! The solution: lines wait in a bounded buffer, and [`crate::reporting::send_logs`] sends them in
//! batches, one at a time and ten a second. A line that finds no room is left out and counted, and the next line that
//! finds room says how many were left out. An operation may say so many lines and bytes
//! ([`LogLimits`]); of what follows, only the last lines of each attempt are kept, and sent at its end: they
//! often say why it ended. Each batch has what the operation has said so far, so the next attempt goes on
//! counting, wherever it runs ([`LogLines::count_earlier`]).
//!
//! Rejected: to wait for room. A slow bus would slow the engine.

use std::collections::VecDeque;

use bytes::Bytes;
use ktrdr_protocol::id::{OperationId, WorkerId};
use ktrdr_protocol::log_line::{LogBatch, LogLevel, LogLine};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::Notify;

/// Bytes that wait at most.
const MAX_WAITING: usize = 1024 * 1024;

/// Lines and bytes of one batch, about.
const BATCH_LINES: usize = 1000;
const BATCH_BYTES: usize = 128 * 1024;

/// Lines of an attempt that are kept beyond the limit, and their bytes.
const LAST_LINES: usize = 100;
const LAST_BYTES: usize = 64 * 1024;

/// What an operation may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogLimits {
    /// The least important level that is kept; `None` for no lines at all.
    pub(crate) level: Option<LogLevel>,
    /// Lines of all attempts.
    pub(crate) lines: u64,
    /// Bytes of all attempts.
    pub(crate) bytes: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            level: Some(LogLevel::Info),
            lines: 100_000,
            bytes: 16 << 20,
        }
    }
}

/// The log lines of one attempt.
pub(crate) struct LogLines {
    limits: LogLimits,
    state: Mutex<State>,
    /// Notified when a line waits.
    waits: Notify,
}

#[derive(Default)]
struct State {
    /// Lines and bytes that were taken, and those of earlier attempts.
    lines: u64,
    bytes: u64,
    /// Lines and bytes of earlier attempts, and those that are in batches already.
    total_lines: u64,
    total_bytes: u64,
    waiting: VecDeque<LogLine>,
    waiting_bytes: usize,
    /// Lines that found no room since the last one that did.
    left_out: u64,
    /// Whether the limit is reached; only the last lines are kept then.
    is_over: bool,
    last: VecDeque<LogLine>,
    last_bytes: usize,
    /// Lines that are in batches already.
    batched: u64,
    /// The batch that is on its way, or whose outcome is unknown.
    sending: Option<Outgoing>,
}

/// A batch on its way.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// How many lines of the attempt came before it. It names the batch.
    pub(crate) before: u64,
    /// How many lines it has.
    pub(crate) lines: u64,
    /// The batch as JSON.
    pub(crate) payload: Bytes,
}

/// Who says the lines.
pub(crate) struct Speaker<'a> {
    pub(crate) operation_id: &'a OperationId,
    pub(crate) worker_id: &'a WorkerId,
    pub(crate) attempt: u32,
}

impl LogLines {
    pub(crate) fn new(limits: LogLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            waits: Notify::new(),
        }
    }

    /// Notes what earlier attempts of the operation have said, before this one says anything.
    pub(crate) fn count_earlier(&self, lines: u64, bytes: u64) {
        let mut state = self.state.lock();
        (state.lines, state.bytes) = (lines, bytes);
        (state.total_lines, state.total_bytes) = (lines, bytes);
    }

    /// Whether lines of this level are kept.
    pub(crate) fn takes(&self, level: LogLevel) -> bool {
        self.limits.level.is_some_and(|least| level >= least)
    }

    /// Takes a line. Returns false when it was left out.
    pub(crate) fn say(&self, level: LogLevel, text: &str, fields: Map<String, Value>) -> bool {
        if !self.takes(level) {
            return false;
        }
        let line = LogLine::now(level, text, fields);
        let size = line.size();

        let mut state = self.state.lock();
        if state.is_over(&self.limits, size) {
            state.keep_last(line, size);
            return false;
        }
        if state.waiting_bytes + size > MAX_WAITING {
            state.left_out += 1;
            return false;
        }
        state.tell_left_out();
        state.lines += 1;
        state.bytes += size as u64;
        state.wait(line, size);
        drop(state);

        self.waits.notify_one();
        true
    }

    /// Resolves when something waits to be sent.
    pub(crate) async fn wait(&self) {
        while self.is_empty() {
            self.waits.notified().await;
        }
    }

    /// Whether there is anything to send at the end of the attempt.
    pub(crate) fn has_lines(&self) -> bool {
        let state = self.state.lock();
        let is_left = state.left_out > 0 || !state.last.is_empty();
        is_left || !state.waiting.is_empty() || state.sending.is_some()
    }

    /// Whether nothing waits to be sent now.
    fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && state.sending.is_none()
    }

    /// At the end of the attempt: the last lines beyond the limit are sent, too.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        let last = std::mem::take(&mut state.last);
        state.last_bytes = 0;
        state.tell_left_out();
        for line in last {
            let size = line.size();
            state.wait(line, size);
        }
    }

    /// The next batch: the one whose outcome is unknown, or a new one. It stays the next one until
    /// [`Self::stored`] or [`Self::discarded`]. `None` when nothing waits.
    pub(crate) fn next_batch(&self, speaker: &Speaker<'_>) -> Option<Outgoing> {
        let mut state = self.state.lock();
        if state.sending.is_none() {
            let lines = state.take_lines();
            if lines.is_empty() {
                return None;
            }
            let (before, count) = (state.batched, lines.len() as u64);
            state.batched += count;
            let batch = LogBatch {
                operation_id: speaker.operation_id.clone(),
                worker_id: speaker.worker_id.clone(),
                attempt: speaker.attempt,
                lines,
                total_lines: state.total_lines,
                total_bytes: state.total_bytes,
            };
            state.sending = Some(Outgoing {
                before,
                lines: count,
                // Lines are texts and JSON, so this cannot fail.
                payload: serde_json::to_vec(&batch).unwrap_or_default().into(),
            });
        }
        state.sending.clone()
    }

    /// Notes that the batch on its way is stored.
    pub(crate) fn stored(&self) {
        self.state.lock().sending = None;
    }

    /// Gives the batch on its way up: its lines count as left out.
    pub(crate) fn discarded(&self) {
        let mut state = self.state.lock();
        if let Some(batch) = state.sending.take() {
            state.left_out += batch.lines;
        }
    }

    /// Takes what waits, for a test of an engine.
    pub(crate) fn take(&self) -> Vec<LogLine> {
        let mut state = self.state.lock();
        state.waiting_bytes = 0;
        state.waiting.drain(..).collect()
    }
}

impl State {
    /// Whether a line of this size goes beyond the limits; the first that does is told.
    fn is_over(&mut self, limits: &LogLimits, size: usize) -> bool {
        let bytes = self.bytes.saturating_add(size as u64);
        let fits = self.lines < limits.lines && bytes <= limits.bytes;
        if fits && !self.is_over {
            return false;
        }
        if !self.is_over {
            self.is_over = true;
            self.tell_left_out();
            let text = format!(
                "this operation has said {} lines with {} bytes, as much as it may (WORKER_LOG_LINES, WORKER_LOG_BYTES): of what follows, only the last {LAST_LINES} lines of each attempt are kept",
                self.lines, self.bytes
            );
            self.tell(&text);
        }
        true
    }

    /// Keeps a line beyond the limit, until others push it out.
    fn keep_last(&mut self, line: LogLine, size: usize) {
        self.last.push_back(line);
        self.last_bytes += size;
        while self.last.len() > LAST_LINES || (self.last_bytes > LAST_BYTES && self.last.len() > 1)
        {
            if let Some(line) = self.last.pop_front() {
                self.last_bytes -= line.size();
                self.left_out += 1;
            }
        }
    }

    /// Says how many lines were left out since the last one that found room.
    fn tell_left_out(&mut self) {
        match std::mem::take(&mut self.left_out) {
            0 => {}
            1 => self.tell("1 line left out"),
            more => self.tell(&format!("{more} lines left out")),
        }
    }

    fn tell(&mut self, text: &str) {
        let line = LogLine::now(LogLevel::Warn, text, Map::new());
        let size = line.size();
        self.wait(line, size);
    }

    fn wait(&mut self, line: LogLine, size: usize) {
        self.waiting_bytes += size;
        self.waiting.push_back(line);
    }

    /// Takes the lines of a batch from those that wait.
    fn take_lines(&mut self) -> Vec<LogLine> {
        if self.waiting.len() < BATCH_LINES && self.waiting_bytes < BATCH_BYTES && !self.is_over {
            // It would say it with the next line, and there may be none.
            self.tell_left_out();
        }
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < BATCH_LINES
            && bytes < BATCH_BYTES
            && let Some(line) = self.waiting.pop_front()
        {
            bytes += line.size();
            lines.push(line);
        }
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        self.total_lines = self.total_lines.saturating_add(lines.len() as u64);
        self.total_bytes = self.total_bytes.saturating_add(bytes as u64);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LogLimits = LogLimits {
        level: Some(LogLevel::Info),
        lines: 1_000_000,
        bytes: 1 << 30,
    };

    fn say(lines: &LogLines, text: &str) -> bool {
        lines.say(LogLevel::Info, text, Map::new())
    }

    /// The texts of the next batch, which is stored.
    fn sent(lines: &LogLines) -> Vec<String> {
        let (operation_id, worker_id) =
            (OperationId::new("a").unwrap(), WorkerId::new("w").unwrap());
        let speaker = Speaker {
            operation_id: &operation_id,
            worker_id: &worker_id,
            attempt: 1,
        };
        let Some(batch) = lines.next_batch(&speaker) else {
            return Vec::new();
        };
        let again = lines.next_batch(&speaker).unwrap();
        assert_eq!(
            (batch.before, &batch.payload),
            (again.before, &again.payload),
            "unchanged until it is stored"
        );
        lines.stored();
        let batch: LogBatch = serde_json::from_slice(&batch.payload).unwrap();
        batch.lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_below_the_level_are_not_kept() {
        let lines = LogLines::new(LIMITS);
        assert!(!lines.say(LogLevel::Debug, "a", Map::new()));
        assert!(say(&lines, "b"));
        assert_eq!(sent(&lines), ["b"]);

        let off = LogLines::new(LogLimits {
            level: None,
            ..LIMITS
        });
        assert!(!off.say(LogLevel::Error, "a", Map::new()));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_said_in_its_place() {
        let lines = LogLines::new(LIMITS);
        let long = "x".repeat(8_000);
        let taken = (0..200).filter(|_| say(&lines, &long)).count();
        assert!(taken < 140, "{taken}");

        let mut said = sent(&lines);
        assert!(say(&lines, "then"));
        loop {
            let batch = sent(&lines);
            if batch.is_empty() {
                break;
            }
            said.extend(batch);
        }

        let tail = &said[said.len() - 2..];
        assert_eq!(
            tail,
            [format!("{} lines left out", 200 - taken), "then".to_owned()]
        );
    }

    #[test]
    fn what_earlier_attempts_have_said_counts() {
        let limits = LogLimits {
            lines: 10,
            ..LIMITS
        };
        let (id, worker) = (OperationId::new("a").unwrap(), WorkerId::new("w").unwrap());
        let speaker = Speaker {
            operation_id: &id,
            worker_id: &worker,
            attempt: 2,
        };
        let totals = |lines: &LogLines| {
            let batch = lines.next_batch(&speaker).unwrap();
            let batch: LogBatch = serde_json::from_slice(&batch.payload).unwrap();
            (batch.total_lines, batch.total_bytes)
        };
        let first = LogLines::new(limits);
        (0..8).for_each(|_| assert!(say(&first, "x")));
        let (lines, bytes) = totals(&first);
        assert_eq!((lines, bytes), (8, 8 * 65));

        let second = LogLines::new(limits);
        second.count_earlier(lines, bytes);
        let taken = (0..8).filter(|_| say(&second, "x")).count();
        assert_eq!(taken, 2);
        assert_eq!(
            totals(&second).0,
            11,
            "what is said about the limit counts, too"
        );

        let forged = LogLines::new(LIMITS);
        forged.count_earlier(u64::MAX, u64::MAX);
        assert!(!say(&forged, "x"));
        forged.finish();
        assert_eq!(totals(&forged), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_batch_that_is_given_up_is_counted_too() {
        let lines = LogLines::new(LIMITS);
        say(&lines, "a");
        let (id, worker) = (OperationId::new("a").unwrap(), WorkerId::new("w").unwrap());
        let speaker = Speaker {
            operation_id: &id,
            worker_id: &worker,
            attempt: 1,
        };
        lines.next_batch(&speaker).unwrap();
        lines.discarded();

        assert_eq!(sent(&lines), ["1 line left out"]);
    }

    #[test]
    fn beyond_the_limit_the_last_lines_are_kept() {
        let lines = LogLines::new(LogLimits {
            lines: 10,
            ..LIMITS
        });
        let taken = (0..500).filter(|n| say(&lines, &n.to_string())).count();
        assert_eq!(taken, 10);

        let first = sent(&lines);
        assert_eq!(first.len(), 11, "{first:?}");
        assert!(first[10].contains("WORKER_LOG_LINES"), "{first:?}");
        assert_eq!(sent(&lines), Vec::<String>::new());

        lines.finish();
        let last = sent(&lines);
        assert_eq!(last[0], "390 lines left out");
        assert_eq!(
            (last.len(), last[1].as_str(), last[100].as_str()),
            (101, "400", "499")
        );
    }
}
