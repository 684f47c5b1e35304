//! The answer to a cancel.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::OperationId;
use crate::state::Status;
use crate::time::Timestamp;

/// The operation is cancelled, or its worker was asked to stop: `status` says which.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CancelResponse<'a> {
    /// Always true.
    pub success: bool,
    /// A text for people.
    pub message: Cow<'a, str>,
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// `cancelled`, or the status in which the operation waits for its worker's confirmation.
    pub status: Status,
    /// When the cancel was first requested.
    pub cancel_requested_at: Option<Timestamp>,
}

impl<'a> CancelResponse<'a> {
    /// The answer about an operation that is in `status`.
    pub fn new(
        operation_id: Cow<'a, OperationId>,
        status: Status,
        cancel_requested_at: Option<Timestamp>,
    ) -> Self {
        Self {
            success: true,
            message: "Operation cancelled successfully".into(),
            operation_id,
            status,
            cancel_requested_at,
        }
    }
}
