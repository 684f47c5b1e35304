//! The start request: the message that makes an operation exist.

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use crate::execution::ExecutionOptions;
use crate::id::{CopyId, OperationId, ScheduleId, WorkerType};
use crate::keys::Unique;
use crate::labels::Labels;
use crate::priority::Priority;
use crate::schema_digest::SchemaDigest;
use crate::time::Timestamp;
use crate::token_name::TokenName;

/// The start request: queue entry and record of creation in one message on
/// `start.<worker_type>.<origin>`.
///
/// No second write can be lost: an operation exists exactly when this message is in the stream.
///
/// Labels, priority, times and the unique key of `execution` stand beside it in the message: programs of
/// version 0.1.0 cannot run a request with an option that they do not know. `concurrency` stands in it,
/// because a worker that ignored it would run too many.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Read")]
pub struct StartRequest {
    /// Identifies the operation. Also the message id, so publishing the request again stores
    /// nothing.
    pub operation_id: OperationId,
    /// The worker type that runs it.
    pub operation_type: WorkerType,
    /// The engine's parameters: the start body without `task_id` and `execution`.
    pub parameters: Box<RawValue>,
    /// How to run it; the reserved body key `execution`.
    pub execution: ExecutionOptions,
    /// When the start was accepted.
    pub created_at: Timestamp,
    /// The request schema that the parameters were checked against; absent when its workers publish
    /// no digest. A worker with another schema runs the operation only if the parameters fit its
    /// own.
    pub schema_digest: Option<SchemaDigest>,
    /// The operation this one repeats (`POST …/retry`, `POST …/resume`).
    pub retry_of: Option<OperationId>,
    /// The operation whose checkpoint this one starts from (`POST …/resume`).
    pub resume_from: Option<OperationId>,
    /// The operations that the one in `resume_from` was resumed from, newest first. A worker
    /// believes a checkpoint only if it belongs to one of all these operations.
    pub resume_ancestors: Vec<OperationId>,
    /// The schedule that started it.
    pub schedule_id: Option<ScheduleId>,
    /// The token that asked for it; absent when the REST interfaces need no tokens.
    pub requested_by: Option<TokenName>,
    /// Set in a copy with which a backend put the operation back into its queue.
    pub copy: Option<NamedCopy>,
}

/// The message that makes an operation exist, and its entry in a queue.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "StartRequest")]
pub(crate) struct Read {
    /// Identifies the operation; the message id is made of it.
    operation_id: OperationId,
    /// The worker type that runs it.
    operation_type: WorkerType,
    /// The engine's parameters.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    #[serde(deserialize_with = "an_object")]
    parameters: Box<RawValue>,
    /// How to run it. A worker hands a request with an option that it does not know back.
    #[serde(default)]
    execution: ExecutionOptions,
    /// Texts by which it is found.
    #[serde(default)]
    labels: Labels,
    /// From 1, the first, to 5, the last; 3 when absent. Its queue has this priority.
    priority: Option<Priority>,
    /// No attempt may start before this time.
    start_at: Option<Timestamp>,
    /// The same, in seconds after the stream stored the request.
    delay_seconds: Option<f64>,
    /// No attempt may start for the first time after this time.
    expires_at: Option<Timestamp>,
    /// The same, in seconds after the stream stored the request.
    queue_timeout_seconds: Option<f64>,
    /// At most one operation with this key is open.
    unique: Option<Unique>,
    /// When the start was accepted, by the clock of whoever published it.
    created_at: Timestamp,
    /// The request schema that the parameters were checked against.
    #[serde(default, deserialize_with = "crate::if_valid::read")]
    schema_digest: Option<SchemaDigest>,
    /// The operation that this one repeats.
    retry_of: Option<OperationId>,
    /// The operation whose checkpoint it starts from.
    resume_from: Option<OperationId>,
    /// The operations that the one in `resume_from` was resumed from, newest first.
    #[serde(default)]
    resume_ancestors: Vec<OperationId>,
    /// The schedule that started it.
    schedule_id: Option<ScheduleId>,
    /// The token that asked for it.
    #[serde(default, deserialize_with = "crate::if_valid::read")]
    requested_by: Option<TokenName>,
    /// Which copy of the request this is; absent in the first one.
    copy: Option<NamedCopy>,
}

