//! Query parameters. The descriptions of the fields are the descriptions in the OpenAPI documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::labels::Label;
use crate::log_line::LogLevel;
use crate::state::Status;
use crate::time::Timestamp;
use crate::worker::WorkerStatus;

/// Which operations are meant: those that match all that is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OperationFilter {
    /// Only operations of these worker types; repeatable, or separated by commas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operation_type: Vec<String>,
    /// Only operations in these statuses; repeatable, or separated by commas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<Status>,
    /// Only operations that this worker runs, or ran last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// Only operations that this schedule started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<String>,
    /// Only operations that failed with one of these codes; repeatable, or separated by commas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_code: Vec<String>,
    /// Only operations with this label, written as `name:value`; repeatable, all of them must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub label: Vec<Label>,
    /// Only operations that were started at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<Timestamp>,
    /// Only operations that were started before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<Timestamp>,
    /// Only operations that ended at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_after: Option<Timestamp>,
    /// Only operations with this text in their id, summary or error; ASCII letters in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub search: Option<String>,
}

/// Parameters of `GET /api/v1/operations`.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
pub struct ListOperations {
    /// Which operations.
    #[schemars(flatten)]
    pub filter: OperationFilter,
    /// `result` for operations with their results and with all parameters.
    pub include: Option<Include>,
    /// Size of the page.
    #[schemars(range(min = 1, max = 1000), extend("default" = 100))]
    pub limit: Option<u64>,
    /// How many operations to skip.
    #[schemars(range(min = 0, max = 18_446_744_073_709_551_615_u64), extend("default" = 0))]
    pub offset: Option<u64>,
    /// The `next_cursor` of an earlier page, in place of `offset`: the pages then neither skip nor repeat
    /// an operation while others come and go.
    #[schemars(extend("pattern" = "^[0-9]{1,19}-[0-9]{1,19}$"))]
    pub cursor: Option<String>,
    /// Which operations come first.
    #[schemars(extend("default" = "newest"))]
    pub order: Option<ListOrder>,
}

/// Which operations of a list come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListOrder {
    /// Those that were started last.
    #[default]
    Newest,
    /// Those that were started first.
    Oldest,
}

impl OperationFilter {
    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As query parameters.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let many = |name, values: &[String]| {
            let values = values.iter().cloned();
            values.map(|value| (name, value)).collect::<Vec<_>>()
        };
        let statuses = self.status.iter();
        let labels = self.label.iter();
        let times = [
            ("created_after", self.created_after),
            ("created_before", self.created_before),
            ("ended_after", self.ended_after),
        ];
        let texts = [
            ("worker_id", &self.worker_id),
            ("schedule_id", &self.schedule_id),
            ("search", &self.search),
        ];

        let mut pairs = many("operation_type", &self.operation_type);
        pairs.extend(statuses.map(|status| ("status", status.as_str().to_owned())));
        pairs.extend(many("error_code", &self.error_code));
        pairs.extend(labels.map(|label| ("label", label.to_string())));
        pairs.extend(
            times
                .into_iter()
                .filter_map(|(name, time)| Some((name, time?.to_string()))),
        );
        pairs.extend(
            texts
                .into_iter()
                .filter_map(|(name, text)| Some((name, text.clone()?))),
        );
        pairs
    }
}

impl ListOperations {
    /// As query parameters.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = self.filter.pairs();
        if let Some(Include::Result) = self.include {
            pairs.push(("include", "result".to_owned()));
        }
        if let Some(ListOrder::Oldest) = self.order {
            pairs.push(("order", "oldest".to_owned()));
        }
        pairs.extend(self.cursor.clone().map(|cursor| ("cursor", cursor)));
        let numbers = [("limit", self.limit), ("offset", self.offset)];
        pairs.extend(
            numbers
                .into_iter()
                .filter_map(|(name, number)| Some((name, number?.to_string()))),
        );
        pairs
    }
}

/// What a list has beside the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    /// Each operation whole: with its result and with all parameters, however large.
    Result,
}

/// Parameters of `GET /api/v1/operations` of a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListOwnOperations {
    /// Only operations of this worker type, which is the worker's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_type: Option<String>,
    /// Only operations in this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// `result` for operations with their results and with all parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<Include>,
    /// Size of the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("default" = 100))]
    pub limit: Option<u64>,
    /// How many operations to skip.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 18_446_744_073_709_551_615_u64), extend("default" = 0))]
    pub offset: Option<u64>,
}

/// How metric points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricsFormat {
    /// A JSON document.
    Json,
    /// A table: the columns name, step, value, attempt and timestamp.
    Csv,
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
    /// Seconds to wait for the worker's confirmation; 0 does not wait, more than 300 count as 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 2))]
    pub wait_seconds: Option<f64>,
    /// The name of `wait_seconds` in version 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("deprecated" = true))]
    pub wait: Option<f64>,
    /// Why; also accepted as `{"reason": "…"}` in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl CancelOperation {
    /// How long the answer waits for the worker's confirmation when the request does not say it, in
    /// seconds.
    const WAIT_SECONDS: f64 = 2.0;

    /// How long the answer waits for the worker's confirmation, in seconds.
    pub fn patience_seconds(&self) -> f64 {
        self.wait_seconds
            .or(self.wait)
            .unwrap_or(Self::WAIT_SECONDS)
    }
}

/// Parameters of `GET /api/v1/operations/{id}/metrics`. Backends and workers take each other's
/// cursors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadMetrics {
    /// The cursor of an earlier answer; leave it out to start from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{1,19}-[0-9]{1,19}(-[0-9]{1,10})?$"))]
    pub cursor: Option<String>,
    /// Only points of these series; repeatable, or separated by commas.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub name: Vec<String>,
    /// `csv` for a table; the header `Accept: text/csv` asks for the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<MetricsFormat>,
    /// How many points to return at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    pub limit: Option<u64>,
}

/// Parameters of `GET /api/v1/operations/{id}/logs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadLogs {
    /// The cursor of an earlier answer; leave it out to start from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^[0-9]{1,19}-[0-9]{1,19}$"))]
    pub cursor: Option<String>,
    /// Only lines of this level and of more important ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// How many lines to return at most; without effect with `follow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("default" = 500))]
    pub limit: Option<u64>,
    /// Whether to answer with server-sent events, which go on until the operation has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub follow: Option<bool>,
}

/// Parameters of `GET /api/v1/operations/{id}/events`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FollowOperation {
    /// `true` for log lines, too, from the first one on; the cursor of a log line to continue behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^(true|false|[0-9]{1,19}-[0-9]{1,19})$"))]
    pub logs: Option<String>,
}

/// Parameters of `GET /api/v1/stats`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadStats {
    /// How far back the figures about ended operations look.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000), extend("default" = 3600))]
    pub window_seconds: Option<u64>,
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
