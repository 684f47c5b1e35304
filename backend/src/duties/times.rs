//! Acts when the time of a waiting operation has come: moves a delayed one into the queue of what is due,
//! and ends one that has expired.
//!
//! The problem: nothing else would do it. A delayed operation is in a queue that has no consumer, and an
//! expired one may wait for a worker that never comes.
//!
//! How it is solved: the projection keeps the times in order, and this duty sleeps until the next one, by
//! the clock of the stream. All backends do it at the same time. Each event names the sequence that it must
//! follow, so one of them succeeds, and none does when a worker was faster. A backend that dies after the
//! event and before the copy leaves a named copy that is not in the stream; [`super::put_back`] publishes
//! it.
//!
//! Rejected: messages that the server schedules. A stream that refuses new messages when it is full cannot
//! have them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use ktrdr_bus::oplog::AppendError;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_protocol::time::Timestamp;
use parking_lot::Mutex;

use crate::dispatch::MoveError;
use crate::projection::READ_YOUR_WRITES;
use crate::projection::record::Record;
use crate::state::AppState;

/// Operations that are taken at a time, at most. The rest follows after them.
const MOST_AT_A_TIME: usize = 1000;

/// Operations that are moved or ended side by side.
const SIDE_BY_SIDE: usize = 32;

/// Shortest and longest pause between two rounds. The clock of the stream may be set.
const MIN_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let failures = Repeated::new();
    let mut has_failed = false;
    loop {
        let pause = if has_failed { MAX_PAUSE } else { pause(state) };
        // Both arms are cancel safe: a wake-up that was not received stays stored.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = state.projection.times_changed.notified(), if !has_failed => continue,
        }

        let can_tell = state.connection.is_up()
            && state.projection.is_caught_up()
            && state.projection.reader.trouble().is_none();
        if let Some(now) = state.projection.clock.now().filter(|_| can_tell) {
            has_failed = round(state, now, &failures).await;
        }
    }
}

/// Until the next time.
fn pause(state: &AppState) -> Duration {
    let next = state.projection.next_time();
    let now = state.projection.clock.now();
    match (next, now) {
        (Some(next), Some(now)) => next.after(now).clamp(MIN_PAUSE, MAX_PAUSE),
        _ => MAX_PAUSE,
    }
}

/// Takes what has expired and then what is due. Whether something failed, so that it must be tried again.
async fn round(state: &AppState, now: Timestamp, failures: &Repeated) -> bool {
    let mut has_failed = false;
    for what in [Passed::Deadline, Passed::Due] {
        let round = Round {
            state,
            what,
            failures,
            full: Mutex::default(),
            has_failed: AtomicBool::new(false),
        };
        round.take_all(now).await;
        has_failed |= round.has_failed.into_inner();
    }
    has_failed
}

/// One way through all operations whose time has come.
struct Round<'a> {
    state: &'a AppState,
    what: Passed,
    failures: &'a Repeated,
    /// Queues that cannot be made now, by number: their operations wait for the next round.
    full: Mutex<HashSet<u32>>,
    has_failed: AtomicBool,
}

impl Round<'_> {
    /// Takes page after page: operations that fail do not hold up those behind them.
    async fn take_all(&self, now: Timestamp) {
        let projection = &self.state.projection;
        let mut after = None;
        while self.state.connection.is_up() {
            let page = match self.what {
                Passed::Deadline => projection.expired(after, now, MOST_AT_A_TIME),
                Passed::Due => projection.due(after, now, MOST_AT_A_TIME),
            };
            let Some((last, _)) = page.last() else {
                return;
            };
            after = Some(*last);
            self.take(page.into_iter().map(|(_, record)| record)).await;
        }
    }

    async fn take(&self, records: impl Iterator<Item = Arc<Record>>) {
        let newest = AtomicU64::new(0);
        futures::stream::iter(records)
            .for_each_concurrent(SIDE_BY_SIDE, async |record| {
                if self.full.lock().contains(&record.queue.number) {
                    return;
                }
                match act(self.state, &record, self.what).await {
                    Ok(sequence) => {
                        newest.fetch_max(sequence, Ordering::Relaxed);
                    }
                    Err(error) => self.note_failure(&record, &error),
                }
            })
            .await;
        // Until then, the same operations would be taken again.
        self.state
            .projection
            .reached(newest.into_inner(), READ_YOUR_WRITES)
            .await;
    }

    fn note_failure(&self, record: &Record, error: &MoveError) {
        self.has_failed.store(true, Ordering::Relaxed);
        if matches!(error, MoveError::Queue(_)) {
            self.full.lock().insert(record.queue.number);
        }
        if let Some(count) = self.failures.note() {
            tracing::warn!(operation_id = %record.id, error = chain(error), count, "an operation whose time has come could not be moved or ended; trying again");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Deadline,
    Due,
}

/// Ends or moves one operation. Returns the sequence of the newest event about it.
async fn act(state: &AppState, record: &Arc<Record>, passed: Passed) -> Result<u64, MoveError> {
    let applied = state.projection.applied();
    // Another backend may have been faster while others were moved.
    let known = state.projection.get(record.id.as_str());
    if known.is_none_or(|known| known.record.state != record.state) {
        return Ok(0);
    }

    let (id, times) = (&record.id, record.times());
    let outcome = match (passed, times.deadline, record.queue.name) {
        (Passed::Deadline, Some(deadline), _) => {
            let expired = state.dispatch.expire(record, deadline).await;
            expired.map_err(MoveError::from)
        }
        (Passed::Due, _, Some(name)) => state.dispatch.move_to(record, name.due()).await,
        _ => Ok(0),
    };
    match outcome {
        Ok(sequence) => {
            tracing::debug!(operation_id = %id, ?passed, "the time of the operation has come");
            Ok(sequence)
        }
        Err(MoveError::NoOriginal(why)) => state.dispatch.end_without_original(record, why).await,
        Err(error) => Err(error),
    }
    .or_else(|error| first_event(error, applied))
}

/// The sequence of the event that came first. When this backend had `applied` that event before, it will
/// change nothing later either, so this is a failure: the log may be older than the start request, for
/// example.
fn first_event(error: MoveError, applied: u64) -> Result<u64, MoveError> {
    match error {
        MoveError::Append(AppendError::Conflict(log)) if log.tail > applied => Ok(log.tail),
        error => Err(error),
    }
}