impl From<Read> for StartRequest {
    fn from(read: Read) -> Self {
        let Read {
            operation_id,
            operation_type,
            parameters,
            mut execution,
            labels,
            priority,
            start_at,
            delay_seconds,
            expires_at,
            queue_timeout_seconds,
            unique,
            created_at,
            schema_digest,
            retry_of,
            resume_from,
            resume_ancestors,
            schedule_id,
            requested_by,
            copy,
        } = read;
        if !labels.is_empty() {
            execution.labels = labels;
        }
        execution.priority = priority.or(execution.priority);
        execution.start_at = start_at.or(execution.start_at);
        execution.delay_seconds = delay_seconds.or(execution.delay_seconds);
        execution.expires_at = expires_at.or(execution.expires_at);
        execution.queue_timeout_seconds = queue_timeout_seconds.or(execution.queue_timeout_seconds);
        execution.unique = unique.or(execution.unique);
        Self {
            operation_id,
            operation_type,
            parameters,
            execution,
            created_at,
            schema_digest,
            retry_of,
            resume_from,
            resume_ancestors,
            schedule_id,
            requested_by,
            copy,
        }
    }
}

impl Serialize for StartRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("operation_id", &self.operation_id)?;
        map.serialize_entry("operation_type", &self.operation_type)?;
        map.serialize_entry("parameters", &self.parameters)?;
        if !self.execution.is_default() {
            let beside = &self.execution;
            let execution = ExecutionOptions {
                labels: Labels::default(),
                priority: None,
                unique: None,
                // They are not written, and the rest may say nothing.
                unknown: Vec::new(),
                ..beside.clone().of_repetition()
            };
            if !execution.is_default() {
                map.serialize_entry("execution", &execution)?;
            }
            if !beside.labels.is_empty() {
                map.serialize_entry("labels", &beside.labels)?;
            }
            if let Some(priority) = beside.priority {
                map.serialize_entry("priority", &priority)?;
            }
            if let Some(time) = beside.start_at {
                map.serialize_entry("start_at", &time)?;
            }
            if let Some(seconds) = beside.delay_seconds {
                map.serialize_entry("delay_seconds", &seconds)?;
            }
            if let Some(time) = beside.expires_at {
                map.serialize_entry("expires_at", &time)?;
            }
            if let Some(seconds) = beside.queue_timeout_seconds {
                map.serialize_entry("queue_timeout_seconds", &seconds)?;
            }
            if let Some(unique) = &beside.unique {
                map.serialize_entry("unique", unique)?;
            }
        }
        map.serialize_entry("created_at", &self.created_at)?;
        if let Some(digest) = &self.schema_digest {
            map.serialize_entry("schema_digest", digest)?;
        }
        if let Some(id) = &self.retry_of {
            map.serialize_entry("retry_of", id)?;
        }
        if let Some(id) = &self.resume_from {
            map.serialize_entry("resume_from", id)?;
        }
        if !self.resume_ancestors.is_empty() {
            map.serialize_entry("resume_ancestors", &self.resume_ancestors)?;
        }
        if let Some(id) = &self.schedule_id {
            map.serialize_entry("schedule_id", id)?;
        }
        if let Some(token) = &self.requested_by {
            map.serialize_entry("requested_by", token)?;
        }
        if let Some(copy) = &self.copy {
            map.serialize_entry("copy", copy)?;
        }
        map.end()
    }
}

/// Which copy of a start request a message is.
///
/// The problem: a request can get lost behind the queue's back, for example when the stream loses
/// its tail, and it is never certain that the queue does not hold it all the same. Two requests of
/// one operation must not be run side by side.
///
/// How it is solved: a backend first appends `released` with the name of a new copy, and then
/// publishes the request again under that name. Whoever is given a request compares its name with
/// the one that the log named last ([`crate::claim::decide`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamedCopy {
    /// Its name.
    pub id: CopyId,
    /// Sequence of the event that names it. A log that ends earlier was read from a server that lags
    /// behind, and says nothing about this copy.
    pub named_at: u64,
}

