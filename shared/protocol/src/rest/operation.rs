//! One operation, and a page of operations.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::event::{Failure, ResultRef};
use crate::execution::ExecutionOptions;
use crate::id::{OperationId, ScheduleId, WorkerId, WorkerType};
use crate::keys::Key;
use crate::origin::Origin;
use crate::priority::Priority;
use crate::progress::Progress;
use crate::state::Status;
use crate::time::Timestamp;
use crate::token_name::TokenName;

/// One operation; status and progress also stand outside `data`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OperationResponse<'a> {
    /// Always true.
    pub success: bool,
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// The status of the operation.
    pub status: Status,
    /// How far it is; 100 once completed.
    #[schemars(with = "Progress")]
    pub progress: ProgressDocument<'a>,
    /// All fields of the operation.
    pub data: OperationDocument<'a>,
    /// A warning for the user, for example that the worker does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A page of operations, newest first. `O` is written as an [`OperationDocument`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OperationListResponse")]
pub struct OperationListResponse<O = OperationDocument<'static>> {
    /// Always true.
    pub success: bool,
    /// The page.
    pub data: OperationPage<O>,
    /// Why archived operations are missing in the list and in its total, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// One page of a list of operations.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OperationPage")]
pub struct OperationPage<O = OperationDocument<'static>> {
    /// The operations, newest first.
    pub operations: Vec<O>,
    /// How many operations match in all.
    pub total: u64,
    /// The size of a page.
    pub limit: u64,
    /// How many operations were skipped.
    pub offset: u64,
    /// Whether more operations match than end with this page. A page has fewer than `limit`
    /// operations when these are large; the next one begins at `offset` plus their number.
    #[serde(default)]
    pub has_more: bool,
    /// Continues after this page, as `cursor`; `null` at the end.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// An operation as both REST interfaces show it.
///
/// The fields are borrowed, so that a backend can show a million operations without copying them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Operation")]
pub struct OperationDocument<'a> {
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// Its worker type.
    pub operation_type: Cow<'a, WorkerType>,
    /// Its status.
    pub status: Status,
    /// What it is about, in at most 160 characters: the parameters that the worker type's request schema
    /// names (`x-ktrdr-summary`), or the first ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Cow<'a, str>>,
    /// How far it is; 100 once completed.
    #[schemars(with = "Progress")]
    pub progress: ProgressDocument<'a>,
    /// The parameters of the request, and `worker_id` once there is a worker.
    #[schemars(with = "Map<String, Value>")]
    pub metadata: Metadata<'a>,
    /// The execution options, when the start request has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Cow<'a, ExecutionOptions>>,
    /// When the start was accepted.
    pub created_at: Timestamp,
    /// When the current attempt started.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal status.
    pub completed_at: Option<Timestamp>,
    /// When anything about it last changed, progress included.
    pub updated_at: Timestamp,
    /// Seconds from the start of the current or last attempt to its end, or to now.
    pub duration_seconds: Option<f64>,
    /// The worker that runs it, or ran it last.
    pub worker_id: Option<Cow<'a, WorkerId>>,
    /// The current attempt; 0 before the first.
    pub attempt: u32,
    /// All attempts in order.
    pub attempts: Cow<'a, [Attempt]>,
    /// The result once completed; `null` when it is large and only at `…/results`, and in lists.
    #[schemars(with = "Option<Value>")]
    pub result: Option<Cow<'a, RawValue>>,
    /// Where a large result is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_ref: Option<Cow<'a, ResultRef>>,
    /// What went wrong, once failed.
    pub error_message: Option<Cow<'a, str>>,
    /// The failure with its code, once failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, Failure>>,
    /// When a cancel was first requested.
    pub cancel_requested_at: Option<Timestamp>,
    /// The reason of the first cancel, when it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_reason: Option<Cow<'a, str>>,
    /// Present and true when a backend ended it without the worker's confirmation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// While pending: its place among those that wait for the same workers, from 1. Absent while it is
    /// delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
    /// While as many others as its limit allows hold a permit of its concurrency key: it waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for_permit: Option<PermitWait>,
    /// The queue it waits or waited in; `direct` when it was sent to a worker.
    pub queue: Cow<'a, Origin>,
    /// Its priority now, from 1 to 5; absent: 3. It is always there when the start asked for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// The time before which its first attempt must not start, when it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// The time by which its first attempt must have started, when it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// While it waits for a retry: the earliest time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// The operation whose request this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<Cow<'a, OperationId>>,
    /// The newest operation that repeats this one's request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_as: Option<Cow<'a, OperationId>>,
    /// The schedule that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<Cow<'a, ScheduleId>>,
    /// The name of the token that started it; absent when it was started without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Cow<'a, TokenName>>,
    /// Present and true when the operation has left the stream and comes from the archive. Its history
    /// and its metric points are not kept there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// What this document leaves out; `GET /api/v1/operations/{id}` has all of it. Absent when
    /// nothing is left out.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub truncated: Cow<'a, [LeftOut]>,
}

