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
    /// What happened, for people.
    pub message: Cow<'a, str>,
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// `cancelled`, or the status in which the operation waits for its worker's confirmation.
    pub status: Status,
    /// When the cancel was first requested.
    pub cancel_requested_at: Option<Timestamp>,
}

/// The operation was cancelled by this request.
const CANCELLED: &str = "Operation cancelled successfully";

/// An earlier request had cancelled the operation.
const CANCELLED_BEFORE: &str = "Operation was cancelled before";

/// The worker has not confirmed yet.
const REQUESTED: &str = "Cancellation requested; the worker has not confirmed it yet";

impl<'a> CancelResponse<'a> {
    /// The answer about an operation that is in `status` after the request.
    pub fn new(
        operation_id: Cow<'a, OperationId>,
        status: Status,
        cancel_requested_at: Option<Timestamp>,
    ) -> Self {
        let message = match status {
            Status::Cancelled => CANCELLED,
            _ => REQUESTED,
        };
        Self {
            success: true,
            message: message.into(),
            operation_id,
            status,
            cancel_requested_at,
        }
    }

    /// The answer about an operation that was cancelled before the request.
    pub fn cancelled_before(
        operation_id: Cow<'a, OperationId>,
        cancel_requested_at: Option<Timestamp>,
    ) -> Self {
        Self {
            message: CANCELLED_BEFORE.into(),
            ..Self::new(operation_id, Status::Cancelled, cancel_requested_at)
        }
    }
}
