//! Query parameters. The descriptions of the fields are the descriptions in the OpenAPI documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::Status;
use crate::worker::WorkerStatus;

/// Parameters of `GET /api/v1/operations`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListOperations {
    /// Only operations of this worker type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_type: Option<String>,
    /// Only operations in this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Size of the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("default" = 100))]
    pub limit: Option<u64>,
    /// How many operations to skip.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 18_446_744_073_709_551_615_u64), extend("default" = 0))]
    pub offset: Option<u64>,
}

/// Parameters of `GET /api/v1/operations/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GetOperation {
    /// Seconds to wait for the end of the operation; more than 300 count as 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub wait: Option<f64>,
    /// Whether to ask the worker for its newest progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub force_refresh: Option<bool>,
}

/// Parameters of `DELETE /api/v1/operations/{id}/cancel`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CancelOperation {
    /// Seconds to wait for the worker's confirmation; more than 300 count as 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub wait: Option<f64>,
    /// Why; also accepted as `{"reason": "…"}` in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Parameters of `GET /api/v1/operations/{id}/metrics` of a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadMetrics {
    /// The cursor of an earlier answer; leave it out to start from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{1,19}-[0-9]{1,19}$"))]
    pub cursor: Option<String>,
    /// How many points to return at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    pub limit: Option<u64>,
}

/// Parameters of `GET /api/v1/workers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListWorkers {
    /// Only workers of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_type: Option<String>,
    /// Only workers in this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkerStatus>,
    /// Size of the page. Without it, all workers that fit into about 8 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub limit: Option<u64>,
    /// How many workers to skip.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 18_446_744_073_709_551_615_u64), extend("default" = 0))]
    pub offset: Option<u64>,
}

/// Parameters of `GET /api/v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FollowEvents {
    /// Only operations of this worker type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_type: Option<String>,
    /// Only workers of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_type: Option<String>,
}
