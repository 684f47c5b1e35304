//! The figures of an overview.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::worker_type::QueueDocument;
use crate::id::WorkerType;
use crate::time::Timestamp;

/// The figures of an overview, in one small answer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StatsResponse {
    /// Always true.
    pub success: bool,
    /// The figures.
    pub data: Stats,
}

/// Operations, queues, workers and the last hour in figures.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// Retained operations by status.
    pub operations: OperationTotals,
    /// Retained operations by worker type and status.
    pub by_type: Vec<TypeStats>,
    /// All queues.
    pub queues: Vec<QueueStats>,
    /// Workers by status.
    pub workers: WorkerCounts,
    /// The last 60 minutes, oldest first.
    pub minutes: Vec<MinuteStats>,
    /// The operations that ended within `window_seconds`.
    #[serde(default)]
    pub ended: EndedStats,
    /// Clients that follow live events.
    pub event_streams: EventStreamCounts,
    /// Stream sequence of the last message that was read.
    pub sequence: u64,
}

/// Operations by status.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
pub struct StatusCounts {
    /// Operations that wait.
    pub pending: u64,
    /// Operations that run.
    pub running: u64,
    /// Operations that completed.
    pub completed: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Operations that were cancelled.
    pub cancelled: u64,
}

impl From<[u64; 5]> for StatusCounts {
    /// Takes counts in the order of [`crate::state::Status::ALL`].
    fn from([pending, running, completed, failed, cancelled]: [u64; 5]) -> Self {
        Self {
            pending,
            running,
            completed,
            failed,
            cancelled,
        }
    }
}

/// All operations by status.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub struct OperationTotals {
    /// By status.
    #[serde(flatten)]
    pub by_status: StatusCounts,
    /// All of them.
    pub total: u64,
}

/// Operations of one worker type by status.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TypeStats {
    /// The worker type.
    pub worker_type: WorkerType,
    /// How many of its workers are listed and not silent.
    pub workers: u64,
    /// By status.
    #[serde(flatten)]
    pub by_status: StatusCounts,
}

/// One queue of one worker type.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct QueueStats {
    /// The worker type.
    pub worker_type: WorkerType,
    /// The queue.
    #[serde(flatten)]
    pub queue: QueueDocument,
    /// Why nobody takes what waits in it, when its worker type is paused or no live worker can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nobody: Option<String>,
}

/// The operations that ended within a window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EndedStats {
    /// Length of the window, up to now.
    pub window_seconds: u64,
    /// How many operations the figures are about.
    pub operations: u64,
    /// Whether more operations ended in the window: the figures are about the newest ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partial: bool,
    /// From the start of an operation to its first attempt, in seconds. `null` when none had one.
    pub waiting: Option<Quantiles>,
    /// From the beginning of its last attempt to its end, in seconds. `null` when none had one.
    pub running: Option<Quantiles>,
    /// Operations that failed, most of them first; at most 100 entries.
    pub failures: Vec<FailureCount>,
}

/// Two quantiles, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quantiles {
    /// Half of the values are at most this.
    pub p50: f64,
    /// 95 % of the values are at most this.
    pub p95: f64,
}

/// Operations of one worker type that failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureCount {
    /// The worker type.
    pub operation_type: WorkerType,
    /// The code of the failure.
    pub error_code: String,
    /// How many operations.
    pub operations: u64,
}

/// Listed workers by status.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct WorkerCounts {
    /// Workers with a free slot.
    pub available: u64,
    /// Workers whose slots are all taken.
    pub busy: u64,
    /// Workers that take no more work, because somebody asked for that.
    #[serde(default)]
    pub draining: u64,
    /// Workers whose heartbeats stopped.
    pub temporarily_unavailable: u64,
}

/// The starts and ends in one minute, by the stream's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MinuteStats {
    /// Its beginning.
    pub minute: Timestamp,
    /// The starts and ends.
    #[serde(flatten)]
    pub counts: MinuteCounts,
}

/// Starts and ends of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MinuteCounts {
    /// Starts that were accepted.
    pub created: u64,
    /// Operations that ended with a result.
    pub completed: u64,
    /// Operations that ended with an error.
    pub failed: u64,
    /// Operations that ended because a user cancelled them.
    pub cancelled: u64,
}

/// Clients that follow live events of one backend.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub struct EventStreamCounts {
    /// Clients that follow all events.
    pub all: u64,
    /// Operations that at least one client follows.
    pub operations_followed: u64,
}
