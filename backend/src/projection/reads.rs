//! What others ask the projection. Each question takes the read lock once, for a moment.

use std::sync::Arc;

use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::rest::stats::{EndedStats, MinuteStats};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use super::Projection;
use super::model::{KeyFigures, Passed, Place, QueueState, UnfinishedWork, UnknownHolder};
use super::permits::OldEntries;
use super::record::{QueueInfo, Record, View};
use crate::summaries::Summaries;

impl Projection {
    /// One operation as it is now.
    pub fn get(&self, id: &str) -> Option<View> {
        self.model.read().get(id)
    }

    /// How operations are summarised.
    pub fn summaries(&self) -> Arc<Summaries> {
        Arc::clone(&self.model.read().summaries)
    }

    /// The newest operation that repeats this one, which may come from the archive.
    pub fn retried_as(&self, record: &Record) -> Option<OperationId> {
        self.model.read().retried_as(record)
    }

    /// How many operations have this status.
    pub fn count(&self, status: Status) -> u64 {
        self.model.read().count(status)
    }

    /// Whether there ever was an operation of this type.
    pub fn knows_type(&self, name: &str) -> bool {
        self.model.read().knows_type(name)
    }

    /// Every queue.
    pub fn queues(&self) -> Vec<QueueState> {
        self.model.read().queues()
    }

    /// How many operations of a queue have not ended.
    pub fn open(&self, worker_type: &WorkerType, origin: &Origin) -> u64 {
        self.model.read().open(worker_type, origin).0
    }

    /// The first sequence that a new consumer of this queue must deliver: that of the oldest
    /// operation that has not ended, or the first that was not read. `None` for all, when the
    /// stream that was created at this time (in nanoseconds) is not the one that was read to its
    /// end.
    pub fn first_needed(
        &self,
        created: i128,
        worker_type: &WorkerType,
        origin: &Origin,
    ) -> Option<u64> {
        let is_read = || self.is_caught_up() && *self.stream_created.lock() == Some(created);
        if !is_read() {
            return None;
        }

        // In this order: what is applied in between is among the operations.
        let generation = self.generation();
        let unread = self.applied() + 1;
        let (_, oldest) = self.model.read().open(worker_type, origin);
        let first = oldest.map_or(unread, |oldest| oldest.min(unread));
        (is_read() && self.generation() == generation).then_some(first)
    }

    /// The next time for which an operation waits.
    pub fn next_time(&self) -> Option<Timestamp> {
        self.model.read().next_time()
    }

    /// Delayed operations that are due behind this place, at most so many, the earliest first.
    pub fn due(&self, after: Option<Place>, now: Timestamp, most: usize) -> Vec<Passed> {
        self.model.read().due(after, now, most)
    }

    /// Waiting operations behind this place that have expired, at most so many, the earliest first.
    pub fn expired(&self, after: Option<Place>, now: Timestamp, most: usize) -> Vec<Passed> {
        self.model.read().expired(after, now, most)
    }

    /// The unfinished operations of each worker type.
    pub fn unfinished(&self, now: Timestamp, instant: Instant) -> Vec<UnfinishedWork> {
        self.model.read().unfinished(now, instant)
    }

    /// The keys of each worker type.
    pub fn key_figures(&self, now: Timestamp, instant: Instant) -> Vec<KeyFigures> {
        self.model.read().key_figures(now, instant)
    }

    /// The unknown holders of concurrency keys for which operations wait.
    pub fn unknown_holders(&self) -> Vec<UnknownHolder> {
        self.model.read().unknown_holders()
    }

    /// Takes its permit back from an unknown holder, unless it is known by now.
    pub fn release_unknown(&self, holder: &UnknownHolder) {
        self.model.write().release_unknown(holder);
    }

    /// Keys with many old entries, at most so many.
    pub fn keys_with_many_old(&self, most: usize) -> Vec<OldEntries> {
        self.model.read().keys_with_many_old(most)
    }

    /// Notes that these old entries were removed.
    pub fn note_purged(&self, purged: &OldEntries) {
        self.model.write().note_purged(purged);
    }

    /// How many operations there are of each type in each status, in the order of [`Status::ALL`].
    pub fn counts(&self) -> Vec<(WorkerType, [u64; Status::ALL.len()])> {
        self.model.read().counts()
    }

    /// Figures about the operations of these types that ended at `since` or later; `None` for all
    /// types.
    pub fn ended_since(&self, types: Option<&[&str]>, since: Timestamp) -> EndedStats {
        self.model.read().ended_since(types, since)
    }

    /// What happened in each of the last 60 minutes to operations of these types; `None` for all.
    pub fn minutes(&self, types: Option<&[&str]>, now: Timestamp) -> Vec<MinuteStats> {
        self.model.read().minutes(types, now)
    }

    /// The operations that changed after `sequence`, and the sequence of the newest change that
    /// they show. See [`super::recent::RecentChanges::after`] for when there is no answer.
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

    /// Operations with a cancel intent that have not ended.
    pub fn cancelling(&self) -> Vec<Arc<Record>> {
        self.model.read().cancelling()
    }

    /// Operations started directly on a worker that have not ended.
    pub fn open_direct(&self) -> Vec<Arc<Record>> {
        self.model.read().open_direct()
    }

    /// The operations of a queue that have not ended, and whose start request it has delivered.
    pub fn open_delivered(&self, queue: &QueueInfo, up_to: u64) -> Vec<Arc<Record>> {
        self.model.read().open_delivered(queue, up_to)
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.model.read().len()
    }

    /// Whether the stream has room for a start request of this size, beside the room that accepted
    /// operations will still need.
    pub fn has_room(&self, payload: usize) -> bool {
        let count = |status| self.count(status);
        self.room
            .fits(payload, || count(Status::Pending) + count(Status::Running))
    }
}
