//! The projection: every retained operation, folded from the stream, in memory.
//!
//! The problem: reads must be quick and may ask for anything (one operation, a page by type and
//! status, a place in a queue), while the only record of what happened is a stream of messages.
//!
//! How it is solved: each backend reads the whole stream once and keeps the state that the messages
//! lead to, with indexes. One task applies messages in batches under one write lock. Requests read
//! under a read lock and take shared records away, so a long answer never blocks the stream. The
//! stream is the truth: a projection can be thrown away and built again at any time, and the
//! projections of several backends differ only in how far they have read.
//!
//! Rejected: a database beside the stream, which would be a second truth that can disagree with the
//! first one and needs its own backup; and asking the stream for each request, which costs a round
//! trip per operation and cannot list or count.
//!
//! | module | holds |
//! |---|---|
//! | [`filter`] | which operations a list shows |
//! | [`follow`] | the loop: reads the stream from its first message, applies, follows |
//! | [`decode`] | message → event, start request or cancel intent |
//! | [`fold`] | pure: operation + event = operation |
//! | [`record`] | one operation in memory, and how it is shown |
//! | [`model`] | records and indexes: the read model and its queries |
//! | [`over`] | operations that are over: forgotten by their end, and removed from the stream |
//! | [`index`] | bitmaps over operation numbers: type, status, queue, worker, code of a failure |
//! | [`permits`] | who holds which key, and who waits for a permit |
//! | [`labelled`] | the operations with each label |
//! | [`reads`] | what others ask: one operation, pages, queues, counts |
//! | [`reader_health`] | whether the stream can be read, and why not |
//! | [`recent`] | the newest changes, for clients that continue an interrupted event stream |
//! | [`replaced`] | what a stream had that was replaced |
//! | [`counters`] | transitions of operations, counted for Prometheus |
//! | [`minutes`] | starts and ends in each of the last minutes |
//! | [`search`] | looks for a text among operations |
//! | [`shown`] | an operation that is written as its document |
//! | [`stream_room`] | the room that is left in the stream |
//! | [`losses`] | how often the stream was replaced, or lost its newest messages |
//! | [`waiters`] | requests that wait for a sequence or for the end of an operation |

mod claims;
pub mod counters;
pub mod decode;
pub mod filter;
pub mod fold;
pub mod follow;
pub mod index;
mod labelled;
pub mod losses;
pub mod minutes;
pub mod model;
pub mod over;
pub mod permits;
pub mod reader_health;
mod reads;
pub mod recent;
pub mod record;
pub mod replaced;
pub mod search;
pub mod shown;
pub mod stream_room;
pub mod waiters;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ktrdr_bus::telemetry::Repeated;
use ktrdr_protocol::id::{OperationId, WorkerId};
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::state::Rejected;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::RunningOperation;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use self::claims::Claim;
use self::counters::OperationCounters;
use self::decode::{Content, StreamMessage};
use self::fold::ProgressReport;
use self::losses::StreamLosses;
use self::model::{Model, Skip};
use self::over::{Over, StreamClock};
use self::reader_health::ReaderHealth;
use self::replaced::Replaced;
use self::stream_room::StreamRoom;
use self::waiters::Waiters;
use crate::changes::{Change, Changes};

/// How long an answer waits until this backend has read what it has published.
pub const READ_YOUR_WRITES: Duration = Duration::from_secs(5);

/// The projection, shared by everything that reads it.
pub struct Projection {
    model: RwLock<Model>,
    /// Sequence of the last message that was applied, whether it changed anything or not.
    applied: AtomicU64,
    /// Sequence of the last message that the stream is known to hold.
    stream_last: AtomicU64,
    skipped: AtomicU64,
    /// Lines about messages that cannot be read.
    unreadable: Repeated,
    /// Lines about messages that cannot follow.
    impossible: Repeated,
    /// Lines about claims.
    claim_lines: Repeated,
    /// Transitions since the replay.
    pub counters: OperationCounters,
    /// How often what was read was gone.
    pub losses: StreamLosses,
    /// How often the stream was replaced by another one.
    generation: AtomicU64,
    caught_up: AtomicBool,
    /// Wakes those who wait until it is loaded.
    loaded: Notify,
    /// When the stream that is read was created, in nanoseconds.
    stream_created: Mutex<Option<i128>>,
    /// Whether the stream can be read.
    pub reader: ReaderHealth,
    waiters: Waiters,
    changes: Changes,
    /// Wakes the duty that follows cancels: one was requested.
    pub cancel_requested: Notify,
    /// Wakes the duty that acts at times: an operation waits for one.
    pub times_changed: Notify,
    /// Wakes the duty that writes the archive: an operation has ended.
    pub some_ended: Notify,
    room: StreamRoom,
    /// Operations that are over and still in the stream.
    pub over: Over,
    /// The clock of the stream.
    pub clock: StreamClock,
    replaced: Replaced,
    /// Searches for a text that may run at a time.
    searches: Semaphore,
}

