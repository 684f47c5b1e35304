//! Health of a backend and of a worker, readiness of a backend.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{OperationId, WorkerId};
use crate::time::Timestamp;

/// Whether a process works as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// All is well.
    Operational,
    /// The process lives, but something it needs is missing.
    Degraded,
}

/// The backend process lives; `status` says whether it works as it should.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "HealthResponse")]
pub struct BackendHealth<'a> {
    /// Always true.
    pub healthy: bool,
    /// `ktrdr-backend`.
    pub service: Cow<'a, str>,
    /// The time of this answer.
    pub timestamp: Timestamp,
    /// Whether the backend can serve everything.
    pub status: HealthStatus,
    /// The version of the program.
    pub version: Cow<'a, str>,
    /// Whether `/ready` answers 200.
    pub ready: bool,
    /// The connection to NATS.
    pub nats: BackendNats,
    /// The operations in memory.
    pub projection: ProjectionHealth,
}

/// A backend's connection to NATS.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "NatsHealth")]
pub struct BackendNats {
    /// Whether there is a connection now.
    pub connected: bool,
    /// How many connections there have been since the process started.
    pub connections: u64,
}

/// A backend's projection.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ProjectionHealth {
    /// Whether everything that was in the stream at start has been read.
    pub caught_up: bool,
    /// Stream sequence of the last message that was read. A server with tokens shows figures only to
    /// a token with the scope `read` that sees all worker types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// How many operations are in memory. Shown like `sequence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    /// Messages that could not be read or could not follow. Shown like `sequence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_messages: Option<u64>,
}

/// The backend can serve.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ReadyResponse {
    /// Always true.
    pub ready: bool,
    /// Stream sequence of the last message that was read. A server with tokens shows it only to a
    /// token with the scope `read` that sees all worker types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// What the backend's NATS user may not do and was tried, as `publish ktrdr.op.dummy.a`. The
    /// backend serves without it, but something does not work. Shown to whom `sequence` is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_permissions: Vec<String>,
}

/// Whether a worker has a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlotStatus {
    /// A slot is free.
    Idle,
    /// All slots are taken.
    Busy,
}

/// The worker process lives; `status` says whether it works as it should.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct WorkerHealth<'a> {
    /// Always true.
    pub healthy: bool,
    /// The worker type in kebab case with `-worker` appended.
    pub service: Cow<'a, str>,
    /// The time of this answer.
    pub timestamp: Timestamp,
    /// `degraded` while NATS is not reachable, or when all slots are lost.
    pub status: HealthStatus,
    /// Whether a slot is free.
    pub worker_status: SlotStatus,
    /// Slots whose engine does not return although its attempt is over.
    pub lost_slots: u32,
    /// The oldest operation that runs here. A server with tokens shows it only to a token with the
    /// scope `read`.
    pub current_operation: Option<OperationId>,
    /// The id of the worker.
    pub worker_id: Cow<'a, WorkerId>,
    /// The version of the program.
    pub version: Cow<'a, str>,
    /// The connection to NATS.
    pub nats: WorkerNats,
}

/// A worker's connection to NATS.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct WorkerNats {
    /// Whether there is a connection now.
    pub connected: bool,
}
