//! The catalogue of worker types, and their queues.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::execution::ExecutionDefaults;
use crate::id::WorkerType;
use crate::origin::Origin;
use crate::schema_text::SchemaText;

/// The catalogue of worker types.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct WorkerTypesResponse {
    /// Always true.
    pub success: bool,
    /// The catalogue.
    pub data: WorkerTypeList,
}

/// All worker types.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct WorkerTypeList {
    /// By name.
    pub worker_types: Vec<WorkerTypeDocument>,
}

/// One worker type.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "WorkerType")]
pub struct WorkerTypeDocument {
    /// The worker type.
    pub worker_type: WorkerType,
    /// Its path segment in the start route.
    pub domain: String,
    /// What its engine does.
    pub description: String,
    /// The version of the program that published it.
    pub version: String,
    /// The path that starts an operation.
    pub start: String,
    /// The worker type that has the domain, when it is another one: then the start route is not this
    /// type's. `(hidden)` when the token does not see that type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_owner: Option<String>,
    /// Why the request schema cannot be used. Then every start of this type is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_error: Option<String>,
    /// JSON Schema of the parameters.
    pub request_schema: SchemaText,
    /// JSON Schema of the result.
    pub result_schema: SchemaText,
    /// Execution options for start bodies that do not set them.
    #[serde(default, skip_serializing_if = "ExecutionDefaults::is_empty")]
    pub execution_defaults: ExecutionDefaults,
    /// Its queues.
    pub queues: Vec<QueueDocument>,
    /// How many of its workers are listed and not silent.
    pub workers: u64,
}

/// A worker type that was forgotten.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ForgottenWorkerTypeResponse {
    /// Always true.
    pub success: bool,
    /// What was forgotten.
    pub data: ForgottenWorkerType,
}

/// A worker type that was forgotten.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ForgottenWorkerType {
    /// The worker type.
    pub worker_type: String,
    /// The domains that are free again.
    pub domains: Vec<String>,
    /// Operations of the type that have not ended. They stay, and run when a worker of the type
    /// starts.
    pub open_operations: u64,
}

/// One queue.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Queue")]
pub struct QueueDocument {
    /// The name of the queue; `direct` for operations that were sent to workers.
    pub queue: Origin,
    /// Operations that wait in it.
    pub pending: u64,
    /// Operations from it that run.
    pub running: u64,
    /// Age of the oldest operation that waits.
    pub oldest_pending_seconds: Option<f64>,
}
