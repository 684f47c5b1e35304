//! All messages about one operation.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::id::OperationId;
use crate::time::Timestamp;
use crate::token_name::TokenName;

/// Everything that the stream holds about one operation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HistoryResponse<'a> {
    /// Always true.
    pub success: bool,
    /// The messages.
    pub data: HistoryPage<'a>,
}

/// The messages about one operation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HistoryPage<'a> {
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// The start request, every event and every cancel intent, in stream order.
    pub history: Vec<HistoryEntry>,
    /// Whether there are or were more messages than are shown. The archive keeps none: the history of
    /// an archived operation is empty.
    pub truncated: bool,
}

/// One message.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub time: Option<Timestamp>,
    /// `start_requested`, `cancel_requested`, or the name of the event.
    pub event: String,
    /// The worker that published it.
    pub worker_id: Option<String>,
    /// The attempt it belongs to.
    pub attempt: Option<u64>,
    /// The name of the token that asked for the start or the cancel; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<TokenName>,
    /// The message as it was published; `null` when it is not JSON.
    #[schemars(with = "Value")]
    pub data: Option<Box<RawValue>>,
}