/// A permit that an operation waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PermitWait {
    /// The concurrency key.
    pub key: Key,
    /// How many operations may hold a permit, by the limit of this one.
    pub limit: u32,
    /// How many hold one.
    pub held: u32,
}

impl fmt::Display for PermitWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, limit, held } = self;
        let key = key.as_str();
        write!(f, "waits for a permit of {key}, {held} of {limit} held")
    }
}

/// The body of `PATCH /api/v1/operations/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeOperation {
    /// The priority that it is to have, from 1 to 5.
    pub priority: Priority,
}

/// A part of an operation that a list leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// The result, in `result`.
    Result,
    /// Large values among the parameters, in `metadata`.
    Parameters,
}

/// One attempt, as both REST interfaces show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Counted from 1 by `started` events.
    pub attempt: u32,
    /// The worker that ran it.
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

/// Progress as a value, or as JSON that was written before and is copied into the document as it
/// is.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum ProgressDocument<'a> {
    /// A value.
    Value(Cow<'a, Progress>),
    /// JSON text.
    Json(&'a RawValue),
}

impl ProgressDocument<'_> {
    /// The progress as a value; `None` when the JSON text is not a progress.
    pub fn to_progress(&self) -> Option<Cow<'_, Progress>> {
        match self {
            Self::Value(progress) => Some(Cow::Borrowed(progress)),
            Self::Json(text) => serde_json::from_str(text.get()).ok().map(Cow::Owned),
        }
    }
}

impl<'de> Deserialize<'de> for ProgressDocument<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Progress::deserialize(deserializer).map(|progress| Self::Value(Cow::Owned(progress)))
    }
}

/// The request's parameters with `worker_id` beside them, as in the guide.
#[derive(Debug, Clone)]
pub struct Metadata<'a> {
    /// The parameters, a JSON object. In a document that was read: all of the metadata.
    pub parameters: Cow<'a, RawValue>,
    /// The worker to add, once there is one. In a document that was read: `None`.
    pub worker_id: Option<&'a str>,
}

impl<'de> Deserialize<'de> for Metadata<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parameters = Cow::Owned(Box::<RawValue>::deserialize(deserializer)?);
        Ok(Self {
            parameters,
            worker_id: None,
        })
    }
}

impl Serialize for Metadata<'_> {
    /// One flat object; a parameter that is itself called `worker_id` keeps its value until a
    /// worker is known.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        // Splicing the text keeps the parameters' own characters and avoids parsing them for every
        // answer.
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
                parameters: Cow::Borrowed(&parameters),
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

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let text = r#"{"operation_id":"a","operation_type":"dummy","status":"completed","summary":"about",
            "progress":{"percentage":100,"current_step":null,"estimated_remaining_seconds":0,"rows":7},
            "metadata":{"big":12345678901234567890123,"worker_id":"w"},
            "execution":{"requirements":{"gpu":true},"max_attempts":2},
            "created_at":"2025-11-10T10:30:00.000Z","started_at":"2025-11-10T10:30:01.000Z",
            "completed_at":"2025-11-10T10:30:02.000Z","updated_at":"2025-11-10T10:30:02.000Z",
            "duration_seconds":1.0,"worker_id":"w","attempt":1,
            "attempts":[{"attempt":1,"worker_id":"w","started_at":"2025-11-10T10:30:01.000Z",
                "ended_at":"2025-11-10T10:30:02.000Z","outcome":"completed","error":null}],
            "result":{"rows":29.0},
            "result_ref":{"bucket":"b","object":"o","size":3},"error_message":"no",
            "error":{"code":"x","message":"no","permanent":true},
            "cancel_requested_at":"2025-11-10T10:30:02.000Z","cancel_reason":"why","forced":true,"queue_position":3,
            "waits_for_permit":{"key":"k","limit":2,"held":2},"queue":"any","priority":1,"start_at":"2025-11-10T10:30:00.000Z",
            "expires_at":"2025-11-10T10:31:00.000Z","retry_at":"2025-11-10T10:30:02.000Z","retry_of":"b","retried_as":"c","archived":true,
            "truncated":["result","parameters"]}"#;
        let squeezed: String = text.lines().map(str::trim).collect();

        let read: OperationDocument<'_> = serde_json::from_str(&squeezed).unwrap();

        assert_eq!(serde_json::to_string(&read).unwrap(), squeezed);
        assert_eq!(read.progress.to_progress().unwrap().fields["rows"], 7);
    }
}
