//! An operation as both REST interfaces show it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::event::{Failure, ResultRef};
use crate::execution::ExecutionOptions;
use crate::id::WorkerId;
use crate::progress::Progress;
use crate::state::Status;
use crate::time::Timestamp;

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
