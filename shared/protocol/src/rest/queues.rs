//! The queues of all worker types, and pausing them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{Queue, WorkerType};
use crate::priority::Priority;
use crate::time::Timestamp;

/// All queues.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct QueuesResponse {
    /// Always true.
    pub success: bool,
    /// The queues.
    pub data: QueuesPage,
}

/// All queues.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct QueuesPage {
    /// By worker type and name.
    pub queues: Vec<QueueOverview>,
}

/// One queue of one worker type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QueueOverview {
    /// The worker type.
    pub worker_type: WorkerType,
    /// The name of the queue.
    pub queue: Queue,
    /// The priority of its operations, from 1 to 5.
    pub priority: Priority,
    /// Operations that wait in it and are due.
    pub waiting: u64,
    /// Those among them that wait for a permit of their concurrency key.
    #[serde(default)]
    pub waiting_for_permit: u64,
    /// Operations from it that run.
    pub running: u64,
    /// Operations that will wait in it when they are due.
    pub delayed: u64,
    /// Age of the oldest operation that waits.
    pub oldest_seconds: Option<f64>,
    /// Workers that are not silent and could run its operations.
    pub workers: u64,
    /// Whether no operation of it starts now, because somebody has paused the worker type.
    pub paused: bool,
    /// When it goes on by itself; `null` when it is not paused, or until somebody resumes it.
    pub paused_until: Option<Timestamp>,
}

/// The body of `POST /api/v1/queues/{worker_type}/pause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PauseQueues {
    /// When the queues go on by themselves; without it, when somebody resumes them.
    pub until: Option<Timestamp>,
}

/// The answer to a pause and to a resume.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PausedQueuesResponse {
    /// Always true.
    pub success: bool,
    /// What is so now.
    pub data: PausedQueues,
}

/// Whether the queues of a worker type are paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PausedQueues {
    /// The worker type.
    pub worker_type: WorkerType,
    /// Whether its queues are paused.
    pub paused: bool,
    /// When they go on by themselves; `null` when they are not paused, or until somebody resumes them.
    pub paused_until: Option<Timestamp>,
    /// How many queues the type has now. Later ones are paused, too.
    pub queues: u64,
}
