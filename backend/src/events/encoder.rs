//! The task that turns changes into frames, once for all clients. It runs while anybody follows.
//!
//! The problem: thousands of operations may change every second, and thousands of clients may
//! follow them. To encode each change for each client, or even each change once, would take the
//! processor away from the requests that start operations.
//!
//! How it is solved: a change says only which operation or worker changed. Changes are collected
//! for a short time, and the state is read when the frame is made. Of several changes of one
//! operation only one frame is sent, and it shows the state that all of them led to. So the work is
//! bounded by the number of operations that change, not by how often they change. The pause between
//! two batches grows with the bytes that all clients together receive, and a flood that many
//! clients could not take in time becomes one `reset` event, after which each client fetches the
//! page it shows.
//!
//! Rejected: one task per client, which encodes the same operation once per client; and sending
//! every change, because a client cannot show more than the newest state anyway.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior};

use super::Broadcaster;
use super::frame::{Batch, Frame};
use crate::changes::Change;

/// Interval of the comment that keeps quiet connections open.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// Shortest pause after a batch, in which further changes gather. Too short for a user to notice.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// Longest pause after a batch.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Bytes a second sent to all clients that follow all events, together. More would take the
/// processor away from the requests that start operations.
const MAX_BYTES_PER_SECOND: u64 = 128 * 1024 * 1024;

/// Estimated size of an operation before it is encoded.
const TYPICAL_OPERATION_BYTES: u64 = 1024;

/// Operations that are always sent, however many clients there are.
const ALWAYS_SENT: usize = 1000;

/// Changes taken from the channel in one go, at most.
const MAX_DRAINED: usize = 1024;

/// Bytes after which a batch is sent and the next one begins.
const BATCH_BYTES: usize = 256 * 1024;

/// The reason that clients get when too much happens and they must fetch again.
const FLOOD: &str = "too many changes at once";

/// Changes that were not sent yet.
#[derive(Debug, Default)]
struct PendingChanges {
    /// Changed operations, with the sequence of their newest change.
    operations: HashMap<OperationId, u64>,
    progress: HashSet<OperationId>,
    workers: HashMap<WorkerId, WorkerType>,
    /// Why clients must fetch again.
    reset: Option<&'static str>,
}

/// Encodes as long as there is a subscription.
pub async fn run(broadcaster: Broadcaster, mut changes: broadcast::Receiver<Arc<Change>>) {
    let mut comment = tokio::time::interval_at(Instant::now() + COMMENT_INTERVAL, COMMENT_INTERVAL);
    comment.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pending = PendingChanges::default();
    let mut next_batch = Instant::now();

    loop {
        // All arms are cancel safe.
        tokio::select! {
            change = changes.recv() => {
                match change {
                    Ok(change) => pending.add(&change),
                    Err(RecvError::Lagged(_)) => pending.reset = Some(FLOOD),
                    // Nothing will ever change again: the process is ending.
                    Err(RecvError::Closed) => return,
                }
                pending.drain(&mut changes);
            }
            () = tokio::time::sleep_until(next_batch), if !pending.is_empty() => {
                if broadcaster.end_encoding_if_unfollowed() {
                    return;
                }
                let clients = broadcaster.0.all.receiver_count() as u64;
                let bytes = std::mem::take(&mut pending).send(&broadcaster, clients);
                next_batch = Instant::now() + pause_after(bytes * clients);
            }
            _ = comment.tick() => {
                if broadcaster.end_encoding_if_unfollowed() {
                    return;
                }
                broadcaster.send(Batch::new(vec![Frame::heartbeat()]));
            }
        }
    }
}

/// The pause after so many bytes were sent.
fn pause_after(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / MAX_BYTES_PER_SECOND)
        .clamp(MIN_PAUSE, MAX_PAUSE)
}

/// Whether so many operations are too many for so many clients.
fn is_flood(operations: usize, clients: u64) -> bool {
    let bytes = (operations as u64)
        .saturating_mul(TYPICAL_OPERATION_BYTES)
        .saturating_mul(clients);
    operations > ALWAYS_SENT && bytes > MAX_BYTES_PER_SECOND
}

impl PendingChanges {
    fn is_empty(&self) -> bool {
        self.operations.is_empty()
            && self.progress.is_empty()
            && self.workers.is_empty()
            && self.reset.is_none()
    }

