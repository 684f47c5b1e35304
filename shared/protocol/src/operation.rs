//! What an operation is made of on the wire: the start request, progress, metric points, and the document both REST APIs show.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::event::{Failure, ResultRef};
use crate::id::{OperationId, Queue, WorkerId, WorkerType};
pub use crate::progress::Progress;
use crate::requirements::Requirements;
use crate::state::Status;
use crate::time::Timestamp;

/// Takeovers allowed when a start request does not say: a request that kills three workers ends `failed`.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;

/// The start request: queue entry and record of creation in one message on `start.<worker_type>.<queue>`.
///
/// There is no second write that could be lost: an operation exists exactly when this message is in the stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRequest {
    /// Also the `Nats-Msg-Id`, so that publishing it again changes nothing.
    pub operation_id: OperationId,
    /// The worker type that shall run it.
    pub operation_type: WorkerType,
    /// The domain's own parameters: the body of the REST call without `task_id` and `execution`.
    #[serde(deserialize_with = "an_object")]
    pub parameters: Box<RawValue>,
    /// How to run it; the reserved body key `execution`.
    #[serde(default, skip_serializing_if = "ExecutionOptions::is_default")]
    pub execution: ExecutionOptions,
    /// When the start was accepted.
    pub created_at: Timestamp,
    /// The operation this one repeats (`POST …/retry`, `POST …/resume`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<OperationId>,
    /// The operation whose checkpoint this one starts from (`POST …/resume`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_from: Option<OperationId>,
}

fn an_object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<RawValue>, D::Error> {
    let value = Box::<RawValue>::deserialize(deserializer)?;
    if value.get().starts_with('{') {
        Ok(value)
    } else {
        Err(de::Error::custom("the parameters are not an object"))
    }
}

/// How an operation is to be run; the reserved key `execution` of a start body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Execution")]
pub struct ExecutionOptions {
    /// What a worker must have to run it; decides the queue.
    #[serde(default, skip_serializing_if = "Requirements::is_any")]
    pub requirements: Requirements,
    /// Seconds one attempt may run before it is stopped and counted as failed. No limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 31_536_000.0))]
    pub timeout_seconds: Option<f64>,
    /// How many attempts there may be in all. Absent: 3 when workers are lost, and a failure is final at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: Option<u32>,
    /// Seconds before a failed attempt is tried again; doubled for each further one (with jitter, at most one hour).
    /// Setting this or `max_attempts` makes failures retry; errors that the engine calls permanent never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 3600.0))]
    pub retry_delay: Option<f64>,
}

impl ExecutionOptions {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The bound on attempts in force.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS)
    }

    /// Whether an attempt that failed (not lost) is tried again while attempts are left.
    pub fn retries_failures(&self) -> bool {
        self.max_attempts.is_some() || self.retry_delay.is_some()
    }
}

/// The newest progress of a running attempt, on `progress.<worker_type>.<operation_id>` (core NATS, not stored).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProgressMessage {
    /// The operation.
    pub operation_id: OperationId,
    /// Who runs it.
    pub worker_id: WorkerId,
    /// The attempt it belongs to; backends drop progress of an attempt that is no longer the current one.
    pub attempt: u32,
    /// When it was reported, by the worker's clock.
    pub at: Timestamp,
    /// How many reports the attempt has made: which of two is newer. 0 from a worker that does not count.
    #[serde(default)]
    pub report: u64,
    /// The progress itself.
    pub progress: Progress,
}

/// One measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricPoint {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What was measured, for example `rows_processed` or `val_loss`.
    pub name: String,
    /// The value; one that is not finite becomes `null`.
    pub value: Option<f64>,
    /// The attempt that measured it: one that took over may measure the same again. Absent within a [`MetricBatch`], which says
    /// it for all of its points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// A batch of points on `metrics.<worker_type>.<operation_id>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MetricBatch {
    /// The operation.
    pub operation_id: OperationId,
    /// Who measured.
    pub worker_id: WorkerId,
    /// In which attempt.
    pub attempt: u32,
    /// In the order in which they were measured.
    pub points: Vec<MetricPoint>,
}

impl MetricBatch {
    /// Its points, each with the attempt.
    pub fn into_points(self) -> impl Iterator<Item = MetricPoint> {
        let attempt = Some(self.attempt);
        self.points
            .into_iter()
            .map(move |point| MetricPoint { attempt, ..point })
    }
}

