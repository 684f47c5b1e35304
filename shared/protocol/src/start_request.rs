//! The start request: the message that makes an operation exist.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;

use crate::execution::ExecutionOptions;
use crate::id::{CopyId, OperationId, WorkerType};
use crate::time::Timestamp;
use crate::token_name::TokenName;

/// The start request: queue entry and record of creation in one message on
/// `start.<worker_type>.<origin>`.
///
/// No second write can be lost: an operation exists exactly when this message is in the stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRequest {
    /// Identifies the operation. Also the message id, so publishing the request again stores
    /// nothing.
    pub operation_id: OperationId,
    /// The worker type that runs it.
    pub operation_type: WorkerType,
    /// The engine's parameters: the start body without `task_id` and `execution`.
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
    /// The operations that the one in `resume_from` was resumed from, newest first. A worker
    /// believes a checkpoint only if it belongs to one of all these operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume_ancestors: Vec<OperationId>,
    /// The token that asked for it; absent when the REST interfaces need no tokens.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "TokenName::read_if_valid"
    )]
    pub requested_by: Option<TokenName>,
    /// Set in a copy with which a backend put the operation back into its queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<NamedCopy>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
            retry_of: None,
            resume_from: None,
            resume_ancestors: Vec::new(),
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
