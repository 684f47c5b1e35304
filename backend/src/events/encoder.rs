//! Turns changes into frames, for all readers at once. Runs while anybody follows.
//!
//! Changes carry no content; the state is read when the frame is made. So of several changes of one operation that wait at
//! the same time only the newest is sent: it shows what all of them led to. Under a flood this bounds the work by the number
//! of operations that change, not by how often.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior};

use super::frame::{Batch, Frame};
use crate::changes::Change;
use crate::state::AppState;

/// How often a quiet line is kept open.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Shortest pause after a batch, in which further changes gather. Short enough not to be noticed.
const PACE: Duration = Duration::from_millis(20);

/// Longest pause.
const SLOWEST: Duration = Duration::from_secs(2);

/// Bytes a second that go out to all readers of everything together. With thousands of readers and thousands of changes the
/// sockets would otherwise take the processor away from those who start operations.
const RATE: u64 = 128 * 1024 * 1024;

/// What an operation is taken to need before it is encoded.
const TYPICAL_BYTES: u64 = 1024;

/// Operations that are always sent, whatever the number of readers.
const ALWAYS: usize = 1000;

/// Most changes taken in one go.
const GATHERED: usize = 1024;

/// Bytes after which a batch is sent and the next one begun.
const BATCH_BYTES: usize = 256 * 1024;

/// Why readers are told to fetch anew when too much happens.
const FLOOD: &str = "too many changes at once";

/// What changed and has not been sent.
#[derive(Debug, Default)]
struct Gathered {
    operations: HashMap<OperationId, u64>,
    progress: HashSet<OperationId>,
    workers: HashMap<WorkerId, WorkerType>,
    /// Why everything must be fetched anew.
    reset: Option<&'static str>,
}

/// Encodes until nobody follows.
pub async fn run(state: AppState, mut changes: broadcast::Receiver<Arc<Change>>) {
    let mut beat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gathered = Gathered::default();
    let mut due = Instant::now();
    loop {
        // All arms are cancel safe.
        tokio::select! {
            change = changes.recv() => {
                match change {
                    Ok(change) => gathered.take(&change),
                    Err(RecvError::Lagged(_)) => gathered.reset = Some(FLOOD),
                    // Nothing will ever change again: the process is ending.
                    Err(RecvError::Closed) => return,
                }
                gathered.more(&mut changes);
            }
            () = tokio::time::sleep_until(due), if !gathered.is_empty() => {
                if state.events.rest() {
                    return;
                }
                let readers = state.events.all.receiver_count() as u64;
                let bytes = std::mem::take(&mut gathered).send(&state, readers);
                due = Instant::now() + pause(bytes * readers);
            }
            _ = beat.tick() => {
                if state.events.rest() {
                    return;
                }
                state.events.send(Batch::new(vec![Frame::heartbeat()]));
            }
        }
    }
}

/// How long the next batch waits after so many bytes went out.
fn pause(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / RATE).clamp(PACE, SLOWEST)
}

/// Whether so many operations are too many for so many readers: then all of them fetch the one page they show instead.
fn too_many(operations: usize, readers: u64) -> bool {
    operations > ALWAYS
        && (operations as u64)
            .saturating_mul(TYPICAL_BYTES)
            .saturating_mul(readers)
            > RATE
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.operations.is_empty()
            && self.progress.is_empty()
            && self.workers.is_empty()
            && self.reset.is_none()
    }

    fn take(&mut self, change: &Change) {
        match change {
            Change::Operation {
                sequence,
                operation_id,
                ..
            } => {
                self.operations.insert(operation_id.clone(), *sequence);
            }
            Change::Progress { operation_id, .. } => {
                self.progress.insert(operation_id.clone());
            }
            Change::Worker {
                worker_id,
                worker_type,
                ..
            } => {
                self.workers.insert(worker_id.clone(), worker_type.clone());
            }
            Change::Everything => self.reset = Some("the stream was replaced"),
        }
    }

    /// Takes what waits already.
    fn more(&mut self, changes: &mut broadcast::Receiver<Arc<Change>>) {
        for _ in 0..GATHERED {
            match changes.try_recv() {
                Ok(change) => self.take(&change),
                Err(TryRecvError::Lagged(_)) => self.reset = Some(FLOOD),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Sends it; says how many bytes that was.
    fn send(mut self, state: &AppState, readers: u64) -> u64 {
        let (hub, projection) = (&state.events, &state.projection);
        let mut out = Out {
            state,
            frames: Vec::new(),
            bytes: 0,
            total: 0,
        };
        if too_many(self.operations.len() + self.progress.len(), readers) {
            self.reset = Some(FLOOD);
            self.operations.clear();
            self.progress.clear();
        }
        if let Some(reason) = self.reset {
            out.push(Frame::reset(reason, projection.last_change()));
        }
        let everything = readers > 0;
        if everything {
            let now = Instant::now();
            for (id, worker_type) in self.workers {
                let document = state.registry.get(id.as_str(), now);
                out.push(Frame::worker(id.as_str(), worker_type, document.as_ref()));
            }
        }
        let wanted = |id: &OperationId| everything || hub.is_watched(id);
        let mut operations: Vec<(u64, OperationId)> = self
            .operations
            .into_iter()
            .map(|(id, at)| (at, id))
            .collect();
        // In stream order: whoever is cut off in between goes on behind the last one received.
        operations.sort_unstable_by_key(|(sequence, _)| *sequence);
        let changed: HashSet<&OperationId> = operations.iter().map(|(_, id)| id).collect();
        let progress: Vec<&OperationId> = self
            .progress
            .iter()
            .filter(|id| !changed.contains(id))
            .collect();
        for (sequence, id) in operations.iter().filter(|(_, id)| wanted(id)) {
            if let Some(view) = projection.get(id.as_str()) {
                out.push(Frame::operation(&view, *sequence));
            }
        }
        for id in progress.into_iter().filter(|id| wanted(id)) {
            if let Some(frame) = projection
                .get(id.as_str())
                .as_ref()
                .and_then(Frame::progress)
            {
                out.push(frame);
            }
        }
        out.flush();
        out.total
    }
}

/// Frames on their way out, in batches of bounded size.
struct Out<'a> {
    state: &'a AppState,
    frames: Vec<Frame>,
    bytes: usize,
    total: u64,
}

impl Out<'_> {
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
            self.state
                .events
                .send(Batch::new(std::mem::take(&mut self.frames)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_readers_get_everything_and_many_are_spared() {
        assert_eq!(pause(0), PACE);
        assert_eq!(pause(RATE / 2), Duration::from_millis(500));
        assert_eq!(pause(u64::MAX), SLOWEST);
        assert!(!too_many(50_000, 2));
        assert!(!too_many(1000, 5000));
        assert!(too_many(2000, 1000));
    }
}