impl StartRequest {
    /// A start request, accepted now.
    pub fn new(
        operation_id: OperationId,
        operation_type: WorkerType,
        parameters: Box<RawValue>,
        execution: ExecutionOptions,
    ) -> Self {
        Self {
            operation_id,
            operation_type,
            parameters,
            execution,
            created_at: Timestamp::now(),
            schema_digest: None,
            retry_of: None,
            resume_from: None,
            resume_ancestors: Vec::new(),
            schedule_id: None,
            requested_by: None,
            copy: None,
        }
    }

    /// The name of this copy; `None` for the first request.
    pub fn copy_id(&self) -> Option<&CopyId> {
        self.copy.as_ref().map(|copy| &copy.id)
    }

    /// Says which token asked for it.
    #[must_use]
    pub fn requested_by(mut self, token: Option<TokenName>) -> Self {
        self.requested_by = token;
        self
    }

    /// Says which request schema the parameters were checked against.
    #[must_use]
    pub fn checked_against(mut self, schema: Option<SchemaDigest>) -> Self {
        self.schema_digest = schema;
        self
    }

    /// Says which schedule starts it.
    #[must_use]
    pub fn scheduled_by(mut self, schedule: ScheduleId) -> Self {
        self.schedule_id = Some(schedule);
        self
    }

    /// Repeats the operation `old` from its beginning.
    #[must_use]
    pub fn retrying(mut self, old: OperationId) -> Self {
        self.retry_of = Some(old);
        self
    }

    /// Repeats the operation `old` from its newest checkpoint. `ancestors` are the operations that
    /// `old` repeats, newest first.
    #[must_use]
    pub fn resuming(mut self, old: OperationId, ancestors: Vec<OperationId>) -> Self {
        self.resume_from = Some(old.clone());
        self.resume_ancestors = ancestors;
        self.retrying(old)
    }

    /// The operations whose checkpoints and files this one may continue from and remove, beside its
    /// own.
    pub fn resumes(&self) -> impl Iterator<Item = &OperationId> {
        self.resume_from.iter().chain(&self.resume_ancestors)
    }
}

fn an_object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<RawValue>, D::Error> {
    let value = Box::<RawValue>::deserialize(deserializer)?;
    if value.get().starts_with('{') {
        Ok(value)
    } else {
        Err(de::Error::custom("the parameters are not an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn newer_options_stand_beside_those_that_older_programs_know() {
        let written = json!({
            "operation_id": "a", "operation_type": "dummy", "parameters": {"x": 1},
            "execution": {"max_attempts": 2, "concurrency": {"key": "b", "limit": 2}},
            "unique": {"key": "a", "on_conflict": "return"}, "labels": {"symbol": "GOOG"}, "priority": 1,
            "start_at": "2025-11-10T11:00:00.000Z", "expires_at": "2025-11-10T12:00:00.000Z",
            "delay_seconds": 1.5, "queue_timeout_seconds": 60.0,
            "created_at": "2025-11-10T10:30:00.000Z",
        });

        let read: StartRequest = serde_json::from_value(written.clone()).unwrap();

        assert_eq!(read.execution.labels.get("symbol"), Some("GOOG"));
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
        let mut only = read;
        only.execution.max_attempts = None;
        only.execution.concurrency = None;
        only.execution.priority = None;
        only.execution = only.execution.of_repetition();
        let only = serde_json::to_value(&only).unwrap();
        assert_eq!(only["execution"], Value::Null);
        assert_eq!(only["labels"], json!({"symbol": "GOOG"}));
    }

    /// Found by the attack on start requests.
    #[test]
    fn options_of_a_later_version_leave_nothing_behind() {
        let mut written = json!({
            "operation_id": "a", "operation_type": "dummy", "parameters": {},
            "execution": {"later": 1}, "created_at": "2025-11-10T10:30:00.000Z",
        });

        let read: StartRequest = serde_json::from_value(written.clone()).unwrap();

        assert_eq!(read.execution.unknown, ["later"]);
        written.as_object_mut().unwrap().shift_remove("execution");
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
    }
}
