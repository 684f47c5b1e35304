//! Turns changes into frames, for all readers at once. Runs while anybody follows.
//!
//! Changes carry no content; the state is read when the frame is made. So of several changes of one operation that wait at
//! the same time only the newest is sent: it shows what all of them led to. Under a flood this bounds the work by the number
//! of operations that change, not by how often.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ktrdr_shared::id::{OperationId, WorkerId, WorkerType};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior};

use super::frame::{Batch, Frame};
use crate::live::Change;
use crate::state::AppState;

/// How often a quiet line is kept open.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Pause after a batch, in which further changes gather. Short enough not to be noticed.
const PACE: Duration = Duration::from_millis(20);

/// Most changes gathered for one batch.
const GATHERED: usize = 1024;

/// Bytes after which a batch is sent and the next one begun.
const BATCH_BYTES: usize = 256 * 1024;

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
    loop {
        tokio::select! {
            change = changes.recv() => {
                let mut gathered = Gathered::default();
                match change {
                    Ok(change) => gathered.take(&change),
                    Err(RecvError::Lagged(_)) => gathered.reset = Some("too many changes at once"),
                    // Nothing will ever change again: the process is ending.
                    Err(RecvError::Closed) => return,
                }
                gathered.more(&mut changes);
                if state.events.rest() {
                    return;
                }
                gathered.send(&state);
                tokio::time::sleep(PACE).await;
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

impl Gathered {
    fn take(&mut self, change: &Change) {
        match change {
            Change::Operation { sequence, operation_id, .. } => {
                self.operations.insert(operation_id.clone(), *sequence);
            }
            Change::Progress { operation_id, .. } => {
                self.progress.insert(operation_id.clone());
            }
            Change::Worker { worker_id, worker_type, .. } => {
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
                Err(TryRecvError::Lagged(_)) => self.reset = Some("too many changes at once"),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn send(self, state: &AppState) {
        let (hub, projection) = (&state.events, &state.projection);
        let mut out = Out { state, frames: Vec::new(), bytes: 0 };
        if let Some(reason) = self.reset {
            out.push(Frame::reset(reason, projection.last_change()));
        }
        let everything = hub.all.receiver_count() > 0;
        if everything {
            let now = Instant::now();
            for (id, worker_type) in self.workers {
                let document = state.registry.get(id.as_str(), now);
                out.push(Frame::worker(id.as_str(), worker_type, document.as_ref()));
            }
        }
        let wanted = |id: &OperationId| everything || hub.is_watched(id);
        let mut operations: Vec<(u64, OperationId)> = self.operations.into_iter().map(|(id, at)| (at, id)).collect();
        // In stream order: whoever is cut off in between goes on behind the last one received.
        operations.sort_unstable_by_key(|(sequence, _)| *sequence);
        let changed: HashSet<&OperationId> = operations.iter().map(|(_, id)| id).collect();
        let progress: Vec<&OperationId> = self.progress.iter().filter(|id| !changed.contains(id)).collect();
        for (sequence, id) in operations.iter().filter(|(_, id)| wanted(id)) {
            if let Some(view) = projection.get(id.as_str()) {
                out.push(Frame::operation(&view, *sequence));
            }
        }
        for id in progress.into_iter().filter(|id| wanted(id)) {
            if let Some(frame) = projection.get(id.as_str()).as_ref().and_then(Frame::progress) {
                out.push(frame);
            }
        }
        out.flush();
    }
}

/// Frames on their way out, in batches of bounded size.
struct Out<'a> {
    state: &'a AppState,
    frames: Vec<Frame>,
    bytes: usize,
}

impl Out<'_> {
    fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        self.frames.push(frame);
        if self.bytes >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.bytes = 0;
        if !self.frames.is_empty() {
            self.state.events.send(Batch::new(std::mem::take(&mut self.frames)));
        }
    }
}
