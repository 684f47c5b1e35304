//! The projection: every retained operation, folded from the stream, in memory.
//!
//! | module | holds |
//! |---|---|
//! | [`follow`] | the loop: read the stream from the first message, apply, follow; ready when caught up |
//! | [`decode`] | message → what it says |
//! | [`counters`] | what happens, counted for Prometheus |
//! | [`fold`] | pure: operation + event = operation |
//! | [`record`] | one operation in memory, and how it is shown |
//! | [`index`] | bitmaps over operation numbers: type, status, queue |
//! | [`recent`] | the newest changes, for live streams that go on where they were |
//! | [`minutes`] | what happened in each of the last minutes |
//! | [`model`] | records + indexes = the read model and its queries |
//! | [`stream_room`] | what is left of the stream's limit |
//! | [`waiters`] | who waits for a sequence or for the end of an operation |
//!
//! The stream is the truth: a projection can be thrown away and built again at any time, and those of several backends differ
//! only by how far they have read.

pub mod counters;
pub mod decode;
pub mod fold;
pub mod follow;
pub mod index;
pub mod minutes;
pub mod model;
pub mod recent;
pub mod record;
pub mod stream_room;
pub mod waiters;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::rest::stats::MinuteStats;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::subject::{SubjectNames, Topic};
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::RunningOperation;
use parking_lot::RwLock;
use tokio::sync::Notify;

use self::counters::OperationCounters;
use self::decode::{Body, Decoded};
use self::model::{Applied, Model, QueueState, Skip};
use self::record::{Record, View};
use self::stream_room::StreamRoom;
use self::waiters::Waiters;
use crate::changes::{Change, Changes};

/// The projection, shared by everything that reads it.
pub struct Projection {
    names: SubjectNames,
    model: RwLock<Model>,
    /// Sequence of the last message that was taken, whether it changed anything or not.
    applied: AtomicU64,
    /// Sequence of the last message that the stream is known to hold.
    stream_last: AtomicU64,
    skipped: AtomicU64,
    /// What happened since the replay.
    pub counters: OperationCounters,
    /// How often the stream turned out to be another one.
    generation: AtomicU64,
    caught_up: AtomicBool,
    waiters: Waiters,
    changes: Changes,
    /// A cancel was asked for: wakes the background duties.
    pub cancel_asked: Notify,
    room: StreamRoom,
}

impl Projection {
    /// An empty one.
    pub fn new(names: SubjectNames, changes: Changes) -> Self {
        Self {
            names,
            model: RwLock::default(),
            applied: AtomicU64::new(0),
            stream_last: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            counters: OperationCounters::default(),
            generation: AtomicU64::new(0),
            caught_up: AtomicBool::new(false),
            waiters: Waiters::default(),
            changes,
            cancel_asked: Notify::new(),
            room: StreamRoom::default(),
        }
    }

    /// One operation as it stands now.
    pub fn get(&self, id: &str) -> Option<View> {
        self.model.read().get(id)
    }

    /// How many operations match, and one page of them, newest first.
    pub fn list(
        &self,
        worker_type: Option<&str>,
        status: Option<Status>,
        offset: u64,
        limit: usize,
    ) -> (u64, Vec<View>) {
        self.model.read().list(worker_type, status, offset, limit)
    }

    /// Every queue.
    pub fn queues(&self) -> Vec<QueueState> {
        self.model.read().queues()
    }

    /// How many operations there are of each type in each status, in the order of [`Status::ALL`].
    pub fn counts(&self) -> Vec<(WorkerType, [u64; Status::ALL.len()])> {
        self.model.read().counts()
    }

    /// What happened in each of the last 60 minutes.
    pub fn minutes(&self, now: Timestamp) -> Vec<MinuteStats> {
        self.model.read().minutes.minutes(now)
    }

    /// The operations that changed after `sequence`, and the sequence of the newest change that they show. See
    /// [`recent::RecentChanges::after`] for when there is no answer.
    pub fn changed_after(&self, sequence: u64, most: usize) -> (u64, Option<Vec<(u64, View)>>) {
        let model = self.model.read();
        let views = model.recent.after(sequence, most).map(|changes| {
            changes
                .into_iter()
                .filter_map(|(sequence, id)| Some((sequence, model.get(id.as_str())?)))
                .collect()
        });
        (model.recent.last(), views)
    }

    /// Sequence of the newest message that changed something.
    pub fn last_change(&self) -> u64 {
        self.model.read().recent.last()
    }

    /// Operations that have not ended though a cancel was asked for.
    pub fn cancelling(&self) -> Vec<Arc<Record>> {
        self.model.read().cancelling()
    }

    /// Operations started directly on a worker that have not ended.
    pub fn open_direct(&self) -> Vec<Arc<Record>> {
        self.model.read().open_direct()
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.model.read().len()
    }

    /// Whether the stream has room for a start request of this size, beside what was accepted before.
    pub fn has_room(&self, payload: usize) -> bool {
        let count = |status| self.list(None, Some(status), 0, 0).0;
        self.room
            .fits(payload, || count(Status::Pending) + count(Status::Running))
    }

    /// Sequence of the last message that was taken.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    /// How many messages of the stream are known to be there and were not taken yet.
    pub fn lag(&self) -> u64 {
        self.stream_last
            .load(Ordering::Relaxed)
            .saturating_sub(self.applied())
    }