/// Asks the running worker to stop, on `cancel.<worker_type>.<operation_id>`; stored, and heard live.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelIntent {
    /// The operation.
    pub operation_id: OperationId,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Why, when the user said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One attempt as shown to users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Counted from 1 by `started` events.
    pub attempt: u32,
    /// Who ran it.
    pub worker_id: WorkerId,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it ended, or when the next worker took over.
    pub ended_at: Option<Timestamp>,
    /// How it ended; `None` while it runs.
    pub outcome: Option<AttemptOutcome>,
    /// What went wrong, for `failed` and `lost`.
    pub error: Option<String>,
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It finished the operation.
    Completed,
    /// It ended in an error.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its worker stopped and handed the operation back.
    Released,
    /// Its worker was lost; another one took over.
    Lost,
}

/// Progress to be shown: as it is, or as it was written before.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum ShownProgress<'a> {
    /// As it is.
    Value(&'a Progress),
    /// As JSON.
    Json(&'a RawValue),
}

/// An operation as both REST APIs show it.
///
/// Borrowed fields so that a projection of a million operations can be shown without copying it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Operation")]
pub struct OperationDocument<'a> {
    /// The operation.
    pub operation_id: &'a str,
    /// Its worker type.
    pub operation_type: &'a str,
    /// Where it stands.
    pub status: Status,
    /// How far it is; 100 once completed.
    #[schemars(with = "Progress")]
    pub progress: ShownProgress<'a>,
    /// The parameters of the request, and the worker once there is one.
    #[schemars(with = "Map<String, Value>")]
    pub metadata: Metadata<'a>,
    /// How it is run, when the start said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<&'a ExecutionOptions>,
    /// When the start was accepted.
    pub created_at: Timestamp,
    /// When the current attempt started.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal state.
    pub completed_at: Option<Timestamp>,
    /// When anything about it last changed, progress included.
    pub updated_at: Timestamp,
    /// Seconds from the start of the (current or last) attempt to its end, or to now.
    pub duration_seconds: Option<f64>,
    /// Who runs it, or ran it last.
    pub worker_id: Option<&'a str>,
    /// The current attempt; 0 before the first.
    pub attempt: u32,
    /// All attempts in order.
    pub attempts: &'a [Attempt],
    /// The result once completed; `null` when it is large and only at `…/results`.
    #[schemars(with = "Option<Value>")]
    pub result: Option<&'a RawValue>,
    /// Where a large result is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_ref: Option<&'a ResultRef>,
    /// What went wrong, once failed.
    pub error_message: Option<&'a str>,
    /// The failure with its code, once failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a Failure>,
    /// When a cancel was asked for.
    pub cancel_requested_at: Option<Timestamp>,
    /// Set when a backend closed it without the worker's confirmation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// While pending: its place in the queue, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
    /// The queue it waits or waited in.
    pub queue: &'a str,
    /// While it waits for a retry: not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// The operation this one repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<&'a str>,
}

/// The request's parameters with `worker_id` beside them, as in the guide.
#[derive(Debug, Clone)]
pub struct Metadata<'a> {
    /// The parameters: a JSON object.
    pub parameters: &'a RawValue,
    /// The worker, once there is one.
    pub worker_id: Option<&'a str>,
}

impl Serialize for Metadata<'_> {
    /// One flat object; a parameter that is itself called `worker_id` keeps its value until a worker is known.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        // Splicing the text keeps the parameters' own characters and avoids parsing them for every answer.
        let text = self.parameters.get().trim();
        let Some(worker_id) = self.worker_id else {
            return self.parameters.serialize(serializer);
        };
        let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
            return self.parameters.serialize(serializer);
        };
        let comma = if inner.trim().is_empty() { "" } else { "," };
        let spliced = if inner.contains("\"worker_id\"") {
            let mut map: Map<String, Value> =
                serde_json::from_str(text).map_err(S::Error::custom)?;
            map.insert("worker_id".to_owned(), worker_id.into());
            return map.serialize(serializer);
        } else {
            format!("{{{inner}{comma}\"worker_id\":\"{worker_id}\"}}")
        };
        RawValue::from_string(spliced)
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

/// The queue that has no consumer: operations started directly on a worker.
pub fn direct_queue() -> Queue {
    #[expect(clippy::expect_used, reason = "a constant that is a valid name")]
    Queue::new("direct").expect("a valid name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_the_parameters_and_the_worker() {
        let show = |json: &str, worker| {
            let parameters = RawValue::from_string(json.to_owned()).unwrap();
            serde_json::to_value(Metadata {
                parameters: &parameters,
                worker_id: worker,
            })
            .unwrap()
        };
        assert_eq!(show("{}", Some("w")), serde_json::json!({"worker_id": "w"}));
        assert_eq!(show(r#"{"a":1.0}"#, None), serde_json::json!({"a": 1.0}));
        assert_eq!(
            show(r#"{"a":1}"#, Some("w")),
            serde_json::json!({"a": 1, "worker_id": "w"})
        );
        assert_eq!(
            show(r#"{"worker_id":"mine"}"#, Some("w")),
            serde_json::json!({"worker_id": "w"})
        );
    }
}
