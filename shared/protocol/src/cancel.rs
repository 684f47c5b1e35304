//! The cancel intent: the stored wish to stop an operation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::OperationId;
use crate::time::Timestamp;
use crate::token_name::TokenName;

/// Asks the running worker to stop, on `cancel.<worker_type>.<operation_id>`; stored, and heard
/// live.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CancelIntent {
    /// Which operation.
    pub operation_id: OperationId,
    /// When the cancel was requested.
    pub requested_at: Timestamp,
    /// The user's reason, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The token that asked for it; absent when the REST interfaces need no tokens.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::if_valid::read"
    )]
    pub requested_by: Option<TokenName>,
}

/// Longest reason kept, in characters.
const MAX_REASON: usize = 1000;

impl CancelIntent {
    /// An intent to cancel, requested now. Of a long reason the beginning is kept.
    pub fn new(operation_id: OperationId, reason: Option<String>) -> Self {
        Self {
            operation_id,
            requested_at: Timestamp::now(),
            reason: reason.map(|reason| reason.chars().take(MAX_REASON).collect()),
            requested_by: None,
        }
    }

    /// Says which token asked for it.
    #[must_use]
    pub fn requested_by(mut self, token: Option<TokenName>) -> Self {
        self.requested_by = token;
        self
    }
}
