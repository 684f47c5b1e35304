//! Announces changes of operations and workers inside the process; live events are made from them.
//!
//! A change says only what changed, never how: a listener reads the current state from the
//! projection or the registry. Without a listener, nothing is built.

use std::sync::Arc;

use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use tokio::sync::broadcast;

/// Changes that a listener may lag behind. One that lags further misses some, and is told so.
const CAPACITY: usize = 4096;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A message of the stream changed an operation.
    Operation {
        /// Stream sequence of the message.
        sequence: u64,
        /// The operation that changed.
        operation_id: OperationId,
    },
    /// A running operation reported progress.
    Progress {
        /// The operation that runs.
        operation_id: OperationId,
    },
    /// The stream was replaced: nothing that was known before holds any more.
    Everything,
    /// A worker appeared, changed its status, or left.
    Worker {
        /// The worker that changed.
        worker_id: WorkerId,
        /// Its worker type: the registry no longer knows it once the worker has left.
        worker_type: WorkerType,
    },
}

/// Where changes are announced. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Changes {
    sender: broadcast::Sender<Arc<Change>>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(CAPACITY).0,
        }
    }
}

impl Changes {
    /// Receives every change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.sender.subscribe()
    }

    /// Whether anybody listens. Ask before building changes.
    pub fn has_listeners(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Sends `change` to all listeners.
    pub fn announce(&self, change: Change) {
        if self.has_listeners() {
            // Fails only when the last listener left in between.
            let _ = self.sender.send(Arc::new(change));
        }
    }
}