impl Projection {
    /// Holds nothing yet.
    pub fn new(changes: Changes) -> Self {
        Self {
            model: RwLock::default(),
            applied: AtomicU64::new(0),
            stream_last: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            unreadable: Repeated::new(),
            impossible: Repeated::new(),
            claim_lines: Repeated::per_minute(claims::LINES_PER_MINUTE),
            counters: OperationCounters::default(),
            losses: StreamLosses::default(),
            generation: AtomicU64::new(0),
            caught_up: AtomicBool::new(false),
            loaded: Notify::new(),
            stream_created: Mutex::default(),
            reader: ReaderHealth::default(),
            waiters: Waiters::default(),
            changes,
            cancel_requested: Notify::new(),
            times_changed: Notify::new(),
            some_ended: Notify::new(),
            room: StreamRoom::default(),
            over: Over::default(),
            clock: StreamClock::default(),
            replaced: Replaced::default(),
            searches: Semaphore::new(1),
        }
    }

    /// The time of the stream, or of this machine while that is not known.
    pub fn now(&self) -> Timestamp {
        self.clock.now().unwrap_or_else(Timestamp::now)
    }

    /// Sequence of the last message that was applied.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    /// Messages that the stream is known to hold and that were not applied yet.
    pub fn lag(&self) -> u64 {
        self.stream_last
            .load(Ordering::Relaxed)
            .saturating_sub(self.applied())
    }

    /// Notes that the stream holds messages up to `sequence`.
    pub fn note_stream_end(&self, sequence: u64) {
        self.stream_last.fetch_max(sequence, Ordering::Relaxed);
    }

    /// The same, from an answer that may be about another stream than the one that is read: it may come after
    /// that one was replaced.
    pub fn note_stream_end_of(&self, created: i128, sequence: u64) {
        // Held, so that no replacement comes in between.
        let read = self.stream_created.lock();
        if *read == Some(created) {
            self.note_stream_end(sequence);
        }
    }

