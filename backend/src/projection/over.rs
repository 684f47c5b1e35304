//! Operations that are over: their retention, counted from the end, has passed.
//!
//! Backends forget them by the clock of the stream, so all of them agree, whatever is still in the
//! stream. Usually the stream drops their messages by age soon after. While an older operation is
//! still needed, it keeps them for longer, and a duty removes them one by one
//! ([`crate::duties`]). Those that used keys leave the entries of these keys in any case. They wait for
//! both here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::keeping::is_stretched;
use ktrdr_bus::telemetry::Repeated;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::keys::{Key, KeyKind};
use ktrdr_protocol::time::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Projection;
use super::counters::OperationCounters;
use super::model::MAX_OTHER_STARTS;
use super::record::{QueueInfo, Record};

/// Operations that wait to be removed, at most. Those beyond it leave the stream by their age; those
/// with keys wait all the same, for nothing else would take them out of the entries.
const MAX_WAITING: usize = 100_000;

/// Ids in one line about dropped operations.
const MAX_NAMED: usize = 10;

/// Lines about operations that were dropped before their time.
static DROPPED: Repeated = Repeated::per_minute(6);

/// An operation that is over and may still be in the stream.
#[derive(Debug, Clone)]
pub struct OverOperation {
    /// Its worker type.
    pub queue: Arc<QueueInfo>,
    /// The operation.
    pub id: OperationId,
    /// All start requests with its id, the first one first.
    pub starts: Vec<u64>,
    /// A sequence before every start request of a later operation with the same id.
    pub end: u64,
    /// The keys whose entries may name it.
    pub keys: Vec<(KeyKind, Key)>,
    /// Whether the stream would keep it for much longer.
    pub is_stretched: bool,
}

/// Operations that are forgotten under one lock, at most.
const MAX_FORGOTTEN: usize = 1024;

/// The operations that are to be removed from the stream.
#[derive(Debug, Default)]
pub struct Over(Mutex<VecDeque<OverOperation>>);

impl Over {
    /// Adds operations, if the stream would keep them for much longer, or if they have used keys. They
    /// were known when the message at `applied` was applied.
    pub fn add(&self, forgotten: &[Arc<Record>], applied: u64, is_stretched: bool) {
        let mut waiting = self.0.lock();
        for record in forgotten {
            let keys = keys_of(record);
            let has_all_starts = record.other_starts().len() < MAX_OTHER_STARTS;
            let is_stretched = is_stretched && has_all_starts;
            if keys.is_empty() && (waiting.len() >= MAX_WAITING || !is_stretched) {
                continue;
            }
            let first = std::iter::once(record.start_sequence);
            waiting.push_back(OverOperation {
                queue: Arc::clone(&record.queue),
                id: record.id.clone(),
                starts: first.chain(record.other_starts().iter().copied()).collect(),
                end: applied,
                keys,
                is_stretched,
            });
        }
    }

    /// The oldest of them, at most so many.
    pub fn take(&self, most: usize) -> Vec<OverOperation> {
        let mut waiting = self.0.lock();
        let most = most.min(waiting.len());
        waiting.drain(..most).collect()
    }

    /// Puts one back whose turn has not come.
    pub fn put_back(&self, operation: OverOperation) {
        self.0.lock().push_front(operation);
    }

    /// Puts one behind all others, because something failed.
    pub fn postpone(&self, operation: OverOperation) {
        self.0.lock().push_back(operation);
    }

    /// Forgets them: the stream is another one.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

/// The keys whose entries may name an operation.
pub fn keys_of(record: &Record) -> Vec<(KeyKind, Key)> {
    let unique = record.unique();
    let unique = unique.map(|unique| (KeyKind::Unique, unique.key.clone()));
    let concurrency = record.concurrency();
    let concurrency = concurrency.map(|limited| (KeyKind::Concurrency, limited.key.clone()));
    unique.into_iter().chain(concurrency).collect()
}

/// The clock of the stream, as it was read last.
#[derive(Debug, Default)]
pub struct StreamClock(Mutex<Option<(Timestamp, Instant)>>);

impl StreamClock {
    /// Takes the time that the server has just told.
    pub fn set(&self, now: Timestamp) {
        *self.0.lock() = Some((now, Instant::now()));
    }

    /// Its time now; `None` before it was read.
    pub fn now(&self) -> Option<Timestamp> {
        let (told, when) = (*self.0.lock())?;
        Some(told.plus(when.elapsed()))
    }
}

impl Projection {
    /// Forgets what has left the stream, and says what was still needed of it.
    pub(super) fn forget_before(&self, first_sequence: u64, retention: Duration) {
        let applied = self.applied();
        let forgotten = self.model.write().forget_before(first_sequence);
        if forgotten.is_empty() {
            return;
        }
        self.waiters.wake_all();
        tracing::debug!(
            forgotten = forgotten.len(),
            first_sequence,
            "operations have left the stream"
        );
        let ended: Vec<_> = forgotten
            .iter()
            .filter(|record| record.state.status.is_terminal())
            .cloned()
            .collect();
        self.over.add(&ended, applied, false);
        let needed_since = self.clock.now().map(|now| now.minus(retention));
        tell_of_dropped(&self.counters, &forgotten, needed_since);
    }

    /// Forgets operations whose retention is over, by the clock of the stream.
    pub(super) fn forget_over(&self, retention: Duration) {
        let Some(now) = self.clock.now() else {
            return;
        };
        loop {
            // Before they are forgotten: a start request that is applied afterwards begins another one.
            let applied = self.applied();
            let (forgotten, oldest) = {
                let mut model = self.model.write();
                let forgotten = model.forget_ended(now.minus(retention), MAX_FORGOTTEN);
                (forgotten, model.oldest_created())
            };
            if forgotten.is_empty() {
                return;
            }

            self.waiters.wake_all();
            let age = oldest.map_or(Duration::ZERO, |oldest| now.after(oldest));
            let is_stretched = is_stretched(retention, age);
            self.over.add(&forgotten, applied, is_stretched);
            tracing::debug!(
                forgotten = forgotten.len(),
                "the retention of operations is over"
            );
        }
    }

    /// How long ago the oldest operation was created that is still needed, by the clock of the
    /// stream; `None` while that is not known.
    pub fn oldest_age(&self) -> Option<Duration> {
        let now = self.clock.now()?;
        let oldest = self.model.read().oldest_created();
        Some(oldest.map_or(Duration::ZERO, |oldest| now.after(oldest)))
    }
}

/// Counts and names operations that left the stream although they were open, or had ended after
/// `needed_since`.
fn tell_of_dropped(
    counters: &OperationCounters,
    forgotten: &[Arc<Record>],
    needed_since: Option<Timestamp>,
) {
    let was_needed = |record: &&Arc<Record>| match (record.completed_at, needed_since) {
        (Some(ended_at), Some(since)) => ended_at >= since,
        (Some(_), None) => false,
        (None, _) => true,
    };
    let dropped: Vec<&Arc<Record>> = forgotten.iter().filter(was_needed).collect();
    for record in &dropped {
        counters.count_expired(record.state.status);
    }

    let open: Vec<&str> = dropped
        .iter()
        .filter(|record| !record.state.status.is_terminal())
        .map(|record| record.id.as_str())
        .collect();
    if dropped.is_empty() || DROPPED.note().is_none() {
        return;
    }
    tracing::warn!(
        dropped = dropped.len(),
        open = open.len(),
        operation_ids = open[..open.len().min(MAX_NAMED)].join(","),
        "operations left the stream before their retention was over: a limit of the stream dropped them, or somebody removed them. Open ones will never end"
    );
}
