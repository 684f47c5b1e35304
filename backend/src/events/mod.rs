//! Changes as server-sent events.
//!
//! | module | holds |
//! |---|---|
//! | [`frame`] | one event as bytes on the wire |
//! | [`encoder`] | the one task that turns changes into frames, while anybody follows |
//! | [`metrics`] | the task that follows the metrics of one operation, while anybody follows that operation |
//! | [`connection`] | one connection: what it was sent, what it skips, when it ends |
//!
//! Every event is encoded once and its bytes are shared by all readers. A reader that does not keep up misses frames and is
//! told so; nobody waits for it. Nobody follows: nothing runs, nothing is encoded.

pub mod connection;
pub mod encoder;
pub mod frame;
pub mod metrics;

use std::collections::HashMap;
use std::sync::Arc;

use ktrdr_protocol::id::{OperationId, WorkerType};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use self::frame::{Batch, Frame};
use crate::state::AppState;

/// Batches a reader of everything may lag behind. A batch is bounded in bytes, so this bounds memory, too.
const BATCHES: usize = 64;

/// Frames a reader of one operation may lag behind.
const FRAMES: usize = 64;

/// Who follows what.
#[derive(Debug)]
pub struct Hub {
    all: broadcast::Sender<Arc<Batch>>,
    topics: Mutex<HashMap<OperationId, Topic>>,
    /// Whether the encoder runs.
    encoding: Mutex<bool>,
}

/// One operation that is followed.
#[derive(Debug)]
struct Topic {
    sender: broadcast::Sender<Frame>,
    metrics: JoinHandle<()>,
}

/// A place among those who follow one operation; given up when dropped.
pub struct Seat {
    /// What happens to the operation.
    pub frames: broadcast::Receiver<Frame>,
    id: OperationId,
    state: AppState,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            all: broadcast::channel(BATCHES).0,
            topics: Mutex::default(),
            encoding: Mutex::new(false),
        }
    }
}

impl Hub {
    /// Follows everything. Read the projection afterwards, not before: then nothing is missed in between.
    pub fn follow_all(state: &AppState) -> broadcast::Receiver<Arc<Batch>> {
        let receiver = state.events.all.subscribe();
        state.events.encode(state);
        receiver
    }

    /// Follows one operation. Read the projection afterwards, not before.
    pub fn follow_one(state: &AppState, id: &OperationId, worker_type: &WorkerType) -> Seat {
        let frames = {
            let mut topics = state.events.topics.lock();
            let topic = topics.entry(id.clone()).or_insert_with(|| {
                let sender = broadcast::channel(FRAMES).0;
                let following = metrics::follow(
                    state.clone(),
                    id.clone(),
                    worker_type.clone(),
                    sender.clone(),
                );
                Topic {
                    metrics: tokio::spawn(following),
                    sender,
                }
            });
            topic.sender.subscribe()
        };
        state.events.encode(state);
        Seat {
            frames,
            id: id.clone(),
            state: state.clone(),
        }
    }

    /// How many connections follow everything, and how many operations are followed one by one.
    pub fn readers(&self) -> (usize, usize) {
        (self.all.receiver_count(), self.topics.lock().len())
    }

    fn is_followed(&self) -> bool {
        self.all.receiver_count() > 0 || !self.topics.lock().is_empty()
    }

    /// Makes sure that the encoder runs.
    fn encode(&self, state: &AppState) {
        let mut encoding = self.encoding.lock();
        if !*encoding {
            *encoding = true;
            // Under the lock: the encoder that is just ending cannot miss who came in.
            tokio::spawn(encoder::run(state.clone(), state.changes.subscribe()));
        }
    }

    /// Whether the encoder may end, because nobody follows. It must end then.
    fn rest(&self) -> bool {
        let mut encoding = self.encoding.lock();
        *encoding = self.is_followed();
        !*encoding
    }

    fn is_watched(&self, id: &OperationId) -> bool {
        self.topics.lock().contains_key(id)
    }

    fn send(&self, batch: Batch) {
        {
            let topics = self.topics.lock();
            if !topics.is_empty() {
                for frame in &batch.frames {
                    match &frame.operation {
                        Some(id) => {
                            drop(topics.get(id).map(|topic| topic.sender.send(frame.clone())))
                        }
                        None if frame.is_for_everybody() => {
                            topics
                                .values()
                                .for_each(|topic| drop(topic.sender.send(frame.clone())));
                        }
                        None => {}
                    }
                }
            }
        }
        // Fails when nobody follows everything.
        let _ = self.all.send(Arc::new(batch));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut topics = self.state.events.topics.lock();
        // This seat's own receiver still counts.
        if topics
            .get(&self.id)
            .is_some_and(|topic| topic.sender.receiver_count() <= 1)
            && let Some(topic) = topics.remove(&self.id)
        {
            topic.metrics.abort();
        }
    }
}