    /// The stream holds messages up to this one.
    fn heard_of(&self, sequence: u64) {
        self.stream_last.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Messages that changed nothing though they should have: unreadable, or not possible.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Changes when the stream was replaced by another one.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether everything that was in the stream when this backend started to read has been taken.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::SeqCst)
    }

    /// Waits until the message at `sequence` has been taken. False when it takes longer than `patience`.
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

    /// Takes what a worker says of an operation it runs: by itself, in a heartbeat, or as an answer to a question.
    pub fn apply_progress(&self, worker: &WorkerId, running: RunningOperation) {
        let RunningOperation {
            operation_id: id,
            attempt,
            report,
            progress,
        } = running;
        let queue =
            self.model
                .write()
                .report(&id, attempt, worker, report, Timestamp::now(), progress);
        if let Some(queue) = queue
            && self.changes.has_listeners()
        {
            self.changes.announce(Change::Progress { operation_id: id });
        }
    }

    /// Takes messages in stream order: one lock for all of them, then one round of waking.
    fn take(&self, batch: Vec<Decoded>) {
        let Some(last) = batch.last().map(|decoded| decoded.sequence) else {
            return;
        };
        let now = Timestamp::now();
        let live = self.is_caught_up();
        let mut changes = Vec::new();
        let mut ended = Vec::new();
        let mut skipped = Vec::new();
        let mut cancel_asked = false;
        {
            let mut model = self.model.write();
            // Asked under the lock: whoever listens before reading the model either hears of this batch or reads it.
            let listening = self.changes.has_listeners();
            for Decoded {
                sequence,
                subject,
                body,
            } in batch
            {
                let is_cancel = matches!(body, Ok(Body::Cancel(_)));
                let counted_at = body.as_ref().ok().and_then(happened_at);
                match body.map(|body| self.apply(&mut model, sequence, &subject, body)) {
                    Ok(Ok(applied)) => {
                        cancel_asked |= is_cancel;
                        if live {
                            self.counters.count(
                                applied.queue.worker_type.as_str(),
                                applied.status,
                                applied.transition,
                            );
                        }
                        model.recent.push(sequence, applied.operation_id.clone());
                        if let Some(at) = counted_at {
                            model.minutes.count(applied.status, at, now);
                        }
                        if applied.status.is_terminal() {
                            ended.push(applied.operation_id.clone());
                        }
                        if listening {
                            changes.push(Change::Operation {
                                sequence,
                                operation_id: applied.operation_id,
                            });
                        }
                    }
                    Ok(Err(skip)) => skipped.push((sequence, subject, Ok(skip))),
                    Err(reason) => skipped.push((sequence, subject, Err(reason))),
                }
            }
        }
        self.applied.store(last, Ordering::SeqCst);
        self.waiters.reached(last);
        self.waiters.ended(&ended);
        if cancel_asked {
            self.cancel_asked.notify_one();
        }
        for change in changes {
            self.changes.announce(change);
        }
        for (sequence, subject, reason) in skipped {
            self.note_skipped(sequence, &subject, reason);
        }
    }

    fn apply(
        &self,
        model: &mut Model,
        sequence: u64,
        subject: &str,
        body: Body,
    ) -> Result<Applied, Skip> {
        match (self.names.parse(subject), body) {
            (Some(Topic::Start { queue, .. }), Body::Start(request)) => {
                let origin = Origin::from_token(queue).map_err(|_| Skip::Unknown)?;
                model.start(sequence, origin, request)
            }
            (Some(Topic::Operation { worker_type, .. }), Body::Event(event)) => {
                model.event(sequence, worker_type, event)
            }
            (Some(Topic::Cancel { worker_type, .. }), Body::Cancel(intent)) => {
                model.cancel(worker_type, &intent)
            }
            // `decode` made the body from this very subject.
            _ => Err(Skip::Unknown),
        }
    }

    fn note_skipped(&self, sequence: u64, subject: &str, reason: Result<Skip, String>) {
        match reason {
            // What happens in order: events that outlive their start request in the stream, a cancel asked for twice.
            Ok(
                reason @ (Skip::Unknown
                | Skip::Rejected(ktrdr_protocol::state::Rejected::Duplicate)),
            ) => {
                tracing::debug!(sequence, subject, %reason, "a message changed nothing");
            }
            Ok(reason) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(sequence, subject, %reason, "skipping a message");
            }
            Err(reason) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(sequence, subject, reason, "skipping a message");
            }
        }
    }

    fn forget_before(&self, first_sequence: u64) {
        let forgotten = self.model.write().forget_before(first_sequence);
        if forgotten > 0 {
            self.waiters.look_again();
            tracing::debug!(forgotten, first_sequence, "operations have left the stream");
        }
    }

    /// Starts from nothing: the stream is another one than it was.
    fn reset(&self) {
        self.caught_up.store(false, Ordering::SeqCst);
        let old = std::mem::take(&mut *self.model.write());
        self.applied.store(0, Ordering::SeqCst);
        self.stream_last.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
        drop(old);
        self.waiters.look_again();
        self.changes.announce(Change::Everything);
    }

    fn caught_up(&self) {
        if !self.caught_up.swap(true, Ordering::SeqCst) {
            tracing::info!(
                operations = self.len(),
                sequence = self.applied(),
                "the projection has caught up"
            );
        }
    }
}

/// When what is counted happened. An operation that was handed back is pending again, but was created only once.
fn happened_at(body: &Body) -> Option<Timestamp> {
    match body {
        Body::Start(request) => Some(request.created_at),
        Body::Event(event) if event.kind.is_terminal() => Some(event.at),
        Body::Event(_) | Body::Cancel(_) => None,
    }
}
