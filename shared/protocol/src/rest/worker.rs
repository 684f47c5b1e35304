//! One worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{OperationId, WorkerId, WorkerType};
use crate::progress::Progress;
use crate::time::Timestamp;
use crate::worker::{Capabilities, WorkerStatus};

/// One worker, as its heartbeats describe it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Worker")]
pub struct WorkerDocument {
    /// The id of the worker.
    pub worker_id: WorkerId,
    /// The type of operations that it runs.
    pub worker_type: WorkerType,
    /// Where its own REST interface listens.
    pub endpoint_url: String,
    /// Available, busy or unavailable.
    pub status: WorkerStatus,
    /// Compared with the requirements of operations.
    pub capabilities: Capabilities,
    /// When its last heartbeat arrived.
    pub last_health_check: Timestamp,
    /// How many heartbeats it has missed.
    pub health_check_failures: u32,
    /// The oldest operation that it runs.
    pub current_operation_id: Option<OperationId>,
    /// When its process started, by the backend's clock.
    pub registered_at: Timestamp,
    /// The version of its program.
    pub version: String,
    /// Differs between two processes that use the same worker id one after the other.
    pub instance: String,
    /// The interval of its heartbeats.
    pub heartbeat_interval_seconds: f64,
    /// How many operations it can run at a time.
    pub slots: u32,
    /// Slots whose engine does not return although its attempt is over. They take no work until it
    /// does, or the worker is restarted.
    pub lost_slots: u32,
    /// The operations that it runs, oldest first.
    pub current_operations: Vec<CurrentOperation>,
    /// When it last pulled from a queue, by the backend's clock.
    pub last_pull_at: Option<Timestamp>,
    /// How many attempts have ended since its process started.
    pub finished: u64,
    /// How many of its attempts were fenced.
    pub fenced: u64,
}

/// The answer to a drain and an undrain.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DrainResponse {
    /// Always true.
    pub success: bool,
    /// What is so now.
    pub data: DrainedWorker,
}

/// Whether a worker takes work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainedWorker {
    /// The id of the worker.
    pub worker_id: WorkerId,
    /// Whether it takes no more work.
    pub draining: bool,
    /// How many operations it runs.
    pub running: u64,
}

/// One operation that a worker runs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CurrentOperation {
    /// The id of the operation.
    pub operation_id: OperationId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// How far it is.
    pub progress: Progress,
}
