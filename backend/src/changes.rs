//! What happens, as it happens: the hook for live event streams.
//!
//! Items are small and shared, and carry no content: whoever shows one reads the current state from the projection or the
//! registry. Nothing is built while nobody listens.

use std::sync::Arc;

use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::worker::WorkerStatus;
use tokio::sync::broadcast;

/// How many changes a listener may lag behind before it misses some (and is told so).
const CAPACITY: usize = 4096;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A message of the stream changed an operation.
    Operation {
        /// Stream sequence of the message.
        sequence: u64,
        /// The operation.
        operation_id: OperationId,
        /// Its type.
        worker_type: WorkerType,
        /// Where it stands now.
        status: Status,
    },
    /// A running operation got on.
    Progress {
        /// The operation.
        operation_id: OperationId,
        /// Its type.
        worker_type: WorkerType,
    },
    /// The stream was replaced: nothing that was known holds any more.
    Everything,
    /// A worker appeared, changed its status, or left (`None`).
    Worker {
        /// The worker.
        worker_id: WorkerId,
        /// Its type.
        worker_type: WorkerType,
        /// Its status now.
        status: Option<WorkerStatus>,
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
    /// Hears every change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.sender.subscribe()
    }

    /// Whether anybody listens. Ask before building changes.
    pub fn has_listeners(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Tells everybody who listens.
    pub fn announce(&self, change: Change) {
        if self.has_listeners() {
            // Fails only when the last listener left in between.
            let _ = self.sender.send(Arc::new(change));
        }
    }
}
