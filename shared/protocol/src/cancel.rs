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

/// The reason when the next slot of a schedule replaces an operation.
pub const REPLACED_BY_SLOT: &str = "replaced by the next slot of its schedule";

/// The reason when an operation with the same unique key replaces another one.
pub fn replaced_by(id: &OperationId) -> String {
    format!("{REPLACED_BY}{id}")
}

/// Whether an operation that was cancelled for this reason was replaced by another one.
///
/// ```
/// use ktrdr_protocol::cancel::{is_replaced, replaced_by};
/// use ktrdr_protocol::id::OperationId;
///
/// assert!(is_replaced(&replaced_by(&OperationId::new("op-2")?)));
/// assert!(!is_replaced("replaced by something better"));
/// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
/// ```
pub fn is_replaced(reason: &str) -> bool {
    let by_operation = reason.strip_prefix(REPLACED_BY);
    reason == REPLACED_BY_SLOT || by_operation.is_some_and(|id| OperationId::new(id).is_ok())
}

const REPLACED_BY: &str = "replaced by operation ";

/// The part of a reason that is kept.
pub fn kept_reason(reason: &str) -> String {
    reason.chars().take(MAX_REASON).collect()
}

impl CancelIntent {
    /// An intent to cancel, requested now. Of a long reason the beginning is kept.
    pub fn new(operation_id: OperationId, reason: Option<String>) -> Self {
        Self {
            operation_id,
            requested_at: Timestamp::now(),
            reason: reason.as_deref().map(kept_reason),
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