    /// Messages that should have changed something and did not: unreadable or impossible ones.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Changes when the stream was replaced by another one.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether the projection is loaded: everything that the stream held when reading began was
    /// applied.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::SeqCst)
    }

    /// Waits until the projection is loaded.
    pub async fn caught_up(&self) {
        loop {
            let notified = self.loaded.notified();
            if self.is_caught_up() {
                return;
            }
            notified.await;
        }
    }

    /// How many operations ended before `time`.
    pub fn ended_before(&self, time: Timestamp) -> u64 {
        self.model.read().ended_before(time)
    }

    /// Waits until the message at `sequence` was applied. False when that takes longer than
    /// `patience`.
    pub async fn reached(&self, sequence: u64, patience: Duration) -> bool {
        if self.applied() >= sequence {
            return true;
        }
        let mut waiter = self.waiters.sequence(sequence);
        self.applied() >= sequence || tokio::time::timeout(patience, waiter.woken()).await.is_ok()
    }

    /// Waits until the operation has ended, or is gone.
    pub async fn ended(&self, id: &OperationId) {
        loop {
            let mut waiter = self.waiters.operation(id);
            if self
                .get(id.as_str())
                .is_none_or(|view| view.status().is_terminal())
            {
                return;
            }
            waiter.woken().await;
        }
    }

    /// Takes the progress that a worker of this type reported: in a message of its own, in a
    /// heartbeat, or as an answer to a question.
    ///
    /// # Errors
    /// [`Skip::OtherType`] when the operation is of another worker type. Progress of an operation
    /// or attempt that does not run is no error: it may have been on its way.
    pub fn apply_progress(
        &self,
        worker_type: &str,
        worker: &WorkerId,
        running: RunningOperation,
    ) -> Result<(), Skip> {
        let RunningOperation {
            operation_id,
            attempt,
            report,
            mut progress,
        } = running;
        progress.shorten(Progress::KEPT_STEP, Progress::KEPT_FIELDS);
        let report = ProgressReport {
            worker,
            attempt,
            number: report,
            heard_at: Timestamp::now(),
            heard: Instant::now(),
            progress,
        };

        let applied = self
            .model
            .write()
            .apply_progress(worker_type, &operation_id, report);
        match applied {
            Ok(true) if self.changes.has_listeners() => {
                self.changes.announce(Change::Progress { operation_id });
            }
            Ok(_) | Err(Skip::Unknown) => {}
            Err(why) => return Err(why),
        }
        Ok(())
    }

    /// Applies messages in stream order: one lock for all of them, then one round of waking
    /// waiters.
    fn apply_batch(&self, batch: Vec<StreamMessage<'_>>) {
        let Some(last) = batch.last().map(|message| message.sequence) else {
            return;
        };

        let effects = {
            let mut model = self.model.write();
            // Asked under the lock: a listener that subscribed before it reads the model either
            // hears of this batch or reads what it led to.
            let has_listeners = self.changes.has_listeners();
            let mut effects = Effects::new(self.is_caught_up(), has_listeners);
            for message in batch {
                self.apply(&mut model, message, &mut effects);
            }
            if model.take_time_news() {
                self.times_changed.notify_one();
            }
            effects
        };

        self.applied.store(last, Ordering::SeqCst);
        self.waiters.reached(last);
        self.waiters.ended(&effects.ended);
        if !effects.ended.is_empty() {
            self.some_ended.notify_one();
        }
        if effects.is_cancel_requested {
            self.cancel_requested.notify_one();
        }
        for change in effects.changes {
            self.changes.announce(change);
        }
        for claim in effects.claims {
            claim.log();
        }
        for skipped in effects.skipped {
            self.note_skipped(&skipped);
        }
    }

    /// Applies one message to the model, and notes in `effects` what must happen after the lock is
    /// released.
    fn apply<'a>(&self, model: &mut Model, message: StreamMessage<'a>, effects: &mut Effects<'a>) {
        let StreamMessage {
            sequence,
            subject,
            content,
        } = message;
        let mut skip = |reason| {
            effects.skipped.push(Skipped {
                sequence,
                subject,
                reason,
            });
        };

        let content = match content {
            Ok(content) => content,
            Err(why) => return skip(Err(why)),
        };
        let is_cancel = matches!(content, Content::Cancel { .. });
        let claim = match effects.is_live {
            true => Claim::of(&content, &self.claim_lines),
            false => None,
        };
        let counted_at = counted_at(&content);
        let applied = match content {
            Content::Start { origin, request } => model.start(sequence, origin, request),
            Content::Event { worker_type, event } => model.event(sequence, worker_type, event),
            Content::Cancel {
                worker_type,
                intent,
            } => model.cancel(worker_type, &intent),
            Content::Key {
                worker_type,
                kind,
                digest,
                entry,
            } => return model.key_entry(sequence, &worker_type, (kind, digest), entry),
        };
        let applied = match applied {
            Ok(applied) => applied,
            Err(why) => return skip(Ok(why)),
        };

        effects.is_cancel_requested |= is_cancel;
        effects.claims.extend(claim);
        if effects.is_live {
            let worker_type = applied.queue.worker_type.as_str();
            self.counters
                .count(worker_type, applied.status, applied.transition);
        }
        if let Some(at) = counted_at {
            model.count_minute(&applied, at, effects.now);
        }
        model.recent.push(sequence, applied.operation_id.clone());
        if applied.status.is_terminal() {
            effects.ended.push(applied.operation_id.clone());
        }
        if effects.has_listeners {
            // It links to the new one from now on.
            if let Some(operation_id) = applied.retried {
                effects.changes.push(Change::Operation {
                    sequence,
                    operation_id,
                });
            }
            effects.changes.push(Change::Operation {
                sequence,
                operation_id: applied.operation_id,
            });
        }
    }

    fn note_skipped(&self, skipped: &Skipped<'_>) {
        let Skipped {
            sequence,
            subject,
            reason,
        } = skipped;
        match reason {
            // Both are normal: an event may outlive its start request in the stream, and a cancel
            // may be requested twice.
            Ok(why @ (Skip::Unknown | Skip::Rejected(Rejected::Duplicate))) => {
                tracing::debug!(sequence, subject, reason = %why, "a message changed nothing");
            }
            Ok(why) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                if let Some(count) = self.impossible.note() {
                    tracing::warn!(sequence, subject, reason = %why, count, "skipping messages");
                }
            }
            Err(why) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                if let Some(count) = self.unreadable.note() {
                    tracing::warn!(sequence, subject, reason = why, count, "skipping messages");
                }
            }
        }
    }

    /// Tells of messages that were skipped since the last line about them. Called at intervals.
    pub fn summarise_skipped(&self) {
        for (lines, what) in [
            (&self.unreadable, "messages that cannot be read"),
            (&self.impossible, "messages that cannot follow"),
        ] {
            if let Some(count) = lines.summary() {
                tracing::warn!(count, "skipped {what}");
            }
        }
    }

    /// Forgets everything: the stream was replaced by another one.
    fn reset(&self) {
        self.caught_up.store(false, Ordering::SeqCst);
        let old = self.model.write().take();
        self.replaced.note(&old);
        self.applied.store(0, Ordering::SeqCst);
        {
            let mut read = self.stream_created.lock();
            *read = None;
            self.stream_last.store(0, Ordering::Relaxed);
        }
        self.over.clear();
        self.generation.fetch_add(1, Ordering::Relaxed);
        drop(old);
        self.waiters.wake_all();
        self.changes.announce(Change::Everything);
    }

    fn set_caught_up(&self) {
        if !self.caught_up.swap(true, Ordering::SeqCst) {
            self.loaded.notify_waiters();
            tracing::info!(
                operations = self.len(),
                sequence = self.applied(),
                "the projection has loaded"
            );
            self.replaced.compare(&self.model.read());
        }
    }
}

