//! The answer to a start, a retry and a resume.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{OperationId, WorkerId};
use crate::state::Status;

/// The operation is stored, or was stored before.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StartResponse<'a> {
    /// Always true.
    pub success: bool,
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// The status of the operation now.
    pub status: Status,
    /// The worker that runs it, or ran it last.
    pub worker_id: Option<Cow<'a, WorkerId>>,
    /// While it waits: its place in the queue, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
    /// Present and true when the operation was started before, and nothing was started now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existed: bool,
    /// A text for people, when the operation was started before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// A warning for the user, for example that no worker could run it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The worker runs the operation now, or has taken it before.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DirectStartResponse<'a> {
    /// Always true.
    pub success: bool,
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// Always `started`.
    pub status: DirectStartStatus,
    /// The worker that runs it.
    pub worker_id: Cow<'a, WorkerId>,
    /// Present and true when the operation was started before, and nothing was started now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existed: bool,
}

/// The outcome of a direct start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DirectStartStatus {
    /// The worker runs it, or has run it.
    Started,
}
