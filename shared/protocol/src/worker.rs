//! Workers as they describe themselves: capabilities, heartbeats, and the catalogue entry of a worker type.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::execution::ExecutionDefaults;
use crate::id::{OperationId, WorkerId, WorkerType};
use crate::progress::Progress;
use crate::time::Timestamp;

/// What a worker has to offer. Further keys of an operator's own are kept and shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Whether it can compute on a GPU. Only ever true when the engine was built for one.
    #[serde(default)]
    pub gpu: bool,
    /// Processor cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Memory in GiB, rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<u32>,
    /// Anything else the operator stated.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Whether a worker can take work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerStatus {
    /// It has a free slot.
    Available,
    /// All its slots are taken.
    Busy,
    /// Its heartbeats stopped. Only backends say this of a worker.
    TemporarilyUnavailable,
}

/// A worker's word about itself on `heartbeat.<worker_type>.<worker_id>`: at every interval, and at once on every change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The worker.
    pub worker_id: WorkerId,
    /// What it runs.
    pub worker_type: WorkerType,
    /// Tells two processes that use the same worker id, one after the other, apart.
    pub instance: String,
    /// Where its HTTP interface listens, as others reach it.
    pub endpoint_url: String,
    /// `AVAILABLE` or `BUSY`.
    pub status: WorkerStatus,
    /// What it has.
    pub capabilities: Capabilities,
    /// Version of the worker program.
    pub version: String,
    /// When the process started.
    pub registered_at: Timestamp,
    /// When this was said.
    pub at: Timestamp,
    /// Seconds until the next regular heartbeat at the latest; three missed ones make it unavailable.
    pub interval_seconds: f64,
    /// How many operations it can run at a time.
    pub slots: u32,
    /// What it runs now, oldest first.
    pub running: Vec<RunningOperation>,
    /// When it last asked for work (`None`: not yet). One that is AVAILABLE and has not asked for long is deaf.
    #[serde(default)]
    pub last_pull_at: Option<Timestamp>,
    /// Attempts that came to an end since the process started, however they ended.
    #[serde(default)]
    pub finished: u64,
    /// Finishes that were refused because another attempt had taken over.
    #[serde(default)]
    pub fenced: u64,
    /// The farewell of a worker that stops: remove it at once.
    #[serde(default)]
    pub leaving: bool,
}

/// One operation a worker runs now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningOperation {
    /// The operation.
    pub operation_id: OperationId,
    /// The attempt.
    pub attempt: u32,
    /// How many times its engine has reported progress: which of two reports is newer. 0 from a worker that does not count.
    #[serde(default)]
    pub report: u64,
    /// Its newest progress, so that a backend that has just started can show it.
    #[serde(default)]
    pub progress: Progress,
}

/// A worker type as published in the bucket `KTRDR_WORKER_TYPES`, key = worker type.
///
/// From it every backend routes, validates and documents `POST /api/v1/{domain}/start`, with no rebuild.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerTypeEntry {
    /// The type.
    pub worker_type: WorkerType,
    /// Its place in REST paths, for example `data-processing`.
    pub domain: String,
    /// One sentence for people.
    pub description: String,
    /// JSON Schema (2020-12) of the parameters.
    pub request_schema: Value,
    /// JSON Schema (2020-12) of the result.
    pub result_schema: Value,
    /// Version of the worker program that published it.
    pub version: String,
    /// Execution options for start requests that do not set them.
    #[serde(default, skip_serializing_if = "ExecutionDefaults::is_empty")]
    pub execution_defaults: ExecutionDefaults,
}

/// Asks a worker for the newest word on one of its operations, at `worker.<worker_id>.operation`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperationQuery {
    /// The operation.
    pub operation_id: OperationId,
}

/// The answer to an [`OperationQuery`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperationAnswer {
    /// The operation as it runs now; `None` when this worker does not run it.
    pub running: Option<RunningOperation>,
}