/// What applying a batch leads to once the lock is released.
struct Effects<'a> {
    /// This backend's time when the batch began.
    now: Timestamp,
    /// Whether the batch came after the replay, so that it counts.
    is_live: bool,
    has_listeners: bool,
    is_cancel_requested: bool,
    changes: Vec<Change>,
    ended: Vec<OperationId>,
    skipped: Vec<Skipped<'a>>,
    /// The claims that are logged.
    claims: Vec<Claim>,
}

impl Effects<'_> {
    fn new(is_live: bool, has_listeners: bool) -> Self {
        Self {
            now: Timestamp::now(),
            is_live,
            has_listeners,
            is_cancel_requested: false,
            changes: Vec::new(),
            ended: Vec::new(),
            skipped: Vec::new(),
            claims: Vec::new(),
        }
    }
}

/// A message that changed nothing.
struct Skipped<'a> {
    sequence: u64,
    subject: &'a str,
    /// Why it was not applied, or why it cannot be read.
    reason: Result<Skip, String>,
}

/// The minute in which a message is counted; `None` when it is not. A released operation is pending
/// once more, but it was created only once.
fn counted_at(content: &Content<'_>) -> Option<Timestamp> {
    match content {
        Content::Start { request, .. } => Some(request.created_at),
        Content::Event { event, .. } if event.kind.is_terminal() => Some(event.at),
        Content::Event { .. } | Content::Cancel { .. } | Content::Key { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_a_stream_that_was_replaced_does_not_count() {
        let projection = Projection::new(Changes::default());
        projection.set_stream(1);
        projection.note_stream_end_of(1, 1_000);
        assert_eq!(projection.lag(), 1_000);

        projection.reset();
        projection.note_stream_end_of(1, 1_000);
        projection.set_stream(2);
        projection.note_stream_end_of(1, 1_000);
        assert_eq!(projection.lag(), 0);

        projection.note_stream_end_of(2, 3);
        assert_eq!(projection.lag(), 3);
    }
}
