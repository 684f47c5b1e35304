//! Live events: changes sent to clients over server-sent events.
//!
//! | module | holds |
//! |---|---|
//! | [`frame`] | one event as bytes on the wire |
//! | [`encoder`] | the one task that turns changes into frames, while anybody follows |
//! | [`metric_points`] | the task that follows the metric points of one operation, while anybody follows it |
//! | [`log_lines`] | the log lines of one operation, for one client |
//! | [`connection`] | one client: the position it has reached, the frames it skips, its end |
//!
//! Every event is encoded once, and all clients share its bytes. A client that does not keep up
//! loses frames and gets a reset frame; the others do not wait for it. Without a subscription, no
//! task runs and nothing is encoded.

pub mod connection;
pub mod encoder;
pub mod frame;
pub mod log_lines;
pub mod metric_points;

use std::collections::HashMap;
use std::sync::Arc;

use ktrdr_bus::nats;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::subject::SubjectNames;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::frame::{Batch, Frame};
use crate::changes::Changes;
use crate::projection::Projection;
use crate::refused::RefusedMessages;
use crate::registry::Registry;

/// Batches that a client of all events may lag behind. A batch is bounded in bytes, so this bounds
/// memory, too.
const MAX_BATCHES_BEHIND: usize = 64;

/// Frames that a client of one operation may lag behind.
const MAX_FRAMES_BEHIND: usize = 64;

/// Sends changes to all clients that follow them. Cheap to clone.
#[derive(Clone)]
pub struct Broadcaster(Arc<Shared>);

/// What events are made from.
pub struct Sources {
    /// Operations.
    pub projection: Arc<Projection>,
    /// Workers.
    pub registry: Arc<Registry>,
    /// Changes of both.
    pub changes: Changes,
    /// The connection to NATS: metric points are read from their stream.
    pub connection: nats::Connection,
    /// Subjects and streams.
    pub names: SubjectNames,
    /// Counts messages that are not believed.
    pub refused: RefusedMessages,
}

struct Shared {
    sources: Sources,
    /// Set when the process stops: every stream of events ends.
    stopping: CancellationToken,
    all: broadcast::Sender<Arc<Batch>>,
    operations: Mutex<HashMap<OperationId, OperationChannel>>,
    /// Whether the encoder runs.
    encoding: Mutex<bool>,
}

/// The frames of one operation that somebody follows.
struct OperationChannel {
    worker_type: WorkerType,
    sender: broadcast::Sender<Frame>,
    metric_points: JoinHandle<()>,
}

/// One client's subscription to one operation. The last one that is dropped closes the channel.
pub struct Subscription {
    /// What happens to the operation.
    pub frames: broadcast::Receiver<Frame>,
    id: OperationId,
    broadcaster: Broadcaster,
}

/// How many clients follow live events.
#[derive(Debug, Clone, Copy)]
pub struct Followers {
    /// Clients that follow all events.
    pub all: usize,
    /// Operations that are followed one by one.
    pub operations: usize,
}

impl Broadcaster {
    /// Nobody follows yet, so nothing runs.
    pub fn new(sources: Sources, stopping: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            sources,
            stopping,
            all: broadcast::channel(MAX_BATCHES_BEHIND).0,
            operations: Mutex::default(),
            encoding: Mutex::new(false),
        }))
    }

    /// Follows all events. Read the projection after this call, not before it: then nothing is
    /// missed in between.
    fn subscribe_all(&self) -> broadcast::Receiver<Arc<Batch>> {
        let receiver = self.0.all.subscribe();
        self.ensure_encoding();
        receiver
    }

    /// Follows one operation. Read the projection after this call, not before it.
    fn subscribe_one(&self, id: &OperationId, worker_type: &WorkerType) -> Subscription {
        let frames = {
            let mut operations = self.0.operations.lock();
            let channel = operations.entry(id.clone()).or_insert_with(|| {
                let sender = broadcast::channel(MAX_FRAMES_BEHIND).0;
                let following = metric_points::follow(
                    self.clone(),
                    id.clone(),
                    worker_type.clone(),
                    sender.clone(),
                );
                OperationChannel {
                    worker_type: worker_type.clone(),
                    metric_points: tokio::spawn(following),
                    sender,
                }
            });
            channel.sender.subscribe()
        };
        self.ensure_encoding();

        Subscription {
            frames,
            id: id.clone(),
            broadcaster: self.clone(),
        }
    }

    /// How many clients there are. Of single operations, only those of the types that `is_counted`
    /// names.
    pub fn followers(&self, is_counted: impl Fn(&WorkerType) -> bool) -> Followers {
        let operations = self.0.operations.lock();
        let counted = operations
            .values()
            .filter(|channel| is_counted(&channel.worker_type));
        Followers {
            all: self.0.all.receiver_count(),
            operations: counted.count(),
        }
    }

    fn has_followers(&self) -> bool {
        self.0.all.receiver_count() > 0 || !self.0.operations.lock().is_empty()
    }

    fn is_followed(&self, id: &OperationId) -> bool {
        self.0.operations.lock().contains_key(id)
    }

    /// Starts the encoder unless it runs.
    fn ensure_encoding(&self) {
        let mut encoding = self.0.encoding.lock();
        if !*encoding {
            *encoding = true;
            // Under the lock: an encoder that is just ending cannot miss the new client.
            tokio::spawn(encoder::run(
                self.clone(),
                self.0.sources.changes.subscribe(),
            ));
        }
    }

    /// Whether no subscription is left. The encoder must then end at once: it counts as ended.
    fn end_encoding_if_unfollowed(&self) -> bool {
        let mut encoding = self.0.encoding.lock();
        *encoding = self.has_followers();
        !*encoding
    }

    fn send(&self, batch: Batch) {
        self.send_to_operations(&batch);
        // Fails when nobody follows all events.
        let _ = self.0.all.send(Arc::new(batch));
    }

    fn send_to_operations(&self, batch: &Batch) {
        let operations = self.0.operations.lock();
        if operations.is_empty() {
            return;
        }
        for frame in &batch.frames {
            match &frame.operation {
                Some(id) => {
                    drop(
                        operations
                            .get(id)
                            .map(|channel| channel.sender.send(frame.clone())),
                    );
                }
                None if frame.is_for_everybody() => {
                    operations
                        .values()
                        .for_each(|channel| drop(channel.sender.send(frame.clone())));
                }
                None => {}
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut operations = self.broadcaster.0.operations.lock();
        // This subscription's own receiver still counts.
        let is_last = operations
            .get(&self.id)
            .is_some_and(|channel| channel.sender.receiver_count() <= 1);
        if is_last && let Some(channel) = operations.remove(&self.id) {
            channel.metric_points.abort();
        }
    }
}