    fn add(&mut self, change: &Change) {
        match change {
            Change::Operation {
                sequence,
                operation_id,
            } => {
                self.operations.insert(operation_id.clone(), *sequence);
            }
            Change::Progress { operation_id } => {
                self.progress.insert(operation_id.clone());
            }
            Change::Worker {
                worker_id,
                worker_type,
            } => {
                self.workers.insert(worker_id.clone(), worker_type.clone());
            }
            Change::Everything => self.reset = Some("the stream was replaced"),
        }
    }

    /// Adds the changes that wait in the channel already.
    fn drain(&mut self, changes: &mut broadcast::Receiver<Arc<Change>>) {
        for _ in 0..MAX_DRAINED {
            match changes.try_recv() {
                Ok(change) => self.add(&change),
                Err(TryRecvError::Lagged(_)) => self.reset = Some(FLOOD),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Sends the changes and returns how many bytes that were. `clients` follow all events.
    fn send(mut self, broadcaster: &Broadcaster, clients: u64) -> u64 {
        let sources = &broadcaster.0.sources;
        let mut batches = BatchWriter::new(broadcaster);

        if is_flood(self.operations.len() + self.progress.len(), clients) {
            self.reset = Some(FLOOD);
            self.operations.clear();
            self.progress.clear();
        }
        if let Some(reason) = self.reset {
            batches.push(Frame::reset(reason, sources.projection.last_change()));
        }

        if clients > 0 {
            let now = Instant::now();
            for (id, worker_type) in std::mem::take(&mut self.workers) {
                let document = sources.registry.get_of(&worker_type, id.as_str(), now);
                batches.push(Frame::worker(id.as_str(), worker_type, document.as_ref()));
            }
        }
        self.send_operations(broadcaster, clients > 0, &mut batches);

        batches.flush();
        batches.total
    }

    /// Writes changed operations, then the progress of those that did not change otherwise. Without
    /// `all`, only those that somebody follows one by one.
    fn send_operations(self, broadcaster: &Broadcaster, all: bool, batches: &mut BatchWriter<'_>) {
        let projection = &broadcaster.0.sources.projection;
        let is_wanted = |id: &OperationId| all || broadcaster.is_followed(id);

        // In stream order: a client that is cut off in between continues after the last one
        // received.
        let mut operations: Vec<(u64, OperationId)> = self
            .operations
            .into_iter()
            .map(|(id, sequence)| (sequence, id))
            .collect();
        operations.sort_unstable_by_key(|(sequence, _)| *sequence);
        for (sequence, id) in operations.iter().filter(|(_, id)| is_wanted(id)) {
            if let Some(view) = projection.get(id.as_str()) {
                batches.push(Frame::operation(&view, *sequence));
            }
        }

        let changed: HashSet<&OperationId> = operations.iter().map(|(_, id)| id).collect();
        let progress = self.progress.iter().filter(|id| !changed.contains(id));
        for id in progress.filter(|id| is_wanted(id)) {
            let view = projection.get(id.as_str());
            if let Some(frame) = view.as_ref().and_then(Frame::progress) {
                batches.push(frame);
            }
        }
    }
}

/// Sends frames in batches of bounded size.
struct BatchWriter<'a> {
    broadcaster: &'a Broadcaster,
    frames: Vec<Frame>,
    /// Bytes of `frames`.
    bytes: usize,
    /// Bytes of all frames so far.
    total: u64,
}

impl<'a> BatchWriter<'a> {
    fn new(broadcaster: &'a Broadcaster) -> Self {
        Self {
            broadcaster,
            frames: Vec::new(),
            bytes: 0,
            total: 0,
        }
    }

    fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        self.total += frame.bytes.len() as u64;
        self.frames.push(frame);
        if self.bytes >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.bytes = 0;
        if !self.frames.is_empty() {
            self.broadcaster
                .send(Batch::new(std::mem::take(&mut self.frames)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_readers_get_everything_and_many_are_spared() {
        assert_eq!(pause_after(0), MIN_PAUSE);
        assert_eq!(
            pause_after(MAX_BYTES_PER_SECOND / 2),
            Duration::from_millis(500)
        );
        assert_eq!(pause_after(u64::MAX), MAX_PAUSE);

        assert!(!is_flood(50_000, 2));
        assert!(!is_flood(1000, 5000));
        assert!(is_flood(2000, 1000));
    }
}
